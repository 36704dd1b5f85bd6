# SPDX-License-Identifier: Apache-2.0
"""Local files of formats other than raw, read and written through ``qemu-nbd``.

As much of the NBD protocol as that needs: the oldest form of the handshake that every server knows, reads, writes and
flushes with simple replies.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from hsmctl.failure import Refusal
from libvdsm.run import CommandError, Runner

_HELLO = struct.Struct(">8s8sH")
_OPTION = struct.Struct(">I8sII")
_EXPORT = struct.Struct(">QH")
_REQUEST = struct.Struct(">IHHQQI")
_REPLY = struct.Struct(">IIQ")
_REQUEST_MAGIC, _REPLY_MAGIC = 0x25609513, 0x67446698
_FIXED_NO_ZEROES, _EXPORT_NAME = 3, 1
_READ, _WRITE, _DISCONNECT, _FLUSH = 0, 1, 2, 3
_START = 10.0
_MOMENT = 0.01
_CLIENTS = 16
_DEADLINE = 600.0


class Connection:
    """One connection to a server; for one thread."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(path)
            self.size = self._agree()
        except BaseException:
            self._socket.close()
            raise

    def _agree(self) -> int:
        """The handshake; the size of what is served."""
        magic, option, _ = _HELLO.unpack(self._receive(_HELLO.size))
        if (magic, option) != (b"NBDMAGIC", b"IHAVEOPT"):
            msg = "it speaks no NBD"
            raise OSError(msg)
        self._socket.sendall(_OPTION.pack(_FIXED_NO_ZEROES, b"IHAVEOPT", _EXPORT_NAME, 0))
        size: int = _EXPORT.unpack(self._receive(_EXPORT.size))[0]
        return size

    def read(self, offset: int, length: int) -> memoryview:
        self._ask(_READ, offset, length)
        return self._receive(length)

    def write(self, offset: int, data: memoryview) -> None:
        self._ask(_WRITE, offset, len(data), data)

    def flush(self) -> None:
        self._ask(_FLUSH, 0, 0)

    def close(self) -> None:
        self._socket.sendall(_REQUEST.pack(_REQUEST_MAGIC, 0, _DISCONNECT, 0, 0, 0))
        self._socket.close()

    def _ask(self, command: int, offset: int, length: int, data: memoryview | None = None) -> None:
        self._socket.sendall(_REQUEST.pack(_REQUEST_MAGIC, 0, command, 0, offset, length))
        if data is not None:
            self._socket.sendall(data)
        magic, error, _ = _REPLY.unpack(self._receive(_REPLY.size))
        if magic != _REPLY_MAGIC:
            msg = "the NBD server's answer cannot be read"
            raise OSError(msg)
        if error:
            raise OSError(error, os.strerror(error))

    def _receive(self, length: int) -> memoryview:
        buffer = memoryview(bytearray(length))
        done = 0
        while done < length:
            got = self._socket.recv_into(buffer[done:])
            if not got:
                msg = "the NBD server ended the connection"
                raise OSError(msg)
            done += got
        return buffer


class NbdFile:
    """A local image as a guest sees it, of whichever format."""

    def __init__(self, path: Path, format_: str, *, write: bool) -> None:
        self._runner = Runner()
        self._path, self._format = path, format_
        self._folder = tempfile.TemporaryDirectory(prefix="hsmctl-")
        self._socket = f"{self._folder.name}/nbd"
        node = {"driver": format_, "file": {"driver": "file", "filename": str(path.absolute())}}
        argv = ["qemu-nbd", "--persistent", f"--shared={_CLIENTS}", f"--socket={self._socket}"]
        argv += ["--discard=unmap"] if write else ["--read-only"]
        self._said = os.memfd_create("qemu-nbd")
        self._own = threading.local()
        self._connections: list[Connection] = []
        try:
            self._process = self._runner.start([*argv, "json:" + json.dumps(node)], output=self._said)
            self._until_it_answers()
        except CommandError as error:
            self._forget()
            raise Refusal("ToolFailed", f"{path} cannot be opened: {error}") from None
        self.size = self._connection().size

    def data(self, start: int = 0) -> Iterator[tuple[int, int]]:
        """(offset, length) of what is not known to be zeros, in order."""
        argv = ["qemu-img", "map", "-U", "--output=json", "-f", self._format, str(self._path.absolute())]
        for extent in json.loads(self._runner.run(argv, deadline=_DEADLINE)):
            end = min(extent["start"] + extent["length"], self.size)
            if not extent["zero"] and end > start:
                first = max(extent["start"], start)
                yield first, end - first

    def read(self, offset: int, length: int) -> memoryview:
        return self._connection().read(offset, length)

    def send(self, target: socket.socket, offset: int, length: int) -> None:
        target.sendall(self.read(offset, length))

    def write(self, offset: int, data: memoryview) -> None:
        self._connection().write(offset, data)

    def flush(self) -> None:
        """Have all that was written, by whichever thread, on stable storage."""
        self._connection().flush()

    def close(self) -> None:
        try:
            for connection in self._connections:
                connection.close()
        except OSError:
            pass
        if self._runner.end(self._process, patience=_DEADLINE) != 0:
            said = os.pread(self._said, 65536, 0).decode(errors="replace").strip()
            self._forget()
            raise Refusal("ToolFailed", f"{self._path}: qemu-nbd failed: {said}")
        self._forget()

    def _forget(self) -> None:
        os.close(self._said)
        self._folder.cleanup()

    def _connection(self) -> Connection:
        mine: Connection | None = getattr(self._own, "connection", None)
        if mine is None:
            mine = self._own.connection = Connection(self._socket)
            self._connections.append(mine)
        return mine

    def _until_it_answers(self) -> None:
        until = time.monotonic() + _START
        while True:
            try:
                self._connection()
            except (FileNotFoundError, ConnectionRefusedError):
                if self._process.poll() is not None or time.monotonic() > until:
                    said = os.pread(self._said, 65536, 0).decode(errors="replace").strip()
                    self._runner.end(self._process)
                    raise CommandError("qemu-nbd", said or "it does not answer") from None
                time.sleep(_MOMENT)
            else:
                return


def make_qcow2(path: Path, size: int) -> None:
    """An empty qcow2 file."""
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", str(path.absolute()), str(size)]
    try:
        subprocess.run(argv, check=True, capture_output=True, timeout=_DEADLINE)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", b"") or str(error).encode()
        raise Refusal("ToolFailed", f"{path} cannot be made: {said.decode(errors='replace').strip()}") from None
