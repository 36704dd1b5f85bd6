# SPDX-License-Identifier: Apache-2.0
"""What happens at a point: the service is killed before the call, or the call fails."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.crash.points import Point
from tests.crash.tracing import FILLING, STARTING, parse


@dataclass(frozen=True)
class Accident:
    """``errno`` is None when the service is killed."""

    name: str
    errno: str | None
    answers: frozenset[str]
    """the errors that an operation may answer"""

    lasting: bool = False
    """whether all that needs room fails from then on, until the operation has ended"""
    reading: bool = False
    """whether it happens where something is read"""

    def __str__(self) -> str:
        return self.name

    def applies(self, point: Point) -> bool:
        if self.lasting:
            return point.name in FILLING
        return point.reads == self.reading and (self.errno is None or point.name not in STARTING)

    def calls(self, point: Point) -> frozenset[str]:
        """The system calls to look at."""
        return FILLING if self.lasting else frozenset({point.name})

    def filter(self, point: Point, home: Path) -> str | None:
        """The file to look at; None: all."""
        return None if self.lasting else point.filter(home)

    def expressions(self, point: Point) -> list[str]:
        """As strace wants them."""
        what = f"error={self.errno}" if self.errno else "signal=KILL"
        if self.lasting:
            return [f"{name}:{what}:when={made + 1}+" for name, made in point.filling]
        return [f"{point.name}:{what}:when={point.number}"]

    def happened(self, point: Point, said: str, *, killed: bool) -> bool:
        """Whether it happened once, at the call that was meant.  ``killed``: the service was, by a signal."""
        if self.errno is not None:
            lines = [line for line in said.splitlines() if line.endswith("(INJECTED)")]
            return (len(lines) == 1 or self.lasting) and bool(lines) and lines[0].startswith(f"{point.name}(")
        calls = [call for call in parse(said) if call.name == point.name]
        return killed and len(calls) == point.number and calls[-1].result is None


_ANY = {"Unavailable", "FileNotUsable", "PathNotUsable", "SecretsUnusable"}
KILL = Accident("killed", None, frozenset({"Interrupted"}))
FULL = Accident("ENOSPC", "ENOSPC", frozenset({"NoSpace", *_ANY}))
BROKEN = Accident("EIO", "EIO", frozenset({"StorageFailed", "NoSuchSecret", *_ANY}))
STAYS_FULL = Accident("ENOSPC from then on", "ENOSPC", FULL.answers, lasting=True)
UNREADABLE = Accident("EIO at reading", "EIO", BROKEN.answers, reading=True)
ACCIDENTS = (KILL, FULL, BROKEN, STAYS_FULL, UNREADABLE)
