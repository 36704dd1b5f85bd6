# SPDX-License-Identifier: Apache-2.0
"""``qemu-nbd``: what a guest sees of a volume, read through a socket.

It serves one client, this process, and ends when that goes.  The socket is connected before the program begins, and
has no name by then: nobody else can come first, and nothing has to be waited for.  libnbd speaks the protocol.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Self

from hsm.tools.keys import handed
from hsm.tools.nodes import Source
from libvdsm.run import CommandError, CommandStopped, Runner

_PROGRAM = "qemu-nbd"
_LISTENING = 3
"""Where the program expects the socket; descriptors that it only carries are moved out of the way."""
_ACTIVATED = f'export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@" {_LISTENING}<&0 0</dev/null'
_AT_ONCE = 2**31
"""Bytes that are asked about at once; less than the protocol's 32 bits hold."""
_GRACE = 5.0
"""Seconds in which a program that has closed its socket ends."""
_TICK = 100
"""Milliseconds after which a stop is heard."""


class QemuNbd:
    """The program, with a deadline in seconds."""

    def __init__(self, runner: Runner, *, deadline: float) -> None:
        self._runner = runner
        self._deadline = deadline

    @staticmethod
    def available() -> bool:
        return bool(shutil.which(_PROGRAM)) and importlib.util.find_spec("nbd") is not None

    @contextmanager
    def reading(self, source: Source, *, descriptors: Sequence[int], stop: Callable[[], bool]) -> Iterator[NbdDisk]:
        """A volume and all below it, past the page cache where the file system can."""
        listening, client = _connected()
        carried = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _LISTENING + 1) for number in descriptors]
        try:
            with handed(source.keys) as keys:
                argv = ["/bin/sh", "-c", _ACTIVATED, "sh", _PROGRAM, "-r", "-e", "1", *keys.arguments]
                until = time.monotonic() + self._deadline
                with self._runner.alongside(
                    [*argv, source.direct_argument],
                    _PROGRAM,
                    descriptors=(*carried, *keys.descriptors),
                    stdin=listening.fileno(),
                ) as program:
                    listening.close()
                    with NbdDisk(client, program, stop, until) as disk:
                        yield disk
        finally:
            listening.close()
            client.close()
            for number in carried:
                os.close(number)


def _connected() -> tuple[socket.socket, socket.socket]:
    """A listening socket without a name any more, and one that is connected to it."""
    listening, client = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    try:
        with tempfile.TemporaryDirectory(prefix="hsm-nbd-") as folder:
            listening.bind(f"{folder}/socket")
            listening.listen(1)
            client.connect(f"{folder}/socket")
    except BaseException:
        listening.close()
        client.close()
        raise
    return listening, client


class NbdDisk:
    """The client's side."""

    def __init__(
        self, connected: socket.socket, program: subprocess.Popen[bytes], stop: Callable[[], bool], until: float
    ) -> None:
        import nbd  # here, since only who reads a disk needs it

        self._nbd = nbd
        self._stop = stop
        self._until = until
        self._program = program
        self._handle: Any = nbd.NBD()
        self._handle.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
        self._socket = connected
        self._memories: list[bytearray] = []
        self._free: list[bytearray] = []
        self._lent: bytearray | None = None

    def __enter__(self) -> Self:
        with self._told():
            self._handle.aio_connect_socket(self._socket.detach())
            while self._handle.aio_is_connecting():
                self._wait()
            self.capacity: int = self._handle.get_size()
        return self

    def __exit__(self, *_: object) -> None:
        # Its last reference: the connection is closed, and what was on its way is given up.
        self._handle = None
        for memory in self._memories:
            memory.clear()

    def extents(self) -> Iterator[tuple[int, bool]]:
        offset = 0
        while offset < self.capacity:
            found: list[int] = []

            def heard(_context: str, _offset: int, entries: list[int], _error: object, found: Any = found) -> int:
                found += entries
                return 0

            with self._told():
                cookie = self._handle.aio_block_status(min(_AT_ONCE, self.capacity - offset), offset, heard)
                self._finish(cookie)
            for length, flags in zip(found[::2], found[1::2], strict=True):
                yield length, bool(flags & self._nbd.STATE_ZERO)
                offset += length

    def begin(self, offset: int, length: int) -> Callable[[], bytearray]:
        """Begin to read; what comes back waits for it, and its data is good until the next call of either."""
        self._take_back()
        memory = self._memory(length)
        with self._told():
            cookie = self._handle.aio_pread(self._nbd.Buffer.from_buffer(memory), offset)

        def wait() -> bytearray:
            with self._told():
                self._finish(cookie)
            self._take_back()
            self._lent = memory
            return memory

        return wait

    def _memory(self, length: int) -> bytearray:
        """The binding of libnbd 1.14 never lets go of what it has read into (seen): so it is used again, then emptied."""
        for place, memory in enumerate(self._free):
            if len(memory) == length:
                return self._free.pop(place)
        self._memories.append(bytearray(length))
        return self._memories[-1]

    def _take_back(self) -> None:
        if self._lent is not None:
            self._free.append(self._lent)
            self._lent = None

    def _finish(self, cookie: int) -> None:
        while not self._handle.aio_command_completed(cookie):
            self._wait()

    def _wait(self) -> None:
        if self._stop():
            raise CommandStopped
        if time.monotonic() > self._until:
            raise CommandError(_PROGRAM, "did not end within its deadline and was killed")
        self._handle.poll(_TICK)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """The protocol's errors, with what the program said."""
        try:
            yield
        except self._nbd.Error as error:
            raise CommandError(_PROGRAM, self._words() or error.string) from None

    def _words(self) -> str:
        """What the program has said by now; it may be about to end, or go on."""
        said = self._program.stderr
        assert said is not None
        if not self._handle.aio_is_ready():
            with suppress(subprocess.TimeoutExpired):
                self._program.wait(_GRACE)
        os.set_blocking(said.fileno(), False)
        return "; ".join((said.read() or b"").decode(errors="replace").splitlines())[-2000:]
