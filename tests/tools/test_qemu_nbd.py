# SPDX-License-Identifier: Apache-2.0
"""Reading a volume through qemu-nbd: the memory that it takes does not grow with the disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MIB = 2**20
_MEASURED = """
import os, sys
from pathlib import Path
from hsm.tools import blockhash
from hsm.tools.nodes import Source
from hsm.tools.qemu_nbd import QemuNbd
from libvdsm.run import Runner

tool, disk = QemuNbd(Runner(), deadline=60.0), Source(sys.argv[1], "raw")

def resident():
    pages = Path("/proc/self/statm").read_text().split()
    return (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE")

def checksum():
    with tool.reading(disk, descriptors=(), stop=lambda: False) as reading:
        return blockhash.of_disk(reading, blockhash.BLOCK_SIZE, lambda percent: None)

def give_up():
    with tool.reading(disk, descriptors=(), stop=lambda: False) as reading:
        waits = [reading.begin(offset, 8 * 2**20) for offset in range(0, 32 * 2**20, 8 * 2**20)]
        assert len(waits[0]()) == 8 * 2**20

work = globals()[sys.argv[2]]
first, before = work(), resident()
for _ in range(4):
    assert work() == first
print(resident() - before)
"""
"""In a process of its own: what others have freed, and its allocator keeps, does not count."""


@pytest.mark.parametrize(
    "work",
    [pytest.param("checksum", id="of-all-that-is-read"), pytest.param("give_up", id="of-reads-that-are-given-up")],
)
def test_memory_does_not_grow_with_the_disks(tmp_path: Path, work: str) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(os.urandom(MIB) * 128)
    argv = [sys.executable, "-c", _MEASURED, str(disk), work]
    grown = int(subprocess.run(argv, stdout=subprocess.PIPE, timeout=120, check=True).stdout)
    assert grown < 48 * MIB, "four disks, or what was being read of them"
