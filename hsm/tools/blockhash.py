# SPDX-License-Identifier: Apache-2.0
"""A checksum of a disk, block by block, for which blocks of zeros need not be read.

The disk is cut into blocks of equal size, the last one being what is left.  Each block's digest is its BLAKE2b with 32
bytes of output; the checksum is the BLAKE2b with 32 bytes of output of all these digests, one after the other, in the
order of the blocks.  The digest of a block of zeros is known without reading it.  So raw and qcow2, sparse and
preallocated volumes with the same content have the same checksum, if the block size is the same.  ``ovirt-imageio``
computes the same by default.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Protocol

ALGORITHM = "blake2b"
BLOCK_SIZE = 4 * 2**20
_DIGEST_SIZE = 32
_AHEAD = 2
"""So many blocks are being read while one is computed."""

Data = bytes | bytearray | memoryview


class Disk(Protocol):
    """Something to read."""

    @property
    def capacity(self) -> int:
        """In bytes."""

    def extents(self) -> Iterator[tuple[int, bool]]:
        """(length, whether it is known to be zeros), one after the other."""

    def begin(self, offset: int, length: int) -> Callable[[], Data]:
        """Begin to read; what comes back waits for it, and its data is good until the next call of either."""


def of_disk(disk: Disk, block_size: int, on_percent: Callable[[float], None]) -> str:
    """The checksum, in hexadecimal digits."""
    total = _hash(b"")
    reading: deque[tuple[int, Callable[[], Data] | None]] = deque()
    done = 0

    def settle() -> None:
        nonlocal done
        length, wait = reading.popleft()
        total.update(_of_zeros(length) if wait is None else _hash(wait()).digest())
        done += length
        on_percent(100 * done / disk.capacity)

    for offset, length, zero in blocks(disk.extents(), disk.capacity, block_size):
        reading.append((length, None if zero else disk.begin(offset, length)))
        if len(reading) > _AHEAD:
            settle()
    while reading:
        settle()
    return total.hexdigest()


def blocks(extents: Iterable[tuple[int, bool]], capacity: int, block_size: int) -> Iterator[tuple[int, int, bool]]:
    """(offset, length, whether it is known to be zeros) of each block."""
    parts = iter(extents)
    known, zero = 0, True
    for offset in range(0, capacity, block_size):
        end = min(offset + block_size, capacity)
        zeros = zero or known <= offset
        while known < end:
            length, zero = next(parts)
            known += length
            zeros = zeros and zero
        yield offset, end - offset, zeros


def _hash(data: Data) -> hashlib.blake2b:
    return hashlib.blake2b(data, digest_size=_DIGEST_SIZE)


@lru_cache(maxsize=4)
def _of_zeros(length: int) -> bytes:
    return _hash(bytes(length)).digest()
