# SPDX-License-Identifier: Apache-2.0
"""Listening sockets: one thread accepts, one thread serves each connection.

Threads and blocking reads, because what a call does blocks anyway (tools, file systems, leases), and because this is
the faster way for it.  The number of connections, the time one may be silent and the size of a message are limited.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from libvdsm.log import Log
from libvdsm.server.caller import Access, Connection, peer_credentials
from libvdsm.threads import Thread

log = Log("libvdsm.listener")


@dataclass(frozen=True)
class Limits:
    """What a client may ask of a server."""

    message: int
    nesting: int
    connections: int
    idle: float


class ConnectionCount:
    """How many clients are connected, over all listeners of a server."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self.now = 0

    def enter(self) -> bool:
        with self._lock:
            if self.now >= self._limit:
                return False
            self.now += 1
            return True

    def leave(self) -> None:
        with self._lock:
            self.now -= 1


def listen_unix(path: str, mode: int) -> socket.socket:
    """A listening Unix socket; one left over by a server that is gone is replaced.

    The caller holds the node's lock, so whoever listened there before does no longer.
    """
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        os.chmod(path, mode)
        sock.listen(128)
    except OSError:
        sock.close()
        raise
    return sock


def listen_tcp(host: str, port: int) -> socket.socket:
    """A listening TCP socket."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(128)
    except OSError:
        sock.close()
        raise
    return sock


class Listener:
    """Accepts connections on one socket, and serves each in a thread of its own."""

    def __init__(
        self,
        sock: socket.socket,
        wire: str,
        serve: Callable[[socket.socket, Connection], None],
        access: Access,
        limits: Limits,
        count: ConnectionCount,
    ) -> None:
        self._sock = sock
        self.wire = wire
        self._serve = serve
        self._access = access
        self._limits = limits
        self._count = count
        self._open: set[socket.socket] = set()
        self._closing = False
        self._thread = Thread(f"accept {wire}", self._accept_forever)

    @property
    def address(self) -> str:
        """As a client takes it."""
        name = self._sock.getsockname()
        if isinstance(name, str):
            return f"{self.wire}:{name}"
        host = f"[{name[0]}]" if ":" in name[0] else name[0]
        return f"{self.wire}:{'//' if self.wire == 'http' else ''}{host}:{name[1]}"

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop listening, and end the connections."""
        self._closing = True
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        for sock in list(self._open):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept_forever(self) -> None:
        while not self._closing:
            try:
                sock, _ = self._sock.accept()
            except OSError as error:
                if not self._closing:
                    log.error("cannot accept", wire=self.wire, error=error)
                    time.sleep(0.1)
                continue
            if not self._count.enter():
                log.warning("too many connections, one refused", wire=self.wire, limit=self._limits.connections)
                sock.close()
                continue
            try:
                Thread(f"client {self.wire}", self._run, sock).start()
            except RuntimeError as error:
                log.error("cannot serve a client", wire=self.wire, error=error)
                sock.close()
                self._count.leave()

    def _run(self, sock: socket.socket) -> None:
        self._open.add(sock)
        connection = None
        try:
            # One that was accepted while this closed is in nobody's list, or was ended by now.
            connection = None if self._closing else self._describe(sock)
            if connection is not None:
                self._serve(sock, connection)
        except (OSError, EOFError) as error:
            log.debug("connection ended", wire=self.wire, error=error)
        except Exception:  # the boundary of a connection's thread
            log.exception("connection failed", wire=self.wire)
        finally:
            if connection is not None:
                connection.close()
            self._open.discard(sock)
            sock.close()
            self._count.leave()

    def _describe(self, sock: socket.socket) -> Connection | None:
        seconds = struct.pack("ll", int(self._limits.idle), int(self._limits.idle % 1 * 1e6))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)
        if sock.family == socket.AF_UNIX:
            pid, uid, gid = peer_credentials(sock)
            right = self._access.of_user(uid)
            if right is None:
                return None
            return Connection(self.wire, f"pid {pid}", right, uid, gid, pid, sock.fileno())
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._access.anonymous is None:
            return None
        return Connection(self.wire, str(sock.getpeername()[0]), self._access.anonymous, descriptor=sock.fileno())
