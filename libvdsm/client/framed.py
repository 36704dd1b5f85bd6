# SPDX-License-Identifier: Apache-2.0
"""Clients of framed JSON-RPC: over a socket, a program's standard input and output, or inside one process."""

from __future__ import annotations

import array
import contextlib
import itertools
import os
import socket
import subprocess
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from libvdsm.api import VERBS
from libvdsm.api.errors import ConnectionFailed, NotSupported
from libvdsm.api.event import EventInfo, EventPage, Subscription
from libvdsm.client.client import to_exception, unreachable
from libvdsm.client.listening import Events
from libvdsm.client.prepared import decoder
from libvdsm.declare import Verb
from libvdsm.wire import jsonrpc
from libvdsm.wire.framing import Framer, frame
from libvdsm.wire.messages import BadMessage, Call, Notification, Reply

_LIMIT = 2**30


class Stream(Protocol):
    """Bytes to a service and back."""

    def send(self, data: bytes, descriptors: Sequence[int]) -> None: ...

    def receive(self) -> bytes: ...

    def close(self) -> None: ...


class SocketStream:
    """A connected socket; a Unix one carries descriptors."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def send(self, data: bytes, descriptors: Sequence[int]) -> None:
        if not descriptors:
            self._sock.sendall(data)
            return
        if self._sock.family != socket.AF_UNIX:
            raise NotSupported(reason="open files travel only over a Unix socket; use hsmd's on its own host")
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        sent = self._sock.sendmsg([data], ancillary)
        self._sock.sendall(data[sent:])

    def receive(self) -> bytes:
        return self._sock.recv(65536)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()


class ProcessStream:
    """A program that speaks the protocol on its standard input and output, such as ``ssh host hsmd --stdio``."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def send(self, data: bytes, descriptors: Sequence[int]) -> None:
        if descriptors:
            raise NotSupported(reason="open files travel only over a Unix socket; run hsmctl on that host")
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def receive(self) -> bytes:
        assert self._process.stdout is not None
        return os.read(self._process.stdout.fileno(), 65536)

    def close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


class FramedTransport:
    """Framed JSON-RPC over a stream."""

    def __init__(self, address: str, opener: Callable[[], Stream]) -> None:
        self._address = address
        self._opener = opener
        self._stream = self._open()
        self._framer = Framer(_LIMIT)
        self._messages: Iterator[bytes] = iter(())
        self._early: deque[EventInfo] = deque()
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._session: dict[str, Any] | None = None
        """what the session was opened with, if one was"""

    def _open(self) -> Stream:
        try:
            return self._opener()
        except OSError as error:
            raise unreachable(self._address, error) from None

    def call(
        self, verb: Verb, params: dict[str, Any], descriptors: list[int], request: str | None, task: str | None = None
    ) -> Any:
        with self._lock:
            call_id = next(self._ids)
            message = jsonrpc.encode_call(Call(verb.full, params, call_id, request=request, task=task))
            try:
                self._stream.send(frame(message), descriptors)
                reply = self._reply(call_id)
            except (OSError, EOFError, BadMessage) as error:
                raise unreachable(self._address, error) from None
        if reply.error is not None:
            raise to_exception(reply.error)
        if verb.full == "Session.open":
            self._session = params
        return decoder("result", verb.full).decode(reply.result)

    def _reply(self, call_id: int) -> Reply:
        while True:
            incoming = jsonrpc.decode_reply(self._message())
            if isinstance(incoming, Notification):
                # Events may overtake the reply to the subscription that they follow from.
                self._early.append(incoming.event)
            elif incoming.id in (call_id, None):
                return incoming

    def _message(self) -> bytes:
        while True:
            for message in self._messages:
                return message
            data = self._stream.receive()
            if not data:
                msg = "the service closed the connection"
                raise EOFError(msg)
            self._messages = self._framer.feed(data)

    def events(self, after: int | None) -> Events:
        other = FramedTransport(self._address, self._opener)
        if self._session is not None:
            # A connection of its own is a session of its own, and only this session's owner is told of its tasks.
            other.call(VERBS["Session.open"], self._session, [], None)
        begun: Subscription = other.call(VERBS["Event.subscribe"], {} if after is None else {"after": after}, [], None)
        return Events(begun.after, missed=begun.missed, close=other.close).from_(other._pushed())

    def _pushed(self) -> Iterator[EventInfo]:
        try:
            while True:
                while self._early:
                    yield self._early.popleft()
                incoming = jsonrpc.decode_reply(self._message())
                if isinstance(incoming, Notification):
                    yield incoming.event
        except (OSError, EOFError):
            return
        finally:
            self.close()

    def close(self) -> None:
        self._stream.close()


class LocalTransport:
    """The service in one's own process; through bytes all the same, so that everything is checked as on a wire."""

    def __init__(
        self, answer: Callable[[bytes, Sequence[int]], bytes | None], on_close: Callable[[], None] | None = None
    ) -> None:
        self._answer = answer
        self._on_close = on_close
        self._ids = itertools.count(1)

    def call(
        self, verb: Verb, params: dict[str, Any], descriptors: list[int], request: str | None, task: str | None = None
    ) -> Any:
        call_id = next(self._ids)
        message = jsonrpc.encode_call(Call(verb.full, params, call_id, request=request, task=task))
        answered = self._answer(message, descriptors)
        assert answered is not None
        reply = jsonrpc.decode_reply(answered)
        assert isinstance(reply, Reply)
        if reply.error is not None:
            raise to_exception(reply.error)
        return decoder("result", verb.full).decode(reply.result)

    def events(self, after: int | None) -> Events:
        # In the same session, which does not end with the events.
        return poll_events(LocalTransport(self._answer), after)

    def close(self) -> None:
        """End the session."""
        if self._on_close is not None:
            self._on_close()


class Calls(Protocol):
    """What polling needs of a transport."""

    def call(self, verb: Verb, params: dict[str, Any], descriptors: list[int], request: str | None) -> Any: ...

    def close(self) -> None: ...


def poll_events(transport: Calls, after: int | None) -> Events:
    """Events on a wire that cannot push, over a transport of their own."""
    verb = VERBS["Event.poll"]
    start: EventPage = transport.call(verb, {} if after is None else {"after": after}, [], None)
    first = after if after is not None else start.next
    events = Events(first, missed=start.missed, close=transport.close)

    def polled(page: EventPage, told: Callable[[], None]) -> Iterator[EventInfo]:
        try:
            while True:
                yield from page.items
                page = transport.call(verb, {"after": page.next, "timeout": 30}, [], None)
                if page.missed:
                    told()
        except ConnectionFailed:
            return
        finally:
            transport.close()

    # Weakly: whoever lets go of the events ends the connection with them.
    known = weakref.ref(events)

    def tell() -> None:
        if (listening := known()) is not None:
            listening.missed = True

    return events.from_(polled(start, tell))
