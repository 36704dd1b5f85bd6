# SPDX-License-Identifier: Apache-2.0
"""VHD (which qemu calls vpc) and VHDX: what their headers may say in an image that is taken in.

Both keep twice what decides about them, and have readers that trust different copies: a VHD's footer is
repeated in the first sector, a VHDX's headers are two and a log may rewrite its tables at the next opening.
Rules as in `headers`.
"""

from collections.abc import Iterator
from typing import NamedTuple
from uuid import UUID

from hsm.tools.headers import MIB, SECTOR, Reader, require, round_up, sane
from hsm.tools.inspection import Kind, Refused

# --- VHD ---------------------------------------------------------------------------------------------------

FIXED, DYNAMIC, DIFFERENCE = 2, 3, 4
VPC_COOKIE = b"conectix"
VPC_CAPACITY_MOST = 2040 << 30
# Virtual PC trusted the geometry, its successors the size. qemu decides by who made the image, and takes the
# size when the geometry can grow no further. Newer ones than 7.2 know more makers (Azure's "wa").
MAKERS_BY_SIZE = frozenset({b"win ", b"qem2", b"d2v ", b"CTXS", b"tap\0"})
GEOMETRY_MOST = (65535, 16, 255)


class Footer(NamedTuple):
    cookie: bytes
    features: int
    version: int
    header_offset: int
    timestamp: int
    maker: bytes
    maker_version: int
    system: bytes
    first_size: int
    size: int
    cylinders: int
    heads: int
    sectors: int
    type: int
    checksum: int

    @property
    def capacity(self) -> int:
        geometry = (self.cylinders, self.heads, self.sectors)
        if self.maker in MAKERS_BY_SIZE or geometry == GEOMETRY_MOST:
            return self.size // SECTOR * SECTOR
        return self.cylinders * self.heads * self.sectors * SECTOR

    @property
    def essence(self) -> tuple[object, ...]:
        """What the two copies must agree on."""
        return self.type, self.header_offset, self.capacity, self.size


class DynamicHeader(NamedTuple):
    cookie: bytes
    next_offset: int
    table_offset: int
    version: int
    blocks: int
    block: int
    checksum: int
    parent_uuid: bytes
    parent_timestamp: int
    reserved: int
    parent_name: bytes
    parent_locators: bytes


def vpc(file: Reader) -> int:
    """qemu trusts the first sector if it looks like a footer, else the last one; here all must be right."""
    last = file.end - SECTOR
    places = {0, last, max(0, file.size - SECTOR)}
    copies = {at: _vpc_footer(file, at) for at in places if file.upto(at, 8) == VPC_COOKIE}
    sane(0 in copies or last in copies, "its footer is not at a sector's start")
    differences = any(footer.type == DIFFERENCE for footer in copies.values())
    require(not differences, Kind.BACKING_FILE, "it is a difference to a parent image")
    agreed = len({footer.essence for footer in copies.values()}) == 1
    sane(agreed, "its first sector and its last one contradict each other")
    footer = next(iter(copies.values()))
    sane(footer.capacity <= VPC_CAPACITY_MOST, f"a capacity of {footer.capacity} bytes")
    if 0 in copies:
        _vpc_dynamic(file, footer)
    else:
        sane(footer.type == FIXED, f"type {footer.type} without a header in the first sector")
        sane(footer.capacity <= last, f"{footer.capacity} bytes of data in a file of {file.size}")
    return footer.capacity


def _vpc_footer(file: Reader, offset: int) -> Footer:
    sector = file.at(offset, SECTOR)
    footer = Footer._make(file.fields(">8sIIQI4sI4sQQHBBII", offset))
    total = sum(sector) - sum(sector[64:68])
    sane(footer.checksum == ~total & 0xFFFFFFFF, f"the checksum of the footer at {offset} is wrong")
    return footer


