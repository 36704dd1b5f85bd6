# SPDX-License-Identifier: Apache-2.0
"""Services for tests: the real one, in this process or as a program, each with a folder of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hsm.app import App
from hsm.config import HsmConfig, embedded
from libvdsm.api.errors import ConnectionFailed
from libvdsm.client import Client, connect
from libvdsm.config import load

START = 15.0


@contextmanager
def in_process(home: Path, **settings: str) -> Iterator[App]:
    """The service in this process, without sockets; ``settings`` as ``section__key="value"``."""
    given = {key.replace("__", "."): value for key, value in settings.items()}
    config = load(HsmConfig, None, {**embedded(home), "listen.unix": "no", **given})
    app = App(config)
    app.start()
    try:
        yield app
    finally:
        app.stop()


class Daemon:
    """hsmd as a program."""

    def __init__(self, home: Path, *settings: str, command: tuple[str, ...] = ()) -> None:
        self.home = home
        self.socket = home / "run" / "hsm.sock"
        self.http_socket = home / "run" / "hsm-http.sock"
        self.log = home / "hsmd.log"
        home.mkdir(parents=True, exist_ok=True)
        argv = [*command, sys.executable, "-m", "hsm.daemon", "--home", str(home)]
        for setting in settings:
            argv += ["--set", setting]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def wait(self) -> Daemon:
        """Until it answers."""
        until = time.monotonic() + START
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise AssertionError(f"hsmd ended with {self.process.returncode}:\n{self.log.read_text()}")
            try:
                self.client().close()
            except ConnectionFailed:
                time.sleep(0.01)
            else:
                return self
        raise AssertionError(f"hsmd does not answer:\n{self.log.read_text()}")

    def client(self) -> Client:
        return connect(f"unix:{self.socket}")

    def kill(self) -> None:
        """As a power cut of the process."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        """As an administrator would."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextmanager
def daemon(home: Path, *settings: str) -> Iterator[Daemon]:
    """hsmd, stopped at the end, its keepers too."""
    running = Daemon(home, *settings)
    try:
        yield running.wait()
    finally:
        if running.process.poll() is None:
            running.stop()
        end_keepers(home)


def end_keepers(home: Path) -> None:
    """Keepers outlive the service by design; those of a test's service end with the test."""
    run = str((home / "run").resolve())
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name = (entry / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
            except OSError:
                continue
            if name.startswith("hsm-keeper ") and name.endswith(run):
                os.kill(int(entry.name), signal.SIGKILL)
