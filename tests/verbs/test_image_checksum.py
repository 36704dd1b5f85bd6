# SPDX-License-Identifier: Apache-2.0
"""Image.checksum: the same for what a guest sees the same."""

from __future__ import annotations

import hashlib
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

from libvdsm.api.errors import (
    ImageInUse,
    InvalidParameter,
    NoSuchImage,
    NoSuchVolume,
    NotSupported,
    ToolFailed,
    VolumeIllegal,
)
from libvdsm.api.image_copies import ChecksumInfo
from libvdsm.api.types import ImageId, ImageInfo, VolumeFormat, VolumeId
from tests.domains.tree import fingerprint
from tests.formats import qemu
from tests.verbs.copies import copy, seen
from tests.verbs.provoked import provokes
from tests.verbs.scene import GIB, MIB, Scene, raised

VERB = "Image.checksum"


@pytest.fixture
def tmp_path(in_memory: Path) -> Path:
    return in_memory


def checksum(scene: Scene, image: ImageInfo, **params: Any) -> ChecksumInfo:
    return scene.wait(scene.client.image.checksum(domain=scene.domain, image=image.id, **params))


def expected(data: bytes, block_size: int = 4 * MIB) -> str:
    """As it is defined."""

    def digest(part: bytes) -> bytes:
        return hashlib.blake2b(part, digest_size=32).digest()

    parts = (data[start : start + block_size] for start in range(0, len(data), block_size))
    return digest(b"".join(digest(part) for part in parts)).hex()


@pytest.mark.parametrize("size", [512, MIB, 4 * MIB, 9 * MIB + 512])
@pytest.mark.parametrize("format_", [VolumeFormat.RAW, VolumeFormat.QCOW2])
def test_the_checksum_is_as_defined(scene: Scene, format_: VolumeFormat, size: int) -> None:
    image = scene.image(size, format=format_)
    qemu.write(scene.data(image), format_.value, 0x5A, 0, 512)
    qemu.write(scene.data(image), format_.value, 0x6B, size - 512, 512)
    before = fingerprint(scene.root)
    for block_size in (MIB, 4 * MIB, 16 * MIB):
        told = checksum(scene, image, block_size=block_size)
        assert told == ChecksumInfo(
            algorithm="blake2b",
            block_size=block_size,
            checksum=expected(seen(scene, scene.look(image)), block_size),
            capacity=size,
        )
    assert fingerprint(scene.root) == before


def test_it_is_the_same_in_every_form(scene: Scene, chain: ImageInfo) -> None:
    first = checksum(scene, chain)
    assert first.checksum == expected(seen(scene, chain))
    forms: list[dict[str, Any]] = [
        {},
        {"collapse": True},
        {"collapse": True, "format": "raw"},
        {"collapse": True, "format": "raw", "allocation": "preallocated"},
        {"collapse": True, "compress": True},
        {"cluster_size": 4096},
    ]
    for form in forms:
        assert checksum(scene, copy(scene, chain, **form).image) == first
    assert chain.chain is not None
    middle = chain.chain[1].id
    assert checksum(scene, chain, volume=middle).checksum == expected(seen(scene, chain, middle)) != first.checksum


def test_holes_are_not_read(scene: Scene) -> None:
    """A tebibyte of nothing: reading it would take minutes."""
    for format_ in (VolumeFormat.RAW, VolumeFormat.QCOW2):
        image = scene.image(1024 * GIB, format=format_)
        qemu.write(scene.data(image), format_.value, 1, 512 * GIB)
        assert checksum(scene, image, block_size=16 * MIB).capacity == 1024 * GIB


def test_the_reading_program_carries_the_leases(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    from hsm.tools import qemu_nbd

    image = scene.snapshot(scene.image(MIB))
    carried: list[str] = []
    real = qemu_nbd.NbdDisk.extents

    def look(self: qemu_nbd.NbdDisk) -> Any:
        folder = Path("/proc", str(self._program.pid), "fd")
        carried.extend(Path(entry.readlink()).name for entry in folder.iterdir())
        return real(self)

    monkeypatch.setattr(qemu_nbd.NbdDisk, "extents", look)
    checksum(scene, image)
    for volume in scene.look(image).chain or []:
        assert f"{volume.id}.lease" in carried


@provokes(VERB, "NoSuchImage", "NoSuchVolume", "InvalidParameter", "ImageInUse", "VolumeIllegal", "NotSupported")
def test_checksum_refuses(scene: Scene, chain: ImageInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = scene.client.image.checksum
    raised(NoSuchImage, lambda: scene.wait(ask(domain=scene.domain, image=ImageId(uuid.uuid4()))))
    raised(NoSuchVolume, lambda: checksum(scene, chain, volume=VolumeId(uuid.uuid4())))
    for size in (4096, MIB + 1, 32 * MIB):
        raised(InvalidParameter, lambda size=size: checksum(scene, chain, block_size=size))  # type: ignore[misc]
    scene.client.image.prepare(domain=scene.domain, image=chain.id)
    raised(ImageInUse, lambda: checksum(scene, chain))
    scene.client.image.teardown(domain=scene.domain, image=chain.id)
    with monkeypatch.context() as patch:
        patch.setattr("hsm.tools.qemu_nbd.QemuNbd.available", staticmethod(lambda: False))
        assert "libnbd" in raised(NotSupported, lambda: checksum(scene, chain)).reason
    scene.edit(chain, LEGALITY="ILLEGAL")
    raised(VolumeIllegal, lambda: checksum(scene, chain))


@provokes(VERB, "ToolFailed")
def test_a_program_that_cannot_read_or_begin(scene: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    image = scene.image(MIB)
    with scene.data(image).open("r+b") as file:
        file.seek(3 * 65536)
        file.write(((1 << 63) | (3 << 9)).to_bytes(8, "big"))
    raised(ToolFailed, lambda: checksum(scene, image))
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin" / "qemu-nbd"
    tool.write_text("#!/bin/sh\necho no mood >&2; exit 1\n")
    tool.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tool.parent), prepend=":")
        error = raised(ToolFailed, lambda: checksum(scene, image))
    assert (error.tool, error.reason) == ("qemu-nbd", "no mood")
    assert subprocess.run(["pgrep", "-f", f"^qemu-nbd.*{image.id}"], check=False).returncode == 1
