# SPDX-License-Identifier: Apache-2.0
"""Who owns tasks: the modes that a session chooses from, two objects behind one protocol.

A mode decides what is written down, who sees a task, and what becomes of one that a restart interrupted.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import msgspec

from hsm.tasks.store import Stored, TaskStore
from libvdsm.api.types import TaskId, TaskInfo, TaskMode
from libvdsm.server.caller import OwnerKey


class Key(NamedTuple):
    """One task among all: ids that clients choose are theirs alone."""

    owner: OwnerKey | None
    """None: the service"""
    task: TaskId


@dataclass(frozen=True)
class Claim:
    """A task as the client that owns it asks for it."""

    owner: OwnerKey
    task: TaskId
    asked: bytes
    """the parameters as they came, without open files: what makes a call the same call"""


class Ownership(Protocol):
    """How the tasks of one mode are kept."""

    mode: TaskMode

    def begun(self, info: TaskInfo[Any], params: msgspec.Struct) -> None:
        """A task was taken; it is not started before this returns."""

    def ended(self, key: Key, info: TaskInfo[Any]) -> None:
        """A task has ended; nobody is told before this returns."""

    def forget(self, key: Key) -> None:
        """A task was cleared."""

    def prune(self) -> list[Key]:
        """Forget what is too old: which tasks."""

    def load(self) -> list[Stored]:
        """The tasks that a service before this one has left."""


class NonTransparent:
    """The service owns its tasks: they are on disk, and everybody with the right to see tasks sees them."""

    mode = TaskMode.NON_TRANSPARENT

    def __init__(self, store: TaskStore, keep: float, keep_count: int) -> None:
        """``keep`` in seconds."""
        self._store = store
        self._keep = keep
        self._keep_count = keep_count
        self._turn = threading.Lock()
        self._unwritten: dict[TaskId, TaskInfo[Any]] = {}

    def begun(self, info: TaskInfo[Any], params: msgspec.Struct) -> None:
        with self._turn:
            self._catch_up()
            self._store.put(info, msgspec.json.encode(params))

    def ended(self, key: Key, info: TaskInfo[Any]) -> None:
        with self._turn:
            self._unwritten[info.id] = info
            self._catch_up()

    def _catch_up(self) -> None:
        """Write down the ends that could not be, before anything else is.

        So no restart takes a task up again that ended before a later one was asked for: that may have been to undo it.
        """
        for info in list(self._unwritten.values()):
            self._store.update(info)
            del self._unwritten[info.id]

    def forget(self, key: Key) -> None:
        with self._turn:
            self._store.forget(key.task)
            self._unwritten.pop(key.task, None)

    def prune(self) -> list[Key]:
        return [Key(None, task) for task in self._store.prune(time.time() - self._keep, self._keep_count)]

    def load(self) -> list[Stored]:
        return self._store.load()


class Transparent:
    """Clients own their tasks: they are in memory alone, and the owner asks for them again after a restart."""

    mode = TaskMode.TRANSPARENT

    def __init__(self, keep: float, keep_count: int) -> None:
        """``keep`` in seconds; the bounds are for all owners together."""
        self._keep = keep
        self._keep_count = keep_count
        self._lock = threading.Lock()
        self._ended: dict[Key, float] = {}
        """when, the oldest first"""

    def begun(self, info: TaskInfo[Any], params: msgspec.Struct) -> None:
        """Nothing is on disk."""

    def ended(self, key: Key, info: TaskInfo[Any]) -> None:
        with self._lock:
            self._ended[key] = time.monotonic()

    def forget(self, key: Key) -> None:
        with self._lock:
            self._ended.pop(key, None)

    def prune(self) -> list[Key]:
        with self._lock:
            before = time.monotonic() - self._keep
            many = len(self._ended) - self._keep_count
            old = [key for place, (key, ended) in enumerate(self._ended.items()) if place < many or ended < before]
            for key in old:
                del self._ended[key]
        return old

    def load(self) -> list[Stored]:
        return []
