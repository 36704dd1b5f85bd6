# SPDX-License-Identifier: Apache-2.0
"""The qcow2 header: what we write, QEMU's own tools judge; what they write, we read."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsm.domains import durable
from hsm.formats import qcow2
from hsm.formats.qcow2 import BadHeader, Header
from tests.formats import qemu
from tests.formats.qemu import GIB, KIB, MIB

SECTOR = 512
PER_ENTRY = 512 * MIB
"""What one entry of the first-level table covers."""
SIZES = [
    SECTOR,
    64 * KIB - SECTOR,
    64 * KIB,
    64 * KIB + SECTOR,
    MIB,
    PER_ENTRY - SECTOR,
    PER_ENTRY,
    PER_ENTRY + SECTOR,
    GIB,
    8192 * PER_ENTRY,  # the first-level table fills a cluster
    8192 * PER_ENTRY + SECTOR,
    2**51,
]


def make(path: Path, capacity: int, backing: str | None = None, backing_format: str | None = None) -> Path:
    """A file with what ``new`` says."""
    length, content = qcow2.new(capacity, backing, backing_format)
    durable.write_new(str(path), content, length=length)
    return path


def read(path: Path) -> Header:
    with path.open("rb") as file:
        return qcow2.parse(file.read(qcow2.READ), path.stat().st_size)


# ---- written


def ids(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


@pytest.mark.parametrize("capacity", SIZES, ids=ids)
def test_an_empty_image_is_sound_and_can_be_written_to_its_last_sector(tmp_path: Path, capacity: int) -> None:
    path = make(tmp_path / "image", capacity)
    qemu.check(path)
    found = qemu.info(path, "qcow2")
    assert (found["virtual-size"], found["cluster-size"], found["format"]) == (capacity, 64 * KIB, "qcow2")
    assert "backing-filename" not in found
    assert found["format-specific"]["data"] == {
        "compat": "1.1",
        "compression-type": "zlib",
        "corrupt": False,
        "extended-l2": False,
        "lazy-refcounts": False,
        "refcount-bits": 16,
    }
    length = min(capacity, 4 * KIB)
    qemu.write(path, "qcow2", 0x11, 0, length)
    qemu.write(path, "qcow2", 0x22, capacity - SECTOR, SECTOR)
    assert qemu.holds(path, "qcow2", 0x22, capacity - SECTOR, SECTOR)
    if capacity > 64 * KIB:
        assert qemu.holds(path, "qcow2", 0x11, 0, length)
        assert qemu.holds(path, "qcow2", 0, length, min(capacity - SECTOR, MIB) - length)
    qemu.check(path)


def test_what_qemu_makes_of_the_same_size_differs_in_nothing_that_counts(tmp_path: Path) -> None:
    ours = make(tmp_path / "ours", GIB)
    theirs = qemu.create(tmp_path / "theirs", "qcow2", GIB)
    told = [{**qemu.info(path, "qcow2"), "filename": None, "actual-size": None} for path in (ours, theirs)]
    assert told[0] == told[1]
    assert ours.stat().st_size <= theirs.stat().st_size + 64 * KIB
    assert read(ours) == read(theirs)


@pytest.mark.parametrize("format_", ["raw", "qcow2"])
@pytest.mark.parametrize("capacity", [MIB, 3 * MIB + SECTOR], ids=ids)
def test_an_overlay_shows_what_is_below_and_keeps_what_is_written_above(
    tmp_path: Path, format_: str, capacity: int
) -> None:
    base = qemu.create(tmp_path / "base", format_, MIB)
    qemu.write(base, format_, 0x11, 0, MIB)
    path = make(tmp_path / "overlay", capacity, "base", format_)
    found = qemu.info(path, "qcow2")
    assert (found["backing-filename"], found["backing-filename-format"]) == ("base", format_)
    assert found["virtual-size"] == capacity
    qemu.check(path)
    assert qemu.holds(path, "qcow2", 0x11, 0, MIB)
    qemu.write(path, "qcow2", 0x22, 100 * KIB, SECTOR)
    assert qemu.holds(path, "qcow2", 0x11, 0, 100 * KIB)
    assert qemu.holds(path, "qcow2", 0x22, 100 * KIB, SECTOR)
    assert qemu.holds(path, "qcow2", 0x11, 100 * KIB + SECTOR, 900 * KIB)
    if capacity > MIB:
        assert qemu.holds(path, "qcow2", 0, MIB, min(capacity - MIB, MIB))
    qemu.check(path)
    assert qemu.holds(base, format_, 0x11, 0, MIB)


@pytest.mark.parametrize("name", ["b", "ä" * 100, "x" * 255, "./" * 500 + "b"], ids=len)
def test_the_name_of_a_backing_file_is_what_qemu_reads(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / "overlay", MIB, name, "raw")
    assert qemu.info(path, "qcow2")["backing-filename"] == name
    assert read(path).backing_file == name
    assert read(path).backing_format == "raw"


def test_the_longest_name_and_no_longer_one(tmp_path: Path) -> None:
    path = make(tmp_path / "overlay", MIB, "x" * qcow2.MAX_BACKING, "qcow2")
    assert read(path).backing_file == "x" * 1023
    with pytest.raises(BadHeader):
        qcow2.new(MIB, "x" * 1024, "qcow2")


def test_the_largest_capacity_is_the_one_that_qemu_opens(tmp_path: Path) -> None:
    assert qcow2.max_capacity() == 2**51
    beyond = make(tmp_path / "beyond", 2**51 + SECTOR)
    with pytest.raises(AssertionError, match=r"L1|large"):
        qemu.info(beyond, "qcow2")


# ---- read

MADE: dict[str, tuple[tuple[str, ...], dict[str, object]]] = {
    "version 3": ((), {}),
    "version 2": (("-o", "compat=0.10"), {"version": 2}),
    "the smallest clusters": (("-o", "cluster_size=512"), {"cluster_size": 512}),
    "the largest clusters": (("-o", "cluster_size=2M"), {"cluster_size": 2 * MIB}),
    "extended second level": (
        ("-o", "extended_l2=on,cluster_size=128k"),
        {"cluster_size": 128 * KIB, "incompatible": 16},
    ),
    "another compression": (("-o", "compression_type=zstd"), {"incompatible": 8}),
    "lazy reference counts": (("-o", "lazy_refcounts=on"), {}),
    "wide reference counts": (("-o", "refcount_bits=64"), {}),
    "all space taken": (("-o", "preallocation=falloc"), {}),
    "on raw": (("-u", "-b", "../img/base", "-F", "raw"), {"backing_file": "../img/base", "backing_format": "raw"}),
    "on qcow2": (("-u", "-b", "/a/b", "-F", "qcow2"), {"backing_file": "/a/b", "backing_format": "qcow2"}),
    "on a network disk": (
        ("-u", "-b", "nbd://host/x", "-F", "raw"),
        {"backing_file": "nbd://host/x", "backing_format": "raw"},
    ),
    "of version 2 on raw": (
        ("-u", "-o", "compat=0.10", "-b", "b", "-F", "raw"),
        {"version": 2, "backing_file": "b", "backing_format": "raw"},
    ),
    "encrypted": (
        ("--object", "secret,id=s,data=x", "-o", "encrypt.format=aes,encrypt.key-secret=s"),
        {"encrypted": True, "old_encryption": True},
    ),
    "with a data file": (("-o", "data_file={}.data"), {"data_file": True, "incompatible": 4}),
    "with a raw data file": (("-o", "data_file={}.data,data_file_raw=on"), {"data_file": True, "incompatible": 4}),
}


@pytest.mark.parametrize("name", MADE)
def test_what_qemu_makes_is_read(tmp_path: Path, name: str) -> None:
    options, facts = MADE[name]
    path = tmp_path / "image"
    qemu.create(path, "qcow2", 5 * MIB, *(option.format(path) for option in options))
    plain: dict[str, object] = {
        "version": 3,
        "capacity": 5 * MIB,
        "cluster_size": 64 * KIB,
        "backing_file": None,
        "backing_format": None,
        "data_file": False,
        "encrypted": False,
        "incompatible": 0,
        "snapshots": 0,
    }
    assert read(path) == Header(**{**plain, **facts})  # type: ignore[arg-type]


def test_a_missing_backing_format_is_none(tmp_path: Path) -> None:
    qemu.create(tmp_path / "base", "qcow2", MIB)
    path = make(tmp_path / "image", MIB, "base", "qcow2")
    content = bytearray(path.read_bytes()[:4096])
    at = content.index(struct.pack(">I", 0xE2792ACA))
    content[at : at + 4] = struct.pack(">I", 0x12345678)
    header = qcow2.parse(bytes(content), 4096)
    assert (header.backing_file, header.backing_format) == ("base", None)


def test_internal_snapshots_and_bitmaps_are_no_trouble(tmp_path: Path) -> None:
    path = qemu.create(tmp_path / "image", "qcow2", MIB)
    qemu.image_tool("snapshot", "-c", "one", path)
    qemu.image_tool("bitmap", "--add", path, "changes")
    assert (read(path).snapshots, read(path).incompatible) == (1, 0)


# ---- malformed


def header(**changed: int) -> bytes:
    """Our header with some fields changed, by their offset and width."""
    places = {
        "magic": (0, ">I"),
        "version": (4, ">I"),
        "name_at": (8, ">Q"),
        "name_length": (16, ">I"),
        "cluster_bits": (20, ">I"),
        "header_length": (100, ">I"),
        "extension_length": (116, ">I"),
    }
    data = bytearray(qcow2.new(MIB, "base", "raw")[1][0][1].ljust(4096, b"\0"))
    for name, value in changed.items():
        at, form = places[name]
        struct.pack_into(form, data, at, value)
    return bytes(data)


REFUSED = {
    "nothing": b"",
    "zeros": bytes(4096),
    "the magic alone": b"QFI\xfb",
    "cut off": header()[:71],
    "cut off in version 3's part": header()[:90],
    "another magic": header(magic=0x514649FC),
    "version 1": header(version=1),
    "version 4": header(version=4),
    "clusters too small": header(cluster_bits=8),
    "clusters too large": header(cluster_bits=22),
    "a name beyond the file": header(name_at=2**40),
    "a name that is too long": header(name_length=1024),
    "a name that ends beyond the file": header(name_at=4090, name_length=10),
    "an extension beyond the file": header(extension_length=2**31),
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_malformed_is_refused(data: bytes) -> None:
    with pytest.raises(BadHeader, match=r"."):
        qcow2.parse(data, len(data))


@settings(max_examples=300)
@given(st.integers(0, 200), st.binary(min_size=1, max_size=16))
def test_a_header_with_a_hole_in_it_is_read_or_refused(at: int, hole: bytes) -> None:
    data = bytearray(header())
    data[at : at + len(hole)] = hole
    try:
        qcow2.parse(bytes(data), len(data))
    except BadHeader:
        return


@given(st.binary(max_size=300))
def test_bytes_of_any_kind_are_read_or_refused(rest: bytes) -> None:
    for start in (b"", b"QFI\xfb\0\0\0\2", b"QFI\xfb\0\0\0\3"):
        try:
            qcow2.parse(start + rest, len(start + rest))
        except BadHeader:
            continue


def test_bitmaps_and_internal_snapshots_are_seen(tmp_path: Path) -> None:
    path = qemu.create(tmp_path / "image", "qcow2", qemu.MIB)
    seen = []
    for change in (
        ("snapshot", "-c", "one", path),
        ("bitmap", "--add", "-f", "qcow2", path, "dirty"),
        ("snapshot", "-d", "one", path),
        ("bitmap", "--remove", "-f", "qcow2", path, "dirty"),
    ):
        qemu.image_tool(*change)
        header = qcow2.parse(path.read_bytes()[: qcow2.READ], path.stat().st_size)
        seen.append((header.snapshots, header.bitmaps_at is not None))
    assert seen == [(1, False), (1, True), (0, True), (0, False)]
