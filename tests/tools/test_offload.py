# SPDX-License-Identifier: Apache-2.0
"""Copies that the file system or its server makes, and what is done where neither can."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from hsm.tools import offload
from libvdsm.run import CommandStopped

MIB = 2**20


def never() -> bool:
    return False


@pytest.fixture
def xfs(tmp_path: Path) -> Iterator[Path]:
    """A file system that can share."""
    if os.geteuid() != 0 or not shutil.which("mkfs.xfs"):
        pytest.skip("an XFS in a file needs root and mkfs.xfs (xfsprogs)")
    disk, place = tmp_path / "disk", tmp_path / "xfs"
    place.mkdir()
    with disk.open("wb") as file:
        file.truncate(512 * MIB)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", disk], check=True)
    mounted = subprocess.run(["mount", "-o", "loop", disk, place], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"it cannot be mounted: {mounted.stderr.decode()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def files(folder: Path, length: int = 8 * MIB) -> tuple[BinaryIO, BinaryIO]:
    """One with a MiB of data at 2 MiB and at 6, and one that is all zeros."""
    source, target = (folder / "source").open("w+b"), (folder / "target").open("w+b")
    for file in (source, target):
        file.truncate(length)
    for offset in (2 * MIB, 6 * MIB):
        os.pwrite(source.fileno(), bytes([offset // MIB]) * MIB, offset)
    return source, target


def same(folder: Path) -> bool:
    return (folder / "source").read_bytes() == (folder / "target").read_bytes()


def test_space_is_shared_until_one_of_the_two_is_written(xfs: Path) -> None:
    source, target = files(xfs)
    with source, target:
        os.fsync(source.fileno())
        before = os.statvfs(xfs).f_bfree
        assert offload.reflink(source.fileno(), target.fileno())
        os.fsync(target.fileno())
        assert before - os.statvfs(xfs).f_bfree < MIB // 4096
        assert same(xfs)
        os.pwrite(target.fileno(), b"x", 2 * MIB)
        assert os.pread(source.fileno(), 1, 2 * MIB) == b"\x02"


def test_a_file_system_that_cannot_share_says_so(tmp_path: Path, xfs: Path) -> None:
    source, target = files(tmp_path)
    with source, target, (xfs / "other").open("w+b") as other:
        os.pwrite(other.fileno(), b"data", 0)
        assert not offload.reflink(other.fileno(), target.fileno())
        assert os.pread(target.fileno(), 4, 0) == bytes(4)


def test_what_is_wrong_with_the_files_is_an_error(tmp_path: Path, xfs: Path) -> None:
    (xfs / "source").write_bytes(b"data")
    with (xfs / "source").open("rb") as source, (xfs / "target").open("wb") as target:
        with pytest.raises(OSError, match="Bad file descriptor"):
            offload.reflink(target.fileno(), source.fileno())


def test_no_local_file_system_has_a_server(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        assert not offload.is_by_server(file.fileno())


def test_only_data_is_copied_and_holes_stay(tmp_path: Path) -> None:
    source, target = files(tmp_path)
    done: list[int] = []
    with source, target:
        assert offload.copy(source.fileno(), target.fileno(), on_done=done.append, stop=never, rate=None)
        assert done == [3 * MIB, 7 * MIB]
        assert same(tmp_path)
        assert os.fstat(target.fileno()).st_blocks <= os.fstat(source.fileno()).st_blocks


def test_a_copy_keeps_to_its_rate(tmp_path: Path) -> None:
    source, target = files(tmp_path)
    began = time.monotonic()
    with source, target:
        assert offload.copy(source.fileno(), target.fileno(), on_done=lambda _: None, stop=never, rate=4 * MIB)
    assert 0.45 <= time.monotonic() - began < 10
    assert same(tmp_path)


def test_a_copy_stops_when_it_is_told(tmp_path: Path) -> None:
    source, target = files(tmp_path)
    done: list[int] = []
    with source, target, pytest.raises(CommandStopped):
        offload.copy(source.fileno(), target.fileno(), on_done=done.append, stop=lambda: bool(done), rate=4 * MIB)
    assert done == [3 * MIB]
    source, target = files(tmp_path)
    with source, target, pytest.raises(CommandStopped):
        offload.reserve(source.fileno(), target.fileno(), lambda: True)


def test_files_that_the_kernel_cannot_copy_are_left_to_a_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(95, "Operation not supported")

    source, target = files(tmp_path)
    monkeypatch.setattr(os, "copy_file_range", refuse)
    with source, target:
        assert not offload.copy(source.fileno(), target.fileno(), on_done=lambda _: None, stop=never, rate=None)


def test_space_is_taken_for_data_alone(tmp_path: Path) -> None:
    source, target = files(tmp_path)
    with source, target:
        offload.reserve(source.fileno(), target.fileno(), never)
        assert os.fstat(target.fileno()).st_size == 8 * MIB
        assert os.fstat(target.fileno()).st_blocks <= os.fstat(source.fileno()).st_blocks
        assert not (tmp_path / "target").read_bytes().strip(b"\0")
