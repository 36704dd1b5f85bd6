# SPDX-License-Identifier: Apache-2.0
"""Events on a wire that cannot push: asked for again and again."""

from __future__ import annotations

import weakref
from typing import Any

from libvdsm.api.errors import ConnectionFailed
from libvdsm.api.event import EventInfo, EventPage
from libvdsm.client.framed import poll_events
from libvdsm.declare import Verb


class Pages:
    """A transport that answers these pages, and then nothing any more."""

    def __init__(self, *pages: EventPage) -> None:
        self._pages = list(pages)
        self.closed = False

    def call(self, verb: Verb, params: dict[str, Any], descriptors: list[int], request: str | None) -> Any:
        if not self._pages:
            raise ConnectionFailed(address="test", reason="it ended")
        return self._pages.pop(0)

    def close(self) -> None:
        self.closed = True


def page(*sequences: int, missed: bool = False) -> EventPage:
    items = [EventInfo(sequence=number, time=0.0, name="TaskChanged", data={}) for number in sequences]
    return EventPage(items=items, next=sequences[-1] if sequences else 0, missed=missed)


def test_a_gap_between_two_calls_is_told_with_the_event_behind_it() -> None:
    pages = Pages(page(1, 2), page(3), page(90, missed=True), page(91))
    events = poll_events(pages, None)
    told = []
    for event in events:
        told.append((event.sequence, events.missed))
        events.missed = False
    assert told == [(1, False), (2, False), (3, False), (90, True), (91, False)]
    assert pages.closed


def test_a_gap_before_the_first_is_told_at_once() -> None:
    assert poll_events(Pages(page(5, missed=True)), 1).missed


def test_who_lets_go_of_the_events_ends_the_connection() -> None:
    pages = Pages(page(1, 2))
    events = poll_events(pages, None)
    known = weakref.ref(events)
    del events
    assert known() is None
    assert pages.closed


def test_they_can_be_closed() -> None:
    pages = Pages(page(1))
    poll_events(pages, None).close()
    assert pages.closed
