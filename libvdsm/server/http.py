# SPDX-License-Identifier: Apache-2.0
"""XML-RPC over HTTP/1.1 with keep-alive, on the standard library's request handler.

Only ``POST /RPC2`` with ``text/xml``: a web page can make a browser send other types to a loopback port, and this one
only after asking, which nobody here answers.  Over TCP the ``Host`` has to be a name of the loopback address.
"""

from __future__ import annotations

import http.client
import http.server
import re
import socket
from http import HTTPStatus
from typing import Any

from libvdsm.log import Log
from libvdsm.server import xmlrpc
from libvdsm.server.caller import Connection
from libvdsm.server.dispatch import Dispatcher
from libvdsm.server.listener import Limits

log = Log("libvdsm.http")

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_PORT = re.compile(r":[0-9]*\Z")
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n"
_WRONG_TYPE = b"Send the call with the header 'Content-Type: text/xml', as with curl -H 'Content-Type: text/xml' -d ...\n"
_WRONG_METHOD = b"This is XML-RPC: calls are sent by POST to /RPC2, with the header 'Content-Type: text/xml'.\n"


class HttpServer:
    """Serves XML-RPC over HTTP with one dispatcher."""

    def __init__(self, dispatcher: Dispatcher, limits: Limits) -> None:
        self.dispatcher = dispatcher
        self.limits = limits

    def serve_socket(self, sock: socket.socket, connection: Connection) -> None:
        """Serve a connected socket until its client goes away."""
        _Handler(sock, connection, self)


class _Head(http.client.HTTPMessage):
    """A request's head.  Its parser is one for mail, and would ask four times for a type that promises parts."""

    def get_content_type(self) -> str:
        return "text/plain"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    MessageClass = _Head
    # Without a buffer, head and body leave in two packets, and Nagle's algorithm makes each call cost 40 ms.
    wbufsize = -1

    def __init__(self, sock: socket.socket, connection: Connection, server: HttpServer) -> None:
        self._connection = connection
        self._server = server
        super().__init__(sock, (connection.peer, 0), None)  # type: ignore[arg-type]

    def do_POST(self) -> None:
        fields = self._fields()
        length = self._length(fields)
        if length is None:
            return
        document = self.rfile.read(length)
        # None: silent for longer than allowed before the first byte; less: after it, or the client is gone.
        if document is None or len(document) < length:
            self.close_connection = True
            return
        body = xmlrpc.answer(
            self._server.dispatcher,
            document,
            self._connection,
            nesting=self._server.limits.nesting,
            session=fields.get("session-id", [None])[0],
            request=fields.get("request-id", [None])[0],
            task=fields.get("task-id", [None])[0],
        )
        self.wfile.write(_HEAD % len(body) + body)

    def handle_expect_100(self) -> bool:
        """The client waits for this answer, so it must not stay in the buffer."""
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def _fields(self) -> dict[str, list[str]]:
        """The fields of the head by lower-case name; the message's own methods go through all of them each time."""
        fields: dict[str, list[str]] = {}
        for name, value in self.headers.raw_items():
            fields.setdefault(name.lower(), []).append(value)
        return fields

    def _length(self, fields: dict[str, list[str]]) -> int | None:
        """The length of the body, or None after the request was refused."""
        if self.path not in ("/RPC2", "/"):
            self._refuse(HTTPStatus.NOT_FOUND)
        elif not self._meant(fields):
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST)
        elif fields.get("content-type", [""])[0].partition(";")[0].strip().lower() != "text/xml":
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, _WRONG_TYPE)
        elif (length := self._declared_length(fields)) is None:
            self._refuse(HTTPStatus.LENGTH_REQUIRED)
        elif length > self._server.limits.message:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            return length
        return None

    def _meant(self, fields: dict[str, list[str]]) -> bool:
        """Whether the client knows whom it calls: a web page's own name may be made to lead to the loopback address."""
        if self._connection.wire != "http":
            return True
        match fields.get("host", []):
            case [text]:
                return _PORT.sub("", text.strip().lower()) in _LOOPBACK
        return False

    def _declared_length(self, fields: dict[str, list[str]]) -> int | None:
        """What the head says, if it says it once and in the one way that we read."""
        if "transfer-encoding" in fields:
            return None
        match fields.get("content-length", []):
            case [text] if text.isascii() and text.isdigit() and len(text) <= 15:
                return int(text)
        return None

    def _refuse(self, status: HTTPStatus, text: bytes = b"") -> None:
        """The body was not read, so what follows on this connection cannot be told apart: it ends."""
        self.close_connection = True
        self.send_response_only(status)
        if text:
            self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the library refuses; a method that is none of ours is told what is."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            self._refuse(HTTPStatus.NOT_IMPLEMENTED, _WRONG_METHOD)
        else:
            super().send_error(code, message, explain)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("http", text=format % args)
