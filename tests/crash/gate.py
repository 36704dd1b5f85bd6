# SPDX-License-Identifier: Apache-2.0
"""A gate before programs: who comes is known, and waits until it is let go on.

It stands in the search path that a service is started with, so the product knows nothing of it.  The program that
passes is the same process, with all that it inherited.
"""

from __future__ import annotations

import os
import select
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.crash.fixture import remove
from tests.crash.hsmd import PATIENCE, Hanging

_LOOK = 0.05
_SCRIPT = """#!/bin/sh
echo "$$ $1 $2 $3 $4 $5 $6 $7 $8 $9" > {folder}/arrived
read -r word < {folder}/opened
exec {program} "$@"
"""


class Gate:
    """Stands before one program, or some."""

    def __init__(self, folder: Path, *programs: str) -> None:
        remove(folder)
        folder.mkdir(parents=True)
        for program in programs:
            real = shutil.which(program)
            assert real is not None, f"{program} is not installed"
            script = folder / program
            script.write_text(_SCRIPT.format(folder=folder, program=real))
            script.chmod(0o755)
        self.path = f"{folder}:{os.environ['PATH']}"
        for name in ("arrived", "opened"):
            os.mkfifo(folder / name)
        # Open for both directions: then neither side waits for the other to open, and nobody sees an end.
        self._arrived = os.open(folder / "arrived", os.O_RDWR | os.O_CLOEXEC)
        self._opened = os.open(folder / "opened", os.O_RDWR | os.O_CLOEXEC)
        self._pending = b""

    def comes(self, given_up: Callable[[], bool]) -> bool:
        """Wait for the next program, or until nobody will come any more: whether one is there."""
        until = time.monotonic() + PATIENCE
        while not self._pending and not select.select([self._arrived], [], [], _LOOK)[0]:
            if given_up():
                return bool(select.select([self._arrived], [], [], 0)[0])
            if time.monotonic() > until:
                raise Hanging("nobody comes to the gate")
        return True

    def arrival(self) -> tuple[int, str]:
        """Wait for the next program: its process id and its first arguments."""
        while b"\n" not in self._pending:
            if not select.select([self._arrived], [], [], PATIENCE)[0]:
                raise Hanging("nobody comes to the gate")
            self._pending += os.read(self._arrived, 65536)
        line, self._pending = self._pending.split(b"\n", 1)
        pid, _, arguments = line.decode(errors="replace").partition(" ")
        return int(pid), arguments

    def let_go(self) -> None:
        """Let one program go on."""
        os.write(self._opened, b"go\n")

    def open(self) -> None:
        """Nobody waits here any more."""
        os.write(self._opened, b"go\n" * 1000)

    def shut(self) -> None:
        """Whoever comes from now on waits again."""
        for end in (self._opened, self._arrived):
            os.set_blocking(end, False)
            with suppress(BlockingIOError):
                while os.read(end, 65536):
                    continue
            os.set_blocking(end, True)
        self._pending = b""

    def close(self) -> None:
        os.close(self._arrived)
        os.close(self._opened)
