# SPDX-License-Identifier: Apache-2.0
"""Which owners of tasks are there, and who is told when one has been gone for too long.

An owner is there while a connection stands for it: one on which it opened its session, or, where connections are no
sessions, one on which it is being answered.  So a call that waits counts.  The kernel tells when a peer hangs up, also
while nobody reads from it.  One thread, begun with the first owner, sleeps until that or until a time is over.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from libvdsm.log import Log
from libvdsm.server.caller import Connection, OwnerKey
from libvdsm.threads import Thread

log = Log("libvdsm.presence")

_FOR_EVER = float("inf")


@dataclass(frozen=True)
class Stage:
    """What is done when an owner has been gone for so many seconds."""

    after: float
    tell: Callable[[OwnerKey], None]


@dataclass
class _Owner:
    connections: set[Connection] = field(default_factory=set)
    left: float = 0.0
    """when the last connection ended"""
    told: int = 0
    """stages that are over"""
    noted: bool = False
    """whether anything may hang on it"""


class Presence:
    """Who is there.  Times are monotonic."""

    def __init__(self, stages: Sequence[Stage], matters: Callable[[OwnerKey], bool]) -> None:
        """``matters``: whether anything hangs on an owner; of one that is gone, and nothing does, nothing is kept."""
        self._stages = sorted(stages, key=lambda stage: stage.after)
        self._matters = matters
        self._lock = threading.Lock()
        self._owners: dict[OwnerKey, _Owner] = {}
        self._held: dict[Connection, OwnerKey] = {}
        self._watched: dict[int, Connection] = {}
        self._epoll: select.epoll | None = None
        self._alarm = -1
        self._sleeps_until = _FOR_EVER
        self._closing = False

    def hold(self, owner: OwnerKey, connection: Connection) -> None:
        """The owner is there until this connection ends, or is let go."""
        with self._lock:
            if self._closing:
                return
            self._begin()
            self._let_go(connection)
            entry = self._owners.setdefault(owner, _Owner())
            entry.connections.add(connection)
            entry.told = 0
            self._held[connection] = owner
            if connection.descriptor is not None and self._epoll is not None:
                self._watched[connection.descriptor] = connection
                self._epoll.register(connection.descriptor, select.EPOLLRDHUP | select.EPOLLONESHOT)

    def release(self, connection: Connection) -> None:
        """The connection stands for nobody any more."""
        with self._lock:
            self._let_go(connection)

    @contextmanager
    def during(self, owner: OwnerKey, connection: Connection) -> Iterator[None]:
        """The owner is there while it is being answered."""
        self.hold(owner, connection)
        try:
            yield
        finally:
            self.release(connection)

    def note(self, owner: OwnerKey) -> None:
        """Something hangs on an owner from now on, though it may be gone already."""
        with self._lock:
            if self._closing:
                return
            self._begin()
            if owner not in self._owners:
                # Its connection ended while its call was on the way.
                self._owners[owner] = _Owner(left=time.monotonic())
                self._wake()
            self._owners[owner].noted = True

    def close(self) -> None:
        """End the thread; nobody is told of anything any more."""
        with self._lock:
            self._closing = True
            if self._alarm != -1:
                os.eventfd_write(self._alarm, 1)

    def _begin(self) -> None:
        """Under the lock."""
        if self._epoll is None:
            self._epoll = select.epoll()
            self._alarm = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._epoll.register(self._alarm, select.EPOLLIN)
            Thread("owners", self._run).start()

    def _let_go(self, connection: Connection) -> None:
        """Under the lock."""
        owner = self._held.pop(connection, None)
        if owner is None:
            return
        if connection.descriptor is not None and self._epoll is not None:
            self._watched.pop(connection.descriptor, None)
            with suppress(OSError):
                self._epoll.unregister(connection.descriptor)
        entry = self._owners[owner]
        entry.connections.discard(connection)
        if entry.connections:
            return
        if not entry.noted:
            del self._owners[owner]
            return
        entry.left = time.monotonic()
        self._wake()

    def _wake(self) -> None:
        """Have the thread look again, if it would sleep for too long.  Under the lock."""
        if self._stages and not self._closing and time.monotonic() + self._stages[0].after < self._sleeps_until:
            os.eventfd_write(self._alarm, 1)

    def _run(self) -> None:
        epoll = self._epoll
        assert epoll is not None
        while True:
            try:
                timeout = self._look()
            except Exception:  # the boundary of a thread that has to go on: an owner's tasks depend on it
                log.exception("owners cannot be looked at")
                timeout = 1.0
            found = epoll.poll(timeout)
            with self._lock:
                if self._closing:
                    epoll.close()
                    os.close(self._alarm)
                    self._epoll, self._alarm = None, -1
                    return
                for descriptor, _ in found:
                    if descriptor == self._alarm:
                        os.eventfd_read(descriptor)
                    elif (connection := self._watched.get(descriptor)) is not None:
                        self._let_go(connection)

    def _look(self) -> float | None:
        """Tell of who has been gone for too long: how long there is nothing more to tell, None for ever."""
        while True:
            due: list[tuple[Stage, OwnerKey]] = []
            with self._lock:
                now = time.monotonic()
                self._sleeps_until = _FOR_EVER
                for owner, entry in list(self._owners.items()):
                    if not entry.connections:
                        self._stage(owner, entry, now, due)
                if not due:
                    return None if self._sleeps_until == _FOR_EVER else max(0.0, self._sleeps_until - now)
            for stage, owner in due:
                stage.tell(owner)

    def _stage(self, owner: OwnerKey, entry: _Owner, now: float, due: list[tuple[Stage, OwnerKey]]) -> None:
        """What is due of one owner that is gone, and when the next is.  Under the lock."""
        if entry.told == len(self._stages) and not self._matters(owner):
            del self._owners[owner]
            return
        if entry.told == len(self._stages):
            # Something of it has not ended, or has been asked for meanwhile: from the last stage on again.
            entry.told, entry.left = 0, now
        stage = self._stages[entry.told]
        if entry.left + stage.after > now:
            self._sleeps_until = min(self._sleeps_until, entry.left + stage.after)
        else:
            entry.told += 1
            due.append((stage, owner))
