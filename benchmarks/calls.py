# SPDX-License-Identifier: Apache-2.0
"""Calls per second of one client, against a bare server that echoes.

The same client, in the same process, calls both: what differs is the server.
"""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import msgspec

from benchmarks import programs
from benchmarks.rounds import Sides
from libvdsm.client import connect

_SECONDS = 0.3
_WARMING = 50
_PATIENCE = 10.0
_HEADER = 8


@contextmanager
def ping(folder: Path) -> Iterator[Sides]:
    """Host.ping by the shipped, typed client, framed JSON-RPC on the Unix socket."""
    with (
        programs.serving(folder) as (_, client, _),
        _echo("framed", folder) as path,
        connect(f"unix:{path}") as other,
    ):
        yield Sides(lambda: _rate(client.host.ping), lambda: _rate(other.host.ping))


@contextmanager
def ping_minimal(folder: Path) -> Iterator[Sides]:
    """The same by the least of a client, which leaves the server's share of the time largest."""
    with (
        programs.serving(folder) as (daemon, _, _),
        _echo("framed", folder) as path,
        _Minimal(daemon.socket) as ours,
        _Minimal(path) as bare,
    ):
        yield Sides(lambda: _rate(ours.ping), lambda: _rate(bare.ping))


@contextmanager
def xml_rpc(folder: Path) -> Iterator[Sides]:
    """Host.ping by the standard library's XML-RPC client on a kept-alive connection to the Unix socket."""
    with (
        programs.serving(folder) as (daemon, _, _),
        _echo("xmlrpc", folder) as path,
        _proxy(daemon.http_socket) as ours,
        _proxy(path) as bare,
    ):
        yield Sides(lambda: _rate(ours.Host.ping), lambda: _rate(bare.Host.ping))


def _rate(call: Callable[[], Any]) -> float:
    """Calls per second; for a short time, since what slows the machine down is to meet both sides."""
    for _ in range(_WARMING):
        call()
    count = 0
    began = time.perf_counter()
    until = began + _SECONDS
    while (now := time.perf_counter()) < until:
        for _ in range(50):
            call()
        count += 50
    return count / (now - began)


@contextmanager
def _echo(kind: str, folder: Path) -> Iterator[Path]:
    """A bare server in a process of its own, once it listens."""
    path = folder / f"{kind}.sock"
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.echo", kind, str(path)])
    try:
        until = time.monotonic() + _PATIENCE
        while True:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                with suppress(OSError):
                    probe.connect(str(path))
                    break
            if time.monotonic() > until:
                raise RuntimeError(f"the {kind} echo server does not listen")
            time.sleep(0.01)
        yield path
    finally:
        process.kill()
        process.wait()


class _Minimal:
    """A client that does nothing but ping: it encodes and decodes, and checks nothing."""

    def __init__(self, path: Path) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.connect(str(path))
        self._number = 0

    def ping(self) -> Any:
        self._number += 1
        message = msgspec.json.encode({"jsonrpc": "2.0", "method": "Host.ping", "params": {}, "id": self._number})
        self._sock.sendall(len(message).to_bytes(_HEADER, "big") + message)
        return msgspec.json.decode(self._sock.recv(65536)[_HEADER:])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: Path) -> None:
        super().__init__(use_builtin_types=True)
        self._path = str(path)

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = self._connection[1]
        if connection is None:
            connection = http.client.HTTPConnection("localhost")
            connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.sock.connect(self._path)
            self._connection = "localhost", connection
        return connection


@contextmanager
def _proxy(path: Path) -> Iterator[xmlrpc.client.ServerProxy]:
    with xmlrpc.client.ServerProxy("http://localhost/RPC2", transport=_UnixTransport(path)) as proxy:
        yield proxy
