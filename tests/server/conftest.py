# SPDX-License-Identifier: Apache-2.0
"""Services that listen everywhere, and a log to look into."""

from __future__ import annotations

import io
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from libvdsm import log as logs
from tests import service
from tests.server.raw import Framed, Post, Served

ANY_PORTS = ("listen.tcp=yes", "listen.http_port=0", "listen.jsonrpc_port=0")


@pytest.fixture(scope="package")
def served() -> Iterator[Served]:
    """One hsmd for all tests that leave it as it was; every user of this host reaches its sockets."""
    folder = Path(tempfile.mkdtemp(prefix="hsm-test-"))
    folder.chmod(0o755)
    try:
        with service.daemon(folder / "home", *ANY_PORTS, "listen.unix_mode=0666", "log.level=debug") as running:
            found = Served.of(running)
            with Framed(found.unix) as framed:
                for task in framed.result("Task.list")["items"]:
                    framed.finish(task)
            yield found
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def framed(served: Served) -> Iterator[Framed]:
    """A connection over the Unix socket, with all rights."""
    with Framed(served.unix) as connection:
        yield connection


@pytest.fixture
def post(served: Served) -> Iterator[Post]:
    """A connection of XML-RPC over TCP, which may read."""
    with Post(served.http) as connection:
        yield connection


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """What is logged in this process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    logs.setup(level="debug", stream=stream)
    yield stream
    root.handlers[:], root.level = handlers, level
