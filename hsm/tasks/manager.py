# SPDX-License-Identifier: Apache-2.0
"""The task manager: takes operations, has workers run those whose locks are free, and tells what becomes of them."""

from __future__ import annotations

import builtins
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from hsm.events import EventLog
from hsm.tasks.locks import Locks, LockTable
from hsm.tasks.modes import Claim, Key, Ownership
from hsm.tasks.operation import Job, Objects, Operation, Task
from hsm.tasks.recovery import Rebuild, Settled, settle
from hsm.tasks.states import ENDED, Event, move
from hsm.tasks.store import StoreError
from libvdsm.api.errors import (
    InternalError,
    Interrupted,
    NoSuchTask,
    OwnerAbsent,
    TaskExists,
    TaskNotEnded,
    TaskPastStopping,
    TaskStopped,
    Unavailable,
)
from libvdsm.api.event import TaskChanged
from libvdsm.api.types import ErrorInfo, Progress, TaskId, TaskInfo, TaskMode, TaskState
from libvdsm.declare import ApiError
from libvdsm.log import Log, request_id
from libvdsm.server.caller import OwnerKey
from libvdsm.server.dispatch import error_info
from libvdsm.threads import Thread

__all__ = ["Job", "Objects", "Operation", "TaskManager"]

log = Log("hsm.tasks")

_PRUNE_EVERY = 100
_NO_PROGRESS = Progress(done=0, total=0, percent=0.0, step="waiting")


class Witness(Protocol):
    """Sees tasks come and go.  It keeps its own troubles to itself: no task fails because of a witness."""

    def taken(self, info: TaskInfo[Any], params: msgspec.Struct) -> None:
        """A task is about to be written down, in the thread of the call that asked for it."""

    def ended(self, info: TaskInfo[Any]) -> None:
        """A task has ended, or was not taken after all; nobody has been told yet."""


@dataclass(eq=False)
class _Waiting:
    """A place in the queue: a task's, or that of a verb that takes locks without being a task."""

    locks: Locks
    task: Task | None = None


