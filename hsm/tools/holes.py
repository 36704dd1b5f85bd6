# SPDX-License-Identifier: Apache-2.0
"""Holes in files: made where there are zeros, so that not a byte changes, and asked for.

Whoever reads the file meanwhile, or after this was interrupted, reads what was always there.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator

from hsm.tools.offload import data_of, wait_until
from libvdsm.run import CommandStopped

_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02
_CHUNK = 2**20
"""Bytes that are read at once."""
BLOCK = 64 * 2**10
"""The shortest run of zeros that becomes a hole: smaller ones cut a file into pieces, and give little back."""
_MOST = 64 * 2**20
"""The longest hole that is made at once, so that something has come back when this is stopped."""
_ROUND = 4096
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def punch(descriptor: int, start: int, end: int) -> None:
    """Give back the space of a part of an open file, which reads as zeros from then on.  Its length stays."""
    while _LIBC.fallocate(descriptor, _PUNCH_HOLE | _KEEP_SIZE, start, end - start):
        if (number := ctypes.get_errno()) != errno.EINTR:
            raise OSError(number, os.strerror(number))


def dig(
    descriptor: int,
    *,
    block: int = BLOCK,
    on_percent: Callable[[float], None],
    stop: Callable[[], bool],
    rate: int | None = None,
) -> None:
    """Give back the space of all zeros of an open file.  ``rate``: bytes a second that are read at most."""
    length = os.fstat(descriptor).st_size
    began, count = time.monotonic(), 0

    def on_read(start: int, end: int) -> None:
        nonlocal count
        count += end - start
        on_percent(100 * end / length)
        # Nobody is going to read it soon: the cache is left to others.
        os.posix_fadvise(descriptor, start, end - start, os.POSIX_FADV_DONTNEED)
        if rate is not None:
            wait_until(began + count / rate, stop)
        if stop():
            raise CommandStopped

    for start, end in _joined(_zeros(descriptor, block, on_read)):
        # The end of the last block of the storage belongs to nobody.
        punch(descriptor, start, -(-end // _ROUND) * _ROUND if end == length else end)


def _zeros(descriptor: int, block: int, on_read: Callable[[int, int], None]) -> Iterator[tuple[int, int]]:
    """The blocks of a file that have data, and are zeros."""
    pattern = bytes(block)
    for start, end in data_of(descriptor):
        offset = start
        while offset < end:
            length = min(_CHUNK - offset % _CHUNK, end - offset)
            data = os.pread(descriptor, length, offset)
            if len(data) < length:
                raise OSError(errno.EIO, "the file became shorter while it was read")
            place = 0
            while place < length:
                upto = min(place + block - (offset + place) % block, length)
                if data.startswith(pattern[: upto - place], place):
                    yield offset + place, offset + upto
                place = upto
            offset += length
            on_read(offset - length, offset)


def _joined(parts: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Neighbours as one, as far as that is not too long."""
    begun: tuple[int, int] | None = None
    for start, end in parts:
        if begun is not None and begun[1] == start and end - begun[0] <= _MOST:
            begun = begun[0], end
            continue
        if begun is not None:
            yield begun
        begun = start, end
    if begun is not None:
        yield begun


class Holes:
    """Where an open file has no data.  What becomes a hole later may still be told as data."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._length = os.fstat(descriptor).st_size
        self._hole = self._data = (0, 0)

    def __call__(self, start: int, end: int) -> bool:
        """Whether all of a part that lies within the file is a hole."""
        if end > self._length:
            return False
        if not self._data[0] <= start < self._data[1] and not self._hole[0] <= start < self._hole[1]:
            self._look(start)
        return self._hole[0] <= start and end <= self._hole[1]

    def _look(self, start: int) -> None:
        try:
            data = os.lseek(self._descriptor, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            data = self._length
        if data > start:
            self._hole = start, data
        else:
            self._data = start, os.lseek(self._descriptor, start, os.SEEK_HOLE)
