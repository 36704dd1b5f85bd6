# SPDX-License-Identifier: Apache-2.0
"""Bare echo servers, the least that a wire can cost: ``python -m benchmarks.echo framed|xmlrpc PATH``.

Both serve a Unix socket with one thread per connection and answer every call with what Host.ping answers.  Nothing is
checked, authorized or logged.
"""

from __future__ import annotations

import socket
import socketserver
import sys
import threading
import time
from xmlrpc.server import SimpleXMLRPCDispatcher, SimpleXMLRPCRequestHandler

import msgspec

_HEADER = 8


def framed(path: str) -> None:
    """JSON-RPC in frames, decoded and encoded by msgspec."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(path)
        listening.listen()
        while True:
            connected, _ = listening.accept()
            threading.Thread(target=_serve_frames, args=(connected,), daemon=True).start()


def _serve_frames(connected: socket.socket) -> None:
    buffer = b""
    with connected:
        while data := connected.recv(65536):
            buffer += data
            while len(buffer) >= _HEADER:
                end = _HEADER + int.from_bytes(buffer[:_HEADER], "big")
                if len(buffer) < end:
                    break
                call = msgspec.json.decode(buffer[_HEADER:end])
                buffer = buffer[end:]
                reply = msgspec.json.encode({"jsonrpc": "2.0", "id": call["id"], "result": {"time": time.time()}})
                connected.sendall(len(reply).to_bytes(_HEADER, "big") + reply)


class _Handler(SimpleXMLRPCRequestHandler):
    # As the service: kept alive, and head and body in one packet.  Nagle's algorithm is TCP's alone.
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = False


class _XmlRpcServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer, SimpleXMLRPCDispatcher):
    daemon_threads = True
    logRequests = False  # noqa: N815  the base class has it so
    _send_traceback_header = False

    def __init__(self, path: str) -> None:
        SimpleXMLRPCDispatcher.__init__(self, allow_none=True, use_builtin_types=True)
        socketserver.UnixStreamServer.__init__(self, path, _Handler)


def xmlrpc(path: str) -> None:
    """The standard library's own XML-RPC server."""
    with _XmlRpcServer(path) as server:
        server.register_function(lambda: {"time": time.time()}, "Host.ping")
        server.serve_forever()


if __name__ == "__main__":
    {"framed": framed, "xmlrpc": xmlrpc}[sys.argv[1]](sys.argv[2])
