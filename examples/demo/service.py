# SPDX-License-Identifier: Apache-2.0
"""hsmd for the demonstration: the embedded default, everything below one folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from examples.demo.narrator import DemoFailed
from hsm.keeper import Keepers
from libvdsm.api.errors import ConnectionFailed
from libvdsm.client import Client, connect

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**{key: value for key, value in os.environ.items() if key != "HSM_DOMAIN"}, "PYTHONPATH": str(ROOT)}
"""What our programs are started with: nothing of the user's own that says which storage is meant."""
_START = 30.0
_STOP = 40.0


class Service:
    """The service with this home; it may be started again after it was killed."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.address = f"unix:{home / 'run' / 'hsm.sock'}"
        self.log = home.parent / "hsmd.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def client(self) -> Client:
        return connect(self.address)

    def start(self) -> None:
        """Start it, and return when it answers and its default domain is there."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hsm.daemon", "--home", str(self.home)],
                cwd=ROOT,
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A ^C is for the demonstration, which then stops the service in good order.
                start_new_session=True,
            )
        until = time.monotonic() + _START
        with self._connected(until) as client:
            for task in client.task.list().items:
                client.task.wait(task=task.id, timeout=max(0.0, until - time.monotonic()))

    def _connected(self, until: float) -> Client:
        while time.monotonic() < until:
            if self._process is None or self._process.poll() is not None:
                raise DemoFailed(f"hsmd ended at once:\n{self.last_words()}")
            try:
                return self.client()
            except ConnectionFailed:
                time.sleep(0.02)
        raise DemoFailed(f"hsmd does not answer within {_START:.0f} s:\n{self.last_words()}")

    def kill(self) -> None:
        """As the kernel does when memory is short: no warning, no last word."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(_STOP)

    def stop(self) -> int:
        """As an administrator does; the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(_STOP)

    def end(self) -> None:
        """Whatever happened: no process is left."""
        if self._process is not None and self._process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill()
        # The keepers of prepared images outlive the service, which is what they are for.
        keepers = Keepers(self.home / "run")
        for keeper in keepers.all():
            keepers.end(keeper)

    def last_words(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:]) if self.log.exists() else ""
