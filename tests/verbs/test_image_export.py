# SPDX-License-Identifier: Apache-2.0
"""Image.export: the state of an image, or of a snapshot, in one file that stands alone."""

from __future__ import annotations

import os
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from libvdsm.api.errors import (
    FileNotUsable,
    ImageInUse,
    InvalidParameter,
    NoSuchImage,
    NoSuchVolume,
    NotSupported,
    ToolFailed,
    VolumeIllegal,
)
from libvdsm.api.image import ExportInfo
from libvdsm.api.types import FileFormat, ImageId, ImageInfo, VolumeFormat, VolumeId
from libvdsm.declare import Right
from tests.domains.tree import fingerprint
from tests.formats import qemu
from tests.verbs.provoked import provokes
from tests.verbs.scene import MIB, Scene, raised

VERB = "Image.export"
NOBODY = 65534
FORMATS = [FileFormat.RAW, FileFormat.QCOW2]


@pytest.fixture
def image(scene: Scene) -> ImageInfo:
    """4 MiB on a template: 0x11 in the template, 0x22 in the kept state, 0x33 in the newest."""
    base = scene.image(4 * MIB)
    qemu.write(scene.data(base), "qcow2", 0x11, 0, MIB)
    template = scene.wait(scene.client.image.make_template(domain=scene.domain, image=base.id))
    image = scene.clone(template)
    qemu.write(scene.data(image), "qcow2", 0x22, MIB, MIB)
    image = scene.snapshot(image)
    qemu.write(scene.data(image), "qcow2", 0x33, 2 * MIB, MIB)
    return image


def give(scene: Scene, image: ImageInfo, path: Path, **params: Any) -> ExportInfo:
    return scene.wait(scene.client.image.export(domain=scene.domain, image=image.id, path=str(path), **params))


def patterns(path: Path, format_: FileFormat) -> list[int]:
    """Which pattern each MiB holds."""
    data = path.read_bytes() if format_ is FileFormat.RAW else qemu.content(path, format_.value)
    assert len(data) == 4 * MIB
    parts = [data[start : start + MIB] for start in range(0, 4 * MIB, MIB)]
    assert all(part.count(part[0]) == MIB for part in parts)
    return [part[0] for part in parts]


@pytest.mark.parametrize("format_", FORMATS)
def test_the_newest_state_stands_alone(scene: Scene, image: ImageInfo, tmp_path: Path, format_: FileFormat) -> None:
    before = fingerprint(scene.root)
    path = tmp_path / "out"
    told = give(scene, image, path, format=format_)
    assert told == ExportInfo(format=format_, length=path.stat().st_size, capacity=4 * MIB)
    found = qemu.info(path, format_.value)
    assert (found["virtual-size"], found.get("backing-filename")) == (4 * MIB, None)
    assert patterns(path, format_) == [0x11, 0x22, 0x33, 0]
    assert fingerprint(scene.root) == before


@pytest.mark.parametrize("format_", FORMATS)
def test_a_kept_state_is_exported_without_what_came_later(
    scene: Scene, image: ImageInfo, tmp_path: Path, format_: FileFormat
) -> None:
    assert image.chain is not None
    template, kept, _ = image.chain
    give(scene, image, tmp_path / "kept", format=format_, volume=kept.id)
    assert patterns(tmp_path / "kept", format_) == [0x11, 0x22, 0, 0]
    give(scene, image, tmp_path / "template", format=format_, volume=template.id)
    assert patterns(tmp_path / "template", format_) == [0x11, 0, 0, 0]


def test_a_raw_image_in_a_file_that_was_there_before(scene: Scene, tmp_path: Path) -> None:
    raw = scene.raw(MIB)
    qemu.write(scene.data(raw), "raw", 0x11)
    path = tmp_path / "out"
    path.write_bytes(b"x" * 3 * MIB)
    assert give(scene, raw, path, format=FileFormat.RAW).length == MIB
    assert qemu.holds(path, "raw", 0x11)
    assert qemu.holds(path, "raw", 0, 65536, MIB - 65536)


def test_qcow2_is_the_default_and_a_guests_header_stays_data(scene: Scene, tmp_path: Path) -> None:
    raw = scene.raw(MIB)
    trap = qemu.create(tmp_path / "trap", "qcow2", MIB, "-u", "-b", "/etc/passwd", "-F", "raw")
    scene.data(raw).write_bytes(trap.read_bytes().ljust(MIB, b"\0")[:MIB])
    told = give(scene, raw, tmp_path / "out")
    assert told.format is FileFormat.QCOW2
    qemu.image_tool("compare", "-f", "raw", "-F", "qcow2", scene.data(raw), tmp_path / "out")
    over = scene.snapshot(raw)
    give(scene, over, tmp_path / "over")
    qemu.image_tool("compare", "-f", "raw", "-F", "qcow2", scene.data(raw), tmp_path / "over")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
