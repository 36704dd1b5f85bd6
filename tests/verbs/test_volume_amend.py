# SPDX-License-Identifier: Apache-2.0
"""Volume.amend: old qcow2 volumes become new ones, and show what they showed."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from libvdsm.api.errors import (
    BitmapsNotSupported,
    CannotChange,
    ImageDamaged,
    ImageInUse,
    ImageUnfinished,
    InvalidParameter,
    IsTemplate,
    NoSuchImage,
    NoSuchVolume,
    VolumeDamaged,
    VolumeIllegal,
)
from libvdsm.api.transfer import Direction
from libvdsm.api.types import Compat, ImageId, ImageInfo, Legality, TaskInfo, VolumeId, VolumeInfo
from libvdsm.declare import ApiError
from tests.domains.tree import fingerprint
from tests.formats import qemu
from tests.verbs.layers import KIB, contents, sound
from tests.verbs.provoked import provokes
from tests.verbs.scene import MIB, Scene, raised

V2, V3 = Compat.V2, Compat.V3


def amend(scene: Scene, leaf_of: ImageInfo, **params: Any) -> VolumeInfo:
    given = {"domain": scene.domain, "volume": leaf_of.leaf, "image": leaf_of.id, "compat": V3, **params}
    task: TaskInfo[VolumeInfo] = scene.client.volume.amend(**given)
    return scene.wait(task)


def old(scene: Scene, image: ImageInfo, below: str | None = None) -> None:
    """An image whose leaf is as an old oVirt made it, with data in it."""
    path = scene.data(image)
    qemu.create(path, "qcow2", image.capacity, "-o", "compat=0.10")
    qemu.write(path, "qcow2", 0x22, 128 * KIB, 64 * KIB)
    if below is not None:
        qemu.image_tool("rebase", "-u", "-f", "qcow2", "-b", below, "-F", "qcow2", path)


@pytest.mark.parametrize("name", ["{base}", "../{image}/{base}", "/rhev/data-center/{domain}/images/{image}/{base}"])
def test_it_shows_what_it_showed_whatever_it_calls_what_it_stands_on(scene: Scene, name: str) -> None:
    base = scene.image(MIB)
    old(scene, base)
    image = scene.snapshot(base)
    qemu.write(scene.data(image), "qcow2", 0x33, 0, 64 * KIB)
    before = contents(scene, image)
    said = name.format(base=base.leaf, image=image.id, domain=scene.domain)
    old(scene, image, said)
    metadata = scene.meta(image).read_bytes()
    assert [volume.compat for volume in scene.look(image).chain or []] == [V2, V2]
    if not said.startswith("/rhev"):
        before = contents(scene, image)
    done = amend(scene, image)
    assert (done.compat, done.id, done.backing_file) == (V3, image.leaf, said)
    assert done == amend(scene, image), "the same call again answers the same"
    assert scene.meta(image).read_bytes() == metadata
    assert [volume.compat for volume in scene.look(image).chain or []] == [V2, V3]
    assert amend(scene, image, volume=base.leaf).compat is V3
    if not said.startswith("/rhev"):
        assert contents(scene, image) == before
        sound(scene, image)


def test_it_can_do_what_new_volumes_can(scene: Scene) -> None:
    image, bitmap = scene.image(4 * MIB), scene.client.bitmap
    old(scene, image)

    def add() -> None:
        scene.wait(bitmap.add(domain=scene.domain, image=image.id, bitmap="backup"))

    raised(BitmapsNotSupported, add)
    (before,) = contents(scene, image).values()
    amend(scene, image)
    add()
    qemu.zero(scene.data(image), "qcow2", 0, 64 * KIB)
    assert list(contents(scene, image).values()) == [before]
    sound(scene, image)


def test_a_template_is_changed_for_all_its_clones(scene: Scene) -> None:
    template = scene.image(MIB)
    old(scene, template)
    template = scene.wait(scene.client.image.make_template(domain=scene.domain, image=template.id))
    clone = scene.clone(template)
    before = contents(scene, clone)
    amend(scene, template)
    assert [volume.compat for volume in scene.look(clone).chain or []] == [V3, V3]
    assert contents(scene, clone) == before
    sound(scene, clone)


def test_lists_tell_it_and_can_be_asked_for_it(scene: Scene) -> None:
    raw, new, image = scene.raw(), scene.image(MIB), scene.image(MIB)
    old(scene, image)
    listed = {v.id: v.compat for v in scene.client.volume.list(domain=scene.domain).items}
    assert listed == {raw.leaf: None, new.leaf: V3, image.leaf: V2}
    found = scene.client.volume.list(domain=scene.domain, filter="compat = v2").items
    assert [volume.id for volume in found] == [image.leaf]


# ---- refused


def refused(scene: Scene, error: type[ApiError], leaf_of: ImageInfo, **params: Any) -> Any:
    """The error; nothing was changed."""
    before = fingerprint(scene.images)
    found = raised(error, lambda: amend(scene, leaf_of, **params))
    assert fingerprint(scene.images) == before
    return found


@provokes("Volume.amend", "CannotChange")
def test_there_is_no_way_down_and_none_for_raw_volumes(scene: Scene) -> None:
    image = scene.image(MIB)
    assert "no way down" in refused(scene, CannotChange, image, compat=V2).reason
    assert "raw" in refused(scene, CannotChange, scene.raw()).reason
    old(scene, image)
    assert amend(scene, image, compat=V2).compat is V2
    qemu.image_tool("snapshot", "-c", "mine", scene.data(image))
    assert "internal snapshots" in refused(scene, CannotChange, image).reason


def test_a_header_that_has_no_room_stays(scene: Scene) -> None:
    image = scene.snapshot(scene.image(MIB))
    (base, _) = scene.look(image).chain or []
    old(scene, image, f"{'/xx' * 100}/{scene.domain}/images/{image.id}/{base.id}")
    assert "written at once" in refused(scene, CannotChange, image).reason


def test_what_is_to_be_changed_has_to_be_said(scene: Scene) -> None:
    image = scene.image(MIB)
    for said in (None, Compat.UNKNOWN):
        refused(scene, InvalidParameter, image, compat=said)


@provokes("Volume.amend", "NoSuchImage", "NoSuchVolume", "IsTemplate")
def test_what_is_not_there_or_not_its_own(scene: Scene) -> None:
    template = scene.template(MIB)
    clone = scene.clone(template)
    raised(NoSuchImage, lambda: amend(scene, clone, image=ImageId(uuid.uuid4())))
    refused(scene, NoSuchVolume, clone, volume=VolumeId(uuid.uuid4()))
    raised(NoSuchVolume, lambda: amend(scene, clone, volume=VolumeId(uuid.uuid4()), image=None))
    assert refused(scene, IsTemplate, clone, volume=template.leaf).image == template.id


@provokes("Volume.amend", "ImageInUse")
def test_what_somebody_uses(scene: Scene) -> None:
    image = scene.image(MIB)
    old(scene, image)
    scene.client.image.prepare(domain=scene.domain, image=image.id, read_only=True)
    assert "prepared on this host" in refused(scene, ImageInUse, image).holder
    scene.client.image.teardown(domain=scene.domain, image=image.id)
    assert amend(scene, image).compat is V3


@provokes("Volume.amend", "ImageUnfinished")
def test_what_is_still_arriving(scene: Scene) -> None:
    begun = scene.client.transfer.start(domain=scene.domain, direction=Direction.UPLOAD, size=MIB)
    assert begun.image is not None
    image = scene.look(begun.image)
    raised(ImageUnfinished, lambda: amend(scene, image))
    scene.client.transfer.cancel(transfer=begun.id)


@provokes("Volume.amend", "ImageDamaged", "VolumeIllegal", "VolumeDamaged")
def test_what_is_damaged(scene: Scene) -> None:
    image = scene.snapshot(scene.image(MIB))
    (base, _) = scene.look(image).chain or []
    old(scene, image, str(base.id))
    mark = scene.client.volume.set_legality
    scene.wait(mark(domain=scene.domain, volume=image.leaf, legality=Legality.ILLEGAL))
    refused(scene, VolumeIllegal, image)
    scene.wait(mark(domain=scene.domain, volume=image.leaf, legality=Legality.LEGAL))
    scene.edit(image, CAP=str(2 * MIB))
    assert refused(scene, VolumeDamaged, image).volume == image.leaf
    scene.edit(image, CAP=str(MIB))
    (scene.folder(image) / f"{base.id}.meta").unlink()
    refused(scene, ImageDamaged, image)
