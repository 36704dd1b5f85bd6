# SPDX-License-Identifier: Apache-2.0
"""The headers of image formats: what each may say in an image that is taken in, and how large its disk is.

One function per format takes a `Reader`, returns the capacity in bytes and raises `Refused` for everything
that makes a reader of the image open another file, or that lets two readers understand it differently. Where
qemu refuses a value, so does this; where qemu takes it and others may not, this refuses too. `judgement`
calls it, in a child process: nothing here is afraid of being killed. Here are the reader, qcow2 and VDI;
`vhd` holds VPC and VHDX, `vmdk` the format with a text in it.
"""

import fcntl
import os
import stat
import struct
from typing import Any, NamedTuple
from uuid import UUID

from hsm.tools.inspection import Kind, Refused

SECTOR = 512
MIB = 1 << 20


class Reader:
    """Bounded reads at given places of an open file or block device; never moves the descriptor's offset."""

    LONGEST = 4 * MIB  # more than any table that is read in one piece
    BLKGETSIZE64 = 0x80081272

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        status = os.fstat(descriptor)
        if stat.S_ISBLK(status.st_mode):
            size = fcntl.ioctl(descriptor, self.BLKGETSIZE64, bytes(8))
            (self.size,) = struct.unpack("=Q", size)
        elif stat.S_ISREG(status.st_mode):
            self.size = status.st_size
        else:
            raise Refused(Kind.UNSUPPORTED, "it is neither a file nor a block device")
        # qemu counts in sectors: the last one is filled up with zeroes.
        self.end = round_up(self.size, SECTOR)

    def upto(self, offset: int, length: int) -> bytes:
        """What there is of `length` bytes from `offset` on."""
        length = min(length, self.LONGEST, max(0, self.size - offset))
        content = os.pread(self._descriptor, length, offset) if length else b""
        sane(len(content) == length, "it shrinks while it is read")
        return content

    def at(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes; the file's last sector reads as if it were whole."""
        sane(offset + length <= self.end, f"a header wants {length} bytes at {offset}, past the end")
        return self.upto(offset, length).ljust(length, b"\0")

    def fields(self, layout: str, offset: int) -> tuple[Any, ...]:
        """The fields of a header at `offset`."""
        return struct.unpack(layout, self.at(offset, struct.calcsize(layout)))

    def quoted(self, offset: int, length: int) -> str:
        """A name in the image, fit to be shown."""
        return quoted(self.upto(offset, min(length, 200)))


def round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def quoted(name: bytes) -> str:
    """Hostile bytes, fit to be shown in one line."""
    return repr(name[:200].rstrip(b"\0"))[1:]


def require(truth: bool, kind: Kind, detail: str) -> None:
    if not truth:
        raise Refused(kind, detail)


def sane(truth: bool, detail: str) -> None:
    require(truth, Kind.DAMAGED, detail)


def raw(file: Reader) -> int:
    """No header, so nothing to refuse: a partition table or file system in it is the guest's business."""
    return file.end


# --- qcow2 --------------------------------------------------------------------------------------------------

CORRUPT, DATA_FILE, COMPRESSION, EXTENDED_L2 = 1 << 1, 1 << 2, 1 << 3, 1 << 4
# The dirty bit (bit 0) says that reference counts are stale, never that data is: read-only opens leave it
# alone and the first writer repairs them. Corrupt images only open read-only: a volume must not begin as one.
INCOMPATIBLE_KNOWN = (1 << 5) - 1
RAW_EXTERNAL = 1 << 1  # autoclear

EXTENSION_END = 0
EXTENSIONS_REFUSED = {
    0xE2792ACA: (Kind.BACKING_FILE, "a header extension names the format of a backing file"),
    0x44415441: (Kind.DATA_FILE, "a header extension names an external data file"),
    0x0537BE77: (Kind.ENCRYPTED, "a header extension describes its encryption"),
}

L1_LONGEST = 32 * MIB
REFERENCE_TABLE_LONGEST = 8 * MIB
SNAPSHOTS_MOST = 65536


class Qcow2(NamedTuple):
    magic: bytes
    version: int
    backing_offset: int
    backing_length: int
    cluster_bits: int
    capacity: int
    encryption: int
    l1_entries: int
    l1_offset: int
    references_offset: int
    references_clusters: int
    snapshots: int
    snapshots_offset: int


class Qcow2Version3(NamedTuple):
    incompatible: int
    compatible: int
    autoclear: int
    reference_order: int
    header_length: int


QCOW2_VERSION_2 = Qcow2Version3(0, 0, 0, 4, 72)


def qcow2(file: Reader) -> int:
    sane(file.size >= QCOW2_VERSION_2.header_length, "it ends within its qcow2 header")
    header = Qcow2._make(file.fields(">4sIQIIQIIQQIIQ", 0))
    require(header.version in (2, 3), Kind.UNSUPPORTED, f"qcow2 version {header.version}")
    if header.backing_offset or header.backing_length:
        name = file.quoted(header.backing_offset, header.backing_length)
        named = bool(header.backing_offset) and name != quoted(b"")
        detail = f"it is a difference to the backing file {name}"
        raise Refused(Kind.BACKING_FILE, detail if named else "its header speaks of a backing file, and names none")
    require(header.encryption == 0, Kind.ENCRYPTED, f"qcow2 encryption method {header.encryption}")
    sane(9 <= header.cluster_bits <= 21, f"clusters of 2^{header.cluster_bits} bytes")
    cluster = 1 << header.cluster_bits
    features = QCOW2_VERSION_2
    if header.version == 3:
        features = Qcow2Version3._make(file.fields(">QQQII", 72))
        _qcow2_features(file, features, cluster)
    _qcow2_extensions(file.upto(features.header_length, cluster - features.header_length))
    _qcow2_tables(file, header, cluster, 16 if features.incompatible & EXTENDED_L2 else 8)
    return header.capacity // SECTOR * SECTOR


def _qcow2_features(file: Reader, features: Qcow2Version3, cluster: int) -> None:
    data_file = features.incompatible & DATA_FILE or features.autoclear & RAW_EXTERNAL
    require(not data_file, Kind.DATA_FILE, "its data is in an external data file")
    unknown = features.incompatible & ~INCOMPATIBLE_KNOWN
    require(not unknown, Kind.UNSUPPORTED, f"unknown incompatible features {unknown:#x}")
    sane(not features.incompatible & CORRUPT, "it is marked as corrupt")
    sane(features.reference_order <= 6, f"reference counts of 2^{features.reference_order} bits")
    length = features.header_length
    sane(104 <= length <= cluster and length % 8 == 0, f"a header of {length} bytes")
    compression = file.at(104, 1)[0] if length > 104 else 0
    require(compression <= 1, Kind.UNSUPPORTED, f"compression type {compression}")
    sane(bool(features.incompatible & COMPRESSION) == bool(compression), "it states two compression types")
    small = features.incompatible & EXTENDED_L2 and cluster < 32 * SECTOR
    sane(not small, f"subclusters in clusters of {cluster} bytes")


def _qcow2_extensions(table: bytes) -> None:
    """Walk the header extensions in the first cluster: type, length, content filled up to 8 bytes."""
    position = 0
    while position < len(table):
        sane(position + 8 <= len(table), "a header extension leaves the first cluster")
        kind, length = struct.unpack_from(">II", table, position)
        if kind == EXTENSION_END:
            return
        position += 8
        sane(position + length <= len(table), "a header extension leaves the first cluster")
        if kind in EXTENSIONS_REFUSED:
            why, detail = EXTENSIONS_REFUSED[kind]
            raise Refused(why, f"{detail}: {quoted(table[position : position + length])}")
        position += round_up(length, 8)


def _qcow2_tables(file: Reader, header: Qcow2, cluster: int, entry: int) -> None:
    reach = cluster * (cluster // entry)
    needed = round_up(header.capacity, reach) // reach
    sane(header.l1_entries >= needed, f"{header.l1_entries} L1 entries where {needed} are needed")
    sane(header.references_clusters > 0, "no reference counts")
    # Internal snapshots are taken in: they live in this very file, and converting drops them.
    references = header.references_clusters * cluster
    for name, offset, length, longest in (
        ("the L1 table", header.l1_offset, header.l1_entries * 8, L1_LONGEST),
        ("the table of reference counts", header.references_offset, references, REFERENCE_TABLE_LONGEST),
        ("the table of snapshots", header.snapshots_offset, header.snapshots * 40, SNAPSHOTS_MOST * 40),
    ):
        sane(length <= longest, f"{name} has {length} bytes")
        sane(offset % cluster == 0, f"{name} is not at a cluster's start")
        sane(length == 0 or cluster <= offset <= file.end - length, f"{name} is outside the file")


# --- VDI ----------------------------------------------------------------------------------------------------


class Vdi(NamedTuple):
    signature: int
    version: int
    header_length: int
    type: int
    flags: int
    description: bytes
    map_offset: int
    data_offset: int
    cylinders: int
    heads: int
    sectors: int
    sector: int
    unused: int
    capacity: int
    block: int
    block_extra: int
    blocks: int
    allocated: int
    uuid: bytes
    uuid_snapshot: bytes
    uuid_link: bytes
    uuid_parent: bytes


VDI_DYNAMIC, VDI_STATIC, VDI_UNDO, VDI_DIFFERENCE = 1, 2, 3, 4


def vdi(file: Reader) -> int:
    header = Vdi._make(file.fields("<5I256s7IQ4I16s16s16s16s", 0x40))
    linked = any(header.uuid_link) or any(header.uuid_parent) or header.type in (VDI_UNDO, VDI_DIFFERENCE)
    parent = header.uuid_link if any(header.uuid_link) else header.uuid_parent
    require(not linked, Kind.BACKING_FILE, f"it is a difference to the image {UUID(bytes_le=parent)}")
    require(header.version == 0x00010001, Kind.UNSUPPORTED, f"VDI version {header.version:#x}")
    require(header.type in (VDI_DYNAMIC, VDI_STATIC), Kind.UNSUPPORTED, f"VDI type {header.type}")
    shape = (header.sector, header.block, header.block_extra)
    require(shape == (SECTOR, MIB, 0), Kind.UNSUPPORTED, f"VDI sectors and blocks of {shape} bytes")
    aligned = header.map_offset % SECTOR == 0 and header.data_offset % SECTOR == 0
    sane(aligned, "its map or its data is not at a sector's start")
    sane(header.map_offset >= SECTOR, "its map of blocks lies in its header")
    sane(header.map_offset + 4 * header.blocks <= file.end, "its map of blocks is outside the file")
    sane(header.capacity <= header.blocks * MIB, f"{header.blocks} blocks for {header.capacity} bytes")
    # No program that reads it would say so: what is missing reads as zeros.
    sane(header.allocated <= header.blocks, f"{header.allocated} of {header.blocks} blocks have data")
    sane(header.data_offset + header.allocated * MIB <= file.end, "it is cut off: its last blocks are missing")
    return round_up(header.capacity, SECTOR)