def _vpc_dynamic(file: Reader, footer: Footer) -> None:
    sane(footer.type == DYNAMIC, f"type {footer.type} with a header in the first sector")
    header = DynamicHeader._make(file.fields(">8sQQIIII16sII512s192s", footer.header_offset))
    sane(header.cookie == b"cxsparse" and footer.header_offset >= SECTOR, "it has no dynamic header")
    parent = any(header.parent_uuid) or any(header.parent_name) or any(header.parent_locators)
    require(not parent, Kind.BACKING_FILE, f"it names the parent image {_utf16(header.parent_name)}")
    sane(header.block >= SECTOR and header.block.bit_count() == 1, f"blocks of {header.block} bytes")
    enough = header.blocks * header.block >= footer.capacity
    sane(enough, f"{header.blocks} blocks for {footer.capacity} bytes")
    sane(header.table_offset >= SECTOR, "its table lies in its header")
    sane(header.table_offset + 4 * header.blocks <= file.end, "its table is outside the file")


def _utf16(name: bytes) -> str:
    """The low bytes of an UTF-16 text: good enough to be shown, and the child need not load a codec."""
    return ascii(name[1::2].rstrip(b"\0").decode("latin-1"))


# --- VHDX --------------------------------------------------------------------------------------------------

VHDX_HEADERS = (64 << 10, 128 << 10)
VHDX_REGIONS = 192 << 10
VHDX_TABLE = 64 << 10
VHDX_ENTRIES_MOST = 2047
VHDX_CAPACITY_MOST = 64 << 40
VHDX_PRESENT = (6, 7)

BLOCKS = UUID("2dc27766-f623-4200-9d64-115e9bfd4a08").bytes_le
METADATA = UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le
REGION_REQUIRED = 1

PARAMETERS = UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
CAPACITY = UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8").bytes_le
IDENTITY = UUID("beca12ab-b2e6-4523-93ef-c309e000c746").bytes_le
LOGICAL_SECTOR = UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f").bytes_le
PHYSICAL_SECTOR = UUID("cda348c7-445d-4471-9cc9-e9885251c556").bytes_le
PARENT = UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").bytes_le
ITEM_REQUIRED = 1 << 2
HAS_PARENT = 1 << 1


class Entry(NamedTuple):
    """An entry of the table of regions, or of the table of metadata items."""

    offset: int
    length: int
    flags: int


