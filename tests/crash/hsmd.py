# SPDX-License-Identifier: Apache-2.0
"""The service as a process: started, reached, killed, and waited for.  Nothing here waits without an end."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from libvdsm.api.types import TaskInfo, TaskState
from libvdsm.client import Client, connect

PATIENCE = 20.0
"""Seconds after which something counts as hanging."""
ENDED = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.STOPPED)
_LIFETIME = 120.0
SERVICE = "the service"
"""owns the tasks that a start begins: one of each domain"""
_ALONE = ("--set", "tasks.workers=1")
"""One worker: all that tasks do is one thread's doing, and its system calls can be counted."""


class Hanging(Exception):
    """Something did not happen in time."""


class Nursery:
    """Where services are born; ends with its owner."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.nursery"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self._events: list[dict[str, int]] = []
        self._pending = b""

    def bear(
        self, arguments: list[str], log: Path, path: str, stop: str | None = None, *, client: bool = False
    ) -> int:
        """``client``: not a service, but one who owns tasks."""
        order = {"arguments": arguments, "log": str(log), "path": path, "stop": stop, "client": client}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        return self._expect("born")["born"]

    def stopped(self, pid: int) -> None:
        """Wait until a child has stopped, as it was told."""
        self._expect("stopped", pid)

    def ended(self, pid: int) -> int:
        """Wait until a child has ended: its exit status, or minus the signal."""
        return self._expect("ended", pid)["status"]

    def _expect(self, kind: str, pid: int | None = None) -> dict[str, int]:
        until = time.monotonic() + PATIENCE
        while True:
            for event in self._events:
                if kind in event and pid in (None, event[kind]):
                    self._events.remove(event)
                    return event
            self._read(until)

    def _read(self, until: float) -> None:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, until - time.monotonic()))
        data = os.read(self._process.stdout.fileno(), 65536) if ready else b""
        if not data:
            raise Hanging("the nursery says nothing")
        *lines, self._pending = (self._pending + data).split(b"\n")
        self._events += [json.loads(line) for line in lines]

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(PATIENCE)


class Hsmd:
    """One service that serves one home, and one client of it."""

    def __init__(
        self, nursery: Nursery, home: Path, *settings: str, path: str | None = None, stop: str | None = None
    ) -> None:
        """``path``: where it looks for programs.  ``stop``: the thread at whose beginning it stops."""
        self._nursery = nursery
        self.born = time.time()
        self.home = home
        self.log = home / "hsmd.log"
        self._client: Client | None = None
        self._status: int | None = None
        arguments = ["--home", str(home), *_ALONE]
        for setting in settings:
            arguments += ["--set", setting]
        self.pid = nursery.bear(arguments, self.log, path or os.environ["PATH"], stop)
        self._pidfd = os.pidfd_open(self.pid)
        # Calls have no deadline of their own; so no service of a test lives for ever, and with it ends every call.
        self._lifetime = threading.Timer(_LIFETIME, self._kill)
        self._lifetime.daemon = True
        self._lifetime.start()
        if stop is not None:
            nursery.stopped(self.pid)

    def go_on(self) -> None:
        """After a stop."""
        signal.pidfd_send_signal(self._pidfd, signal.SIGCONT)

    def client(self) -> Client:
        """The one client; waits until the service answers."""
        until = time.monotonic() + PATIENCE
        while self._client is None:
            try:
                self._client = connect(f"unix:{self.home / 'run' / 'hsm.sock'}")
            except Exception as error:  # not listening yet
                if time.monotonic() > until:
                    raise Hanging(f"hsmd does not answer: {self.said()}") from error
                if self.gone(0):
                    raise AssertionError(f"hsmd ended with {self.ended()}: {self.said()}") from error
                time.sleep(0.002)
        return self._client

    def serve(self) -> Client:
        """The client, once everything that the start began is done."""
        client = self.client()
        until = time.monotonic() + PATIENCE
        while True:
            tasks = client.task.list().items
            unfinished = [task for task in tasks if task.state not in ENDED]
            if not unfinished:
                return client
            if time.monotonic() > until:
                raise Hanging(f"the start does not end: {unfinished}")
            client.task.wait(task=unfinished[0].id, timeout=1.0)

    def wait(self, task: TaskInfo[Any]) -> TaskInfo[Any]:
        """The task when it has ended."""
        ended = self.client().task.wait(task=task.id, timeout=PATIENCE)
        if ended.state not in ENDED:
            raise Hanging(f"a task does not end: {ended}")
        return ended

    def thread(self, name: str) -> int:
        """The id of the thread with a name; of those with the same name the newest."""
        return max(id_ for id_, said in self.threads().items() if said == name[:15])

    def threads(self) -> dict[int, str]:
        """All threads' names, by id."""
        found = {}
        for entry in Path(f"/proc/{self.pid}/task").iterdir():
            # One may end at any time.
            with suppress(FileNotFoundError, ProcessLookupError):
                found[int(entry.name)] = (entry / "comm").read_text(encoding="ascii").rstrip("\n")
        return found | {self.pid: "main"}

    def gone(self, patience: float = PATIENCE) -> bool:
        """Whether the process is gone, after at most so many seconds."""
        return self._status is not None or bool(select.select([self._pidfd], [], [], patience)[0])

    def ended(self) -> int:
        """Wait for its end: the exit status, or minus the signal."""
        if self._status is None:
            self._status = self._nursery.ended(self.pid)
            os.close(self._pidfd)
        return self._status

    def _kill(self) -> None:
        if self._status is None:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def kill(self) -> None:
        """As a power cut of the process; nothing of it is left when this returns."""
        self._lifetime.cancel()
        self._lifetime.join()
        if self._status is None and not self.gone(0):
            self._kill()
        self.ended()
        if self._client is not None:
            self._client.close()
            self._client = None

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-1500:]
