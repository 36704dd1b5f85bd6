# SPDX-License-Identifier: Apache-2.0
"""Dirty bitmaps in qcow2 files: the directory, read and written for new images, and the bits.

A bitmap says which parts of a disk were written since it was made; QEMU keeps it while a guest runs, and stores it when
the file is closed.  A header extension names the directory, one entry for each bitmap; an entry names a table of
clusters with the bits.  Layout and limits: QEMU's docs/interop/qcow2.txt.  ``qemu-img`` judges in the tests.

What is read here may be damaged, or made to do damage: every length is bounded before anything is read or kept.
"""

from __future__ import annotations

import heapq
import re
import struct
from collections.abc import Callable, Iterator

import msgspec

EXTENSION = 0x23852875
AUTOCLEAR_BIT = 1 << 0
"""Of the header: whoever writes the file and knows no bitmaps clears it, and then there are none any more."""
DIRECTORY_LIMIT = 2**20
"""Bytes of a directory that are read; QEMU itself would take 64 MiB."""
BITMAPS = 1024
"""How many are read; QEMU itself would take 65535."""
NAME_LIMIT = 1023
SMALLEST, LARGEST = 9, 31
"""Granularities that QEMU takes, as powers of two."""
_MAX_BITS_LENGTH = 512 * 2**20
"""Bytes of a bitmap's bits that QEMU takes."""

_EXTENSION = struct.Struct(">IIQQ")
_ENTRY = struct.Struct(">QIIBBHI")
_FLAGS_AT = 12
_FLAGS = struct.Struct(">I")
_DIRTY_TRACKING = 1
_IN_USE, _AUTO, _EXTRA_DATA = 1 << 0, 1 << 1, 1 << 2
_OFFSET = 0x00FF_FFFF_FFFF_FE00
_ALL_ONES = 1 << 0
_FARTHEST = 2**62
"""Where a file may be read: no offset beyond is one."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SET_BYTES = re.compile(rb"[^\0]+")

ReadAt = Callable[[int, int], bytes]
"""(offset, length) -> what the file has there, perhaps less."""


class BadBitmaps(Exception):
    """What a file says of its bitmaps contradicts itself, or is beyond all bounds."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a file's directory is.  ``length`` in bytes."""

    offset: int
    length: int
    count: int


