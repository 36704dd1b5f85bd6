# SPDX-License-Identifier: Apache-2.0
"""Standard input and output as a wire, for ``ssh host hsmd --stdio`` and for scripts.

Framed JSON-RPC as on a socket; or one bare XML-RPC document, from a redirected file say, which is answered with one.
The first byte tells them apart: a frame begins with the high byte of a length, which is zero.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
import time
from pathlib import Path

from hsm.app import App
from hsm.config import HsmConfig
from libvdsm.declare import Right
from libvdsm.server import xmlrpc
from libvdsm.server.caller import Connection
from libvdsm.server.framed import FramedServer

_CHUNK = 65536
_STARTING = 5.0
_POLL = 0.05
_XML_STARTS = b"<\xef \t\r\n"


def serve(app: App) -> int:
    """Answer standard input from a service in this process: the exit status."""
    connection = Connection("stdio", "standard input", Right.ADMINISTER, os.getuid(), os.getgid(), os.getpid())
    first = os.read(0, _CHUNK)
    if first[:1] and first[0] in _XML_STARTS:
        os.write(1, xmlrpc.answer(app.dispatcher, first + _rest(app.config.limits.message), connection))
        return 0
    try:
        FramedServer(app.dispatcher, app.limits).serve_pipes(0, 1, connection, first)
    finally:
        connection.close()
    return 0


def _rest(limit: int) -> bytes:
    parts = []
    size = 0
    while size <= limit and (data := os.read(0, _CHUNK)):
        parts.append(data)
        size += len(data)
    return b"".join(parts)


def relay(config: HsmConfig) -> int:
    """Hand standard input and output to the service that runs: the exit status."""
    first = os.read(0, _CHUNK)
    xml = first[:1] and first[0] in _XML_STARTS
    name = "hsm-http.sock" if xml else "hsm.sock"
    path = Path(config.service.run_dir, name)
    try:
        sock = _connect(str(path))
    except OSError as error:
        print(f"hsmd: a service holds {config.service.run_dir}, and {path}: {error.strerror}", file=sys.stderr)
        return 1
    with sock:
        return _relay_document(sock, first + _rest(config.limits.message)) if xml else _relay_frames(sock, first)


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
    from http.client import HTTPResponse

    head = (
        "POST /RPC2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: text/xml\r\n"
        f"Content-Length: {len(document)}\r\n\r\n"
    )
    sock.sendall(head.encode() + document)
    response = HTTPResponse(sock, method="POST")
    response.begin()
    _write_all(response.read())
    return 0


def _relay_frames(sock: socket.socket, first: bytes) -> int:
    sock.sendall(first)
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        selector.register(sock, selectors.EVENT_READ)
        while True:
            for ready, _ in selector.select():
                if ready.fileobj is sock:
                    data = sock.recv(_CHUNK)
                    if not data:
                        return 0
                    _write_all(data)
                elif data := os.read(0, _CHUNK):
                    sock.sendall(data)
                else:
                    selector.unregister(0)
                    sock.shutdown(socket.SHUT_WR)


def _write_all(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]
