# SPDX-License-Identifier: Apache-2.0
"""Who owns tasks: the modes that a session chooses from.

A mode decides what is written down, who sees a task, and what becomes of one that a restart interrupted.  The
manager knows modes only by this protocol; the client-owned one joins here.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Protocol

import msgspec

from hsm.tasks.store import Stored, TaskStore
from libvdsm.api.session import TaskMode
from libvdsm.api.types import TaskId, TaskInfo


class Ownership(Protocol):
    """How the tasks of one mode are kept."""

    mode: TaskMode

    def begun(self, info: TaskInfo[Any], params: msgspec.Struct) -> None:
        """A task was taken; it is not started before this returns."""

    def ended(self, info: TaskInfo[Any]) -> None:
        """A task has ended; nobody is told before this returns."""

    def forget(self, task: TaskId) -> None:
        """A task was cleared."""

    def prune(self) -> list[TaskId]:
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

    def ended(self, info: TaskInfo[Any]) -> None:
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

    def forget(self, task: TaskId) -> None:
        with self._turn:
            self._store.forget(task)
            self._unwritten.pop(task, None)

    def prune(self) -> list[TaskId]:
        return self._store.prune(time.time() - self._keep, self._keep_count)

    def load(self) -> list[Stored]:
        return self._store.load()
