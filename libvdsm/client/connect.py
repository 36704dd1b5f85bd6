# SPDX-License-Identifier: Apache-2.0
"""Addresses of services, and how each is reached.

``unix:PATH`` framed JSON-RPC over a Unix socket · ``tcp:HOST:PORT`` the same over TCP · ``exec:COMMAND`` the same over
a program's standard input and output · ``http://HOST:PORT`` and ``http+unix:PATH`` XML-RPC.
"""

from __future__ import annotations

import shlex
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from libvdsm.client.client import Client, Transport
from libvdsm.client.framed import FramedTransport, ProcessStream, SocketStream, Stream

FORMS = "unix:PATH, tcp:HOST:PORT, exec:COMMAND, http://HOST:PORT or http+unix:PATH"


def connect(address: str) -> Client:
    """A client of the service at an address.

    Raises ``ValueError`` for an address of no known form, ``ConnectionFailed`` when nobody answers.
    """
    return Client(_transport(address))


def _transport(address: str) -> Transport:
    scheme, _, rest = address.partition(":")
    if scheme == "unix" and rest:
        return FramedTransport(address, _unix(rest))
    if scheme == "tcp":
        host, _, port = rest.rpartition(":")
        if host and port.isdigit():
            return FramedTransport(address, _tcp(host.strip("[]"), int(port)))
    if scheme == "exec" and rest:
        argv = shlex.split(rest)
        return FramedTransport(address, lambda: ProcessStream(argv))
    if scheme in ("http", "http+unix") and rest:
        transport = _http(address, scheme, rest)
        if transport is not None:
            return transport
    msg = f"{address!r} is no address of a service; it takes the form {FORMS}"
    raise ValueError(msg)


def _http(address: str, scheme: str, rest: str) -> Transport | None:
    # XML and HTTP take a while to load, and few clients need them.
    from libvdsm.client.xmlrpc import XmlRpcTransport

    if scheme == "http+unix":
        return XmlRpcTransport(address, path=rest)
    parts = urlsplit(address)
    if parts.hostname and parts.port:
        return XmlRpcTransport(address, host=parts.hostname, port=parts.port)
    return None


def _unix(path: str) -> Callable[[], Stream]:
    def opener() -> Stream:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(str(Path(path).expanduser()))
        except OSError:
            sock.close()
            raise
        return SocketStream(sock)

    return opener


def _tcp(host: str, port: int) -> Callable[[], Stream]:
    def opener() -> Stream:
        sock = socket.create_connection((host, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return SocketStream(sock)

    return opener
