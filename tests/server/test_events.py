# SPDX-License-Identifier: Apache-2.0
"""Events: in order, none lost unseen, and a client that does not read them is no burden to others."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hsm.app import App
from hsm.events import EventLog
from libvdsm.api.event import DomainChanged, EventInfo
from libvdsm.api.types import DomainId
from libvdsm.wire.messages import Notification
from tests import service
from tests.server.raw import PATIENCE, Framed, Post, Served, until

CHANGED = DomainChanged(domain=DomainId(uuid.UUID(int=1)))


def make_image(framed: Framed) -> dict[str, Any]:
    """Something happens: the image that was made, which is deleted again."""
    [domain] = framed.result("Domain.list")["items"]
    task = framed.result("Image.create", {"domain": domain["id"], "capacity": 2**20})
    ended = framed.finish(task)
    framed.finish(framed.result("Image.delete", {"domain": domain["id"], "image": task["image"]}))
    return dict(ended)


def received(framed: Framed, name: str, **data: Any) -> list[dict[str, Any]]:
    """The events up to one with this name and these members."""
    events = []
    while True:
        message = framed.receive()
        assert message.keys() == {"jsonrpc", "method", "params"}
        assert message["method"] == "event"
        event = message["params"]
        events.append(event)
        if event["name"] == name and event["data"].items() >= data.items():
            return events


def test_events_come_as_notifications_in_order(served: Served, framed: Framed) -> None:
    with Framed(served.unix) as listener:
        begun = listener.result("Event.subscribe")
        task = make_image(framed)
        events = received(listener, "ImageDeleted", image=task["image"])
    sequences = [event["sequence"] for event in events]
    assert begun["missed"] is False
    assert begun["after"] < sequences[0]
    assert sequences == sorted(set(sequences))
    ours = [event for event in events if event["data"].get("task") == task["id"]]
    assert [event["data"]["state"] for event in ours][-1] == "succeeded"
    assert "VolumeCreated" in [event["name"] for event in events]


def test_whoever_may_read_may_listen(served: Served, framed: Framed) -> None:
    with Framed(served.tcp) as listener:
        listener.result("Event.subscribe")
        task = make_image(framed)
        received(listener, "ImageDeleted", image=task["image"])


def test_calls_are_answered_between_events(served: Served, framed: Framed) -> None:
    with Framed(served.unix) as listener:
        listener.result("Event.subscribe")
        make_image(framed)
        assert listener.result("Host.ping")
        assert listener.result("Host.ping")


def test_what_happened_after_a_sequence_is_told_again(served: Served, framed: Framed) -> None:
    after = framed.result("Event.poll")["next"]
    task = make_image(framed)
    page = framed.result("Event.poll", {"after": after})
    with Framed(served.unix) as listener:
        listener.send(b'{"jsonrpc":"2.0","id":1,"method":"Event.subscribe","params":{"after":%d}}' % after)
        messages = [listener.receive() for _ in range(len(page["items"]) + 1)]
    [reply] = [message for message in messages if "id" in message]
    assert reply["result"] == {"after": after, "missed": False}
    assert [message["params"] for message in messages if "id" not in message] == page["items"]
    assert page["items"][-1]["sequence"] == page["next"]
    assert any(event["data"].get("image") == task["image"] for event in page["items"])


def test_whoever_subscribes_twice_is_told_once(served: Served, framed: Framed) -> None:
    with Framed(served.unix) as listener:
        listener.result("Event.subscribe")
        listener.result("Event.subscribe")
        task = make_image(framed)
        events = received(listener, "ImageDeleted", image=task["image"])
    assert len({event["sequence"] for event in events}) == len(events)


def test_over_http_events_are_polled(post: Post, framed: Framed) -> None:
    assert post.call("Event.subscribe") == "NotSupported"
    after = framed.result("Event.poll")["next"]
    make_image(framed)
    page = framed.result("Event.poll", {"after": after, "limit": 2})
    assert len(page["items"]) == 2
    assert page["next"] == page["items"][-1]["sequence"]


def test_polling_waits_for_the_next_event(served: Served, framed: Framed) -> None:
    after = framed.result("Event.poll")["next"]
    pages: list[Any] = []
    begun = threading.Event()

    def poll() -> None:
        with Framed(served.unix) as other:
            begun.set()
            pages.append(other.result("Event.poll", {"after": after, "timeout": PATIENCE}))

    thread = threading.Thread(target=poll)
    thread.start()
    begun.wait(PATIENCE)
    make_image(framed)
    thread.join(PATIENCE)
    assert pages[0]["items"]
    assert pages[0]["items"][0]["sequence"] > after


def test_after_a_restart_a_client_is_told_that_it_missed_something(tmp_path: Path) -> None:
    with service.daemon(tmp_path / "home") as running, Framed(str(running.socket)) as framed:
        after = framed.result("Event.poll")["next"]
    with service.daemon(tmp_path / "home") as running, Framed(str(running.socket)) as framed:
        page = framed.result("Event.poll", {"after": after})
        assert page["missed"]
        assert page["next"] > after
        assert framed.result("Event.subscribe", {"after": after})["missed"]
        assert not framed.result("Event.subscribe", {"after": page["next"]})["missed"]


def test_a_sequence_from_the_future_counts_as_missed(framed: Framed) -> None:
    assert framed.result("Event.poll", {"after": 2**62})["missed"]


class Times(list[EventInfo]):
    """Who is told of events."""

    def push(self, notification: Notification) -> None:
        self.append(notification.event)


def test_a_log_keeps_as_many_as_it_is_told() -> None:
    log = EventLog(10)
    begin = log.poll(None, 0, 1).next
    for _ in range(10):
        log.emit(CHANGED)
    assert not log.poll(begin, 0, 100).missed
    log.emit(CHANGED)
    page = log.poll(begin, 0, 100)
    assert page.missed
    assert len(page.items) == 10
    assert not log.poll(page.items[0].sequence, 0, 100).missed


def test_whoever_stops_listening_is_told_nothing_more() -> None:
    log, times = EventLog(10), Times()
    log.listen(times.push, None)
    log.emit(CHANGED)
    log.stop_listening(times.push)
    log.stop_listening(times.push)
    log.emit(CHANGED)
    assert len(times) == 1


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[App]:
    """A service in this process whose socket clients reach."""
    with service.in_process(tmp_path / "home", listen__unix="yes") as app:
        yield app


def place(app: App) -> str:
    return f"{app.config.service.run_dir}/hsm.sock"


def sequences(framed: Framed, count: int) -> list[int]:
    return [framed.receive()["params"]["sequence"] for _ in range(count)]


def drained(framed: Framed) -> bool:
    """Whether the connection has ended, after what was sent before."""
    try:
        while True:
            framed.receive()
    except (EOFError, ConnectionResetError):
        return True


def test_a_client_that_does_not_read_loses_its_connection_and_the_others_lose_nothing(listening: App) -> None:
    with Framed(place(listening)) as slow, Framed(place(listening)) as good:
        for framed in (slow, good):
            framed.result("Event.subscribe")
        told: list[int] = []
        for _ in range(14):
            for _ in range(1000):
                listening.events.emit(CHANGED)
            told += sequences(good, 1000)
        assert told == list(range(told[0], told[0] + 14_000))
        assert until(lambda: listening._count.now == 1)
        assert drained(slow)
        assert good.result("Host.ping")


def test_a_client_that_was_away_for_long_is_told_all_that_is_kept(listening: App) -> None:
    after = listening.events.poll(None, 0, 1).next
    kept = listening.config.tasks.events
    for _ in range(kept):
        listening.events.emit(CHANGED)
    with Framed(place(listening)) as framed:
        framed.send(b'{"jsonrpc":"2.0","id":1,"method":"Event.subscribe","params":{"after":%d}}' % after)
        told: list[int] = []
        while len(told) < kept:
            message = framed.receive()
            if "id" not in message:
                told.append(message["params"]["sequence"])
    # The service's own tasks may have added some.
    assert told == list(range(told[0], told[0] + kept))
    assert told[0] > after


def test_the_end_of_a_connection_is_the_end_of_its_subscription(listening: App) -> None:
    with Framed(place(listening)) as framed:
        framed.result("Event.subscribe")
    assert until(lambda: not listening.events._listeners)


def test_a_file_name_that_is_no_text_does_not_keep_events_from_being_sent(listening: App) -> None:
    name = b"caf\xe9".decode(errors="surrogateescape")
    with Framed(place(listening)) as framed:
        framed.result("Event.subscribe")
        listening.events.emit(DomainChanged(domain=name))  # type: ignore[arg-type]
        listening.events.emit(CHANGED)
        events = received(framed, "DomainChanged", domain=str(CHANGED.domain))
    assert "caf\ufffd" in json.dumps(events, ensure_ascii=False)
