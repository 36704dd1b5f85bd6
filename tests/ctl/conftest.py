# SPDX-License-Identifier: Apache-2.0
"""A real service for the command line to talk to."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hsmctl.main import run
from tests import service

ROOT = Path(__file__).parents[2]


def address(daemon: service.Daemon) -> str:
    return f"unix:{daemon.socket}"


def ready(daemon: service.Daemon) -> service.Daemon:
    """The service, once its default domain is there."""
    with daemon.client() as client:
        for task in client.task.list().items:
            client.wait(task, timeout=30)
    return daemon


@pytest.fixture(scope="session")
def shared_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[service.Daemon]:
    """One service for all tests that do not mind others' images."""
    with service.daemon(tmp_path_factory.mktemp("hsmd")) as running:
        yield ready(running)


@pytest.fixture
def own_daemon(tmp_path: Path) -> Iterator[service.Daemon]:
    """A service of the test's own, which also listens on TCP."""
    with service.daemon(tmp_path / "hsmd", "listen.tcp=yes", "listen.http_port=0", "listen.jsonrpc_port=0") as running:
        yield ready(running)


@pytest.fixture
def slow_daemon(tmp_path: Path) -> Iterator[service.Daemon]:
    """A service whose qemu-img takes a minute to convert anything."""
    wrapper = tmp_path / "bin" / "qemu-img"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\n[ "$1" = convert ] && exec sleep 60\nexec {shutil.which("qemu-img")} "$@"\n')
    wrapper.chmod(0o755)
    running = service.Daemon(tmp_path / "hsmd", command=("env", f"PATH={wrapper.parent}:{os.environ['PATH']}"))
    try:
        yield ready(running.wait())
    finally:
        running.stop()


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        return json.loads(self.err)


class Ctl:
    """Runs hsmctl in the test's own process, against one service."""

    def __init__(self, capture: pytest.CaptureFixture[str], address: str | None) -> None:
        self._capture = capture
        self.address = address

    def __call__(self, *words: str | Path) -> Result:
        argv = [*(["--connect", self.address] if self.address else []), *map(str, words)]
        self._capture.readouterr()
        try:
            status = run(argv)
        except SystemExit as ended:
            status = int(ended.code or 0)
        out, err = self._capture.readouterr()
        return Result(status, out, err)

    def ok(self, *words: str | Path) -> str:
        """Output of a command that has to succeed."""
        result = self(*words)
        assert result.status == 0, result.err
        assert result.err == ""
        return result.out

    def json(self, *words: str | Path) -> Any:
        """What a command that has to succeed answers with --json."""
        return json.loads(self.ok(*words, "--json"))

    def refused(self, *words: str | Path) -> str:
        """The message of a command that has to end with status 1."""
        result = self(*words)
        assert result.status == 1, result
        assert result.out == ""
        assert result.err.startswith("hsmctl: error: ")
        return result.err


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's own environment; a service that is not there is not waited for."""
    for name in ("HSM_CONNECT", "HSM_DOMAIN", "COLUMNS", "_ARGCOMPLETE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HSM_CONNECT_TIMEOUT", "0")


@pytest.fixture
def ctl(capsys: pytest.CaptureFixture[str], shared_daemon: service.Daemon) -> Ctl:
    return Ctl(capsys, address(shared_daemon))


@pytest.fixture
def offline(capsys: pytest.CaptureFixture[str]) -> Ctl:
    """hsmctl without any service."""
    return Ctl(capsys, None)


_numbers = itertools.count(1)


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"vm{next(_numbers)}-{os.getpid()}"


def process(*words: str | Path, **environment: str) -> subprocess.Popen[str]:
    """hsmctl as a process of its own."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment}
    return subprocess.Popen(
        [sys.executable, "-m", "hsmctl", *map(str, words)],
        env=env,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
