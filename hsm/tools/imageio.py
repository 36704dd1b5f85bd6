# SPDX-License-Identifier: Apache-2.0
"""``ovirt-imageio``: the data mover.  It answers clients over HTTP, and this service over a socket of its own.

What a client may do is a *ticket*: an id that cannot be guessed, the NBD server behind it, its size, and whether it
is written.  The daemon keeps tickets in memory only, and dies with this service.
"""

from __future__ import annotations

import http.client
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msgspec

from libvdsm.log import Log
from libvdsm.run import CommandError, Runner

log = Log("hsm.imageio")

PROGRAM = "ovirt-imageio"
_START = 20.0
_ENDING = 0.5
_MOMENT = 0.01
_TIMEOUT = 30.0
_REMOVAL = 2
"""Seconds to wait for what is under way with a ticket that is taken away."""
_TICK = 0.25
_PORT_TRIES = 5

_CONFIGURATION = """\
[daemon]
poll_interval = 0.1
drop_privileges = false
systemd_enable = false
run_dir = {private}
[tls]
enable = false
[remote]
host = {address}
port = {port}
[local]
socket = {data}
[control]
socket = {control}
remove_timeout = {removal}
[handler_logfile]
args = ("{private}/log",)
kwargs = {{"maxBytes": 1048576, "backupCount": 1}}
[logger_root]
level = WARNING
"""


class Ticket(msgspec.Struct, frozen=True):
    """What the daemon tells of a ticket: ``idle_time`` in seconds, ``transferred`` in bytes."""

    active: bool
    idle_time: float
    transferred: int = 0


class Imageio:
    """The daemon, while it runs."""

    def __init__(self, runner: Runner, folder: Path, mode: int, port: int, earlier: int | None = None) -> None:
        """Start it; it answers when this returns.  Raises ``CommandError``.

        ``folder`` gets the socket ``data`` with this mode for clients, and a folder that is ours alone.  ``port`` 0
        is any free one; ``earlier`` is tried first then, for clients that know it.
        """
        self._runner = runner
        self._private = folder / "private"
        self.data = str(folder / "data")
        self._control = str(self._private / "control")
        (self._private / "conf.d").mkdir(mode=0o700, parents=True, exist_ok=True)
        self._private.chmod(0o700)
        self._said = os.memfd_create(PROGRAM)
        wanted = [port] * 1 if port else [*([earlier] if earlier else []), *[0] * _PORT_TRIES]
        try:
            self.port = self._start(wanted)
        except BaseException:
            os.close(self._said)
            raise
        os.chmod(self.data, mode)

    def _start(self, wanted: list[int]) -> int:
        for last, port in enumerate(wanted, 1 - len(wanted)):
            number = port or _free_port()
            try:
                self._start_on(number)
            except CommandError:
                if not last:
                    raise
            else:
                return number
        raise AssertionError(wanted)

    def _start_on(self, port: int) -> None:
        configuration = _CONFIGURATION.format(
            private=self._private,
            address="127.0.0.1",
            port=port,
            data=self.data,
            control=self._control,
            removal=_REMOVAL,
        )
        (self._private / "conf.d" / "hsm.conf").write_text(configuration, encoding="utf-8")
        for path in (self.data, self._control):
            with suppress(FileNotFoundError):
                os.unlink(path)
        argv = [program() or PROGRAM, "--conf-dir", str(self._private)]
        self._process = self._runner.start(argv, output=self._said)
        try:
            self._until_it_answers()
        except BaseException:
            self._runner.end(self._process)
            raise

    def _until_it_answers(self) -> None:
        until = time.monotonic() + _START
        while True:
            if self._process.poll() is not None:
                said = os.pread(self._said, 65536, 0).decode(errors="replace").strip().rpartition("\n")[2]
                raise CommandError(PROGRAM, said or f"ended with status {self._process.returncode}; see its log")
            try:
                self.ticket("none")
            except CommandError:
                if time.monotonic() > until:
                    raise
                time.sleep(_MOMENT)
            else:
                return

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def ends(self) -> bool:
        """Whether it has ended, or is about to: whoever met a broken connection asks."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_ENDING)
        return not self.alive()

    def end(self) -> None:
        """End it, at once: it holds nothing that could be lost."""
        self._runner.end(self._process)
        os.close(self._said)
        for path in (self.data, self._control):
            with suppress(FileNotFoundError):
                os.unlink(path)

    # ---- tickets

    def add(self, ticket: str, *, listening: str, size: int, write: bool, sparse: bool, idle: float) -> None:
        """Let whoever knows the ticket's id read, or write, what an NBD server serves.

        It ends ``idle`` seconds after its last use at the earliest; this service ends it before that.
        """
        seconds = max(1, int(idle))
        body = {
            "uuid": ticket,
            "size": size,
            "url": f"nbd:unix:{listening}",
            "timeout": 4 * seconds,
            "inactivity_timeout": seconds,
            "ops": ["write" if write else "read"],
            "sparse": sparse,
        }
        self._ask(self._control, "PUT", f"/tickets/{ticket}", body)

    def ticket(self, ticket: str) -> Ticket | None:
        """How a ticket is used; None if there is no such one."""
        said = self._ask(self._control, "GET", f"/tickets/{ticket}", absent=True)
        return None if said is None else msgspec.json.decode(said, type=Ticket)

    def remove(self, ticket: str) -> None:
        """Take a ticket away: nothing begins with it any more.

        What is under way is waited for; where a client keeps that waiting, it ends with the NBD server.
        """
        self._ask(self._control, "DELETE", f"/tickets/{ticket}", busy=True)

    def flush(self, ticket: str) -> None:
        """Have what was written stable."""
        self._ask(self.data, "PATCH", f"/images/{ticket}", {"op": "flush"}, timeout=None)

    def checksum(self, ticket: str, wait: Callable[[], None]) -> str:
        """The checksum of all that can be read; ``wait`` is called some times a second, and may raise."""
        connection = _UnixConnection(self.data, None)
        with closing(connection):
            connection.request("GET", f"/images/{ticket}/checksum?algorithm=blake2b&block_size=4194304")
            while not select.select([connection.sock], [], [], _TICK)[0]:
                wait()
            said = _answer(connection)
        found: str = json.loads(said)["checksum"]
        return found

    def _ask(
        self,
        place: str,
        method: str,
        path: str,
        body: Any = None,
        *,
        absent: bool = False,
        busy: bool = False,
        timeout: float | None = _TIMEOUT,
    ) -> bytes | None:
        connection = _UnixConnection(place, timeout)
        with closing(connection):
            try:
                connection.request(method, path, body=None if body is None else json.dumps(body))
                return _answer(connection)
            except _Refused as refused:
                if (absent and refused.status == http.client.NOT_FOUND) or (
                    busy and refused.status == http.client.CONFLICT
                ):
                    return None
                raise
            except (OSError, http.client.HTTPException) as error:
                raise CommandError(PROGRAM, str(error) or type(error).__name__) from None


class _Refused(CommandError):
    """The daemon answered with an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(PROGRAM, text)
        self.status: int = status


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _answer(connection: http.client.HTTPConnection) -> bytes:
    reply = connection.getresponse()
    said = reply.read()
    if reply.status >= http.client.BAD_REQUEST:
        raise _Refused(reply.status, said.decode(errors="replace").strip() or reply.reason)
    return said


def program() -> str | None:
    """The daemon that was installed together with this service, or the host's own; None if there is none."""
    beside = Path(sys.executable).parent / PROGRAM
    return str(beside) if beside.exists() else shutil.which(PROGRAM)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
