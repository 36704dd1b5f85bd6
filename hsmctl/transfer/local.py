# SPDX-License-Identifier: Apache-2.0
"""Local files: as their bytes are, or through ``qemu-nbd`` as a guest sees them."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from hsmctl.failure import Refusal

_SECTOR = 512
_QCOW2 = b"QFI\xfb"


class Local(Protocol):
    """One end of a transfer.  Used by several threads at once."""

    size: int

    def data(self, start: int = 0) -> Iterator[tuple[int, int]]:
        """(offset, length) of what is not known to be zeros, in order."""

    def read(self, offset: int, length: int) -> memoryview: ...

    def send(self, target: socket.socket, offset: int, length: int) -> None:
        """Send a range to a socket."""

    def write(self, offset: int, data: memoryview) -> None: ...

    def flush(self) -> None:
        """Have all that was written on stable storage."""

    def close(self) -> None: ...


class RawFile:
    """A file or device as its bytes are, filled up with zeros to whole sectors."""

    def __init__(self, descriptor: int) -> None:
        """Takes over an open file."""
        self._file = descriptor
        self._object = os.fdopen(descriptor, "rb", buffering=0, closefd=False)
        self._length = os.lseek(descriptor, 0, os.SEEK_END)
        self.size = -(-self._length // _SECTOR) * _SECTOR

    def data(self, start: int = 0) -> Iterator[tuple[int, int]]:
        while start < self._length:
            try:
                begin = os.lseek(self._file, start, os.SEEK_DATA)
                end = os.lseek(self._file, begin, os.SEEK_HOLE)
            except OSError:
                if stat.S_ISBLK(os.fstat(self._file).st_mode):
                    yield start, self.size - start
                # Else there is nothing but a hole.
                return
            # The last sector may be filled up.
            end = self.size if end == self._length else end
            yield begin, end - begin
            start = end

    def read(self, offset: int, length: int) -> memoryview:
        data = bytearray(length)
        view, done = memoryview(data), 0
        while done < length and (got := os.preadv(self._file, [view[done:]], offset + done)):
            done += got
        if offset + done < self._length and done < length:
            msg = "the file became shorter"
            raise OSError(msg)
        return view

    def send(self, target: socket.socket, offset: int, length: int) -> None:
        there = max(0, min(offset + length, self._length) - offset)
        sent = target.sendfile(self._object, offset, there) if there else 0
        if sent < there:
            msg = "the file became shorter"
            raise OSError(msg)
        target.sendall(bytes(length - sent))

    def write(self, offset: int, data: memoryview) -> None:
        while data:
            written = os.pwrite(self._file, data, offset)
            data, offset = data[written:], offset + written

    def flush(self) -> None:
        os.fdatasync(self._file)

    def close(self) -> None:
        os.close(self._file)


def open_source(path: str) -> int:
    """A local file to be uploaded, with a lock that keeps a second upload of it away while this one goes on."""
    descriptor = _open(path, os.O_RDONLY)
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise Refusal("FileNotUsable", f"{path} is a folder; give an image file")
        lock(descriptor, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def lock(descriptor: int, path: str) -> None:
    """One hsmctl at a time."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise Refusal("FileInUse", f"another program moves {path} already, or has locked it") from None


def open_part(path: Path) -> int:
    """A file that is to be filled, which may be there from the last time."""
    descriptor = _open(str(path), os.O_RDWR | os.O_CREAT)
    try:
        lock(descriptor, str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def looks_like(descriptor: int) -> tuple[str, bool]:
    """(qcow2 or raw, whether it stands on another file)."""
    start = os.pread(descriptor, 16, 0)
    if not start.startswith(_QCOW2):
        return "raw", False
    return "qcow2", any(start[8:16])


def _open(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC, 0o666)
    except OSError as error:
        text = (error.strerror or str(error)).lower()
        raise Refusal("FileNotUsable", f"{path} cannot be opened: {text}") from None
