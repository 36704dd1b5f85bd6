# SPDX-License-Identifier: Apache-2.0
"""Framed JSON-RPC on a stream: a socket, or a pair of pipes.

The connection is the session.  Events go out between replies, through a queue of their own: a client that does not
read them loses its connection, and learns from the sequence numbers what it missed.
"""

from __future__ import annotations

import array
import os
import queue
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from libvdsm.log import Log
from libvdsm.server import jsonrpc
from libvdsm.server.caller import Connection
from libvdsm.server.dispatch import Dispatcher
from libvdsm.server.listener import Limits
from libvdsm.threads import Thread
from libvdsm.wire.framing import Framer, frame
from libvdsm.wire.jsonrpc import encode_event, encode_reply
from libvdsm.wire.messages import BadMessage, Notification

log = Log("libvdsm.framed")

_QUEUE = 10_000
_MAX_DESCRIPTORS = 8
_ANCILLARY = socket.CMSG_SPACE(_MAX_DESCRIPTORS * 4)


class FramedServer:
    """Serves framed JSON-RPC with one dispatcher."""

    def __init__(self, dispatcher: Dispatcher, limits: Limits) -> None:
        self._dispatcher = dispatcher
        self._limits = limits

    def serve_socket(self, sock: socket.socket, connection: Connection) -> None:
        """Serve a connected socket until its client goes away."""
        unix = sock.family == socket.AF_UNIX
        connection.carries_descriptors = unix
        pusher = _Pusher(sock.sendall, lambda: sock.shutdown(socket.SHUT_RDWR))
        connection.push = pusher.push
        connection.is_session = True
        connection.on_close.append(pusher.stop)
        framer = Framer(self._limits.message)
        held: list[int] = []
        fresh: list[int] = []
        try:
            while True:
                try:
                    data, received = _receive(sock) if unix else (sock.recv(65536), [])
                except BlockingIOError:
                    if connection.subscribed:
                        continue
                    log.debug("silent for too long", peer=connection.peer)
                    return
                fresh += received
                if not data:
                    return
                if not self._take(data, framer, connection, held, fresh, pusher.send):
                    return
        finally:
            _close(held)
            _close(fresh)

    def serve_pipes(self, incoming: int, outgoing: int, connection: Connection, first: bytes = b"") -> None:
        """Serve a pair of pipes until the incoming one ends; ``first`` was read from it already."""
        pusher = _Pusher(lambda data: _write_all(outgoing, data), lambda: os.close(incoming))
        connection.push = pusher.push
        connection.is_session = True
        connection.on_close.append(pusher.stop)
        framer = Framer(self._limits.message)
        data = first or os.read(incoming, 65536)
        while data:
            if not self._take(data, framer, connection, [], [], pusher.send):
                return
            data = os.read(incoming, 65536)

    def _take(
        self,
        data: bytes,
        framer: Framer,
        connection: Connection,
        held: list[int],
        fresh: list[int],
        send: Callable[[bytes], None],
    ) -> bool:
        """Answer the messages that these bytes complete; false when the stream cannot be gone on with.

        The kernel ends a read behind the bytes that descriptors came with, so ``fresh`` ones belong to the last of
        these messages, or to the one that has begun; ``held`` ones to the one that had begun before.
        """
        try:
            for message in framer.feed(data):
                if fresh and not framer.pending:
                    _move(fresh, held)
                try:
                    reply = jsonrpc.answer(
                        self._dispatcher, message, connection, descriptors=held, nesting=self._limits.nesting
                    )
                finally:
                    _close(held)
                if reply is not None:
                    send(frame(reply))
            _move(fresh, held)
        except BadMessage as error:
            send(frame(encode_reply(jsonrpc.refusal(error))))
            return False
        return True


class _Pusher:
    """Writes replies and events to one client, each whole; events through a queue and a thread, begun when needed."""

    def __init__(self, write: Callable[[bytes], object], hang_up: Callable[[], object]) -> None:
        self._write = write
        self._hang_up = hang_up
        self._lock = threading.Lock()
        self._queue: queue.Queue[Notification | None] = queue.Queue(_QUEUE)
        self._thread: Thread | None = None

    def send(self, data: bytes) -> None:
        with self._lock:
            self._write(data)

    def push(self, notification: Notification) -> None:
        if self._thread is None:
            self._thread = Thread("events", self._run)
            self._thread.start()
        try:
            self._queue.put_nowait(notification)
        except queue.Full:
            self._give_up()

    def stop(self) -> None:
        if self._thread is not None:
            with suppress(queue.Full):
                self._queue.put_nowait(None)

    def _give_up(self) -> None:
        with suppress(OSError):
            self._hang_up()

    def _run(self) -> None:
        while (notification := self._queue.get()) is not None:
            try:
                self.send(frame(encode_event(notification)))
            except OSError:
                self._give_up()
                return


def _receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    data, ancillary, flags, _ = sock.recvmsg(65536, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
    if not ancillary:
        return data, []
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    received = list(descriptors)
    if flags & socket.MSG_CTRUNC:
        _close(received)
        msg = f"more than {_MAX_DESCRIPTORS} descriptors with one message"
        raise OSError(msg)
    return data, received


def _move(descriptors: list[int], to: list[int]) -> None:
    to += descriptors
    descriptors.clear()


def _close(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
