# SPDX-License-Identifier: Apache-2.0
"""VMDK: a binary header, a text that describes the disk, and sometimes a second header at the end.

The text is what makes this format dangerous: it may say that the data is in other files, and every reader
takes it apart in its own way. qemu searches it for words, up to the first NUL, in 20 sectors after the first
one whatever the header says, comments included: `# parentFileNameHint="/a/file"` opens that file. So the only
text accepted is one that cannot be read in two ways, of the two types of disk that are one file:
monolithicSparse and streamOptimized.
"""

import re
from typing import NamedTuple

from hsm.tools.headers import SECTOR, Reader, quoted, require, round_up, sane
from hsm.tools.inspection import Kind, Refused

TEXT_SECTORS = 20  # what qemu reads, wherever the header says that the text is, and what everybody writes
GRAIN_MOST = 0x200000
ENTRIES_MOST = 512
TABLES_MOST = 32 << 20
CID_DIGITS = 8
AT_END = (1 << 64) - 1
MARKER_FOOTER, MARKER_END = 3, 0

ONE_FILE = {"monolithicsparse", "streamoptimized"}
KEYS = {"version", "encoding", "cid", "parentcid", "isnativesnapshot", "createtype"}
NO_PARENT = "ffffffff"
# The file's own name; it is not compared with anything, for files are renamed on their way.
EXTENT = re.compile(r'(?:RW|RDONLY)[ \t]+(\d{1,19})[ \t]+SPARSE[ \t]+"[^"/\\:]+"', re.ASCII)
ACCESSES = ("rw", "rdonly", "noaccess")


class Header(NamedTuple):
    magic: bytes
    version: int
    flags: int
    capacity: int  # this and all below in sectors
    grain: int
    text_offset: int
    text_sectors: int
    entries: int
    spare_offset: int
    directory_offset: int
    overhead: int
    unclean: int
    newlines: bytes
    compression: int


LAYOUT = "<4sIIQQQQIQQQB4sH"


def vmdk(file: Reader) -> int:
    require(file.upto(0, 4) != b"COWD", Kind.UNSUPPORTED, "a VMDK of ESX's older kind")
    text_alone = "a VMDK that is text: its data is in the files which that names"
    require(file.upto(0, 4) == b"KDMV", Kind.EXTENTS, text_alone)
    header = Header._make(file.fields(LAYOUT, 0))
    require(header.version in (1, 2, 3), Kind.UNSUPPORTED, f"VMDK version {header.version}")
    # qemu believes the text instead of the header then, and opens the extents that it lists.
    require(header.capacity > 0, Kind.EXTENTS, "its data is in the files that its text names")
    require(header.text_offset > 0, Kind.EXTENTS, "it is one extent of a disk that another file describes")
    sane(header.text_offset == 1, f"its text is in sector {header.text_offset}")
    sane(1 <= header.text_sectors <= TEXT_SECTORS, f"its text has {header.text_sectors} sectors")
    sane(header.newlines == b"\n \r\n", "its newlines were changed in a transfer")
    if header.directory_offset == AT_END:
        header = _footer(file, header)
    _tables(file, header)
    _text(file.upto(SECTOR, TEXT_SECTORS * SECTOR), header)
    return header.capacity * SECTOR


def _footer(file: Reader, header: Header) -> Header:
    """The header at the end, which qemu believes instead of the first one; it may only know more."""
    sane(file.size % SECTOR == 0, "it ends within a sector")
    start = file.end - 3 * SECTOR
    sane(start >= SECTOR, "it is too short for a footer")
    for offset, marker in ((start, MARKER_FOOTER), (start + 2 * SECTOR, MARKER_END)):
        length, kind, rest = file.fields("<8xII496s", offset)
        sane((length, kind) == (0, marker) and not any(rest), f"no marker of type {marker} at {offset}")
    footer = Header._make(file.fields(LAYOUT, start + SECTOR))
    same = footer._replace(directory_offset=AT_END, unclean=header.unclean)
    sane(same == header, "its first header and its last one contradict each other")
    return footer


def _tables(file: Reader, header: Header) -> None:
    power = header.grain.bit_count() == 1
    sane(power and header.grain <= GRAIN_MOST, f"grains of {header.grain} sectors")
    sane(1 <= header.entries <= ENTRIES_MOST, f"tables of {header.entries} entries")
    sane(header.capacity < 1 << 54, f"a capacity of {header.capacity} sectors")
    sane(header.overhead * SECTOR <= file.end, "its data would begin outside the file")
    reach = header.grain * header.entries
    tables = round_up(header.capacity, reach) // reach
    sane(tables <= TABLES_MOST, f"a directory of {tables} entries")
    sane(header.directory_offset * SECTOR + 4 * tables <= file.end, "its directory is outside the file")


def _text(area: bytes, header: Header) -> None:
    """One line at a time, each of a kind that is known to refer to nothing."""
    text, _, padding = area.partition(b"\0")
    at = area.lower().find(b"parentfilenamehint")
    require(at < 0, Kind.BACKING_FILE, f"it is a difference to a parent: {quoted(area[at : at + 200])}")
    room = header.text_sectors * SECTOR - len(text)
    # qemu writes a CID with fewer digits over a longer one, and leaves the old end of the text behind the new one.
    left = [piece for piece in padding[: max(0, room)].split(b"\0") if piece]
    known = sum(map(len, left)) < CID_DIGITS and all(text.endswith(piece) for piece in left)
    sane(room >= 0 and known, "its text does not end where it should")
    sane(re.fullmatch(rb"[ -~\t\n\r]*", text) is not None, "its text has characters that text has not")
    lines = [line.removesuffix("\r").strip(" \t") for line in text.decode("ascii").split("\n")]
    sane("\r" not in "".join(lines), "its text has half a newline")
    keys: dict[str, str] = {}
    extents = []
    for line in lines:
        if not line or line.startswith("#"):
            continue
        if line.lower().startswith(ACCESSES):
            extents.append(line)
            continue
        key, equals, value = (part.strip(" \t") for part in line.lower().partition("="))
        if equals and key.startswith("ddb."):
            continue
        known = bool(equals) and key in KEYS
        require(known, Kind.UNSUPPORTED, f"its text has the line {quoted(line.encode())}")
        sane(key not in keys, f"its text has two lines for {key}")
        keys[key] = value.strip('"')
    _keys(keys)
    _extent(extents, header)


def _keys(keys: dict[str, str]) -> None:
    sane(keys.keys() >= {"cid", "parentcid", "createtype"}, "its text lacks a line")
    parent, kind = keys["parentcid"], keys["createtype"]
    require(parent == NO_PARENT, Kind.BACKING_FILE, f"it is a difference to the image {parent!r:.80}")
    require(kind in ONE_FILE, Kind.EXTENTS, f"it is a disk of type {kind!r:.80}")


def _extent(lines: list[str], header: Header) -> None:
    require(len(lines) == 1, Kind.EXTENTS, f"its text lists {len(lines)} extents")
    found = EXTENT.fullmatch(lines[0])
    if not found:
        raise Refused(Kind.EXTENTS, f"its data would be in {quoted(lines[0].encode())}")
    surplus = header.capacity - int(found[1])
    sane(0 <= surplus < header.grain, f"its text says {found[1]} sectors, its header {header.capacity}")
