# SPDX-License-Identifier: Apache-2.0
"""The qcow2 header: read, and written for new images.

An empty image is a header, one entry in the refcount table, a refcount block for the few clusters there are, and an
L1 table of zeros; so making one needs no program.  Layout and limits: QEMU's docs/interop/qcow2.txt.  ``qemu-img
check`` and QEMU itself judge the result in the tests.
"""

from __future__ import annotations

import struct

import msgspec

from hsm.formats import bitmaps as bitmaps_format
from hsm.formats import luks as luks_format
from hsm.formats.bitmaps import BadBitmaps, Bitmap, Place
from hsm.formats.luks import Luks

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
_DATA_FILE_BIT = 1 << 2
_MAX_L1_BYTES = 32 * 2**20
_REFCOUNT_ORDER = 4
_AUTOCLEAR_AT = 88
_HEADER_LENGTH = 112
_SECTOR = 512


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
    """in whichever way"""
    incompatible: int
    snapshots: int
    old_encryption: bool = False
    """not with LUKS"""
    bitmaps_at: Place | None = None
    bitmaps: tuple[Bitmap, ...] = ()
    bitmaps_damage: str | None = None
    """why its bitmaps cannot be read: they are of no use then, and its data is what it was"""


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
    incompatible, autoclear, header_length = 0, 0, _V2.size
    if version == 3:
        if len(start) < _V2.size + _V3.size:
            msg = "cut off"
            raise BadHeader(msg)
        incompatible, _, autoclear, _, header_length = _V3.unpack_from(start, _V2.size)
    extensions_end = name_at or min(len(start), 1 << cluster_bits)
    extensions = _extensions(start, header_length, extensions_end)
    bitmaps_at, bitmaps_damage = _bitmaps(extensions.get(bitmaps_format.EXTENSION), autoclear)
    backing_format = extensions.get(_BACKING_FORMAT)
    return Header(
        version=version,
        capacity=capacity,
        cluster_size=1 << cluster_bits,
        backing_file=_name(start, name_at, name_length, length) if name_at else None,
        backing_format=None if backing_format is None else backing_format.decode("ascii", "replace"),
        data_file=_DATA_FILE in extensions or bool(incompatible & _DATA_FILE_BIT),
        encrypted=crypt != 0,
        old_encryption=crypt not in (0, luks_format.METHOD),
        incompatible=incompatible,
        snapshots=snapshots,
        bitmaps_at=bitmaps_at,
        bitmaps_damage=bitmaps_damage,
    )


def _name(start: bytes, offset: int, length: int, file_length: int) -> str:
    if length > MAX_BACKING or offset + length > min(len(start), file_length):
        msg = f"a backing file's name of {length} bytes at {offset}"
        raise BadHeader(msg)
    return start[offset : offset + length].decode("utf-8", "replace")


def _extensions(start: bytes, offset: int, end: int) -> dict[int, bytes]:
    """The header extensions, by kind."""
    found: dict[int, bytes] = {}
    while offset + _EXTENSION.size <= min(end, len(start)):
        kind, length = _EXTENSION.unpack_from(start, offset)
        offset += _EXTENSION.size
        if kind == 0:
            break
        if offset + length > len(start):
            msg = f"an extension of {length} bytes at {offset}"
            raise BadHeader(msg)
        found[kind] = start[offset : offset + length]
        offset += (length + 7) & ~7
    return found


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


def without_bitmaps(start: bytes) -> list[tuple[int, bytes]]:
    """(offset, bytes) to write into a file that begins so, for it to have no bitmaps: their clusters are leaked."""
    autoclear = _V3.unpack_from(start, _V2.size)[2] & ~bitmaps_format.AUTOCLEAR_BIT
    return [(_AUTOCLEAR_AT, struct.pack(">Q", autoclear))]