def test_an_open_file_of_another_user_is_written(scene: Scene, image: ImageInfo, tmp_path: Path) -> None:
    path = tmp_path / "theirs"
    path.touch(0o600)
    os.chown(path, NOBODY, NOBODY)
    caller = scene.as_caller(uid=NOBODY, right=Right.OPERATE)
    with path.open("r+b") as file:
        told = caller.wait(
            caller.image.export(domain=scene.domain, image=image.id, target=file.fileno(), format=FileFormat.RAW)
        )
    assert told.length == 4 * MIB
    assert patterns(path, FileFormat.RAW) == [0x11, 0x22, 0x33, 0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for others")
def test_a_path_is_opened_with_the_callers_own_rights(scene: Scene, image: ImageInfo, common_place: Path) -> None:
    caller = scene.as_caller(uid=NOBODY, right=Right.OPERATE)
    export = caller.image.export
    path = common_place / "theirs"
    error = raised(FileNotUsable, lambda: export(domain=scene.domain, image=image.id, path=str(path)))
    assert "Permission denied" in error.reason
    assert not path.exists()
    common_place.chmod(0o777)
    caller.wait(export(domain=scene.domain, image=image.id, path=str(path)))
    assert (path.stat().st_uid, patterns(path, FileFormat.QCOW2)) == (NOBODY, [0x11, 0x22, 0x33, 0])


@provokes(VERB, "ImageInUse")
def test_an_image_that_is_written_is_not_exported_and_one_that_is_read_is(
    scene: Scene, image: ImageInfo, tmp_path: Path
) -> None:
    scene.client.image.prepare(domain=scene.domain, image=image.id)
    error = raised(ImageInUse, lambda: give(scene, image, tmp_path / "out"))
    assert (error.image, error.volume) == (image.id, image.leaf)
    scene.client.image.teardown(domain=scene.domain, image=image.id)
    scene.client.image.prepare(domain=scene.domain, image=image.id, read_only=True)
    give(scene, image, tmp_path / "out")
    scene.client.image.teardown(domain=scene.domain, image=image.id)
    scene.client.image.prepare(domain=scene.domain, image=image.id)
    assert image.chain is not None
    give(scene, image, tmp_path / "kept", volume=image.chain[1].id)
    assert patterns(tmp_path / "kept", FileFormat.QCOW2) == [0x11, 0x22, 0, 0]


@provokes(VERB, "NoSuchImage", "NoSuchVolume", "NotSupported", "FileNotUsable", "VolumeIllegal", "InvalidParameter")
def test_export_refuses(scene: Scene, image: ImageInfo, tmp_path: Path) -> None:
    export, path = scene.client.image.export, str(tmp_path / "out")
    unknown = uuid.uuid4()
    given: dict[str, Any] = {"domain": scene.domain, "image": image.id}
    raised(NoSuchImage, lambda: scene.wait(export(domain=scene.domain, image=ImageId(unknown), path=path)))
    error = raised(NoSuchVolume, lambda: give(scene, image, tmp_path / "out", volume=VolumeId(unknown)))
    assert error.volume == unknown
    raised(NotSupported, lambda: export(**given, path=path, format=FileFormat.VMDK))
    raised(FileNotUsable, lambda: export(**given, path=str(tmp_path)))
    raised(InvalidParameter, lambda: export(**given))
    raised(InvalidParameter, lambda: export(**given, path="relative"))
    with (tmp_path / "read").open("wb"), (tmp_path / "read").open("rb") as file:
        error = raised(FileNotUsable, lambda: export(**given, target=file.fileno()))
        assert "not open for reading and writing" in error.reason
    raised(NotSupported, lambda: scene.as_caller(uid=None, wire="tcp").image.export(**given, path=path))
    scene.edit(image, LEGALITY="ILLEGAL")
    raised(VolumeIllegal, lambda: give(scene, image, tmp_path / "out"))


@provokes(VERB, "ToolFailed")
def test_data_that_cannot_be_read_fails_the_export(scene: Scene, tmp_path: Path) -> None:
    image = scene.image(MIB)
    with scene.data(image).open("r+b") as file:
        file.seek(3 * 65536)
        file.write(((1 << 63) | (3 << 9)).to_bytes(8, "big"))
    before = fingerprint(scene.root)
    assert raised(ToolFailed, lambda: give(scene, image, tmp_path / "out")).tool == "qemu-img"
    assert fingerprint(scene.root) == before


@provokes(VERB, "FileNotUsable")
def test_a_target_without_room_is_told(scene: Scene, tmp_path: Path, small: Any) -> None:
    image = scene.image(8 * MIB)
    qemu.write(scene.data(image), "qcow2", 1, 0, 4 * MIB)
    with small(tmp_path / "small", MIB) as folder:
        for format_ in (FileFormat.RAW, FileFormat.QCOW2):
            error = raised(FileNotUsable, partial(give, scene, image, folder / "out", format=format_))
            assert "No space left" in error.reason


def test_what_was_exported_can_be_imported(scene: Scene, image: ImageInfo, tmp_path: Path) -> None:
    for format_ in FORMATS:
        give(scene, image, tmp_path / "out", format=format_)
        back = scene.wait(
            scene.client.image.import_(
                domain=scene.domain, path=str(tmp_path / "out"), source_format=format_, format=VolumeFormat.QCOW2
            )
        )
        assert patterns(scene.data(back), FileFormat.QCOW2) == [0x11, 0x22, 0x33, 0]
