# SPDX-License-Identifier: Apache-2.0
"""A client that owns its tasks, and has them done whatever breaks: the connection, the service, or itself.

``TaskOwner`` keeps what was asked for until it has ended.  When the connection or the service was gone it asks again,
in the order in which it asked first, each with the id that its task has had from the beginning: a task that still
runs is the same task, one that is unknown is begun anew, and what is done already is answered as done.

A program that was itself restarted has to know which tasks it had asked for: it writes id and purpose down before it
starts a task, and starts it again with the same owner, the same id and the same call.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, Self, TypeVar, cast

import msgspec

from libvdsm.api.errors import ConnectionFailed, Interrupted, NoSuchSession, NoSuchTask, OwnerAbsent, Unavailable
from libvdsm.api.event import TaskChanged
from libvdsm.api.types import TaskId, TaskInfo, TaskMode
from libvdsm.client.client import ENDED, Client, result_of
from libvdsm.client.prepared import read
from libvdsm.declare import ApiError
from libvdsm.log import Log
from libvdsm.threads import Thread

T = TypeVar("T")
R = TypeVar("R")

log = Log("libvdsm.owner")

_BROKEN = (ConnectionFailed, NoSuchSession)
_ASK_AGAIN = (OwnerAbsent.__name__, Interrupted.__name__)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 2.0
_POLL = 20.0


class OwnedTask(Generic[T]):
    """A task that its owner has asked for, until it has ended."""

    def __init__(self, owner: TaskOwner, id_: TaskId, ask: Callable[[Client], TaskInfo[T]]) -> None:
        self.id = id_
        self.ask = ask
        self._owner = owner
        self._changed = threading.Condition()
        self._info: TaskInfo[Any] | None = None
        self._error: ApiError | None = None

    @property
    def info(self) -> TaskInfo[Any] | None:
        """As it was last heard of; None while the service has not answered."""
        return self._info

    @property
    def ended(self) -> bool:
        return self._error is not None or (self._info is not None and self._info.state in ENDED)

    def wait(self, timeout: float | None = None, on_progress: Callable[[TaskInfo[Any]], None] | None = None) -> T:
        """Wait for its end and give its result; raise its error if it failed or was stopped.

        ``timeout`` in seconds, None for ever; beyond it, ``TimeoutError``.  ``on_progress`` is called in this thread
        whenever the task has changed.
        """
        until = None if timeout is None else time.monotonic() + timeout
        shown: TaskInfo[Any] | None = None
        while True:
            with self._changed:
                left = None if until is None else until - time.monotonic()
                if not self._changed.wait_for(partial(self._differs, shown), left):
                    msg = f"task {self.id} has not ended within {timeout} s"
                    raise TimeoutError(msg)
                info, error, ended = self._info, self._error, self.ended
            if on_progress is not None and info is not None and info is not shown:
                on_progress(info)
            shown = info
            if error is not None:
                raise error
            if ended and info is not None:
                return cast("T", result_of(info))

    def _differs(self, shown: TaskInfo[Any] | None) -> bool:
        return self.ended or self._info is not shown

    def stop(self) -> None:
        """Ask it to stop; ``wait`` then raises ``TaskStopped``, unless it was past its commit point."""
        self._owner.stop(self.id)

    def heard(self, info: TaskInfo[Any]) -> None:
        """The service has told of it."""
        with self._changed:
            if not self.ended:
                self._info = info
                self._changed.notify_all()

    def refused(self, error: ApiError) -> None:
        """The service does not take it, or it was given up."""
        with self._changed:
            if not self.ended:
                self._error = error
                self._changed.notify_all()


class TaskOwner:
    """Owns tasks in the transparent mode.  Close it, or use it in a ``with`` statement.

    >>> with TaskOwner(lambda: connect("unix:/run/hsm/hsm.sock"), "my-program") as owner:
    ...     task = owner.start(lambda client: client.image.create(domain=domain, capacity=2**30))
    ...     image = task.wait()

    Two connections are used: one to ask, one that listens; both are made when they are needed, so the service may be
    away.  All methods may be called by any thread.  Closing leaves unfinished tasks to the service, which stops them
    after its grace period, unless this owner comes back.
    """

    def __init__(
        self,
        connect: Callable[[], Client],
        name: str,
        *,
        patience: float | None = None,
        on_change: Callable[[OwnedTask[Any]], None] | None = None,
    ) -> None:
        """Begin to listen.

        ``connect`` makes a client whenever one is needed.  ``name`` is the owner's: keep it over restarts, a UUID say.
        After ``patience`` seconds without the service, tasks are given up with ``ConnectionFailed``; None: never.
        ``on_change`` is called with a task that has changed, by the thread that heard of it; it must not wait.
        """
        self._asking = _Link(connect, name)
        self._listening = _Link(connect, name)
        self._patience = patience
        self._on_change = on_change
        self._lock = threading.RLock()
        self._pending: dict[TaskId, OwnedTask[Any]] = {}
        self._closing = threading.Event()
        Thread("task owner", self._listen).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, ask: Callable[[Client], TaskInfo[T]], task: TaskId | None = None) -> OwnedTask[T]:
        """Have a task done.

        ``ask`` calls the verb, with the client that it is given; it is called again whenever the task has to be asked
        for again, so it opens anew what it hands over.  ``task`` is the id: a new one, unless you give one.  Raises
        what the verb answers; but if the connection breaks, the task is asked for when there is one again.  The id of
        one that is pending, with the same call, gives that one.
        """
        id_ = TaskId(uuid.uuid4()) if task is None else task
        with self._lock:
            earlier = self._pending.get(id_)
            owned = self._pending.setdefault(id_, OwnedTask(self, id_, ask))
            try:
                self._heard(owned, self._asking.call(lambda client: ask(client.with_task(id_))))
            except _BROKEN as error:
                if self._closing.is_set():
                    self._pending.pop(id_, None)
                    raise
                log.info("asked for later", task=id_, error=error.message)
            except BaseException:
                if earlier is None:
                    self._pending.pop(id_, None)
                raise
        return owned

    def run(self, ask: Callable[[Client], TaskInfo[T]], task: TaskId | None = None, timeout: float | None = None) -> T:
        """Have a task done, and wait for its result."""
        return self.start(ask, task).wait(timeout)

    def pending(self) -> list[OwnedTask[Any]]:
        """What has not ended, in the order in which it was asked for."""
        with self._lock:
            return list(self._pending.values())

    def stop(self, task: TaskId) -> None:
        """Ask a task to stop.  Raises ``TaskPastStopping`` and ``NoSuchTask`` as the verb does."""
        self._asking.call(lambda client: client.task.stop(task=task))

    def close(self) -> None:
        """End both connections.  What has not ended is given up here, and whoever waits for it is told."""
        self._closing.set()
        self._listening.close()
        self._asking.close()
        self._give_up(ConnectionFailed(address="the service", reason="this owner of tasks was closed"))

    # ---- asking

    def _ask(self, owned: OwnedTask[Any]) -> None:
        """Under the lock, so that tasks are asked for in order."""
        self._heard(owned, self._asking.call(lambda client: owned.ask(client.with_task(owned.id))))

    def _ask_again(self, owned: OwnedTask[Any]) -> None:
        """For a task that was asked for before: what the verb answers now is how it ends."""
        with self._lock:
            if owned.id not in self._pending:
                return
            try:
                self._ask(owned)
            except _BROKEN:
                raise
            except Unavailable as error:
                # As good as not there: what comes later has to wait for what was asked for first.
                raise ConnectionFailed(address="the service", reason=error.message) from None
            except ApiError as error:
                self._end(owned, error)

    def _heard(self, owned: OwnedTask[Any], info: TaskInfo[Any]) -> None:
        """The service's word on a task; an end that nobody wanted is none."""
        if info.state not in ENDED:
            self._changed(owned, info)
        elif info.error is None or info.error.name not in _ASK_AGAIN:
            with self._lock:
                self._pending.pop(info.id, None)
            self._changed(owned, info)
            self._forget(info.id)
        elif info.error.name == OwnerAbsent.__name__:
            self._ask_again(owned)
        # Else the service is about to end, and is asked again when it is back.

    def _changed(self, owned: OwnedTask[Any], info: TaskInfo[Any]) -> None:
        owned.heard(info)
        self._tell(owned)

    def _tell(self, owned: OwnedTask[Any]) -> None:
        if self._on_change is not None:
            try:
                self._on_change(owned)
            except Exception:  # the boundary to the caller's code: its mistake must not stop the others' tasks
                log.exception("on_change failed", task=owned.id)

    def _end(self, owned: OwnedTask[Any], error: ApiError) -> None:
        with self._lock:
            self._pending.pop(owned.id, None)
        owned.refused(error)
        self._tell(owned)

    def _forget(self, task: TaskId) -> None:
        """The service need not keep what is known here; if it cannot be told, it forgets by itself."""
        try:
            self._asking.call(lambda client: client.task.clear(task=task))
        except ApiError as error:
            log.debug("not cleared", task=task, error=error.message)

    def _give_up(self, error: ConnectionFailed) -> None:
        for owned in self.pending():
            self._end(owned, error)

    # ---- listening

    def _listen(self) -> None:
        cursor: int | None = None
        pause, gone_since = _FIRST_PAUSE, time.monotonic()
        while not self._closing.is_set():
            try:
                if cursor is None:
                    cursor = self._begin()
                pause = _FIRST_PAUSE
                cursor = self._follow(cursor)
                gone_since = time.monotonic()
                continue
            except _BROKEN as error:
                reason = error.message
            except Exception as error:  # the boundary of a thread that has to go on: tasks depend on it
                log.exception("listening failed")
                reason = str(error)
            if cursor is not None:
                gone_since = time.monotonic()
            elif self._patience is not None and time.monotonic() - gone_since > self._patience:
                self._give_up(ConnectionFailed(address="the service", reason=reason))
            cursor = None
            self._closing.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _begin(self) -> int:
        """Ask for everything that has not ended, and know from where to listen on."""
        cursor = self._listening.call(lambda client: client.event.poll().next)
        for owned in self.pending():
            self._ask_again(owned)
        return cursor

    def _follow(self, cursor: int) -> int | None:
        """Hear what is new: from where to go on, None if something was missed."""
        # Not repeated on another connection: whoever lost one may have missed the service's restart.
        page = self._listening.call(lambda client: client.event.poll(after=cursor, timeout=_POLL), again=False)
        if page.missed:
            return None
        told = [read("event", event.name, event.data) for event in page.items if event.name == TaskChanged.__name__]
        last: dict[TaskId, TaskChanged] = {change.task: change for change in told}
        for owned in self.pending():
            if (change := last.get(owned.id)) is not None:
                self._look(owned, change)
        return page.next

    def _look(self, owned: OwnedTask[Any], change: TaskChanged) -> None:
        if change.state not in ENDED and owned.info is not None:
            self._changed(owned, msgspec.structs.replace(owned.info, state=change.state, progress=change.progress))
            return
        try:
            info = self._asking.call(lambda client: client.task.get_info(task=owned.id))
        except NoSuchTask:
            self._ask_again(owned)
        else:
            self._heard(owned, info)


class _Link:
    """One connection in a session of the owner's, made when it is needed."""

    def __init__(self, connect: Callable[[], Client], owner: str) -> None:
        self._connect = connect
        self._owner = owner
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._closed = False

    def call(self, ask: Callable[[Client], R], *, again: bool = True) -> R:
        """Ask over the connection; ``again``: once more over a new one if it breaks."""
        client, fresh = self._open()
        try:
            return ask(client)
        except _BROKEN:
            self._drop(client)
            if fresh or not again:
                raise
        return self.call(ask, again=False)

    def _open(self) -> tuple[Client, bool]:
        with self._lock:
            if self._closed:
                raise ConnectionFailed(address="the service", reason="this owner of tasks was closed")
            if self._client is not None:
                return self._client, False
            client = self._connect()
            try:
                client.session.open(task_mode=TaskMode.TRANSPARENT, owner=self._owner, name="task owner")
            except BaseException:
                client.close()
                raise
            self._client = client
            return client, True

    def _drop(self, client: Client) -> None:
        with self._lock:
            if self._client is client:
                self._client = None
        client.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            client, self._client = self._client, None
        if client is not None:
            client.close()
