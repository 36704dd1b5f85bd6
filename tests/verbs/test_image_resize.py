# SPDX-License-Identifier: Apache-2.0
"""Image.resize: the newest volume grows, or is cut."""

from __future__ import annotations

import uuid
from pathlib import Path

from libvdsm.api.errors import (
    CannotShrink,
    ImageDamaged,
    ImageInUse,
    InvalidParameter,
    IsTemplate,
    NoSuchImage,
    ToolFailed,
    VolumeDamaged,
    VolumeIllegal,
)
from libvdsm.api.types import ImageId, ImageInfo
from tests.domains.tree import fingerprint
from tests.formats import qemu
from tests.verbs.provoked import provokes
from tests.verbs.scene import GIB, MIB, Scene, raised
from tests.verbs.test_volume import OpenedByQemu

UNKNOWN = uuid.UUID("00000000-0000-4000-8000-00000000dead")


def resize(scene: Scene, image: ImageInfo | ImageId, capacity: int, *, shrink: bool = False) -> ImageInfo:
    id_ = image.id if isinstance(image, ImageInfo) else image
    return scene.wait(scene.client.image.resize(domain=scene.domain, image=id_, capacity=capacity, shrink=shrink))


def test_an_image_grows_and_its_snapshots_keep_their_size(scene: Scene) -> None:
    image = scene.snapshot(scene.image(MIB), name="before")
    qemu.write(scene.data(image), "qcow2", 0x11, 0, MIB)
    grown = resize(scene, image, 2 * MIB + 1)
    assert grown == scene.look(image)
    assert grown.capacity == 2 * MIB + 512
    assert [volume.capacity for volume in grown.chain or []] == [MIB, 2 * MIB + 512]
    assert qemu.content(scene.data(image), "qcow2") == b"\x11" * MIB + bytes(MIB + 512)


def test_an_image_shrinks_if_that_is_asked_for(scene: Scene) -> None:
    for image, format_ in ((scene.image(2 * MIB), "qcow2"), (scene.raw(2 * MIB), "raw")):
        qemu.write(scene.data(image), format_, 0x11, 0, 2 * MIB)
        raised(CannotShrink, lambda image=image: resize(scene, image, MIB))  # type: ignore[misc]
        assert resize(scene, image, MIB, shrink=True).capacity == MIB
        assert qemu.content(scene.data(image), format_) == b"\x11" * MIB
        assert resize(scene, image, 3 * MIB, shrink=True).capacity == 3 * MIB, "larger as always"


def test_what_has_its_size_is_left_as_it_is(scene: Scene) -> None:
    image = scene.image(MIB)
    before = fingerprint(scene.root)
    assert resize(scene, image, MIB) == resize(scene, image, MIB - 1, shrink=True) == scene.look(image)
    assert fingerprint(scene.root) == before


VERB = "Image.resize"


@provokes(VERB, "CannotShrink", "IsTemplate", "ImageInUse", "VolumeIllegal", "NoSuchImage", "InvalidParameter")
@provokes(VERB, "ImageDamaged", "VolumeDamaged", "ToolFailed")
def test_resize_refuses(scene: Scene, tmp_path: Path) -> None:
    image, template = scene.image(MIB), scene.template(MIB)
    error = raised(CannotShrink, lambda: resize(scene, image, MIB - 512))
    assert (error.volume, error.capacity) == (image.leaf, MIB)
    raised(InvalidParameter, lambda: resize(scene, image, 0))
    raised(NoSuchImage, lambda: resize(scene, ImageId(UNKNOWN), GIB))
    assert raised(IsTemplate, lambda: resize(scene, template, GIB)).image == template.id
    scene.client.image.prepare(domain=scene.domain, image=image.id)
    raised(ImageInUse, lambda: resize(scene, image, GIB))
    scene.client.image.teardown(domain=scene.domain, image=image.id)
    upper = scene.snapshot(image)
    scene.edit(upper, image.leaf, LEGALITY="ILLEGAL")
    raised(VolumeIllegal, lambda: resize(scene, upper, GIB))
    scene.edit(upper, image.leaf, LEGALITY="LEGAL", PUUID=str(UNKNOWN))
    raised(VolumeDamaged, lambda: resize(scene, upper, GIB))
    scene.meta(upper, image.leaf).write_bytes(b"")
    raised(ImageDamaged, lambda: resize(scene, upper, GIB))
    used = scene.image(MIB)
    with OpenedByQemu(scene, used):
        raised(ToolFailed, lambda: resize(scene, used, GIB))
    assert resize(scene, used, GIB).capacity == GIB
