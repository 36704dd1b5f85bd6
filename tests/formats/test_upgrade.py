# SPDX-License-Identifier: Apache-2.0
"""Headers of version 2 made version 3: QEMU takes them for what they were, and nothing else of the file changes."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from hsm.domains import durable
from hsm.formats import qcow2
from hsm.formats.qcow2 import BadHeader
from tests.formats import qemu
from tests.formats.qemu import KIB, MIB

SECTOR = 512
NAMES = [
    "7e4e3e5e-5b3a-4c1c-9b0f-1d2f9a1b0c01",
    "../2c1c2b7e-6a49-4c62-8f3f-9c1e3a5b7d02/7e4e3e5e-5b3a-4c1c-9b0f-1d2f9a1b0c01",
    "/rhev/data-center/mnt/" + "x" * 200 + "/images/base",
]


@pytest.mark.parametrize("clusters", [SECTOR, 64 * KIB, 2 * MIB])
@pytest.mark.parametrize("name", [None, *NAMES])
@pytest.mark.parametrize("said", ["raw", "qcow2", None])
def test_it_is_the_same_image_of_version_3(tmp_path: Path, clusters: int, name: str | None, said: str | None) -> None:
    path = qemu.create(tmp_path / "image", "qcow2", MIB, "-o", f"compat=0.10,cluster_size={clusters}")
    qemu.write(path, "qcow2", 0x11, 100 * KIB, 64 * KIB)
    if name is not None:
        qemu.image_tool("rebase", "-u", "-f", "qcow2", "-b", name, "-F", said or "qcow2", path)
    if said is None:
        without_format(path)
    before, data = qemu.info(path, "qcow2"), path.read_bytes()
    ((offset, sector),) = qcow2.upgraded(data[: qcow2.READ])
    durable.write_into(str(path), qcow2.upgraded, qcow2.READ)
    assert (offset, len(sector)) == (0, SECTOR)
    assert path.read_bytes() == sector + data[SECTOR:]
    after = qemu.info(path, "qcow2")
    assert before["format-specific"]["data"].pop("compat") == "0.10"
    assert after["format-specific"]["data"].pop("compat") == "1.1"
    for known in (before, after):
        for key in ("actual-size", "dirty-flag"):
            known.pop(key)
    told = after.pop("format-specific")["data"]
    assert (told["corrupt"], told["lazy-refcounts"], told["refcount-bits"]) == (False, False, 16)
    before.pop("format-specific")
    assert after == before
    assert qcow2.parse(sector, len(data)).version == 3
    if name is None:
        qemu.check(path)
        assert qemu.holds(path, "qcow2", 0x11, 100 * KIB, 64 * KIB)
        # What version 3 can do works.
        qemu.zero(path, "qcow2", 128 * KIB, 64 * KIB)
        qemu.image_tool("bitmap", "--add", "-f", "qcow2", path, "backup")
        qemu.check(path)


def without_format(path: Path) -> None:
    """As the oldest tools wrote it: the header does not say of which format the backing file is."""
    data = bytearray(path.read_bytes()[:SECTOR])
    if struct.unpack_from(">I", data, 72)[0] == 0xE2792ACA:
        struct.pack_into(">I", data, 72, 0x12345678)  # an extension that nobody knows, which is kept
        with path.open("r+b") as file:
            file.write(data)


def test_an_extension_that_nobody_knows_is_kept(tmp_path: Path) -> None:
    path = qemu.create(tmp_path / "image", "qcow2", MIB, "-u", "-o", "compat=0.10", "-b", NAMES[0], "-F", "raw")
    without_format(path)
    ((_, sector),) = qcow2.upgraded(path.read_bytes()[: qcow2.READ])
    assert sector[112:128] == struct.pack(">II", 0x12345678, 3) + b"raw\0\0\0\0\0"


def test_a_header_that_would_not_fit_into_a_sector_is_left_alone(tmp_path: Path) -> None:
    fits, does_not = "/" + "x" * 375, "/" + "x" * 376
    for name in (fits, does_not):
        path = qemu.create(tmp_path / "image", "qcow2", MIB, "-u", "-o", "compat=0.10", "-b", name, "-F", "qcow2")
        if name is fits:
            durable.write_into(str(path), qcow2.upgraded, qcow2.READ)
            assert qemu.info(path, "qcow2")["backing-filename"] == fits
            continue
        before = path.read_bytes()
        with pytest.raises(BadHeader, match="written at once"):
            durable.write_into(str(path), qcow2.upgraded, qcow2.READ)
        assert path.read_bytes() == before


def test_version_3_is_not_upgraded(tmp_path: Path) -> None:
    path = qemu.create(tmp_path / "image", "qcow2", MIB)
    with pytest.raises(BadHeader):
        qcow2.upgraded(path.read_bytes()[: qcow2.READ])
