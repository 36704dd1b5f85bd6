# SPDX-License-Identifier: Apache-2.0
"""Bitmaps in qcow2 files: what we write QEMU judges, what QEMU writes we read, and what is hostile does no harm."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsm.domains import durable
from hsm.formats import bitmaps, qcow2
from hsm.formats.bitmaps import BadBitmaps, Bitmap, Place
from hsm.formats.qcow2 import Header
from tests.formats import qemu
from tests.formats.qemu import GIB, KIB, MIB

CLUSTER = 64 * KIB


def named(name: str, granularity: int = CLUSTER) -> Bitmap:
    return Bitmap(name=name, granularity=granularity, recording=True, in_use=False, table=0, entries=0)


def make(path: Path, capacity: int, *wanted: Bitmap, backing: str | None = None) -> Path:
    length, content = qcow2.new(capacity, backing, "qcow2" if backing else None, wanted)
    durable.write_new(str(path), content, length=length)
    return path


def reader(path: Path) -> bitmaps.ReadAt:
    data = path.read_bytes()
    return lambda offset, length: data[offset : offset + length]


def read(path: Path) -> Header:
    at = reader(path)
    return qcow2.with_bitmaps(qcow2.parse(at(0, qcow2.READ), path.stat().st_size), at)


def marked(path: Path, name: str, start: int = 0) -> list[tuple[int, int]]:
    header = read(path)
    (bitmap,) = (bitmap for bitmap in header.bitmaps if bitmap.name == name)
    return list(bitmaps.union([bitmaps.dirty(bitmap, header.capacity, header.cluster_size, reader(path), start)]))


# ---- written


@pytest.mark.parametrize("capacity", [512, CLUSTER, GIB, 2**41])
def test_new_images_have_bitmaps_that_qemu_takes_and_records_in(tmp_path: Path, capacity: int) -> None:
    path = make(tmp_path / "image", capacity, named("backup-1"), named("größer", 1 * MIB))
    qemu.check(path)
    said = qemu.info(path, "qcow2")["format-specific"]["data"]["bitmaps"]
    assert said == [
        {"name": "backup-1", "granularity": CLUSTER, "flags": ["auto"]},
        {"name": "größer", "granularity": MIB, "flags": ["auto"]},
    ]
    qemu.write(path, "qcow2", 0x11, capacity - 512, 512)
    qemu.check(path)
    assert marked(path, "backup-1") == [((capacity - 1) // CLUSTER * CLUSTER, capacity)]
    assert marked(path, "größer") == [((capacity - 1) // MIB * MIB, capacity)]


def test_many_bitmaps_fit_beside_a_parent(tmp_path: Path) -> None:
    make(tmp_path / "base", MIB)
    names = [f"a rather long name of a bitmap, number {number}" for number in range(64)]
    path = make(tmp_path / "top", MIB, *map(named, names), backing="base")
    qemu.check(path)
    assert [bitmap.name for bitmap in read(path).bitmaps] == names
    assert read(path).backing_file == "base"


# ---- read


def test_what_qemu_wrote_is_read(tmp_path: Path) -> None:
    path = qemu.create(tmp_path / "image", "qcow2", 8 * GIB)
    qemu.image_tool("bitmap", "--add", "-g", "4096", "-f", "qcow2", path, "fine")
    qemu.image_tool("bitmap", "--add", "--disable", "-f", "qcow2", path, "still")
    for offset, length in ((0, 4096), (12 * KIB, 64 * KIB), (5 * GIB, MIB), (8 * GIB - 512, 512)):
        qemu.write(path, "qcow2", 0x22, offset, length)
    assert [(b.name, b.granularity, b.recording, b.in_use) for b in read(path).bitmaps] == [
        ("fine", 4096, True, False),
        ("still", CLUSTER, False, False),
    ]
    expected = [(0, 4096), (12 * KIB, 76 * KIB), (5 * GIB, 5 * GIB + MIB), (8 * GIB - 4096, 8 * GIB)]
    assert marked(path, "fine") == expected
    assert marked(path, "still") == []
    assert marked(path, "fine", 16 * KIB) == [(16 * KIB, 76 * KIB), *expected[2:]]
    assert marked(path, "fine", 8 * GIB) == []


def test_it_says_the_same_as_qemu_of_what_is_written_at_random(tmp_path: Path) -> None:
    dice = random.Random(7)
    path = make(tmp_path / "image", 16 * MIB, named("b", 512))
    expected = bytearray(16 * MIB // 512)
    for _ in range(12):
        first, count = dice.randrange(len(expected) - 600), dice.randrange(1, 600)
        qemu.write(path, "qcow2", 0x33, first * 512, count * 512)
        expected[first : first + count] = b"\1" * count
    found = bytearray(len(expected))
    for begin, end in marked(path, "b"):
        assert not any(found[begin // 512 : end // 512])
        found[begin // 512 : end // 512] = b"\1" * ((end - begin) // 512)
    assert found == expected


def test_a_whole_disk_that_was_written_is_one_part(tmp_path: Path) -> None:
    path = make(tmp_path / "image", 64 * MIB, named("b", 512))
    qemu.write(path, "qcow2", 0x11, 0, 64 * MIB)
    assert marked(path, "b") == [(0, 64 * MIB)]


def test_a_writer_that_knows_no_bitmaps_ends_them(tmp_path: Path) -> None:
    path = make(tmp_path / "image", MIB, named("b"))
    with path.open("r+b") as file:
        file.seek(88)
        file.write(bytes(8))
    assert read(path).bitmaps == ()
    assert read(path).bitmaps_damage is None


# ---- hostile


def entry(name: bytes = b"b", kind: int = 1, bits: int = 16, flags: int = 2, said: int | None = None) -> bytes:
    length = len(name) if said is None else said
    data = struct.pack(">QIIBBHI", 0, 1, flags, kind, bits, length, 0) + name
    return data.ljust(-(-len(data) // 8) * 8, b"\0")


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (b"", 1),
        (entry(), 2),
        (entry()[:20], 1),
        (entry(said=60000), 1),
        (entry(said=0), 1),
        (entry(b"\xff\xfe"), 1),
        (entry(b"a\nb"), 1),
        (entry(kind=2), 1),
        (entry(bits=8), 1),
        (entry(bits=63), 1),
        (entry() + entry(), 2),
    ],
)
def test_a_damaged_directory_is_told(data: bytes, count: int) -> None:
    with pytest.raises(BadBitmaps):
        bitmaps.directory(Place(offset=0, length=len(data), count=count), lambda at, n: data[at : at + n])


@pytest.mark.parametrize(
    "extension",
    [
        b"",
        struct.pack(">IIQQ", 0, 0, 32, 65536),
        struct.pack(">IIQQ", 2**32 - 1, 0, 32, 65536),
        struct.pack(">IIQQ", 1, 0, 2**63, 65536),
    ],
)
def test_an_extension_beyond_all_bounds_is_told(extension: bytes) -> None:
    with pytest.raises(BadBitmaps):
        bitmaps.place(extension, bitmaps.AUTOCLEAR_BIT)
    assert bitmaps.place(extension, 0) is None


@pytest.mark.parametrize("offset", [2**63, 2**64 - 1])
def test_a_directory_where_no_file_reaches_is_told(tmp_path: Path, offset: int) -> None:
    path = make(tmp_path / "image", MIB, named("b"))
    with path.open("rb") as file, pytest.raises(BadBitmaps):
        bitmaps.directory(Place(offset=offset, length=32, count=1), lambda at, n: os.pread(file.fileno(), n, at))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(1, 1024))
def test_no_directory_makes_the_reader_fail_otherwise(data: bytes, count: int) -> None:
    try:
        found = bitmaps.directory(Place(offset=0, length=len(data), count=count), lambda at, n: data[at : at + n])
    except BadBitmaps:
        return
    assert len(found) == count


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_byte_of_an_image_makes_the_reader_fail_otherwise(data: st.DataObject) -> None:
    length, content = qcow2.new(MIB, None, None, (named("b", 512),))
    image = bytearray(length)
    for offset, part in content:
        image[offset : offset + len(part)] = part
    places = [(0, 200), *((offset, len(part)) for offset, part in content[3:]), (4 * CLUSTER, 8)]
    for _ in range(data.draw(st.integers(1, 4))):
        begin, size = data.draw(st.sampled_from(places))
        image[begin + data.draw(st.integers(0, size - 1))] = data.draw(st.integers(0, 255))

    def at(offset: int, count: int) -> bytes:
        assert count <= 64 * MIB
        return bytes(image[offset : offset + count])

    try:
        header = qcow2.with_bitmaps(qcow2.parse(at(0, qcow2.READ), length), at)
        for bitmap in header.bitmaps:
            for begin, end in bitmaps.dirty(bitmap, header.capacity, header.cluster_size, at):
                assert 0 <= begin < end <= header.capacity
    except (qcow2.BadHeader, BadBitmaps):
        pass


def test_what_several_layers_mark_is_joined() -> None:
    layers = [iter([(0, 10), (30, 40)]), iter([(10, 20), (35, 50), (60, 70)]), iter([(65, 66)])]
    assert list(bitmaps.union(layers)) == [(0, 20), (30, 50), (60, 70)]
    assert list(bitmaps.union([])) == []
