# SPDX-License-Identifier: Apache-2.0
"""Operations that do what a test says, and a manager to run them."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from hsm.tasks.locks import Lock, Locks
from hsm.tasks.manager import Job, Objects, Operation, TaskManager
from libvdsm.api.types import Progress, TaskId, TaskInfo, TaskState

T = TypeVar("T")
Rebuild = Callable[[str, bytes], Operation]
PATIENCE = 10.0
"""Seconds after which something counts as never happening."""


class Params(msgspec.Struct):
    """What a scripted operation was asked for."""

    number: int = 0


class Scripted:
    """An operation: it begins, waits for its gate, does its work, and has ended."""

    def __init__(
        self,
        *locks: Lock,
        work: Callable[[Job], Any] = lambda job: "done",
        outcome: Callable[[], Any] = lambda: None,
        resumes: bool = False,
        gate: bool = False,
    ) -> None:
        """``gate``: it waits until the test opens it."""
        self.locks: Locks = locks
        self.objects = Objects()
        self.resumes = resumes
        self.outcome = outcome
        self.began = threading.Event()
        self.gate = threading.Event()
        self.closed = 0
        self._work = work
        if not gate:
            self.gate.set()

    def run(self, job: Job) -> Any:
        self.began.set()
        assert self.gate.wait(PATIENCE), "nobody opened the gate"
        return self._work(job)

    def close(self) -> None:
        self.closed += 1

    def has_begun(self) -> bool:
        """Waits for it."""
        return self.began.wait(PATIENCE)


def noting(notes: list[T], note: T) -> Callable[[Job], str]:
    """A work that writes down that it was done."""

    def work(job: Job) -> str:
        notes.append(note)
        return "done"

    return work


def submit(manager: TaskManager, operation: Operation, number: int = 0) -> TaskId:
    return manager.submit("Test.verb", Params(number), operation, owner="a test", request="r-1").id


def ended(manager: TaskManager, task: TaskId) -> TaskInfo[Any]:
    """The task when it has ended."""
    info = manager.wait(task, PATIENCE)
    assert info.ended is not None, f"it does not end: {info}"
    return info


def state(manager: TaskManager, task: TaskId) -> TaskState:
    return manager.get(task).state


def task_info(
    state_: TaskState = TaskState.QUEUED, *, created: float | None = None, at_end: float | None = None
) -> TaskInfo[Any]:
    """A task as a service before this one may have written it down."""
    return TaskInfo(
        id=TaskId(uuid.uuid4()),
        verb="Test.verb",
        state=state_,
        created=time.time() if created is None else created,
        progress=Progress(done=0, total=0, percent=0.0, step="waiting"),
        owner="a test",
        request="r-1",
        ended=at_end,
    )


def never(verb: str, params: bytes) -> Operation:
    """For managers that find nothing to take up."""
    raise AssertionError(f"{verb} was taken up")
