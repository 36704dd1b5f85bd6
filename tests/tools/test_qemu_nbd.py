# SPDX-License-Identifier: Apache-2.0
"""Reading a volume through qemu-nbd: the memory that it takes does not grow with the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hsm.tools import blockhash
from hsm.tools.nodes import Source
from hsm.tools.qemu_nbd import QemuNbd
from libvdsm.run import Runner

MIB = 2**20
_PAGE = os.sysconf("SC_PAGE_SIZE")
_DEADLINE = 60.0


def resident() -> int:
    """This process's own memory, in bytes."""
    pages = Path("/proc/self/statm").read_text().split()
    return (int(pages[1]) - int(pages[2])) * _PAGE


@pytest.fixture
def disk(tmp_path: Path) -> Source:
    """128 MiB of data."""
    path = tmp_path / "disk"
    path.write_bytes(os.urandom(MIB) * 128)
    return Source(str(path), "raw")


def test_memory_does_not_grow_with_what_is_read(disk: Source) -> None:
    tool = QemuNbd(Runner(), deadline=_DEADLINE)

    def checksum() -> str:
        with tool.reading(disk, descriptors=(), stop=lambda: False) as reading:
            return blockhash.of_disk(reading, blockhash.BLOCK_SIZE, lambda percent: None)

    first, before = checksum(), resident()
    assert [checksum(), checksum()] == [first, first]
    assert resident() - before < 32 * MIB


def test_reads_under_way_are_given_up_with_their_memory(disk: Source) -> None:
    tool = QemuNbd(Runner(), deadline=_DEADLINE)
    before = resident()
    for _ in range(6):
        with tool.reading(disk, descriptors=(), stop=lambda: False) as reading:
            waits = [reading.begin(offset, 8 * MIB) for offset in range(0, 32 * MIB, 8 * MIB)]
            assert len(waits[0]()) == 8 * MIB
    assert resident() - before < 64 * MIB
