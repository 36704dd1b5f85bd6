# SPDX-License-Identifier: Apache-2.0
"""What a task does, and what it does it with: the protocol between operations and the task manager."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from hsm.tasks.locks import Locks
from hsm.tasks.modes import Claim, Key, Ownership
from libvdsm.api.errors import TaskStopped
from libvdsm.api.types import DomainId, ImageId, Progress, TaskInfo, VolumeId
from libvdsm.declare import ApiError

_PROGRESS_INTERVAL = 0.25


@dataclass(frozen=True)
class Objects:
    """What a task works on, for those who look at it."""

    domain: DomainId | None = None
    image: ImageId | None = None
    volume: VolumeId | None = None


class Operation(Protocol):
    """What a task does."""

    @property
    def locks(self) -> Locks:
        """The locks of this node that it needs while it runs."""

    @property
    def objects(self) -> Objects:
        """What it works on."""

    @property
    def resumes(self) -> bool:
        """Whether a restart takes it up again, if its outcome is not there yet; else it has failed."""

    def outcome(self) -> Any:
        """The result, if what is asked for is so already, else None.

        Asked before the work, which makes a repeated call answer the same, and after a restart, which settles an
        interrupted task from what is on storage alone.  Changes nothing.
        """

    def run(self, job: Job) -> Any:
        """Do it: the result, or an ``ApiError``."""

    def close(self) -> None:
        """Let go of what it was given; called once, at the end."""


@dataclass(eq=False)
class Task:
    """A task in memory."""

    info: TaskInfo[Any]
    ownership: Ownership
    operation: Operation | None = None
    locks: Locks = ()
    claim: Claim | None = None
    """of the client that owns it"""
    stop_asked: bool = False
    why: ApiError | None = None
    """what it ends with, if it stops as asked"""
    committed: bool = False
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def key(self) -> Key:
        return Key(self.claim.owner if self.claim else None, self.info.id)


class Teller(Protocol):
    """The part of the manager that a job needs."""

    changed: threading.Condition

    def report(self, task: Task, progress: Progress, *, tell: bool) -> None:
        """Keep how far a task is; ``tell`` those who listen too."""

    def trying(self, locks: Locks) -> AbstractContextManager[bool]:
        """Hold locks if they are free and nobody in the queue wants them."""


class Job:
    """A running operation's view of its task."""

    def __init__(self, task: Task, manager: Teller) -> None:
        self._task = task
        self._manager = manager
        self._told = 0.0

    def stop_asked(self) -> bool:
        """Whether somebody wants it to stop.  After ``commit`` it is always false: what has begun is finished."""
        return self._task.stop_asked and not self._task.committed

    def check(self) -> None:
        """Stop here if somebody wants it."""
        if self.stop_asked():
            raise TaskStopped

    def commit(self) -> None:
        """What follows is the commit point: from here on it cannot be stopped."""
        with self._manager.changed:
            self.check()
            self._task.committed = True

    @contextmanager
    def trying(self, locks: Locks) -> Iterator[bool]:
        """Hold more locks than were declared, if they are free and nobody waits for them; it is never waited for."""
        with self._manager.trying(locks) as taken:
            yield taken

    def progress(self, step: str, done: int = 0, total: int = 0) -> None:
        """Say how far it is, in bytes."""
        percent = round(min(100.0, done * 100 / total), 1) if total else 0.0
        now = time.monotonic()
        progress = Progress(done=done, total=total, percent=percent, step=step)
        tell = step != self._task.info.progress.step or now - self._told > _PROGRESS_INTERVAL
        self._manager.report(self._task, progress, tell=tell)
        if tell:
            self._told = now
