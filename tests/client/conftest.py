# SPDX-License-Identifier: Apache-2.0
"""One service, and clients of it over every transport that there is."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hsm.app import App
from libvdsm.client import Client, connect
from tests import service

EVERYTHING = ("listen.tcp=yes", "listen.http_port=0", "listen.jsonrpc_port=0", "rights.anonymous=administer")


@dataclass(frozen=True)
class Reachable:
    """A running service with its addresses, by transport."""

    daemon: service.Daemon
    addresses: dict[str, str]


def stdio(home: Path) -> str:
    return f"exec:{shlex.join([sys.executable, '-m', 'hsm.daemon', '--home', str(home), '--stdio'])}"


def addresses(daemon: service.Daemon) -> dict[str, str]:
    """Where the service says that it is reached, and a program that reaches it."""
    with daemon.client() as client:
        told = client.host.get_capabilities().wires
    found = {address.partition(":")[0]: address for address in told}
    assert set(found) == {"unix", "tcp", "http", "http+unix"}
    return {**found, "exec": stdio(daemon.home)}


@pytest.fixture(scope="package")
def reachable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reachable]:
    home = tmp_path_factory.mktemp("client") / "home"
    with service.daemon(home, *EVERYTHING) as running:
        with running.client() as client:
            for task in client.task.list().items:
                client.wait(task, timeout=20)
        yield Reachable(running, addresses(running))


@pytest.fixture(scope="package")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The service in this process."""
    with service.in_process(tmp_path_factory.mktemp("local") / "home") as app:
        client = app.client()
        for task in client.task.list().items:
            client.wait(task, timeout=20)
        yield app


@pytest.fixture(params=["unix", "tcp", "http", "http+unix", "exec", "local"])
def opener(request: pytest.FixtureRequest, reachable: Reachable, local: App) -> Callable[[], Client]:
    """Makes clients over one transport."""
    if request.param == "local":
        return local.client
    return lambda: connect(reachable.addresses[request.param])


@pytest.fixture
def client(opener: Callable[[], Client]) -> Iterator[Client]:
    with opener() as made:
        yield made
