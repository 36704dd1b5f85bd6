# SPDX-License-Identifier: Apache-2.0
"""A real service for the command line to talk to."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hsmctl.main import run

ROOT = Path(__file__).parents[2]
START_DEADLINE = 30.0


@dataclass(frozen=True)
class Daemon:
    """A running hsmd that keeps everything below one folder."""

    process: subprocess.Popen[bytes]
    home: Path

    @property
    def socket(self) -> Path:
        return self.home / "run" / "hsm.sock"

    @property
    def address(self) -> str:
        return f"unix:{self.socket}"

    @property
    def log(self) -> Path:
        return self.home / "log"


def start_daemon(home: Path, **environment: str) -> Daemon:
    """Start hsmd and wait until it answers, for a bounded time."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "hsm.daemon", "--home", str(home)],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
        )
    daemon = Daemon(process, home)
    until = time.monotonic() + START_DEADLINE
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        if daemon.socket.exists() and _answers(daemon):
            return daemon
        time.sleep(0.02)
    process.kill()
    process.wait()
    pytest.fail(f"hsmd does not answer:\n{daemon.log.read_text()}")


def _answers(daemon: Daemon) -> bool:
    from libvdsm.api.errors import ConnectionFailed
    from libvdsm.client import connect

    try:
        with connect(daemon.address) as client:
            client.host.ping()
    except ConnectionFailed:
        return False
    return True


def end_daemon(daemon: Daemon) -> None:
    daemon.process.terminate()
    try:
        daemon.process.wait(10)
    except subprocess.TimeoutExpired:
        daemon.process.kill()
        daemon.process.wait()


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One service for all tests that do not mind others' images."""
    running = start_daemon(tmp_path_factory.mktemp("hsmd"))
    yield running
    end_daemon(running)


@pytest.fixture
def own_daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A service of the test's own."""
    running = start_daemon(tmp_path / "hsmd")
    yield running
    end_daemon(running)


@pytest.fixture
def slow_daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A service whose qemu-img takes a minute to convert anything."""
    real = shutil.which("qemu-img")
    wrapper = tmp_path / "bin" / "qemu-img"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\n[ "$1" = convert ] && exec sleep 60\nexec {real} "$@"\n')
    wrapper.chmod(0o755)
    running = start_daemon(tmp_path / "hsmd", PATH=f"{wrapper.parent}:{os.environ['PATH']}")
    yield running
    end_daemon(running)


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
    """Nothing of the user's own environment."""
    for name in ("HSM_CONNECT", "HSM_DOMAIN", "COLUMNS", "_ARGCOMPLETE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def ctl(capsys: pytest.CaptureFixture[str], daemon: Daemon) -> Ctl:
    return Ctl(capsys, daemon.address)


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
