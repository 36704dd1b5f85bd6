# SPDX-License-Identifier: Apache-2.0
"""Sessions: where a connection lasts it is the session; over HTTP an id stands for it, for a while."""

from __future__ import annotations

import time
import uuid

import pytest

from libvdsm.api.errors import InvalidParameter, NoSuchSession
from libvdsm.api.types import SessionId, TaskMode
from libvdsm.server.caller import SessionRecord
from libvdsm.server.dispatch import Sessions
from tests.server.raw import Framed, Post, Served


def record(user: str = "me") -> SessionRecord:
    return SessionRecord(SessionId(uuid.uuid4()), TaskMode.NON_TRANSPARENT, time.time(), user=user)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set."""
    now = [1e9]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_session_is_found_by_its_id() -> None:
    sessions, mine = Sessions(60), record()
    sessions.add(mine)
    assert sessions.find(str(mine.id), "me") is mine


def test_it_is_found_by_nobody_else() -> None:
    sessions, mine = Sessions(60), record()
    sessions.add(mine)
    with pytest.raises(NoSuchSession):
        sessions.find(str(mine.id), "another")


@pytest.mark.parametrize("text", ["", "x", "0" * 31, "0" * 100_000, "\0"])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        Sessions(60).find(text, "me")
    assert len(caught.value.message) < 300


def test_a_session_ends_after_a_time_of_silence(clock: list[float]) -> None:
    sessions, mine = Sessions(60), record()
    sessions.add(mine)
    for _ in range(3):
        clock[0] += 59
        assert sessions.find(str(mine.id), "me") is mine
    clock[0] += 61
    with pytest.raises(NoSuchSession):
        sessions.find(str(mine.id), "me")


def test_sessions_that_ended_take_no_memory(clock: list[float]) -> None:
    sessions = Sessions(60)
    for _ in range(100):
        sessions.add(record())
        clock[0] += 30
    assert len(sessions._records) <= 3


def test_who_opens_very_many_loses_the_oldest_and_others_lose_none(clock: list[float]) -> None:
    sessions, another, first = Sessions(1e9), record("another"), record()
    sessions.add(another)
    sessions.add(first)
    for _ in range(1000):
        clock[0] += 1
        sessions.add(record())
    assert len(sessions._records) == 1001
    assert sessions.find(str(another.id), "another") is another
    with pytest.raises(NoSuchSession):
        sessions.find(str(first.id), "me")


def test_a_framed_connection_is_its_session(served: Served, framed: Framed) -> None:
    assert "id" not in framed.result("Session.getInfo")
    opened = framed.result("Session.open", {"name": "a test"})
    info = framed.result("Session.getInfo")
    assert (info["id"], info["name"], info["opened"]) == (opened["id"], "a test", opened["opened"])
    with Framed(served.unix) as other:
        assert "id" not in other.result("Session.getInfo")
        # It belongs to that connection, and is no key to it.
        assert other.call("Host.ping", session=opened["id"])["error"]["data"]["name"] == "NoSuchSession"


def test_over_http_a_header_carries_it(served: Served, post: Post) -> None:
    opened = post.call("Session.open", {"name": "over http"})
    assert post.call("Session.getInfo", Session_Id=opened["id"])["name"] == "over http"
    assert "name" not in post.call("Session.getInfo")
    with Post(served.http) as other:
        assert other.call("Session.getInfo", Session_Id=opened["id"])["id"] == opened["id"]


def test_a_header_that_names_none_is_refused(post: Post) -> None:
    assert post.call("Host.ping", Session_Id=str(uuid.uuid4())) == "NoSuchSession"
    assert post.call("Host.ping", Session_Id="nonsense") == "InvalidParameter"
    assert post.call("Host.ping")


def test_a_task_mode_of_nothing_is_refused_with_those_that_there_are(framed: Framed) -> None:
    for mode in ("nonsense", "unknown"):
        error = framed.call("Session.open", {"taskMode": mode})["error"]
        assert error["data"]["name"] == "InvalidParameter"
        assert error["message"] == "Session.open: taskMode is one of nonTransparent, transparent, default."