def upgraded(start: bytes) -> list[tuple[int, bytes]]:
    """(offset, bytes) to write into a file of version 2 that begins so, for it to be of version 3.

    The header becomes longer, and with it moves all that follows: extensions, and the name of the backing file.  All
    of it lies in the first sector, before and after, which storage writes as a whole or not at all.
    """
    magic, version, name_at, name_length, bits, *rest = _V2.unpack_from(start)
    name = start[name_at : name_at + name_length] if name_at else b""
    if version != 2 or len(name) != (name_length if name_at else 0):
        msg = f"version {version} with a backing file's name of {name_length} bytes at {name_at}"
        raise BadHeader(msg)
    extensions = b""
    for kind, content in _extensions(start, _V2.size, name_at or 1 << bits).items():
        extensions += _EXTENSION.pack(kind, len(content)) + content.ljust((len(content) + 7) & ~7, b"\0")
    extensions += _EXTENSION.pack(0, 0)
    sector = (
        _V2.pack(magic, 3, _HEADER_LENGTH + len(extensions) if name else 0, len(name), bits, *rest)
        + _V3.pack(0, 0, 0, _REFCOUNT_ORDER, _HEADER_LENGTH)
        + bytes(_HEADER_LENGTH - _V2.size - _V3.size)
        + extensions
        + name
    )
    if len(sector) > _SECTOR:
        msg = f"its header would have {len(sector)} bytes, and no more than {_SECTOR} are written at once"
        raise BadHeader(msg)
    return [(0, sector.ljust(_SECTOR, b"\0"))]


def bitmaps_again(start: bytes) -> tuple[int, bytes]:
    """(offset, bytes) to write into a file that begins so, for the bitmaps that its header names to count."""
    autoclear = _V3.unpack_from(start, _V2.size)[2] | bitmaps_format.AUTOCLEAR_BIT
    return _AUTOCLEAR_AT, struct.pack(">Q", autoclear)


def _bitmaps(content: bytes | None, autoclear: int) -> tuple[Place | None, str | None]:
    """(where the directory of bitmaps is, why there is none that can be read)"""
    try:
        return (None if content is None else bitmaps_format.place(content, autoclear)), None
    except BadBitmaps as error:
        return None, str(error)


def with_bitmaps(header: Header, read: bitmaps_format.ReadAt) -> Header:
    """A header with what the directory of bitmaps says; its file is read only if there is one."""
    if header.bitmaps_at is None:
        return header
    try:
        return msgspec.structs.replace(header, bitmaps=bitmaps_format.directory(header.bitmaps_at, read))
    except BadBitmaps as error:
        return msgspec.structs.replace(header, bitmaps_damage=str(error))


def max_capacity() -> int:
    """The largest image that QEMU opens with our cluster size, in bytes."""
    return (_MAX_L1_BYTES // 8) << (2 * CLUSTER_BITS - 3)


def new(
    capacity: int,
    backing: str | None = None,
    backing_format: str | None = None,
    bitmaps: tuple[Bitmap, ...] = (),
    luks: Luks | None = None,
) -> tuple[int, list[tuple[int, bytes]]]:
    """An empty image: the length of its file, and (offset, bytes) to write into one that is all zeros.

    ``backing`` is the name of the file below it, as QEMU looks it up from this file's folder.  ``bitmaps``: those that
    it has too, with nothing in them; of a size that ``bitmaps.fits``.  ``luks``: what it is encrypted with.
    """
    cluster = 1 << CLUSTER_BITS
    l1_entries = max(1, -(-capacity // (1 << (2 * CLUSTER_BITS - 3))))
    l1_clusters = -(-l1_entries * 8 // cluster)
    clusters = 3 + l1_clusters
    content: list[tuple[int, bytes]] = []
    extensions = b""
    if backing is not None:
        text = (backing_format or "raw").encode()
        extensions += _EXTENSION.pack(_BACKING_FORMAT, len(text)) + text.ljust((len(text) + 7) & ~7, b"\0")
    if bitmaps:
        text, more, content = bitmaps_format.new(bitmaps, capacity, cluster, clusters * cluster)
        extensions += _EXTENSION.pack(bitmaps_format.EXTENSION, len(text)) + text
        clusters += more
    if luks is not None:
        text, more, key = luks_format.placed(luks, cluster, clusters * cluster)
        extensions += _EXTENSION.pack(luks_format.EXTENSION, len(text)) + text
        content += key
        clusters += more
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
            luks_format.METHOD if luks else 0,
            l1_entries,
            3 * cluster,
            cluster,
            1,
            0,
            0,
        )
        + _V3.pack(0, 0, bitmaps_format.AUTOCLEAR_BIT if bitmaps else 0, _REFCOUNT_ORDER, _HEADER_LENGTH)
        + bytes(_HEADER_LENGTH - _V2.size - _V3.size)
        + extensions
        + name
    )
    refcounts = struct.pack(">H", 1) * clusters
    tables = [(cluster, struct.pack(">Q", 2 * cluster)), (2 * cluster, refcounts)]
    return clusters * cluster, [(0, header), *tables, *content]
