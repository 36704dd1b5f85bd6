# SPDX-License-Identifier: Apache-2.0
"""Standard input and output as a wire, for ``ssh host hsmd --stdio`` and for scripts.

Framed JSON-RPC as on a socket; or one bare XML-RPC document, from a redirected file say, which is answered with one.
The first byte tells them apart: a frame begins with the high byte of a length, which is zero.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from hsm.app import App
from hsm.config import HsmConfig
from libvdsm.api.errors import TooLarge
from libvdsm.declare import Right
from libvdsm.log import Log
from libvdsm.server import xmlrpc
from libvdsm.server.caller import Connection
from libvdsm.server.dispatch import error_info
from libvdsm.server.framed import FramedServer
from libvdsm.wire.messages import Reply
from libvdsm.wire.xmlrpc import encode_reply

log = Log("hsm.stdio")

_CHUNK = 65536
_STARTING = 5.0
_POLL = 0.05
_XML_STARTS = b"<\xef \t\r\n"


def serve(app: App) -> int:
    """Answer standard input from a service in this process: the exit status."""
    connection = Connection("stdio", "standard input", Right.ADMINISTER, os.getuid(), os.getgid(), os.getpid())
    try:
        first = os.read(0, _CHUNK)
        if not first[:1] or first[0] not in _XML_STARTS:
            FramedServer(app.dispatcher, app.limits).serve_pipes(0, 1, connection, first)
        elif document := _document(first, app.limits.message):
            _write_all(xmlrpc.answer(app.dispatcher, document, connection, nesting=app.limits.nesting))
        else:
            _too_large(app.limits.message)
    except BrokenPipeError:
        log.debug("standard output was closed")
    finally:
        connection.close()
    return 0


def _document(first: bytes, limit: int) -> bytes | None:
    """All of standard input, or None if that is more than a message may be."""
    document = bytearray(first)
    while len(document) <= limit and (data := os.read(0, _CHUNK)):
        document += data
    return bytes(document) if len(document) <= limit else None


def _too_large(limit: int) -> None:
    error = TooLarge(reason=f"a document of more than {limit} bytes, which are the limit")
    _write_all(encode_reply(Reply(None, error=error_info(error))))


def relay(config: HsmConfig) -> int:
    """Hand standard input and output to the service that runs: the exit status."""
    first = os.read(0, _CHUNK)
    if not first:
        return 0
    xml = first[0] in _XML_STARTS
    name = "hsm-http.sock" if xml else "hsm.sock"
    path = Path(config.service.run_dir, name)
    try:
        sock = _connect(str(path))
    except OSError as error:
        print(f"hsmd: a service holds {config.service.run_dir}, and {path}: {error.strerror}", file=sys.stderr)
        return 1
    with sock:
        if not xml:
            return _relay_frames(sock, first)
        if document := _document(first, config.limits.message):
            return _relay_document(sock, document)
        _too_large(config.limits.message)
        return 0


def _connect(path: str) -> socket.socket:
    """A connection to the service, which may just be starting."""
    until = time.monotonic() + _STARTING
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            if time.monotonic() > until:
                raise
            time.sleep(_POLL)
        else:
            return sock


def _relay_document(sock: socket.socket, document: bytes) -> int:
    from http.client import OK, HTTPResponse

    head = (
        "POST /RPC2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: text/xml\r\n"
        f"Content-Length: {len(document)}\r\n\r\n"
    )
    sock.sendall(head.encode() + document)
    response = HTTPResponse(sock, method="POST")
    response.begin()
    body = response.read()
    if response.status != OK:
        print(f"hsmd: the running service refused the document: {response.status} {response.reason}", file=sys.stderr)
        return 1
    _write_all(body)
    return 0


def _relay_frames(sock: socket.socket, first: bytes) -> int:
    # One thread for each direction: a client may send much before it reads.
    threading.Thread(target=_relay_input, args=(sock, first), name="input", daemon=True).start()
    with suppress(BrokenPipeError, ConnectionResetError):
        while data := sock.recv(_CHUNK):
            _write_all(data)
    return 0


def _relay_input(sock: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        while data:
            sock.sendall(data)
            data = os.read(0, _CHUNK)
        sock.shutdown(socket.SHUT_WR)


def _write_all(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]