def vhdx(file: Reader) -> int:
    _vhdx_log_is_empty(file)
    regions = _vhdx_regions(file)
    metadata = regions[METADATA]
    items = _vhdx_items(file, metadata)

    def number(item: bytes, layout: str) -> tuple[int, ...]:
        entry = items[item]
        sane(VHDX_TABLE <= entry.offset <= metadata.length - 8, "a metadata item is outside its region")
        return file.fields(layout, metadata.offset + entry.offset)

    block, flags = number(PARAMETERS, "<II")
    require(not flags & HAS_PARENT, Kind.BACKING_FILE, "it is a difference to a parent image")
    sane(MIB <= block <= 256 * MIB and block.bit_count() == 1, f"blocks of {block} bytes")
    (sector,) = number(LOGICAL_SECTOR, "<I")
    require(sector == SECTOR, Kind.UNSUPPORTED, f"logical sectors of {sector} bytes")  # nor does qemu 7.2
    (capacity,) = number(CAPACITY, "<Q")
    sane(capacity <= VHDX_CAPACITY_MOST and capacity % SECTOR == 0, f"a capacity of {capacity} bytes")
    blocks = round_up(capacity, block) // block
    run = (1 << 23) * SECTOR // block  # after so many entries comes one about a parent's sectors
    enough = regions[BLOCKS].length >= 8 * (blocks + (blocks - 1) // run)
    sane(enough, f"its table of blocks is too small for {capacity} bytes")
    last = max(_vhdx_places(file, regions[BLOCKS].offset, blocks + (blocks - 1) // run, run), default=None)
    # A program that reads it takes what is missing of the last block for zeros.
    sane(last is None or last + block <= file.end, "it is cut off: its last block is not all there")
    return capacity


def _vhdx_places(file: Reader, table: int, count: int, run: int) -> Iterator[int]:
    """Where the blocks lie that have data."""
    step = MIB // 8
    for first in range(0, count, step):
        entries = file.fields(f"<{min(step, count - first)}Q", table + 8 * first)
        for number, entry in enumerate(entries, first):
            if (number + 1) % (run + 1) and entry & 7 in VHDX_PRESENT:
                yield (entry >> 20) * MIB


def _vhdx_log_is_empty(file: Reader) -> None:
    """A log is replayed before the tables are read: what is checked would not be what is opened."""
    headers = []
    for offset in VHDX_HEADERS:
        block = file.at(offset, 4096)
        signature, checksum, sequence, log, version = file.fields("<4sIQ32x16s2xH", offset)
        if signature == b"head" and version == 1 and checksum == crc32c(block[:4] + bytes(4) + block[8:]):
            headers.append((sequence, log))
    sane(bool(headers), "neither of its headers is whole")
    newest = max(sequence for sequence, _ in headers)
    logs = [log for sequence, log in headers if sequence == newest]
    sane(not any(map(any, logs)), "it was not closed: a log would have to be replayed")


def _vhdx_regions(file: Reader) -> dict[bytes, Entry]:
    table = file.at(VHDX_REGIONS, VHDX_TABLE)
    signature, checksum, count = file.fields("<4sII", VHDX_REGIONS)
    sane(signature == b"regi" and count <= VHDX_ENTRIES_MOST, "it has no table of regions")
    whole = checksum == crc32c(table[:4] + bytes(4) + table[8:])
    sane(whole, "the checksum of its table of regions is wrong")
    regions: dict[bytes, Entry] = {}
    for number in range(count):
        guid, *entry = file.fields("<16sQII", VHDX_REGIONS + 16 + 32 * number)
        sane(guid not in regions, f"it has the region {UUID(bytes_le=guid)} twice")
        regions[guid] = Entry._make(entry)
    for guid, region in regions.items():
        known = guid in (BLOCKS, METADATA) or not region.flags & REGION_REQUIRED
        require(known, Kind.UNSUPPORTED, f"it needs the region {UUID(bytes_le=guid)}")
        inside = MIB <= region.offset <= file.end - region.length
        sane(inside and region.offset % MIB == 0 and region.length % MIB == 0, "a region is outside the file")
    sane(BLOCKS in regions and METADATA in regions, "its table of regions lacks one")
    _vhdx_apart(list(regions.values()))
    return regions


def _vhdx_apart(regions: list[Entry]) -> None:
    end = 0
    for region in sorted(regions):
        sane(region.offset >= end, "two of its regions overlap")
        end = region.offset + region.length


def _vhdx_items(file: Reader, metadata: Entry) -> dict[bytes, Entry]:
    signature, count = file.fields("<8s2xH", metadata.offset)
    sane(signature == b"metadata" and count <= VHDX_ENTRIES_MOST, "it has no metadata")
    items: dict[bytes, Entry] = {}
    for number in range(count):
        guid, *entry = file.fields("<16sIII", metadata.offset + 32 + 32 * number)
        if guid == PARENT:
            raise Refused(Kind.BACKING_FILE, "its metadata has the locator of a parent image")
        sane(guid not in items, f"it has the metadata item {UUID(bytes_le=guid)} twice")
        items[guid] = Entry._make(entry)
    needed = {PARAMETERS, CAPACITY, IDENTITY, LOGICAL_SECTOR, PHYSICAL_SECTOR}
    for guid in items.keys() - needed:
        optional = not items[guid].flags & ITEM_REQUIRED
        require(optional, Kind.UNSUPPORTED, f"it needs the metadata item {UUID(bytes_le=guid)}")
    sane(needed <= items.keys(), "its metadata lacks an item")
    return items


def _crc32c_step(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


_CRC32C = [_crc32c_step(value) for value in range(256)]


def crc32c(data: bytes) -> int:
    """Castagnoli's CRC, which the standard library lacks; 64 KiB take 6 ms."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC32C[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF
