# SPDX-License-Identifier: Apache-2.0
"""Clients that send exactly what a test says, also what no proper client would."""

from __future__ import annotations

import array
import http.client
import itertools
import json
import socket
import time
import xmlrpc.client
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from libvdsm.wire.framing import Framer, frame
from tests.service import Daemon

PATIENCE = 20.0


@dataclass(frozen=True)
class Served:
    """A running hsmd, and where it listens."""

    daemon: Daemon
    tcp: tuple[str, int]
    http: tuple[str, int]

    @classmethod
    def of(cls, daemon: Daemon) -> Served:
        with daemon.client() as client:
            wires = dict(wire.split(":", 1) for wire in client.host.get_capabilities().wires)
        return cls(daemon, _place(wires["tcp"]), _place(wires["http"]))

    @property
    def unix(self) -> str:
        return str(self.daemon.socket)

    @property
    def log(self) -> str:
        return self.daemon.log.read_text()

    def descriptors(self) -> list[str]:
        """What the service has open, in words."""
        found = []
        for entry in Path("/proc", str(self.daemon.process.pid), "fd").iterdir():
            try:
                found.append(str(entry.readlink()))
            except FileNotFoundError:
                continue
        return sorted(found)


def _place(address: str) -> tuple[str, int]:
    host, _, port = address.removeprefix("//").rpartition(":")
    return host, int(port)


def connected(address: str | tuple[str, int]) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    sock.settimeout(PATIENCE)
    sock.connect(address)
    return sock


def request(verb: str, params: Any = None, call_id: Any = 1, **more: Any) -> bytes:
    message = {"jsonrpc": "2.0", "method": verb, "id": call_id, **more}
    return json.dumps(message if params is None else {**message, "params": params}).encode()


class Framed:
    """Framed JSON-RPC by hand."""

    def __init__(self, address: str | tuple[str, int]) -> None:
        self.sock = connected(address)
        self._framer = Framer(2**30)
        self._received: deque[bytes] = deque()
        self._ids = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, message: bytes, descriptors: Sequence[int] = ()) -> None:
        """One message, framed."""
        self.send_bytes(frame(message), descriptors)

    def send_bytes(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        if rest := data[self.sock.sendmsg([data], ancillary) :]:
            self.sock.sendall(rest)

    def receive(self) -> Any:
        """The next message; EOFError when the service closed the connection."""
        while not self._received:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self._received.extend(self._framer.feed(data))
        return json.loads(self._received.popleft())

    def call(self, verb: str, params: Any = None, descriptors: Sequence[int] = (), **more: Any) -> Any:
        """A reply, whole: with ``result`` or ``error``; events meanwhile are passed over."""
        call_id = next(self._ids)
        self.send(request(verb, params, call_id, **more), descriptors)
        while "method" in (reply := self.receive()):
            pass
        assert reply["id"] == call_id
        return reply

    def result(self, verb: str, params: Any = None, descriptors: Sequence[int] = ()) -> Any:
        reply = self.call(verb, params, descriptors)
        assert "error" not in reply, reply
        return reply["result"]

    def error(self, verb: str, params: Any = None, descriptors: Sequence[int] = ()) -> str:
        """The name of the error that a call is answered with."""
        return str(self.call(verb, params, descriptors)["error"]["data"]["name"])

    def finish(self, task: Any) -> Any:
        """Wait for a task's end."""
        return self.result("Task.wait", {"task": task["id"], "timeout": PATIENCE})

    def is_closed(self) -> bool:
        """Whether the service closes the connection, without sending more."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True


def xml(verb: str, *params: Any) -> bytes:
    return xmlrpc.client.dumps(params, verb, allow_none=True).encode()


def fault_name(fault: xmlrpc.client.Fault) -> str:
    return str(json.loads(fault.faultString.rpartition("\n")[2])["name"])


def outcome(document: bytes) -> Any:
    """What an answer holds: a result, or the name of an error."""
    try:
        [result] = xmlrpc.client.loads(document)[0]
    except xmlrpc.client.Fault as fault:
        return fault_name(fault)
    return result


class Post:
    """XML-RPC by hand, over one HTTP connection."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.http = http.client.HTTPConnection(*address, timeout=PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def status(
        self, body: bytes = b"", *, method: str = "POST", path: str = "/RPC2", **headers: str
    ) -> tuple[int, bytes]:
        """How a request ends: status and body."""
        named = {"content_type": "text/xml", **headers}
        self.http.request(method, path, body, {name.replace("_", "-"): value for name, value in named.items()})
        response = self.http.getresponse()
        return response.status, response.read()

    def call(self, verb: str, *params: Any, **headers: str) -> Any:
        status, body = self.status(xml(verb, *params), **headers)
        assert status == 200
        return outcome(body)


def until(condition: Any) -> bool:
    """Wait for what no event tells: another process's thread has gone on."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.002)
    return False
