# SPDX-License-Identifier: Apache-2.0
"""``ovirt_imageio``'s own client, unmodified, against running transfers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from libvdsm.api.types import VolumeFormat
from tests.formats import qemu
from tests.transfers.conftest import MIB, World, alike

client = pytest.importorskip("ovirt_imageio.client")

# That client leaves its sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.parametrize("format_", [VolumeFormat.RAW, VolumeFormat.QCOW2])
def test_it_uploads_downloads_and_compares(
    world: World, source: Callable[..., Path], tmp_path: Path, format_: VolumeFormat
) -> None:
    path = source()
    size = path.stat().st_size
    transfer = world.upload(size, format=format_, name="up")
    client.upload(str(path), transfer.url, None, secure=False)
    checksum = client.checksum(str(path))["checksum"]
    assert world.finish(transfer, checksum=checksum).checksum == checksum
    assert world.content(transfer) == path.read_bytes()
    assert world.image(transfer).actual_size < 8 * MIB, "holes stay holes"
    down = world.download(transfer.image)
    for kind in ("raw", "qcow2"):
        target = tmp_path / f"out.{kind}"
        client.download(down.url, str(target), None, fmt=kind, secure=False)
        assert client.checksum(str(target))["checksum"] == checksum
    assert alike(tmp_path / "out.raw", path)
    world.finish(down, checksum=checksum)


def test_a_chain_is_uploaded_as_one_and_downloaded_as_one(
    world: World, source: Callable[..., Path], tmp_path: Path
) -> None:
    base = source()
    size = base.stat().st_size
    overlay = qemu.create(tmp_path / "overlay", "qcow2", size, "-u", "-b", str(base), "-F", "raw")
    qemu.write(overlay, "qcow2", 0x33, MIB, MIB)
    transfer = world.upload(size)
    client.upload(str(overlay), transfer.url, None, secure=False)
    world.finish(transfer, checksum=client.checksum(str(overlay))["checksum"])
    assert world.content(transfer) == qemu.content(overlay, "qcow2")


def test_a_sparse_disk_of_4_gib_is_fast_and_stays_sparse(
    world: World, source: Callable[..., Path], tmp_path: Path
) -> None:
    path = source(4096 * MIB)
    began = time.monotonic()
    transfer = world.upload(4096 * MIB, format=VolumeFormat.RAW)
    client.upload(str(path), transfer.url, None, secure=False)
    checksum = client.checksum(str(path))["checksum"]
    world.finish(transfer, checksum=checksum)
    assert world.image(transfer).actual_size < 8 * MIB
    down = world.download(transfer.image)
    target = tmp_path / "out.raw"
    client.download(down.url, str(target), None, fmt="raw", secure=False)
    assert client.checksum(str(target))["checksum"] == checksum
    assert target.stat().st_blocks * 512 < 8 * MIB
    assert time.monotonic() - began < 30
