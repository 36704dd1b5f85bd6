# SPDX-License-Identifier: Apache-2.0
"""The short examples run as they are, against a real service."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import service

EXAMPLES = Path(__file__).parents[2] / "examples"
TESTED = {"first_image.py", "events.py", "any_language.py", "xmlrpc_stdlib.py"}
PATIENCE = 60.0


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[service.Daemon]:
    """A service on all wires, its default domain there."""
    settings = ("listen.tcp=yes", "listen.http_port=0", "listen.jsonrpc_port=0")
    with service.daemon(tmp_path / "home", *settings) as running:
        with running.client() as client:
            for task in client.task.list().items:
                client.wait(task, timeout=PATIENCE)
        yield running


def wire(daemon: service.Daemon, kind: str) -> str:
    """Where the service listens on a wire that chose its own port: host and port."""
    with daemon.client() as client:
        wires = dict(wire.split(":", 1) for wire in client.host.get_capabilities().wires)
    return wires[kind].removeprefix("//")


def start(name: str, address: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / name), address], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def run(name: str, address: str) -> tuple[int, str, str]:
    process = start(name, address)
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def run_well(name: str, address: str) -> str:
    status, out, err = run(name, address)
    assert (status, err) == (0, "")
    return out


def images(daemon: service.Daemon) -> list[str | None]:
    with daemon.client() as client:
        return [image.name for image in client.image.list().items]


def test_every_short_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == TESTED | {"__init__.py"}


@pytest.mark.parametrize("name", sorted(TESTED))
def test_an_example_fits_one_screen(name: str) -> None:
    assert len((EXAMPLES / name).read_text().splitlines()) < 40


@pytest.mark.parametrize("name", sorted(TESTED))
def test_an_example_without_an_address_says_how_it_is_run(name: str) -> None:
    ended = subprocess.run([sys.executable, EXAMPLES / name], text=True, capture_output=True, timeout=PATIENCE, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert f"python examples/{name} " in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_first_image_is_created_shown_and_deleted(listening: service.Daemon) -> None:
    out = run_well("first_image.py", f"unix:{listening.socket}")
    assert "created first: a guest sees 64 GiB" in out
    assert ",format=qcow2" in out
    assert "internal: before-upgrade" in out
    assert out.endswith("deleted\n")
    assert images(listening) == []


def test_events_are_printed_as_they_happen(listening: service.Daemon) -> None:
    process = start("events.py", f"unix:{listening.socket}")
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        with listening.client() as client:
            domain = client.domain.list().items[0].id
            client.wait(client.image.create(domain=domain, name="seen", capacity=2**20), timeout=PATIENCE)
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Image.create: succeeded, 100%" in line:
                break
        assert any("VolumeCreated: domain " in line for line in lines)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, err) == (0, "")
    finally:
        process.kill()
        process.wait()


def test_any_language_speaks_the_framed_wire_over_a_unix_socket(listening: service.Daemon) -> None:
    assert run_well("any_language.py", f"unix:{listening.socket}").startswith("succeeded ")
    assert images(listening) == []


def test_any_language_is_told_over_tcp_that_strangers_may_only_read(listening: service.Daemon) -> None:
    status, out, err = run("any_language.py", f"tcp:{wire(listening, 'tcp')}")
    assert (status, out) == (1, "")
    assert err.startswith("AccessDenied: ")


def test_the_standard_library_alone_speaks_xmlrpc(listening: service.Daemon) -> None:
    with listening.client() as client:
        domain = client.domain.list().items[0].id
        client.wait(client.image.create(domain=domain, name="large", capacity=2**40), timeout=PATIENCE)
    out = run_well("xmlrpc_stdlib.py", f"http://{wire(listening, 'http')}")
    assert f"  image large {2**40}\n" in out
    assert "NoSuchDomain " in out