class Bitmap(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a directory.  ``granularity`` in bytes."""

    name: str
    granularity: int
    recording: bool
    """QEMU marks in it what is written"""
    in_use: bool
    """QEMU has the file open, or had and did not close it: then what it says is not whole"""
    table: int
    entries: int
    entry: int = 0
    """where in the file the directory has it"""

    @property
    def sound(self) -> bool:
        """It records, and says all."""
        return self.recording and not self.in_use


def place(content: bytes, autoclear: int) -> Place | None:
    """The header extension's content; None if there are no bitmaps.  Raises ``BadBitmaps``."""
    if not autoclear & AUTOCLEAR_BIT:
        return None
    if len(content) != _EXTENSION.size:
        msg = f"an extension of {len(content)} bytes names them"
        raise BadBitmaps(msg)
    count, _, length, offset = _EXTENSION.unpack(content)
    if not 0 < count <= BITMAPS or length > DIRECTORY_LIMIT:
        msg = f"there are {count} in {length} bytes, and up to {BITMAPS} in {DIRECTORY_LIMIT} are read"
        raise BadBitmaps(msg)
    return Place(offset=offset, length=length, count=count)


def directory(where: Place, read: ReadAt) -> tuple[Bitmap, ...]:
    """The bitmaps of a file.  Raises ``BadBitmaps``."""
    if where.offset > _FARTHEST:
        msg = f"their directory is at {where.offset}"
        raise BadBitmaps(msg)
    data = read(where.offset, where.length)
    if len(data) != where.length:
        msg = f"their directory of {where.length} bytes at {where.offset} is cut off"
        raise BadBitmaps(msg)
    found: dict[str, Bitmap] = {}
    at = 0
    for _ in range(where.count):
        if at + _ENTRY.size > len(data):
            msg = f"their directory ends within entry {len(found)}"
            raise BadBitmaps(msg)
        table, entries, flags, kind, bits, name_length, extra = _ENTRY.unpack_from(data, at)
        name_at = at + _ENTRY.size + extra
        if name_length > NAME_LIMIT or name_at + name_length > len(data):
            msg = f"a name of {name_length} bytes after {extra} others in entry {len(found)}"
            raise BadBitmaps(msg)
        if kind != _DIRTY_TRACKING or not SMALLEST <= bits <= LARGEST or (extra and not flags & _EXTRA_DATA):
            msg = f"entry {len(found)} is of kind {kind} with a granularity of 2^{bits} bytes"
            raise BadBitmaps(msg)
        name = _name(data[name_at : name_at + name_length])
        if name in found:
            msg = f"two have the name {name!r}"
            raise BadBitmaps(msg)
        found[name] = Bitmap(
            name=name,
            granularity=1 << bits,
            recording=bool(flags & _AUTO),
            in_use=bool(flags & _IN_USE),
            table=table,
            entries=entries,
            entry=where.offset + at,
        )
        at = (name_at + name_length + 7) & ~7
    return tuple(found.values())


def _name(data: bytes) -> str:
    try:
        name = data.decode()
    except UnicodeDecodeError:
        name = ""
    if not name or _CONTROL.search(name):
        msg = f"a name is {data[:80]!r}"
        raise BadBitmaps(msg)
    return name


def let_go(bitmap: Bitmap, read: ReadAt) -> tuple[int, bytes]:
    """(offset, bytes) to write for a bitmap not to be in use any more: one field, which is all there or not."""
    at = bitmap.entry + _FLAGS_AT
    (flags,) = _FLAGS.unpack(read(at, _FLAGS.size))
    return at, _FLAGS.pack(flags & ~_IN_USE)


def covers(bitmap: Bitmap, capacity: int, cluster: int) -> bool:
    """Whether a bitmap has as many bits as an image of this size needs; QEMU opens no file where one has not."""
    entries = -(-_bits_length(capacity, bitmap.granularity) // cluster)
    return fits(capacity, bitmap.granularity) and bitmap.entries == entries


def fits(capacity: int, granularity: int) -> bool:
    """Whether QEMU takes a bitmap of this granularity for an image of this size."""
    return _bits_length(capacity, granularity) <= _MAX_BITS_LENGTH


def _bits_length(capacity: int, granularity: int) -> int:
    """Bytes of bits for an image of this size."""
    bits = -(-capacity // granularity)
    return -(-bits // 8)


def new(
    bitmaps: tuple[Bitmap, ...], capacity: int, cluster: int, at: int
) -> tuple[bytes, int, list[tuple[int, bytes]]]:
    """Empty bitmaps of the same names and granularities for a new image: the header extension's content, how many
    clusters they take from offset ``at`` on, and (offset, bytes) to write where all is zeros.

    A table of zeros stands for bits that are all zero, so there are none to be written.
    """
    entries = b""
    table = at
    for bitmap in bitmaps:
        length = -(-_bits_length(capacity, bitmap.granularity) // cluster)
        name = bitmap.name.encode()
        bits = bitmap.granularity.bit_length() - 1
        entry = _ENTRY.pack(table, length, _AUTO, _DIRTY_TRACKING, bits, len(name), 0) + name
        entries += entry.ljust((len(entry) + 7) & ~7, b"\0")
        table += -(-length * 8 // cluster) * cluster
    end = table + -(-len(entries) // cluster) * cluster
    return _EXTENSION.pack(len(bitmaps), 0, len(entries), table), (end - at) // cluster, [(table, entries)]


def dirty(bitmap: Bitmap, capacity: int, cluster: int, read: ReadAt, start: int = 0) -> Iterator[tuple[int, int]]:
    """The parts of an image from ``start`` on that are marked, as (offset, end) in order; neighbours are not joined.

    Raises ``BadBitmaps``.
    """
    length = _bits_length(capacity, bitmap.granularity)
    if not covers(bitmap, capacity, cluster) or bitmap.table > _FARTHEST:
        msg = f"bitmap {bitmap.name!r} has {bitmap.entries} clusters at {bitmap.table} for {capacity} bytes"
        raise BadBitmaps(msg)
    table = read(bitmap.table, bitmap.entries * 8)
    if len(table) != bitmap.entries * 8:
        msg = f"the table of bitmap {bitmap.name!r} is cut off"
        raise BadBitmaps(msg)
    covered = cluster * 8 * bitmap.granularity
    for index in range(start // covered, bitmap.entries):
        (entry,) = struct.unpack_from(">Q", table, index * 8)
        first = index * covered
        offset = entry & _OFFSET
        if not offset:
            if entry & _ALL_ONES:
                yield max(start, first), min(capacity, first + covered)
            continue
        data = read(offset, min(cluster, length - index * cluster))
        if len(data) < min(cluster, length - index * cluster):
            msg = f"the bits of bitmap {bitmap.name!r} are cut off"
            raise BadBitmaps(msg)
        for low, high in _runs(data):
            begin, end = first + low * bitmap.granularity, first + high * bitmap.granularity
            if end > start and begin < capacity:
                yield max(start, begin), min(capacity, end)


def _runs(data: bytes) -> Iterator[tuple[int, int]]:
    """The bits that are set, as (first, behind the last); the lowest bit of a byte comes first."""
    for part in _SET_BYTES.finditer(data):
        begin: int | None = None
        for at in range(part.start(), part.end()):
            byte = data[at]
            if byte == 0xFF and begin is not None:
                continue
            for bit in range(8):
                if byte >> bit & 1:
                    begin = at * 8 + bit if begin is None else begin
                elif begin is not None:
                    yield begin, at * 8 + bit
                    begin = None
        if begin is not None:
            yield begin, part.end() * 8


def union(layers: list[Iterator[tuple[int, int]]]) -> Iterator[tuple[int, int]]:
    """What any of them has, in order, joined where they touch."""
    begin = end = -1
    for low, high in heapq.merge(*layers):
        if low > end:
            if end > begin:
                yield begin, end
            begin, end = low, high
        else:
            end = max(end, high)
    if end > begin:
        yield begin, end
