# SPDX-License-Identifier: Apache-2.0
"""``qemu-nbd``: serves one volume over a Unix socket, for as long as a transfer runs.

The format is given, never guessed.  Data goes past the page cache where the file system lets it.  The server inherits
the leases that it works under, and dies with this service.  Asked to end it writes down what it holds in memory; what
it has answered before a flush is stable only then, or after that flush.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from hsm.tools.keys import Handed, handed
from hsm.tools.nodes import Source
from libvdsm.run import CommandError, Runner

_PROGRAM = "qemu-nbd"
_CLIENTS = 10
"""Connections at once: those of eight clients of ovirt-imageio's, and two of ours."""
_BLOCK = 4096
_START = 10.0
_END = 60.0
_MOMENT = 0.005


@dataclass(frozen=True)
class Export:
    """What is served.  ``sparse``: zeros take no space."""

    source: Source
    read_only: bool
    sparse: bool = True

    def argv(self, listening: str, keys: Handed) -> list[str]:
        direct = _direct(self.source.path, self.source.format)
        argv = [_PROGRAM, "--persistent", f"--shared={_CLIENTS}", f"--socket={listening}"]
        argv += [f"--cache={'none' if direct else 'writeback'}", f"--aio={'native' if direct else 'threads'}"]
        if self.read_only:
            argv.append("--read-only")
        elif self.sparse:
            argv += ["--discard=unmap", "--detect-zeroes=unmap"]
        return [*argv, *keys.arguments, self.source.argument]


class QemuNbd:
    """A server at work."""

    def __init__(self, runner: Runner, export: Export, listening: str, descriptors: Sequence[int]) -> None:
        """Start it, with the leases that it carries; it answers when this returns.  Raises ``CommandError``."""
        self._runner = runner
        self.socket = listening
        self._said = os.memfd_create(_PROGRAM)
        with handed(export.source.keys) as keys:
            try:
                with suppress(FileNotFoundError):
                    os.unlink(listening)
                argv, inherited = export.argv(listening, keys), (*descriptors, *keys.descriptors)
                self._process = runner.start(argv, descriptors=inherited, output=self._said)
            except BaseException:
                os.close(self._said)
                raise
            try:
                self._until_it_answers()
            except BaseException:
                self.end(patience=0.0)
                raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def end(self, *, patience: float = _END) -> None:
        """End it: with its memory written down, or at once without ``patience``.

        Asked before it has answered anybody it may not hear it (seen: it sets up its main loop after it listens), so
        flush first, or do without patience.  Raises ``CommandError`` if what it had in memory may be lost.
        """
        if self._said < 0:
            return
        status = self._runner.end(self._process, patience=patience)
        said = self._complaints()
        os.close(self._said)
        self._said = -1
        with suppress(FileNotFoundError):
            os.unlink(self.socket)
        # What it says is of clients that went away; what is lost is told to who flushes before.
        if patience and status != 0:
            raise CommandError(_PROGRAM, said or _how(status), status)

    def _until_it_answers(self) -> None:
        until = time.monotonic() + _START
        while not _answers(self.socket):
            if self._process.poll() is not None:
                raise CommandError(_PROGRAM, self._complaints() or _how(self._process.returncode))
            if time.monotonic() > until:
                raise CommandError(_PROGRAM, f"it does not answer within {_START:.0f} s")
            time.sleep(_MOMENT)

    def _complaints(self) -> str:
        said = os.pread(self._said, 65536, 0).decode(errors="replace")
        return "; ".join(line for line in said.splitlines() if line.strip() and "warning:" not in line)[-2000:]


def _how(status: int) -> str:
    return f"it was ended by signal {-status}" if status < 0 else f"ended with status {status}"


def _direct(path: str, format_: str) -> bool:
    """Whether the file system lets data go past the page cache.

    The end of a raw file that is no whole number of blocks cannot be written so (seen: QEMU answers with an error).
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return format_ != "raw" or os.fstat(descriptor).st_size % _BLOCK == 0
    finally:
        os.close(descriptor)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True
