# SPDX-License-Identifier: Apache-2.0
"""The way of the data: HTTP, as ``ovirt-imageio`` speaks it, over TCP or a Unix socket of this host."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from hsmctl.transfer.local import Local
from libvdsm.api.transfer import TransferInfo

_TIMEOUT = 60.0
_BUFFER = 2**20


class DataRefused(OSError):
    """The other end answered with an error."""


class DataConnection:
    """One connection; for one thread."""

    def __init__(self, transfer: TransferInfo) -> None:
        if transfer.url is None:
            msg = "the service does not say where the data goes: it does not run, or you may not change it"
            raise DataRefused(msg)
        parts = urlsplit(transfer.url)
        self._path = parts.path
        self._http: http.client.HTTPConnection
        if transfer.socket is not None and os.access(transfer.socket, os.W_OK):
            self._http = _UnixConnection(transfer.socket)
        else:
            self._http = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT)

    def upload(self, source: Local, offset: int, length: int) -> None:
        """Send a range of a local file; it is stable after a checkpoint."""
        http_ = self._http
        http_.putrequest("PUT", f"{self._path}?flush=n")
        http_.putheader("Content-Range", f"bytes {offset}-{offset + length - 1}/*")
        http_.putheader("Content-Length", str(length))
        http_.endheaders()
        try:
            source.send(http_.sock, offset, length)
        except (BrokenPipeError, ConnectionResetError):
            # It may have said why.
            pass
        self._answer()

    def download(self, target: Local, offset: int, length: int) -> None:
        """Get a range into a local file."""
        last = offset + length - 1
        self._http.request("GET", self._path, headers={"Range": f"bytes={offset}-{last}"})
        reply = self._http.getresponse()
        _refuse_errors(reply)
        buffer = memoryview(bytearray(min(length, _BUFFER)))
        while offset <= last:
            got = reply.readinto(buffer[: last + 1 - offset])
            if not got:
                msg = "the connection ended"
                raise DataRefused(msg)
            target.write(offset, buffer[:got])
            offset += got

    def extents(self) -> Iterator[tuple[int, int]]:
        """(offset, length) of what is not known to be zeros, in order."""
        self._http.request("GET", f"{self._path}/extents")
        for extent in json.loads(self._answer()):
            if not extent["zero"]:
                yield extent["start"], extent["length"]

    def checksum(self) -> str:
        """Of the whole, as the other end sees it."""
        # It takes as long as reading all of it.
        self._http.timeout = None
        self._http.close()
        self._http.request("GET", f"{self._path}/checksum?algorithm=blake2b&block_size=4194304")
        found: str = json.loads(self._answer())["checksum"]
        return found

    def close(self) -> None:
        self._http.close()

    def _answer(self) -> bytes:
        reply = self._http.getresponse()
        _refuse_errors(reply)
        return reply.read()


def _refuse_errors(reply: http.client.HTTPResponse) -> None:
    if reply.status >= http.client.BAD_REQUEST:
        raise DataRefused(reply.read().decode(errors="replace").strip() or reply.reason)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT)
        self._socket_path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._socket_path)


Carry = Callable[[DataConnection, int, int], None]
