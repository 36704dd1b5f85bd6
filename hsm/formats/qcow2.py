# SPDX-License-Identifier: Apache-2.0
"""The qcow2 header: read, and written for new images.

An empty image is a header, one entry in the refcount table, a refcount block for the few clusters there are, and an
L1 table of zeros; so making one needs no program.  Layout and limits: QEMU's docs/interop/qcow2.txt.  ``qemu-img
check`` and QEMU itself judge the result in the tests.
"""

from __future__ import annotations

import struct

import msgspec

MAGIC = b"QFI\xfb"
CLUSTER_BITS = 16
MAX_BACKING = 1023
READ = 4096
"""Bytes from the beginning of a file that ``parse`` wants; a backing file's name may lie further on."""

_V2 = struct.Struct(">4sIQIIQIIQQIIQ")
_V3 = struct.Struct(">QQQII")
_NAME_LENGTH_AT = 16
_EXTENSION = struct.Struct(">II")
_BACKING_FORMAT = 0xE2792ACA
_DATA_FILE = 0x44415441
_BITMAPS = 0x23852875
_DATA_FILE_BIT = 1 << 2
_MAX_L1_BYTES = 32 * 2**20
_REFCOUNT_ORDER = 4
_HEADER_LENGTH = 112


class BadHeader(Exception):
    """Not a qcow2 header, or one that contradicts itself."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What of a header concerns us.  ``capacity`` and ``cluster_size`` in bytes."""

    version: int
    capacity: int
    cluster_size: int
    backing_file: str | None
    backing_format: str | None
    data_file: bool
    encrypted: bool
    incompatible: int
    snapshots: int
    bitmaps: bool = False


def parse(start: bytes, length: int) -> Header:
    """Read a header from a file's first bytes; ``length`` is the file's."""
    if len(start) < _V2.size or start[:4] != MAGIC:
        msg = "no qcow2 header"
        raise BadHeader(msg)
    (_, version, name_at, name_length, cluster_bits, capacity, crypt, _l1_size, _, _, _, snapshots, _) = (
        _V2.unpack_from(start)
    )
    if version not in (2, 3) or not 9 <= cluster_bits <= 21:
        msg = f"version {version} with clusters of 2^{cluster_bits} bytes"
        raise BadHeader(msg)
    incompatible, header_length = 0, _V2.size
    if version == 3:
        if len(start) < _V2.size + _V3.size:
            msg = "cut off"
            raise BadHeader(msg)
        incompatible, _, _, _, header_length = _V3.unpack_from(start, _V2.size)
    extensions_end = name_at or min(len(start), 1 << cluster_bits)
    backing_format, data_file, bitmaps = _extensions(start, header_length, extensions_end)
    return Header(
        version=version,
        capacity=capacity,
        cluster_size=1 << cluster_bits,
        backing_file=_name(start, name_at, name_length, length) if name_at else None,
        backing_format=backing_format,
        data_file=data_file or bool(incompatible & _DATA_FILE_BIT),
        encrypted=crypt != 0,
        incompatible=incompatible,
        snapshots=snapshots,
        bitmaps=bitmaps,
    )


def _name(start: bytes, offset: int, length: int, file_length: int) -> str:
    if length > MAX_BACKING or offset + length > min(len(start), file_length):
        msg = f"a backing file's name of {length} bytes at {offset}"
        raise BadHeader(msg)
    return start[offset : offset + length].decode("utf-8", "replace")


def _extensions(start: bytes, offset: int, end: int) -> tuple[str | None, bool, bool]:
    """(backing format, whether there is an external data file, whether there are bitmaps) from the extensions."""
    backing_format, data_file, bitmaps = None, False, False
    while offset + _EXTENSION.size <= min(end, len(start)):
        kind, length = _EXTENSION.unpack_from(start, offset)
        offset += _EXTENSION.size
        if kind == 0:
            break
        if offset + length > len(start):
            msg = f"an extension of {length} bytes at {offset}"
            raise BadHeader(msg)
        if kind == _BACKING_FORMAT:
            backing_format = start[offset : offset + length].decode("ascii", "replace")
        data_file = data_file or kind == _DATA_FILE
        bitmaps = bitmaps or kind == _BITMAPS
        offset += (length + 7) & ~7
    return backing_format, data_file, bitmaps


def renamed(start: bytes, name: str) -> list[tuple[int, bytes]]:
    """(offset, bytes) to write into a file that begins so, for it to stand on ``name`` from then on.

    Nothing else moves, so the new name is not longer than the old one.
    """
    _, _, name_at, name_length = _V2.unpack_from(start)[:4]
    text = name.encode()
    if not name_at or len(text) > name_length:
        msg = f"no room for the backing file's name {name!r}"
        raise BadHeader(msg)
    return [(name_at, text.ljust(name_length, b"\0")), (_NAME_LENGTH_AT, struct.pack(">I", len(text)))]


def max_capacity() -> int:
    """The largest image that QEMU opens with our cluster size, in bytes."""
    return (_MAX_L1_BYTES // 8) << (2 * CLUSTER_BITS - 3)


def new(
    capacity: int, backing: str | None = None, backing_format: str | None = None
) -> tuple[int, list[tuple[int, bytes]]]:
    """An empty image: the length of its file, and (offset, bytes) to write into one that is all zeros.

    ``backing`` is the name of the file below it, as QEMU looks it up from this file's folder.
    """
    cluster = 1 << CLUSTER_BITS
    l1_entries = max(1, -(-capacity // (1 << (2 * CLUSTER_BITS - 3))))
    l1_clusters = -(-l1_entries * 8 // cluster)
    clusters = 3 + l1_clusters
    extensions = b""
    if backing is not None:
        text = (backing_format or "raw").encode()
        extensions += _EXTENSION.pack(_BACKING_FORMAT, len(text)) + text.ljust((len(text) + 7) & ~7, b"\0")
    extensions += _EXTENSION.pack(0, 0)
    name = (backing or "").encode()
    if len(name) > MAX_BACKING:
        msg = f"a backing file's name of {len(name)} bytes"
        raise BadHeader(msg)
    header = (
        _V2.pack(
            MAGIC,
            3,
            _HEADER_LENGTH + len(extensions) if name else 0,
            len(name),
            CLUSTER_BITS,
            capacity,
            0,
            l1_entries,
            3 * cluster,
            cluster,
            1,
            0,
            0,
        )
        + _V3.pack(0, 0, 0, _REFCOUNT_ORDER, _HEADER_LENGTH)
        + bytes(_HEADER_LENGTH - _V2.size - _V3.size)
        + extensions
        + name
    )
    refcounts = struct.pack(">H", 1) * clusters
    return clusters * cluster, [(0, header), (cluster, struct.pack(">Q", 2 * cluster)), (2 * cluster, refcounts)]
