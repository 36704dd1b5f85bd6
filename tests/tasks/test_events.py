# SPDX-License-Identifier: Apache-2.0
"""The log of events: nobody misses one without being told."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

from hsm.events import EventLog
from libvdsm.api.event import DomainChanged, EventInfo
from libvdsm.api.types import DomainId
from libvdsm.wire.messages import Notification
from tests.tasks.scripted import PATIENCE

NUMBERS = [DomainId(uuid.UUID(int=number)) for number in range(100)]


def emit(log: EventLog, *numbers: int) -> None:
    for number in numbers:
        log.emit(DomainChanged(domain=NUMBERS[number]))


def told(events: list[EventInfo]) -> list[int]:
    """The numbers that were emitted."""
    return [uuid.UUID(event.data["domain"]).int for event in events]


def begin(log: EventLog) -> int:
    return log.poll(None, 0.0, 100).next


def test_the_first_poll_says_where_to_begin() -> None:
    log = EventLog(10)
    emit(log, 1)
    page = log.poll(None, 0.0, 100)
    assert (page.items, page.missed) == ([], False)
    emit(log, 2)
    assert told(log.poll(page.next, 0.0, 100).items) == [2]


def test_a_poll_answers_what_came_after_in_order_and_where_to_go_on() -> None:
    log = EventLog(100)
    after = begin(log)
    emit(log, *range(10))
    seen: list[int] = []
    while page := log.poll(after, 0.0, 3):
        if not page.items:
            break
        assert len(page.items) <= 3
        assert page.next == page.items[-1].sequence
        seen += told(page.items)
        after = page.next
    assert seen == list(range(10))
    assert log.poll(after, 0.0, 3).next == after


def test_an_event_says_what_and_when() -> None:
    log = EventLog(10)
    after = begin(log)
    emit(log, 1)
    (event,) = log.poll(after, 0.0, 10).items
    assert (event.name, event.data) == ("DomainChanged", {"domain": str(NUMBERS[1])})
    assert event.sequence == after + 1


def test_a_poll_waits_for_an_event() -> None:
    log = EventLog(10)
    after = begin(log)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(log.poll, after, PATIENCE, 10)
        emit(log, 1)
        assert told(waiting.result(PATIENCE).items) == [1]


def test_a_poll_ends_without_an_event_when_its_time_is_over() -> None:
    log = EventLog(10)
    after = begin(log)
    page = log.poll(after, 0.01, 10)
    assert (page.items, page.next, page.missed) == ([], after, False)


def test_who_was_too_slow_is_told_so_and_goes_on_with_what_is_kept() -> None:
    log = EventLog(3)
    after = begin(log)
    emit(log, 1, 2, 3)
    assert not log.poll(after, 0.0, 10).missed, "all are kept"
    emit(log, 4)
    page = log.poll(after, 0.0, 10)
    assert page.missed
    assert told(page.items) == [2, 3, 4]
    assert not log.poll(page.next, 0.0, 10).missed, "from here on nothing is missed"


def test_a_sequence_from_before_a_restart_is_older_and_tells_that_events_are_missed() -> None:
    before = EventLog(10)
    emit(before, 1)
    after = begin(before)
    again = EventLog(10)
    emit(again, 2)
    page = again.poll(after, PATIENCE, 10)
    assert page.missed
    assert told(page.items) == [2]
    assert page.next > after
    assert not again.poll(page.next, 0.0, 10).missed


def test_a_sequence_that_was_never_given_is_told_at_once() -> None:
    log = EventLog(10)
    page = log.poll(begin(log) + 10**9, PATIENCE, 10)
    assert (page.items, page.missed) == ([], True)


def test_listeners_are_told_of_everything_from_where_they_want_to_begin() -> None:
    log = EventLog(10)
    start = begin(log)
    emit(log, 1, 2)
    from_now, from_start = list[Notification](), list[Notification]()
    assert log.listen(from_now.append, None) == (start + 2, False)
    assert log.listen(from_start.append, start) == (start, False)
    emit(log, 3)
    assert told([item.event for item in from_now]) == [3]
    assert told([item.event for item in from_start]) == [1, 2, 3]


def test_a_listener_that_begins_too_late_is_told_so() -> None:
    log = EventLog(2)
    start = begin(log)
    emit(log, 1, 2, 3)
    heard = list[Notification]()
    push = heard.append
    assert log.listen(push, start) == (start, True)
    assert told([item.event for item in heard]) == [2, 3]


def test_a_listener_hears_everything_once_until_it_stops() -> None:
    log = EventLog(10)
    heard = list[Notification]()
    push = heard.append
    log.listen(push, None)
    log.listen(push, None)
    emit(log, 1)
    log.stop_listening(push)
    log.stop_listening(push)
    emit(log, 2)
    assert told([item.event for item in heard]) == [1]


def test_nobody_misses_an_event_while_many_threads_emit() -> None:
    log = EventLog(1000)
    after = begin(log)
    heard = list[Notification]()
    log.listen(heard.append, after)
    threads = [threading.Thread(target=emit, args=(log, *range(50))) for _ in range(8)]
    for thread in threads:
        thread.start()
    seen: list[EventInfo] = []
    while len(seen) < 400:
        page = log.poll(after, PATIENCE, 100)
        assert page.items, "an event is missing"
        seen += page.items
        after = page.next
    for thread in threads:
        thread.join()
    sequences = [event.sequence for event in seen]
    assert sequences == list(range(sequences[0], sequences[0] + 400))
    assert [item.event for item in heard] == seen
