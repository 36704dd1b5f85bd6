# SPDX-License-Identifier: Apache-2.0
"""Locks inside one service: declared by an operation, taken together or not at all.

Since nobody holds one lock while waiting for another there is no deadlock; since those who asked earlier come first
where they conflict, a stream of readers does not starve a writer.  This is only the table; the task manager waits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Lock:
    """A name such as ``image/<domain>/<image>``, and whether others may hold it too."""

    name: str
    shared: bool = False


Locks = tuple[Lock, ...]


def conflict(one: Locks, other: Locks) -> bool:
    """Whether the two cannot be held at the same time."""
    mine: dict[str, bool] = {}
    for lock in one:
        # Whoever wants a lock both ways wants it alone.
        mine[lock.name] = lock.shared and mine.get(lock.name, True)
    return any(lock.name in mine and not (lock.shared and mine[lock.name]) for lock in other)


class LockTable:
    """Who holds what.  Not thread-safe: its owner has a lock of its own."""

    def __init__(self) -> None:
        self._held: list[Locks] = []

    def take(self, wanted: Locks, earlier: Iterable[Locks] = ()) -> bool:
        """Take all locks, unless one is held or somebody who asked earlier waits for it."""
        if any(conflict(held, wanted) for held in self._held) or any(conflict(locks, wanted) for locks in earlier):
            return False
        self._held.append(wanted)
        return True

    def give_back(self, locks: Locks) -> None:
        """Give back what ``take`` gave: the same object."""
        self._held = [held for held in self._held if held is not locks]
