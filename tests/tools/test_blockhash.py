# SPDX-License-Identifier: Apache-2.0
"""The checksum of a disk: what it is, and that it does not depend on how the disk tells of its zeros."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from hypothesis import given
from hypothesis import strategies as st

from hsm.tools import blockhash

BLOCK = 64


class Disk:
    """Bytes, with extents as somebody cuts them."""

    def __init__(self, data: bytes, extents: list[tuple[int, bool]]) -> None:
        self.data = data
        self._extents = extents
        self.read: list[int] = []

    @property
    def capacity(self) -> int:
        return len(self.data)

    def extents(self) -> Iterator[tuple[int, bool]]:
        return iter(self._extents)

    def begin(self, offset: int, length: int) -> Callable[[], bytes]:
        self.read.append(offset)
        return lambda: self.data[offset : offset + length]


@st.composite
def disks(draw: st.DrawFn) -> Disk:
    """Extents of zeros and of anything, some of which are not known to be zeros."""
    parts = draw(st.lists(st.tuples(st.integers(1, 200), st.sampled_from(["data", "zeros", "unknown zeros"]))))
    data, extents = b"", []
    for length, kind in parts:
        data += (b"x" if kind == "data" else b"\0") * length
        extents.append((length, kind == "zeros"))
    return Disk(data, extents)


def digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=32).digest()


@given(disks())
def test_it_is_the_digest_of_the_digests_of_all_blocks(disk: Disk) -> None:
    told: list[float] = []
    found = blockhash.of_disk(disk, BLOCK, told.append)
    parts = [disk.data[start : start + BLOCK] for start in range(0, len(disk.data), BLOCK)]
    assert found == digest(b"".join(digest(part) for part in parts)).hex()
    assert told == sorted(told)
    assert not told or told[-1] == 100


@given(disks())
def test_blocks_that_are_known_to_be_zeros_are_not_read(disk: Disk) -> None:
    blockhash.of_disk(disk, BLOCK, lambda _: None)
    known, position = bytearray(len(disk.data)), 0
    for length, zero in disk.extents():
        known[position : position + length] = bytes([zero]) * length
        position += length
    expected = [start for start in range(0, len(known), BLOCK) if 0 in known[start : start + BLOCK]]
    assert disk.read == expected
