# SPDX-License-Identifier: Apache-2.0
"""Crash points: the system calls of our own threads that change state, found in a recording.

A point is named by its thread, the call, the file and how many such calls on that file came before it in that
thread.  So neither other threads nor other files can shift it.  Where a file's name is chosen at random the thread's
calls are counted instead, whatever they are about.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.crash.fixture import readable
from tests.crash.tracing import CHANGING, FILLING, NAMING, READING, STARTING, Call

HOME = "{home}"
_OURS = re.compile(r"(?:domains|spare|loose|room|outside|state)(?:/|$)")
_DOMAINS = re.compile(r"(?:domains|spare|loose|room)(?:/|$)")
_RANDOM = re.compile(r"\(deleted\)|/#\d+|/[0-9a-f]{8}-[0-9a-f]{4}-4")
"""Nameless files, and ids that the service chose: those of the fixture are of another version than 4."""


@dataclass(frozen=True)
class Point:
    """One system call of one thread in one operation."""

    role: str
    """the thread's name, or main"""
    name: str
    path: str | None
    """what strace is to look at, below {home}; None: at everything"""
    number: int
    text: str
    """the call as it was recorded, for people"""
    filling: tuple[tuple[str, int], ...]
    """the calls that need room: how many of each this thread has made before, whatever they were about"""
    reads: bool
    """whether it only learns what is there"""

    def filter(self, home: Path) -> str | None:
        return None if self.path is None else self.path.replace(HOME, str(home))

    def __str__(self) -> str:
        return readable(f"{self.role}: {self.text} (number {self.number} on {self.path or 'any file'})")


def find(calls: Iterable[Call], roles: Mapping[int, str], home: Path) -> Iterator[Point]:
    """Every point of a recording; ``roles``: the names of our own threads by their ids."""
    count: Counter[tuple[str, str, str | None]] = Counter()
    for call in sorted(calls, key=lambda call: call.began):
        role = roles.get(call.thread)
        if role is None or call.name not in CHANGING | STARTING | READING:
            continue
        about = _about(call)
        before = tuple((name, count[role, name, None]) for name in sorted(FILLING))
        count[role, call.name, None] += 1
        if about is not None:
            count[role, call.name, about] += 1
        changes = _changes(call, home)
        if changes or _reads(call, home):
            seen = None if about is None or _RANDOM.search(about) or not about.startswith(f"{home}/") else about
            if seen is None and not changes:
                continue
            path = None if seen is None else seen.replace(str(home), HOME, 1)
            text = call.text.replace(str(home), HOME)
            yield Point(role, call.name, path, count[role, call.name, seen], text, before, reads=not changes)


def _about(call: Call) -> str | None:
    """The one path by which strace finds a call."""
    if call.folder is not None:
        return call.folder
    if not call.paths:
        return None
    return call.paths[-1 if call.name.startswith("link") else 0]


def _reads(call: Call, home: Path) -> bool:
    """Whether it looks at a domain."""
    paths = call.paths[:1] if call.name in READING or call.name == "openat" else ()
    prefix = f"{home}/"
    return any(path.startswith(prefix) and _DOMAINS.match(path.removeprefix(prefix)) for path in paths)


def _changes(call: Call, home: Path) -> bool:
    if call.name in READING:
        return False
    if call.name in STARTING:
        return call.name != "execve"
    if call.name == "openat" and not (call.made or call.emptied or "O_TMPFILE" in call.text):
        return False
    paths = call.paths if call.name in NAMING else call.paths[:1]
    prefix = f"{home}/"
    return any(path.startswith(prefix) and _OURS.match(path.removeprefix(prefix)) for path in paths)
