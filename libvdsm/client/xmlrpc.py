# SPDX-License-Identifier: Apache-2.0
"""A client of XML-RPC over HTTP, by TCP or Unix socket, on one kept-alive connection."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from typing import Any

from libvdsm.api.errors import NotSupported
from libvdsm.api.session import SessionInfo
from libvdsm.client.client import to_exception, unreachable
from libvdsm.client.framed import poll_events
from libvdsm.client.listening import Events
from libvdsm.client.prepared import read
from libvdsm.declare import Verb
from libvdsm.wire import xmlrpc
from libvdsm.wire.messages import BadMessage, Call


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


class _TcpConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        super().connect()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class XmlRpcTransport:
    """XML-RPC over one HTTP connection; a session that was opened goes with each call."""

    def __init__(self, address: str, *, path: str = "", host: str = "", port: int = 0) -> None:
        self._address = address
        self._where = (path, host, port)
        self._http = self._connection()
        self._session: str | None = None
        self._lock = threading.Lock()

    def _connection(self) -> http.client.HTTPConnection:
        path, host, port = self._where
        return _UnixConnection(path) if path else _TcpConnection(host, port)

    def call(
        self, verb: Verb, params: dict[str, Any], descriptors: list[int], request: str | None, task: str | None = None
    ) -> Any:
        if descriptors:
            raise NotSupported(reason="XML-RPC carries no open files; use the framed wire over a Unix socket")
        document = xmlrpc.encode_call(Call(verb.full, params))
        headers = {"Content-Type": "text/xml"}
        if self._session:
            headers["Session-Id"] = self._session
        if request:
            headers["Request-Id"] = request
        if task:
            headers["Task-Id"] = task
        with self._lock:
            body = self._post(document, headers)
        try:
            reply = xmlrpc.decode_reply(body)
        except BadMessage as error:
            raise unreachable(self._address, error) from None
        if reply.error is not None:
            raise to_exception(reply.error)
        result = read("result", verb.full, reply.result)
        if isinstance(result, SessionInfo) and result.id is not None:
            self._session = str(result.id)
        return result

    def _post(self, document: bytes, headers: dict[str, str]) -> bytes:
        try:
            self._http.request("POST", "/RPC2", document, headers)
            response = self._http.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._http.close()
            raise unreachable(self._address, error) from None
        if response.status != http.client.OK:
            self._http.close()
            raise unreachable(self._address, OSError(0, f"HTTP status {response.status} {response.reason}"))
        return body

    def events(self, after: int | None) -> Events:
        path, host, port = self._where
        other = XmlRpcTransport(self._address, path=path, host=host, port=port)
        other._session = self._session
        return poll_events(other, after)

    def close(self) -> None:
        sock = self._http.sock
        if sock is not None:
            # Whoever waits for an answer in another thread is woken.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._http.close()
