# SPDX-License-Identifier: Apache-2.0
"""Holes are made where there are zeros, and not a byte changes."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm.tools import holes, offload
from libvdsm.run import CommandStopped

KIB, MIB = 2**10, 2**20


def never() -> bool:
    return False


def dig(path: Path, *, block: int = holes.BLOCK, stop: object = never, rate: int | None = None) -> list[float]:
    """How far it was, each time that it said so."""
    told: list[float] = []
    descriptor = os.open(path, os.O_RDWR)
    try:
        holes.dig(descriptor, block=block, on_percent=told.append, stop=stop, rate=rate)  # type: ignore[arg-type]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return told


def data_of(path: Path) -> list[tuple[int, int]]:
    with path.open("rb") as file:
        return list(offload.data_of(file.fileno()))


def used(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_zeros_become_holes_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    content = bytearray(8 * MIB)
    content[MIB : 2 * MIB] = b"\x11" * MIB
    content[5 * MIB + 100] = 1
    path.write_bytes(content)
    told = dig(path)
    assert path.read_bytes() == content
    assert data_of(path) == [(MIB, 2 * MIB), (5 * MIB, 5 * MIB + 64 * KIB)]
    assert used(path) < MIB + 128 * KIB
    assert (told[-1], told) == (100, sorted(told))
    before = used(path)
    dig(path)
    assert used(path) == before


@pytest.mark.parametrize("seed", range(20))
def test_no_byte_changes_wherever_the_zeros_are(tmp_path: Path, seed: int) -> None:
    noise = random.Random(seed)
    path = tmp_path / "file"
    length = noise.randrange(1, 3 * MIB)
    content = bytearray(length)
    for _ in range(noise.randrange(12)):
        offset = noise.randrange(length)
        size = min(noise.choice([1, 511, 4096, 70 * KIB]), length - offset)
        content[offset : offset + size] = noise.randbytes(size)
    with path.open("wb") as file:
        file.truncate(length)
        for offset in range(0, length, 4 * KIB):
            if noise.random() < 0.7 or content[offset : offset + 4 * KIB].strip(b"\0"):
                file.seek(offset)
                file.write(content[offset : offset + 4 * KIB])
    dig(path, block=noise.choice([4 * KIB, 64 * KIB, MIB]))
    assert path.read_bytes() == content
    assert path.stat().st_size == length
    # Nothing is left that could be a hole: a block in which there is something is no hole, any other is.
    kept = {block for start, end in data_of(path) for block in range(start // MIB, -(-end // MIB))}
    assert kept == {block for block in range(-(-length // MIB)) if bytes(content[block * MIB : (block + 1) * MIB]).strip(b"\0")}


def test_the_end_of_a_file_that_is_no_whole_block_comes_back_too(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\x11" * 64 * KIB + bytes(64 * KIB + 512))
    dig(path)
    assert (data_of(path), used(path)) == ([(0, 64 * KIB)], 64 * KIB)
    assert path.stat().st_size == 128 * KIB + 512


def test_it_stops_when_it_is_told_to_and_keeps_what_has_come_back(tmp_path: Path) -> None:
    path = tmp_path / "file"
    content = bytes(MIB) + b"\x11" * MIB + bytes(6 * MIB)
    path.write_bytes(content)
    rounds = iter([False, False, False, True])
    with pytest.raises(CommandStopped):
        dig(path, stop=lambda: next(rounds))
    assert data_of(path) == [(MIB, 8 * MIB)]
    assert path.read_bytes() == content


def test_it_keeps_to_a_rate(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\x11" * 2 * MIB)
    began = time.monotonic()
    dig(path, rate=8 * MIB)
    assert time.monotonic() - began >= 0.25


def test_a_part_is_a_hole_only_if_all_of_it_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(MIB)
        file.seek(256 * KIB)
        file.write(b"\x11" * 64 * KIB)
    with path.open("rb") as file:
        is_hole = holes.Holes(file.fileno())
        step = 64 * KIB
        assert [is_hole(start, start + step) for start in range(0, MIB, step)] == [n != 4 for n in range(16)]
        assert not is_hole(3 * step, 5 * step)
        assert not is_hole(4 * step, 6 * step)
        assert is_hole(15 * step, 16 * step)
        assert not is_hole(15 * step, 17 * step)


@pytest.fixture
def without_holes(tmp_path: Path) -> Iterator[Path]:
    """A file system that cannot."""
    folder = tmp_path / "memory"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "ramfs", "none", folder], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("no right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_file_system_that_cannot_says_so(without_holes: Path) -> None:
    path = without_holes / "file"
    path.write_bytes(bytes(MIB))
    with pytest.raises(OSError, match="not supported") as caught:
        dig(path)
    assert caught.value.errno == errno.EOPNOTSUPP
