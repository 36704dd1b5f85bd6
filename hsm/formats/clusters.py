# SPDX-License-Identifier: Apache-2.0
"""Which clusters of a qcow2 file are zeros: as its tables say it, and as they can be made to say it.

An entry of a second-level table names where in the file a cluster's data is.  One bit beside it says that the cluster
reads as zeros, whatever is there; the place stays the cluster's own.  So setting the bit of a cluster whose data is
zeros changes nothing that anybody reads, in this file or in those that stand on it, and no count of references.  Each
entry is eight bytes that are written at once, or not, in any order with all else.  Layout: QEMU's
docs/interop/qcow2.txt.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from hsm.formats.bitmaps import ReadAt
from hsm.formats.qcow2 import BadHeader, Header

_FIRST_LEVEL = struct.Struct(">IQ")
_FIRST_LEVEL_AT = 36
_OFFSET = 0x00FF_FFFF_FFFF_FE00
_SOLE, _COMPRESSED, _ZERO = 1 << 63, 1 << 62, 1 << 0
_MAX_FIRST_LEVEL = 32 * 2**20
_HARMLESS = 1 << 0 | 1 << 3
"""Of what a reader has to know: counts of references that may be outdated, and how clusters are compressed."""

IsHole = Callable[[int, int], bool]
"""(start, end) -> whether the file has no data there, and so reads as zeros."""


def can_tell(header: Header) -> bool:
    """Whether a file's tables can say of a cluster that it is zeros, and it is known what else they say.

    Not so in version 2.  Of a file with internal snapshots the tables may be shared.  What is encrypted is no zeros
    where the file has a hole.
    """
    return (
        header.version >= 3
        and not header.snapshots
        and not header.encrypted
        and not header.data_file
        and not header.incompatible & ~_HARMLESS
    )


def tables(header: Header, length: int, read: ReadAt) -> Iterator[tuple[int, bytes]]:
    """(offset, content) of each second-level table of a file of a length."""
    entries, offset = _FIRST_LEVEL.unpack(_exactly(read, _FIRST_LEVEL_AT, _FIRST_LEVEL.size))
    if entries * 8 > _MAX_FIRST_LEVEL:
        msg = f"a first-level table of {entries} entries"
        raise BadHeader(msg)
    for (entry,) in struct.iter_unpack(">Q", _exactly(read, offset, entries * 8)):
        place = entry & _OFFSET
        if place and (place % header.cluster_size or place + header.cluster_size > length):
            msg = f"a second-level table at {place}"
            raise BadHeader(msg)
        if place:
            yield place, _exactly(read, place, header.cluster_size)


def _exactly(read: ReadAt, offset: int, length: int) -> bytes:
    data = read(offset, length)
    if len(data) < length:
        msg = f"cut off at {offset + len(data)}"
        raise BadHeader(msg)
    return data


def zeros(table: bytes, cluster_size: int, is_hole: IsHole) -> tuple[list[tuple[int, bytes]], list[int]]:
    """What a second-level table can be made to say, and what need not be kept.

    (offset in the table, bytes) to write, for clusters that are zeros and are not said to be; and where in the file the
    data is of clusters that are said to be zeros, and which nobody else uses.  Entries between are not written anew:
    where there is nothing in a table its own space may have been given back.
    """
    changes: list[tuple[int, bytes]] = []
    unused: list[int] = []
    for index, (entry,) in enumerate(struct.iter_unpack(">Q", table)):
        place = entry & _OFFSET
        if not place or entry & _COMPRESSED:
            continue
        hole = is_hole(place, place + cluster_size)
        if hole and not entry & _ZERO:
            at, said = index * 8, struct.pack(">Q", entry | _ZERO)
            if changes and changes[-1][0] + len(changes[-1][1]) == at:
                at, before = changes.pop()
                said = before + said
            changes.append((at, said))
        elif not hole and entry & _ZERO and entry & _SOLE:
            unused.append(place)
    return changes, unused
