# SPDX-License-Identifier: Apache-2.0
"""Limits: who asks for too much is told so or cut off, and everybody else is served on."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from libvdsm.declare import Right
from libvdsm.server.caller import Access
from libvdsm.server.listener import ConnectionCount, Limits, Listener
from libvdsm.wire.framing import frame
from tests import service
from tests.server.conftest import ANY_PORTS
from tests.server.raw import Framed, Post, Served, connected, outcome, request, until, xml

MESSAGE = 65536
NESTING = 16
CONNECTIONS = 6
IDLE = 0.25


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service that takes little at once."""
    limits = {"message": MESSAGE, "nesting": NESTING, "connections": CONNECTIONS}
    settings = [f"limits.{name}={value}" for name, value in limits.items()]
    with service.daemon(tmp_path_factory.mktemp("tight") / "home", *ANY_PORTS, *settings) as running:
        yield Served.of(running)


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service that waits for nobody."""
    home = tmp_path_factory.mktemp("impatient") / "home"
    with service.daemon(home, *ANY_PORTS, f"limits.idle={IDLE}") as running:
        yield Served.of(running)


@pytest.fixture(params=["unix", "tcp"])
def place(request: pytest.FixtureRequest, tight: Served) -> str | tuple[str, int]:
    """Where framed JSON-RPC is spoken."""
    return tight.unix if request.param == "unix" else tight.tcp


def padded(size: int) -> bytes:
    """A good request of this size."""
    message = request("Host.ping")
    return message + b" " * (size - len(message))


def test_a_message_of_the_largest_size_is_answered(place: str | tuple[str, int]) -> None:
    with Framed(place) as framed:
        framed.send(padded(MESSAGE))
        assert "result" in framed.receive()


@pytest.mark.parametrize("length", [MESSAGE + 1, 2**40, 2**64 - 1])
def test_a_message_that_is_too_large_is_refused_by_its_header_and_the_connection_ends(
    place: str | tuple[str, int], length: int
) -> None:
    with Framed(place) as framed:
        framed.send_bytes(length.to_bytes(8, "big"))
        error = framed.receive()["error"]
        assert error["data"]["name"] == "TooLarge"
        assert str(MESSAGE) in error["message"]
        assert framed.is_closed()


def test_messages_before_one_that_is_too_large_are_answered(place: str | tuple[str, int]) -> None:
    with Framed(place) as framed:
        framed.send_bytes(frame(request("Host.ping", call_id="good")) + (2**40).to_bytes(8, "big"))
        assert framed.receive()["id"] == "good"
        assert framed.receive()["error"]["data"]["name"] == "TooLarge"


def test_a_message_nested_too_deep_is_refused_and_the_connection_goes_on(place: str | tuple[str, int]) -> None:
    def nested(depth: int) -> bytes:
        return b'{"jsonrpc":"2.0","id":1,"method":"Host.ping","params":%s}' % (b"[" * depth + b"]" * depth)

    with Framed(place) as framed:
        for depth, name in ((NESTING, "TooLarge"), (NESTING - 1, "InvalidParameter"), (30_000, "TooLarge")):
            framed.send(nested(depth))
            assert framed.receive()["error"]["data"]["name"] == name
        assert framed.result("Host.ping")


def test_so_is_one_of_xml(tight: Served) -> None:
    with Post(tight.http) as post:
        deep = b"<value><array><data>" * 200
        document = xml("Host.ping", {"x": 1}).replace(b"<value><int>1", deep + b"<value><int>1")
        assert outcome(post.status(document)[1]) == "TooLarge"
        assert post.call("Host.ping")


def test_a_document_that_is_too_large_is_refused_by_its_head(tight: Served) -> None:
    with Post(tight.http) as post:
        assert post.status(b" " * 100, Content_Length=str(MESSAGE + 1)) == (413, b"")
    with Post(tight.http) as post:
        good = xml("Host.ping")
        assert post.status(good + b" " * (MESSAGE - len(good)))[0] == 200


def all_closed(connections: list[Framed]) -> bool:
    """Whether the service closes them all, having sent nothing."""
    closed = [connection.is_closed() for connection in connections]
    for connection in connections:
        connection.sock.close()
    return all(closed)


def test_a_silent_connection_ends(impatient: Served) -> None:
    for place in (impatient.unix, impatient.tcp):
        with Framed(place) as framed:
            framed.result("Host.ping")
            began = time.monotonic()
            assert framed.is_closed()
            assert IDLE * 0.5 < time.monotonic() - began < 10
    with Post(impatient.http) as post:
        post.call("Host.ping")
        assert post.http.sock.recv(1) == b""


def test_so_does_one_that_never_says_anything(impatient: Served) -> None:
    places = (impatient.unix, impatient.tcp, impatient.http, str(impatient.daemon.http_socket))
    assert all_closed([Framed(place) for place in places])


def test_so_does_one_that_stops_in_the_middle_of_a_message(impatient: Served) -> None:
    message = frame(request("Host.ping"))
    begun = []
    for place in (impatient.unix, impatient.tcp):
        for part in (1, 8, 20, len(message) - 1):
            begun.append(Framed(place))
            begun[-1].send_bytes(message[:part])
    assert all_closed(begun)


HEAD = b"POST /RPC2 HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\nContent-Length: 500\r\n"


def test_so_does_one_that_stops_in_the_middle_of_a_document(impatient: Served) -> None:
    begun = []
    for part in (b"PO", HEAD[:-10], HEAD, HEAD + b"\r\n", HEAD + b"\r\n<?xml"):
        begun.append(connected(impatient.http))
        begun[-1].sendall(part)
    for sock in begun:
        with sock:
            while answer := sock.recv(65536):
                assert b"200" not in answer
    assert "Traceback" not in impatient.log


def test_a_connection_that_listens_is_not_silent(impatient: Served) -> None:
    listeners = [Framed(place) for place in (impatient.unix, impatient.tcp)]
    for listener in listeners:
        listener.result("Event.subscribe")
    for listener in listeners:
        listener.sock.settimeout(IDLE * 2)
        with pytest.raises(TimeoutError):
            listener.receive()
    for listener in listeners:
        listener.sock.settimeout(10)
        assert listener.result("Host.ping")
        listener.sock.close()


def test_a_call_that_waits_is_not_silent(impatient: Served) -> None:
    with Framed(impatient.unix) as framed:
        after = framed.result("Event.poll")["next"]
        began = time.monotonic()
        while time.monotonic() - began < IDLE * 2:
            after = framed.result("Event.poll", {"after": after, "timeout": IDLE * 2})["next"]


def test_beyond_the_limit_connections_are_refused_and_the_others_are_served_on(tight: Served) -> None:
    with Framed(tight.unix) as probe:
        assert until(lambda: probe.result("Host.getStats")["connections"] == 1)
    taken: list[socket.socket] = []
    try:
        with Framed(tight.unix) as served:
            for _ in range(CONNECTIONS - 1):
                # Each kind counts: they share one limit.
                taken.append(connected((tight.tcp, tight.http, tight.unix)[len(taken) % 3]))
            assert until(lambda: served.result("Host.getStats")["connections"] == CONNECTIONS)
            for place in (tight.unix, tight.tcp, tight.http):
                with Framed(place) as refused:
                    assert refused.is_closed()
            assert served.result("Host.ping")
    finally:
        for sock in taken:
            sock.close()

    def served_alone() -> bool:
        # Until the others' ends have been noticed it is turned away, too.
        with suppress(ConnectionError, EOFError), Framed(tight.unix) as free:
            return bool(free.result("Host.getStats")["connections"] == 1)
        return False

    assert until(served_alone)
    assert "too many connections, one refused" in tight.log


def test_a_client_for_whom_there_is_no_thread_is_turned_away_and_the_next_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket"))
    listening.listen()
    count = ConnectionCount(10)

    def serve(sock: socket.socket, _: object) -> None:
        sock.sendall(b"served")

    access = Access(Right.READ, Right.READ)
    listener = Listener(listening, "unix", serve, access, Limits(1, 1, 10, 60), count)
    listener.start()
    threads = "libvdsm.server.listener.Thread"

    def no_thread(*_: object) -> SimpleNamespace:
        def start() -> None:
            raise RuntimeError("can't start new thread")

        return SimpleNamespace(start=start)

    with monkeypatch.context() as patched:
        patched.setattr(threads, no_thread)
        with connected(str(tmp_path / "socket")) as sock:
            assert sock.recv(100) == b""
    assert until(lambda: count.now == 0)
    with connected(str(tmp_path / "socket")) as sock:
        assert sock.recv(100) == b"served"
    listener.close()


def test_a_client_who_comes_while_it_closes_is_not_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread may begin when the list of those to be ended has been gone through."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket"))
    listening.listen()
    begun: list[Callable[[], None]] = []
    monkeypatch.setattr(
        "libvdsm.server.listener.Thread",
        lambda _, run, *arguments: SimpleNamespace(start=lambda: begun.append(lambda: run(*arguments))),
    )
    count = ConnectionCount(10)
    served: list[object] = []
    access = Access(Right.READ, Right.READ)
    listener = Listener(listening, "unix", lambda sock, _: served.append(sock), access, Limits(1, 1, 10, 60), count)
    listener.start()
    accepting = threading.Thread(target=begun.pop())
    accepting.start()
    with connected(str(tmp_path / "socket")) as sock:
        assert until(lambda: len(begun) == 1)
        listener.close()
        accepting.join(10)
        begun.pop()()
        assert sock.recv(100) == b""
    assert served == []
    assert count.now == 0
