# SPDX-License-Identifier: Apache-2.0
"""Clusters that are zeros: what we have a file's tables say, QEMU understands as we do."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm.formats import clusters, qcow2
from hsm.formats.qcow2 import BadHeader, Header
from tests.formats import qemu
from tests.formats.qemu import KIB, MIB

SOLE, COMPRESSED, ZERO = 1 << 63, 1 << 62, 1


def header_of(path: Path) -> Header:
    with path.open("rb") as file:
        return qcow2.parse(file.read(qcow2.READ), path.stat().st_size)


def read_tables(path: Path) -> list[tuple[int, bytes]]:
    data = path.read_bytes()
    return list(clusters.tables(header_of(path), len(data), lambda offset, length: data[offset : offset + length]))


def table(*entries: int) -> bytes:
    return struct.pack(f">{len(entries)}Q", *entries)


@pytest.mark.parametrize("size", [4 * KIB, 64 * KIB, 2 * MIB])
def test_every_table_is_found(tmp_path: Path, size: int) -> None:
    path = qemu.create(tmp_path / "image", "qcow2", 4 * (size // 8) * size, "-o", f"cluster_size={size}")
    assert read_tables(path) == []
    for number in (0, 2, 3):
        qemu.write(path, "qcow2", 0x11, number * (size // 8) * size, size)
    found = read_tables(path)
    assert len(found) == 3
    for _, content in found:
        assert len(content) == size
        assert [entry != 0 for (entry,) in struct.iter_unpack(">Q", content)] == [True] + [False] * (size // 8 - 1)


@pytest.mark.parametrize(
    ("options", "able"),
    [
        (("-o", "compat=0.10"), False),
        (("-o", "compat=1.1"), True),
        (("-o", "lazy_refcounts=on"), True),
        (("-o", "compression_type=zstd"), True),
        (("-o", "extended_l2=on"), False),
    ],
)
def test_what_is_not_known_or_cannot_be_said_is_left_alone(
    tmp_path: Path, options: tuple[str, ...], able: bool
) -> None:
    path = qemu.create(tmp_path / "image", "qcow2", MIB, *options)
    assert clusters.can_tell(header_of(path)) is able
    if able:
        qemu.image_tool("snapshot", "-c", "mine", path)
        assert not clusters.can_tell(header_of(path))


def test_encrypted_volumes_are_left_alone(tmp_path: Path) -> None:
    secret = ("--object", "secret,id=key,data=secret")
    options = ("-o", "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10")
    path = qemu.create(tmp_path / "image", "qcow2", MIB, *secret, *options)
    assert not clusters.can_tell(header_of(path))


def test_what_of_a_table_is_changed() -> None:
    """Each cluster of 64 KiB is a hole if its number is odd."""
    size = 64 * KIB
    is_hole = lambda start, end: start // size % 2 == 1  # noqa: E731
    entries = [
        0,
        1 * size | SOLE,
        3 * size,
        2 * size | SOLE,
        5 * size | SOLE | ZERO,
        4 * size | SOLE | ZERO,
        6 * size | ZERO,
        7 * size | COMPRESSED,
        ZERO,
        9 * size | SOLE,
    ]
    changes, unused = clusters.zeros(table(*entries), size, is_hole)
    assert changes == [(8, table(1 * size | SOLE | ZERO, 3 * size | ZERO)), (72, table(9 * size | SOLE | ZERO))]
    # Not that of which somebody else's data may be there too.
    assert unused == [4 * size]


@pytest.mark.parametrize("at", [36, 40])
def test_tables_that_lead_astray_are_refused(tmp_path: Path, at: int) -> None:
    path = qemu.create(tmp_path / "image", "qcow2", MIB)
    qemu.write(path, "qcow2", 0x11)
    data = bytearray(path.read_bytes())
    struct.pack_into(">I", data, at, 0x7FFF_FFFF)
    path.write_bytes(data)
    with pytest.raises(BadHeader):
        read_tables(path)


@given(entry=st.integers(1, 2**64 - 1))
def test_a_table_beyond_the_end_or_between_clusters_is_refused(entry: int) -> None:
    header = qcow2.parse(qcow2.new(MIB)[1][0][1], 4 * 64 * KIB)
    data = bytearray(4 * 64 * KIB)
    for offset, content in qcow2.new(MIB)[1]:
        data[offset : offset + len(content)] = content
    struct.pack_into(">Q", data, 3 * 64 * KIB, entry)
    found = clusters.tables(header, len(data), lambda offset, length: bytes(data[offset : offset + length]))
    place = entry & 0x00FF_FFFF_FFFF_FE00
    if place % (64 * KIB) or place >= len(data):
        with pytest.raises(BadHeader):
            list(found)
    else:
        assert [offset for offset, _ in found] == ([place] if place else [])


def test_qemu_reads_zeros_and_finds_it_sound(tmp_path: Path) -> None:
    """Clusters of zeros over others' data: they hide it, are told without being read, and can be written again."""
    base = qemu.create(tmp_path / "base", "raw", MIB)
    qemu.write(base, "raw", 0x77, 0, MIB)
    path = qemu.create(tmp_path / "image", "qcow2", MIB, "-b", str(base), "-F", "raw")
    qemu.write(path, "qcow2", 0, 64 * KIB, 512 * KIB)
    qemu.write(path, "qcow2", 0x11, 0, 64 * KIB)
    before = qemu.content(path, "qcow2")
    data = path.read_bytes()
    descriptor = os.open(path, os.O_RDWR)
    for offset, content in read_tables(path):
        changes, unused = clusters.zeros(content, 64 * KIB, lambda start, end: not data[start:end].strip(b"\0"))
        assert [len(entries) for _, entries in changes] == [64]
        assert unused == []
        for place, entries in changes:
            os.pwrite(descriptor, entries, offset + place)
    os.close(descriptor)
    qemu.check(path)
    assert qemu.content(path, "qcow2") == before
    qemu.write(path, "qcow2", 0x22, 100 * KIB, KIB)
    after = before[: 100 * KIB] + b"\x22" * KIB + before[101 * KIB :]
    assert qemu.content(path, "qcow2") == after
    qemu.check(path)