class TaskManager:
    """All tasks of this service."""

    def __init__(
        self,
        events: EventLog,
        ownerships: list[Ownership],
        workers: int,
        queue: int = 1000,
        witness: Witness | None = None,
    ) -> None:
        """``workers`` tasks are at work at once, ``queue`` may wait."""
        lock = threading.RLock()
        self.changed = threading.Condition(lock)
        self._idle = threading.Condition(lock)
        self._events = events
        self._ownerships = {ownership.mode: ownership for ownership in ownerships}
        self._tasks: dict[Key, Task] = {}
        self._queue: list[_Waiting] = []
        self._locks = LockTable()
        self._running = 0
        self._closing = False
        self._longest = queue
        self._witness = witness
        self._ended = 0
        self._workers = [Thread(f"worker-{number}", self._work) for number in range(workers)]

    # ---- for services

    def submit(
        self,
        verb: str,
        params: msgspec.Struct,
        operation: Operation,
        *,
        owner: str,
        request: str,
        claim: Claim | None = None,
    ) -> TaskInfo[Any]:
        """Take an operation: its task, which is queued.  ``claim``: of the client that owns it; else the service does.

        A claim that somebody else made meanwhile, with the same owner and id, answers that task.
        """
        if self.counts()[0] >= self._longest:
            operation.close()
            raise Unavailable(reason=f"{self._longest} tasks are waiting already")
        objects = operation.objects
        info: TaskInfo[Any] = TaskInfo(
            id=claim.task if claim else TaskId(uuid.uuid4()),
            verb=verb,
            state=TaskState.QUEUED,
            created=time.time(),
            progress=_NO_PROGRESS,
            owner=owner,
            request=request,
            domain=objects.domain,
            image=objects.image,
            volume=objects.volume,
            mode=TaskMode.TRANSPARENT if claim else None,
        )
        ownership = self._ownerships[TaskMode.TRANSPARENT if claim else TaskMode.NON_TRANSPARENT]
        task = Task(info, ownership, operation, operation.locks, claim)
        with ExitStack() as unused:
            unused.callback(operation.close)
            if self._witness is not None:
                self._witness.taken(info, params)
            try:
                ownership.begun(info, params)
            except StoreError as error:
                refusal = Unavailable(reason=str(error))
                if self._witness is not None:
                    self._witness.ended(
                        msgspec.structs.replace(info, state=TaskState.FAILED, error=error_info(refusal))
                    )
                raise refusal from None
            with self.changed:
                if claim is not None:
                    if (earlier := self.known(verb, claim)) is not None:
                        return earlier
                    ownership.forget(task.key)
                self._tasks[task.key] = task
                self._queue.append(_Waiting(task.locks, task))
                # One worker for one task: to wake them all takes longer than the task's first steps.
                self._idle.notify()
            unused.pop_all()
        self._tell(task)
        return info

    def known(self, verb: str, claim: Claim) -> TaskInfo[Any] | None:
        """The task that a claim stands for, if it is there already and is the same."""
        with self.changed:
            found = self._tasks.get(Key(claim.owner, claim.task))
            if found is None or found.claim is None:
                return None
            if (found.info.verb, found.claim.asked) != (verb, claim.asked):
                raise TaskExists(task=claim.task, verb=found.info.verb)
            # The owner did not want that end, and is back.
            given_up = found.info.error is not None and found.info.error.name == OwnerAbsent.__name__
            return None if given_up else found.info

    def owned(self, owner: OwnerKey) -> builtins.list[TaskInfo[Any]]:
        """The tasks of a client that owns them, the oldest first."""
        with self.changed:
            return [task.info for key, task in self._tasks.items() if key.owner == owner]

    def owns(self, owner: OwnerKey) -> bool:
        """Whether there are any."""
        return bool(self.owned(owner))

    def get(self, task: TaskId, viewer: OwnerKey | None = None) -> TaskInfo[Any]:
        return self._find(task, viewer).info

    def list(self, state: TaskState | None = None, viewer: OwnerKey | None = None) -> list[TaskInfo[Any]]:
        """Tasks, the newest first: those that the service owns, and those of whoever looks."""
        with self.changed:
            found = [
                task.info
                for key, task in self._tasks.items()
                if key.owner in (None, viewer) and state in (None, task.info.state)
            ]
        return sorted(found, key=lambda info: (-info.created, str(info.id)))

    def wait(self, task: TaskId, timeout: float, viewer: OwnerKey | None = None) -> TaskInfo[Any]:
        found = self._find(task, viewer)
        found.ended.wait(timeout)
        return found.info

    def stop(self, task: TaskId, viewer: OwnerKey | None = None, *, why: ApiError | None = None) -> TaskInfo[Any]:
        """Ask a task to stop; a queued one has stopped when this returns.  Whoever says no ``why`` overrules one."""
        found = self._find(task, viewer)
        with self.changed:
            if found.info.state in ENDED:
                raise TaskPastStopping(task=task, reason=f"it has {found.info.state.value}")
            if found.committed:
                raise TaskPastStopping(task=task, reason="its change is being published")
            found.stop_asked = True
            found.why = TaskStopped() if why is None else found.why or why
            error = error_info(found.why)
            waiting = next((entry for entry in self._queue if entry.task is found), None)
            if waiting is not None:
                self._queue.remove(waiting)
                self._wake()
            elif found.info.state is TaskState.RUNNING:
                found.info = msgspec.structs.replace(found.info, state=move(found.info.state, Event.STOP))
        if waiting is not None:
            self._finish(found, Event.STOP, error=error)
        else:
            self._tell(found)
        return found.info

    def clear(self, task: TaskId, viewer: OwnerKey | None = None) -> None:
        """Forget a task that has ended."""
        found = self._find(task, viewer)
        if not found.ended.is_set():
            raise TaskNotEnded(task=task)
        try:
            found.ownership.forget(found.key)
        except StoreError as error:
            raise Unavailable(reason=str(error)) from None
        with self.changed:
            self._tasks.pop(found.key, None)

    @contextmanager
    def hold(self, locks: Locks, wait: float) -> Iterator[None]:
        """Hold locks without being a task, in the same queue as tasks, waiting up to ``wait`` seconds."""
        waiting = _Waiting(locks)
        with self.changed:
            self._queue.append(waiting)
            if not self.changed.wait_for(lambda: self._take(waiting), wait):
                self._queue.remove(waiting)
                self._wake()
                raise Unavailable(reason="other tasks are at work on it, see Task.list")
        try:
            yield
        finally:
            self._give_back(locks)

    @contextmanager
    def trying(self, locks: Locks) -> Iterator[bool]:
        """Hold locks if they are free and nobody in the queue wants them."""
        with self.changed:
            taken = self._locks.take(locks, (entry.locks for entry in self._queue))
        try:
            yield taken
        finally:
            if taken:
                self._give_back(locks)

    def counts(self) -> tuple[int, int]:
        """(waiting, at work)."""
        with self.changed:
            return sum(entry.task is not None for entry in self._queue), self._running

    # ---- life of the service

    def recover(self, rebuild: Rebuild) -> None:
        """Settle what a service before this one has left, then begin to work."""
        for ownership in self._ownerships.values():
            for stored in ownership.load():
                task = Task(stored.info, ownership)
                if stored.info.state in ENDED:
                    task.ended.set()
                self._tasks[task.key] = task
                if stored.info.state not in ENDED:
                    self._go_on(task, settle(task, stored.params, rebuild))
        for worker in self._workers:
            worker.start()
        self.prune()

    def _go_on(self, task: Task, settled: Settled) -> None:
        if settled.event is not Event.RESUME:
            self._finish(task, settled.event, result=settled.result, error=settled.error)
            return
        task.info = msgspec.structs.replace(task.info, state=move(task.info.state, Event.RESUME))
        with self.changed:
            self._queue.append(_Waiting(task.locks, task))

    def prune(self) -> None:
        """Forget tasks that ended too long ago."""
        for ownership in self._ownerships.values():
            try:
                gone = ownership.prune()
            except StoreError as error:
                log.error("old tasks could not be forgotten", error=error)
                continue
            with self.changed:
                for key in gone:
                    self._tasks.pop(key, None)

    def close(self, patience: float) -> None:
        """Have running tasks stop where they can, and wait for them up to ``patience`` seconds."""
        with self.changed:
            self._closing = True
            for task in self._tasks.values():
                if not task.ended.is_set() and not task.committed:
                    task.stop_asked = True
            self._wake()
            self.changed.wait_for(lambda: self._running == 0, patience)

    # ---- workers

    def _take(self, waiting: _Waiting) -> bool:
        """Take a queued entry's locks, and take it out of the queue.  Under ``changed``."""
        position = self._queue.index(waiting)
        if not self._locks.take(waiting.locks, (entry.locks for entry in self._queue[:position])):
            return False
        del self._queue[position]
        return True

    def _give_back(self, locks: Locks) -> None:
        with self.changed:
            self._locks.give_back(locks)
            self._wake()

    def _wake(self) -> None:
        """Have all who wait look whether they can go on now.  Under ``changed``."""
        if self._queue or self._closing:
            self.changed.notify_all()
            self._idle.notify_all()

    def _next(self) -> Task | None:
        """The first task in the queue whose locks are free, or None.  Under ``changed``."""
        for entry in list(self._queue):
            if entry.task is not None and self._take(entry):
                return entry.task
        return None

    def _work(self) -> None:
        while True:
            with self.changed:
                task = None
                while not self._closing and (task := self._next()) is None:
                    self._idle.wait()
                if task is None:
                    return
                self._running += 1
                task.info = msgspec.structs.replace(
                    task.info, state=move(task.info.state, Event.START), started=time.time()
                )
            try:
                self._run(task)
            finally:
                with self.changed:
                    self._running -= 1
                self._give_back(task.locks)

    def _run(self, task: Task) -> None:
        assert task.operation is not None
        token = request_id.set(task.info.request)
        self._tell(task)
        try:
            result = task.operation.outcome()
            if result is None:
                result = task.operation.run(Job(task, self))
            self._finish(task, Event.SUCCEED, result=result)
        except TaskStopped as error:
            with self.changed:
                # Who asked for it may not have written down yet that it is stopping.
                event = Event.YIELD if task.info.state is TaskState.STOPPING else Event.FAIL
            stopped = Interrupted() if self._closing and event is Event.FAIL else error
            self._finish(task, event, error=error_info(task.why or stopped))
        except ApiError as error:
            self._finish(task, Event.FAIL, error=error_info(error))
        except Exception:  # the boundary of a task: logged, and told to whoever asks
            log.exception("task failed", task=task.info.id, verb=task.info.verb)
            self._finish(task, Event.FAIL, error=error_info(InternalError(request=task.info.request)))
        finally:
            request_id.reset(token)

    def _finish(self, task: Task, event: Event, *, result: Any = None, error: ErrorInfo | None = None) -> None:
        progress = task.info.progress
        if event is Event.SUCCEED:
            progress = Progress(done=progress.total or progress.done, total=progress.total, percent=100.0, step="done")
        with self.changed:
            ended = msgspec.structs.replace(
                task.info,
                state=move(task.info.state, event),
                ended=time.time(),
                progress=progress,
                result=result,
                error=error,
            )
        try:
            task.ownership.ended(task.key, ended)
        except StoreError as unwritten:
            # The change is made or not, whatever the record says; a restart settles it from storage again.
            log.error("the end of a task could not be recorded", task=ended.id, error=unwritten)
        if self._witness is not None:
            self._witness.ended(ended)
        with self.changed:
            task.info = ended
        if task.operation is not None:
            task.operation.close()
            task.operation = None
        log.info(
            "task ended",
            task=ended.id,
            verb=ended.verb,
            state=ended.state.value,
            seconds=round((ended.ended or 0) - ended.created, 3),
            error=error.name if error else None,
            reason=error.message if error else None,
        )
        self._tell(task)
        task.ended.set()
        self._ended += 1
        if self._ended % _PRUNE_EVERY == 0:
            self.prune()

    # ---- telling

    def report(self, task: Task, progress: Progress, *, tell: bool) -> None:
        with self.changed:
            task.info = msgspec.structs.replace(task.info, progress=progress)
        if tell:
            self._tell(task)

    def _tell(self, task: Task) -> None:
        info = task.info
        changed = TaskChanged(task=info.id, verb=info.verb, state=info.state, progress=info.progress)
        self._events.emit(changed, task.key.owner)

    def _find(self, task: TaskId, viewer: OwnerKey | None) -> Task:
        with self.changed:
            found = self._tasks.get(Key(viewer, task)) or self._tasks.get(Key(None, task))
        if found is None:
            raise NoSuchTask(task=task)
        return found
