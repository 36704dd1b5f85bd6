# SPDX-License-Identifier: Apache-2.0
"""Volume metadata as oVirt's V5 domains have it, and V4's, which is only read.

Sorted ``KEY=VALUE`` lines, ended by ``EOF``, at most 512 bytes.  Keys that are not ours are kept and written back.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from uuid import UUID

import msgspec

from libvdsm.api.types import Allocation, Legality, VolumeFormat, VolumeRole

LIMIT = 512
"""Bytes that a volume's metadata may take: its slot on block domains."""
DESCRIPTION_LIMIT = 210
GENERATIONS = 1000
_NIL = UUID(int=0)
_NIL_TEXT = str(_NIL)
_SECTOR = 512
_MOST = 2**63 - 1

_FORMATS = {"RAW": VolumeFormat.RAW, "COW": VolumeFormat.QCOW2}
_ALLOCATIONS = {"SPARSE": Allocation.SPARSE, "PREALLOCATED": Allocation.PREALLOCATED}
_ROLES = {"LEAF": VolumeRole.LEAF, "INTERNAL": VolumeRole.INTERNAL, "SHARED": VolumeRole.TEMPLATE}
_LEGALITIES = {"LEGAL": Legality.LEGAL, "ILLEGAL": Legality.ILLEGAL, "FAKE": Legality.FAKE}
_NAMES = {value: name for table in (_FORMATS, _ALLOCATIONS, _ROLES, _LEGALITIES) for name, value in table.items()}
_KNOWN = frozenset(
    [
        "CAP",
        "CTIME",
        "DESCRIPTION",
        "DISKTYPE",
        "DOMAIN",
        "FORMAT",
        "GEN",
        "IMAGE",
        "LEGALITY",
        "PUUID",
        "SEQ",
        "TYPE",
        "VOLTYPE",
        "SIZE",
        "MTIME",
    ]
)

_ID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_as_written = re.compile(
    "CAP=(?P<CAP>[0-9]{1,18})\nCTIME=(?P<CTIME>[0-9]{1,18})\nDESCRIPTION=(?P<DESCRIPTION>[^\n]*)\n"
    f"DISKTYPE=(?P<DISKTYPE>[^\n]*)\nDOMAIN=(?P<DOMAIN>{_ID})\nFORMAT=(?P<FORMAT>[^\n]*)\nGEN=(?P<GEN>[0-9]{{1,3}})\n"
    f"IMAGE=(?P<IMAGE>{_ID})\nLEGALITY=(?P<LEGALITY>[^\n]*)\nPUUID=(?P<PUUID>{_ID})\nSEQ=(?P<SEQ>[0-9]{{1,18}})\n"
    "TYPE=(?P<TYPE>[^\n]*)\nVOLTYPE=(?P<VOLTYPE>[^\n]*)\nEOF(?:\n|\\Z)"
).match
"""What V5's writers write, read in one go: long lists spend much of their time in ``parse``."""


class BadMetadata(Exception):
    """The bytes are no metadata of a known version; the text says what is wrong."""


class VolumeMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What a domain keeps of one volume.  ``capacity`` in bytes, ``created`` in seconds since the epoch."""

    domain: UUID
    image: UUID
    parent: UUID | None
    capacity: int
    format: VolumeFormat
    allocation: Allocation
    role: VolumeRole
    legality: Legality
    created: int
    description: str = ""
    disk_type: str = "DATA"
    generation: int = 0
    sequence: int = 1
    version: int = 5
    extra: tuple[tuple[str, str], ...] = ()


def _canonical_id(text: str) -> UUID:
    return msgspec.convert(text, UUID)


def _id(text: str) -> UUID:
    found = UUID(text)
    if str(found) != text:
        msg = f"{text!r} is no id as they are written"
        raise ValueError(msg)
    return found


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or (found := int(text)) > _MOST:
        msg = f"{text!r} is no number of 63 bits"
        raise ValueError(msg)
    return found


def parse(data: bytes) -> VolumeMetadata:
    """Read metadata of V5 or V4."""
    as_id: Callable[[str], UUID] = _id
    number: Callable[[str], int] = _number
    try:
        text = data.decode("utf-8")
        if usual := _as_written(text):
            # The pattern takes sound ids and numbers only; msgspec makes ids twice as fast as their own class does.
            fields, as_id, number = usual.groupdict(), _canonical_id, int
        else:
            lines = text.split("\n")
            lines = lines[: lines.index("EOF")]
            fields = dict(line.split("=", 1) for line in lines)
            if len(fields) != len(lines):
                msg = "a key is there twice"
                raise BadMetadata(msg)
    except UnicodeDecodeError as error:
        msg = f"not UTF-8: {error}"
        raise BadMetadata(msg) from None
    except ValueError:
        msg = "no EOF line: cut off" if b"\nEOF" not in data else "a line without '='"
        raise BadMetadata(msg) from None
    try:
        parent = fields["PUUID"]
        version = 5 if "CAP" in fields else 4
        found = VolumeMetadata(
            domain=as_id(fields["DOMAIN"]),
            image=as_id(fields["IMAGE"]),
            parent=None if parent == _NIL_TEXT else as_id(parent),
            capacity=number(fields["CAP"]) if version == 5 else number(fields["SIZE"]) * _SECTOR,
            format=_FORMATS[fields["FORMAT"]],
            allocation=_ALLOCATIONS[fields["TYPE"]],
            role=_ROLES[fields["VOLTYPE"]],
            legality=_LEGALITIES[fields["LEGALITY"]],
            created=number(fields["CTIME"]),
            description=fields["DESCRIPTION"],
            disk_type=fields["DISKTYPE"],
            generation=number(fields.get("GEN", "0")),
            sequence=number(fields.get("SEQ", "1")),
            version=version,
            extra=() if fields.keys() <= _KNOWN else tuple((k, v) for k, v in fields.items() if k not in _KNOWN),
        )
    except KeyError as error:
        key = error.args[0]
        msg = f"key {key} is missing" if key.isupper() and key in _KNOWN else f"{key!r} is no known value"
        raise BadMetadata(msg) from None
    except ValueError as error:
        raise BadMetadata(str(error)) from None
    if found.generation >= GENERATIONS or found.capacity > _MOST:
        msg = f"generation {found.generation} or capacity {found.capacity} is beyond what there is"
        raise BadMetadata(msg)
    return found


def write(metadata: VolumeMetadata) -> bytes:
    """The bytes of metadata, in the version that it has."""
    fields = {
        "CTIME": str(metadata.created),
        "DESCRIPTION": metadata.description,
        "DISKTYPE": metadata.disk_type,
        "DOMAIN": str(metadata.domain),
        "FORMAT": _NAMES[metadata.format],
        "GEN": str(metadata.generation),
        "IMAGE": str(metadata.image),
        "LEGALITY": _NAMES[metadata.legality],
        "PUUID": str(metadata.parent or _NIL),
        "TYPE": _NAMES[metadata.allocation],
        "VOLTYPE": _NAMES[metadata.role],
        **dict(metadata.extra),
    }
    if metadata.version == 5:
        fields |= {"CAP": str(metadata.capacity), "SEQ": str(metadata.sequence)}
    else:
        fields |= {"SIZE": str(metadata.capacity // _SECTOR), "MTIME": "0"}
    data = "".join(f"{key}={fields[key]}\n" for key in sorted(fields)).encode() + b"EOF\n"
    if data.count(b"\n") != len(fields) + 1:
        msg = "a value has more than one line"
        raise BadMetadata(msg)
    if len(data) > LIMIT:
        msg = f"takes {len(data)} bytes, and {LIMIT} are the limit"
        raise BadMetadata(msg)
    return data


def next_generation(generation: int) -> int:
    """The generation after this one."""
    return (generation + 1) % GENERATIONS
