# SPDX-License-Identifier: Apache-2.0
"""The log of what happened, for clients that poll and clients that listen.

Sequence numbers begin at the time of the start in microseconds; so they go on increasing over restarts without being
written down, and a client with a number from before a restart is told that it missed something.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

import msgspec

from libvdsm.api.event import EventData, EventInfo, EventPage
from libvdsm.log import Log
from libvdsm.wire.messages import Notification

log = Log("hsm.events")


class EventLog:
    """The last events, in order."""

    def __init__(self, keep: int) -> None:
        self._kept: deque[EventInfo] = deque(maxlen=keep)
        self._changed = threading.Condition()
        self._last = self._first = int(time.time() * 1_000_000)
        self._listeners: list[Callable[[Notification], None]] = []

    def emit(self, data: EventData) -> None:
        """Something happened."""
        with self._changed:
            self._last += 1
            event = EventInfo(
                sequence=self._last, time=time.time(), name=type(data).__name__, data=msgspec.to_builtins(data)
            )
            self._kept.append(event)
            self._changed.notify_all()
            for push in self._listeners:
                push(Notification(event))
        log.debug("event", kind=event.name, data=event.data)

    def poll(self, after: int | None, timeout: float, limit: int) -> EventPage:
        """The events after a sequence, waiting for one up to ``timeout`` seconds; without one, where to begin."""
        with self._changed:
            if after is None:
                after = self._last
            self._changed.wait_for(lambda: self._last != after, timeout)
            items = [event for event in self._kept if event.sequence > after][:limit]
            following = items[-1].sequence if items else self._last
            return EventPage(items=items, next=following, missed=self._missed(after))

    def listen(self, push: Callable[[Notification], None], after: int | None) -> tuple[int, bool]:
        """Push every event from now on, or from a sequence on: (where it begins, whether some are missed)."""
        with self._changed:
            begin = self._last if after is None else after
            for event in self._kept:
                if event.sequence > begin:
                    push(Notification(event))
            if push not in self._listeners:
                self._listeners.append(push)
            return begin, self._missed(begin)

    def stop_listening(self, push: Callable[[Notification], None]) -> None:
        with self._changed:
            if push in self._listeners:
                self._listeners.remove(push)

    def _missed(self, after: int) -> bool:
        """Whether what follows ``after`` is no longer, or was never, kept here."""
        oldest = self._kept[0].sequence - 1 if len(self._kept) == self._kept.maxlen else self._first
        return after < oldest or after > self._last
