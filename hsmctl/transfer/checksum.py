# SPDX-License-Identifier: Apache-2.0
"""The checksum of a disk, as both ends make it: BLAKE2b of 32 bytes over those of each block of 4 MiB.

A block of zeros has always the same one, so holes are not read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

BLOCK = 4 * 2**20


def checksum(
    size: int,
    data: Iterable[tuple[int, int]],
    read: Callable[[int, int], bytes | memoryview],
    stop: Callable[[], bool] = lambda: False,
) -> str:
    """Of a disk with this size, which has ``data`` at these (offset, length), in order, and zeros elsewhere.

    ``stop`` is asked for each block; what comes out then is of no use.
    """
    whole = hashlib.blake2b(digest_size=32)
    zeros = _digest(bytes(BLOCK))
    ranges = iter(data)
    current = next(ranges, None)
    for start in range(0, size, BLOCK):
        end = min(start + BLOCK, size)
        while current is not None and sum(current) <= start:
            current = next(ranges, None)
        if stop():
            break
        if current is not None and current[0] < end:
            whole.update(_digest(read(start, end - start)))
        else:
            whole.update(zeros if end - start == BLOCK else _digest(bytes(end - start)))
    return whole.hexdigest()


def _digest(block: bytes | memoryview) -> bytes:
    return hashlib.blake2b(block, digest_size=32).digest()
