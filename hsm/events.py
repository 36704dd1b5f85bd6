# SPDX-License-Identifier: Apache-2.0
"""The log of what happened, for clients that poll and clients that listen.

Sequence numbers begin at the time of the start in microseconds; so they go on increasing over restarts without being
written down, and a client with a number from before a restart is told that it missed something.

What concerns tasks that a client owns is for that owner alone; others go past it without seeing it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import takewhile

import msgspec

from libvdsm.api.event import EventData, EventInfo, EventPage
from libvdsm.log import Log
from libvdsm.server.caller import OwnerKey
from libvdsm.wire.messages import Notification

log = Log("hsm.events")


Push = Callable[[Notification], None]
Viewer = Callable[[], OwnerKey | None]
"""Whose tasks a listener owns, now: a session may begin on its connection at any time."""


def _nobody() -> None:
    """One who owns no tasks."""


class EventLog:
    """The last events, in order."""

    def __init__(self, keep: int) -> None:
        self._kept: deque[tuple[EventInfo, OwnerKey | None]] = deque(maxlen=keep)
        self._changed = threading.Condition()
        self._last = self._first = int(time.time() * 1_000_000)
        self._listeners: dict[Push, Viewer] = {}

    def emit(self, data: EventData, owner: OwnerKey | None = None) -> None:
        """Something happened.  ``owner``: whom alone it concerns; None: everybody."""
        with self._changed:
            self._last += 1
            event = EventInfo(
                sequence=self._last, time=time.time(), name=type(data).__name__, data=msgspec.to_builtins(data)
            )
            self._kept.append((event, owner))
            self._changed.notify_all()
            for push, viewer in self._listeners.items():
                if owner is None or owner == viewer():
                    push(Notification(event))
        log.debug("event", kind=event.name, data=event.data)

    def poll(self, after: int | None, timeout: float, limit: int, viewer: OwnerKey | None = None) -> EventPage:
        """The events after a sequence, waiting for one up to ``timeout`` seconds; without one, where to begin."""
        with self._changed:
            if after is None:
                after = self._last
            begin = looked = after

            def news() -> bool:
                nonlocal looked
                since, looked = looked, self._last
                newer = takewhile(lambda kept: kept[0].sequence > since, reversed(self._kept))
                return self._missed(begin) or any(owner in (None, viewer) for _, owner in newer)

            self._changed.wait_for(news, timeout)
            items = [event for event, owner in self._kept if event.sequence > after and owner in (None, viewer)][:limit]
            following = items[-1].sequence if items else self._last
            return EventPage(items=items, next=following, missed=self._missed(after))

    def listen(self, push: Push, after: int | None, viewer: Viewer = _nobody) -> tuple[int, bool]:
        """Push every event from now on, or from a sequence on: (where it begins, whether some are missed)."""
        with self._changed:
            begin = self._last if after is None else after
            for event, owner in self._kept:
                if event.sequence > begin and owner in (None, viewer()):
                    push(Notification(event))
            self._listeners[push] = viewer
            return begin, self._missed(begin)

    def stop_listening(self, push: Push) -> None:
        with self._changed:
            self._listeners.pop(push, None)

    def _missed(self, after: int) -> bool:
        """Whether what follows ``after`` is no longer, or was never, kept here."""
        oldest = self._kept[0][0].sequence - 1 if len(self._kept) == self._kept.maxlen else self._first
        return after < oldest or after > self._last
