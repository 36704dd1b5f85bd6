# SPDX-License-Identifier: Apache-2.0
"""Presence: who is there is told by connections, and by the kernel when a peer hangs up."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from libvdsm.declare import Right
from libvdsm.server.caller import Connection, OwnerKey
from libvdsm.server.presence import Presence, Stage

ME, OTHER = OwnerKey("1000", "me"), OwnerKey("1000", "other")
PATIENCE = 10.0
SOON = 0.02
LONG = 3600.0

Make = Callable[..., Presence]


@pytest.fixture
def gone() -> queue.Queue[tuple[str, OwnerKey]]:
    """Who was told to be gone."""
    return queue.Queue()


@pytest.fixture
def make(gone: queue.Queue[tuple[str, OwnerKey]]) -> Iterator[Make]:
    made: list[Presence] = []

    def presence(first: float = SOON, second: float = LONG, matters: bool = True) -> Presence:
        stages = [
            Stage(first, lambda owner: gone.put(("first", owner))),
            Stage(second, lambda owner: gone.put(("second", owner))),
        ]
        made.append(Presence(stages, lambda owner: matters))
        return made[-1]

    yield presence
    for each in made:
        each.close()


@pytest.fixture
def peers() -> Iterator[tuple[Connection, socket.socket]]:
    """A connection, and the client's end of it."""
    near, far = socket.socketpair()
    yield Connection("unix", "a test", Right.READ, descriptor=near.fileno()), far
    near.close()
    far.close()


def nobody(gone: queue.Queue[tuple[str, OwnerKey]]) -> bool:
    """Nobody is told to be gone, for longer than it would take."""
    try:
        gone.get(timeout=5 * SOON)
    except queue.Empty:
        return True
    return False


def test_a_peer_that_hangs_up_is_gone_though_nobody_reads_from_it(
    make: Make, gone: queue.Queue[tuple[str, OwnerKey]], peers: tuple[Connection, socket.socket]
) -> None:
    connection, client = peers
    presence = make()
    presence.hold(ME, connection)
    presence.note(ME)
    client.sendall(b"a call that nobody has read")
    assert nobody(gone)
    before = time.monotonic()
    client.close()
    assert gone.get(timeout=PATIENCE) == ("first", ME)
    assert time.monotonic() - before >= SOON


def test_an_owner_is_there_while_one_of_its_connections_is(make: Make, gone: queue.Queue[tuple[str, OwnerKey]]) -> None:
    presence = make()
    first, second = (Connection("local", "a test", Right.READ) for _ in range(2))
    presence.hold(ME, first)
    presence.hold(ME, second)
    presence.note(ME)
    presence.release(first)
    assert nobody(gone)
    presence.release(second)
    assert gone.get(timeout=PATIENCE) == ("first", ME)


def test_who_comes_back_in_time_was_never_gone(make: Make, gone: queue.Queue[tuple[str, OwnerKey]]) -> None:
    presence = make(first=5 * SOON)
    connection = Connection("local", "a test", Right.READ)
    presence.hold(ME, connection)
    presence.note(ME)
    presence.release(connection)
    presence.hold(ME, connection)
    assert nobody(gone)
    assert nobody(gone)


def test_a_call_that_is_answered_is_presence_and_silence_after_it_is_not(
    make: Make, gone: queue.Queue[tuple[str, OwnerKey]]
) -> None:
    presence = make()
    with presence.during(ME, Connection("http", "a test", Right.READ)):
        presence.note(ME)
        assert nobody(gone)
    assert gone.get(timeout=PATIENCE) == ("first", ME)


def test_stages_come_one_after_the_other_and_are_told_once(make: Make, gone: queue.Queue[tuple[str, OwnerKey]]) -> None:
    presence = make(second=4 * SOON)
    presence.note(ME)
    assert gone.get(timeout=PATIENCE) == ("first", ME)
    assert gone.get(timeout=PATIENCE) == ("second", ME)


def test_who_still_has_something_after_the_last_stage_is_told_of_again(
    make: Make, gone: queue.Queue[tuple[str, OwnerKey]]
) -> None:
    presence = make(second=2 * SOON)
    presence.note(ME)
    assert [gone.get(timeout=PATIENCE)[0] for _ in range(4)] == ["first", "second", "first", "second"]


def test_owners_on_whom_nothing_hangs_take_no_memory(make: Make) -> None:
    presence = make(second=2 * SOON, matters=False)
    for number in range(100):
        connection = Connection("local", "a test", Right.READ)
        presence.hold(OwnerKey("1000", str(number)), connection)
        presence.release(connection)
    assert presence._owners == {}
    presence.note(ME)
    until = time.monotonic() + PATIENCE
    while presence._owners and time.monotonic() < until:
        time.sleep(0.002)
    assert presence._owners == {}
    assert presence._held == {}
    assert presence._watched == {}


def test_a_task_that_came_with_the_last_word_of_its_owner_is_noticed(
    make: Make, gone: queue.Queue[tuple[str, OwnerKey]], peers: tuple[Connection, socket.socket]
) -> None:
    connection, client = peers
    presence = make()
    presence.hold(ME, connection)
    client.close()
    until = time.monotonic() + PATIENCE
    while presence._held and time.monotonic() < until:
        time.sleep(0.002)
    presence.note(ME)
    assert gone.get(timeout=PATIENCE) == ("first", ME)


def test_each_owner_is_told_of_by_itself(make: Make, gone: queue.Queue[tuple[str, OwnerKey]]) -> None:
    presence = make()
    stays = Connection("local", "a test", Right.READ)
    presence.hold(OTHER, stays)
    presence.note(OTHER)
    presence.note(ME)
    assert gone.get(timeout=PATIENCE) == ("first", ME)
    assert nobody(gone)


def test_a_connection_stands_for_one_owner(make: Make, gone: queue.Queue[tuple[str, OwnerKey]]) -> None:
    presence = make()
    connection = Connection("local", "a test", Right.READ)
    presence.hold(ME, connection)
    presence.note(ME)
    presence.hold(OTHER, connection)
    presence.note(OTHER)
    assert gone.get(timeout=PATIENCE) == ("first", ME)
    assert nobody(gone)


def test_without_owners_there_is_no_thread_and_closing_ends_it(
    make: Make, peers: tuple[Connection, socket.socket]
) -> None:
    others = set(threading.enumerate())

    def threads() -> int:
        return sum(thread.name == "owners" for thread in set(threading.enumerate()) - others)

    presence = make()
    assert threads() == 0
    presence.hold(ME, peers[0])
    assert threads() == 1
    presence.close()
    until = time.monotonic() + PATIENCE
    while threads() and time.monotonic() < until:
        time.sleep(0.002)
    assert threads() == 0
    presence.hold(ME, peers[0])
    presence.release(peers[0])
    assert threads() == 0
