# SPDX-License-Identifier: Apache-2.0
"""Volume.copy: the state that a volume keeps, as an image of its own."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from libvdsm.api.errors import (
    CopyDiffers,
    ImageDamaged,
    ImageExists,
    ImageInUse,
    InvalidParameter,
    NoSuchImage,
    NoSuchVolume,
    NotSupported,
    ToolFailed,
    VolumeDamaged,
    VolumeExists,
    VolumeIllegal,
)
from libvdsm.api.image_copies import CopyInfo
from libvdsm.api.types import DomainId, ImageId, ImageInfo, VolumeFormat, VolumeId
from tests.domains.tree import fingerprint
from tests.verbs.copies import healthy, seen
from tests.verbs.provoked import provokes
from tests.verbs.scene import MIB, Scene, raised

VERB = "Volume.copy"


@pytest.fixture
def tmp_path(in_memory: Path) -> Path:
    return in_memory


def copy_volume(scene: Scene, volume: VolumeId, **params: Any) -> CopyInfo:
    return scene.wait(scene.client.volume.copy(domain=scene.domain, volume=volume, **params))


def test_a_volumes_state_becomes_an_image_of_its_own(scene: Scene, chain: ImageInfo, other: DomainId) -> None:
    assert chain.chain is not None
    for volume in chain.chain:
        told = scene.wait(
            scene.client.volume.copy(
                domain=scene.domain, volume=volume.id, name="state", to=other, format=VolumeFormat.RAW, checksum=True
            )
        )
        made = told.image
        assert (made.domain, made.name, made.snapshots) == (other, "state", 0)
        assert seen(scene, made) == seen(scene, chain, volume.id)
        assert told.checksum is not None
    healthy(scene, other)


def test_the_same_call_again_answers_the_same(scene: Scene, chain: ImageInfo) -> None:
    id_ = VolumeId(uuid.uuid4())
    made = copy_volume(scene, chain.leaf, id=id_)
    assert (made.image.leaf, made.image.domain, made.image.name) == (id_, scene.domain, chain.name)
    assert copy_volume(scene, chain.leaf, id=id_) == made
    assert len(scene.client.image.list().items) == 2


@provokes(VERB, "NoSuchImage", "NoSuchVolume", "ImageExists", "VolumeExists", "ImageInUse", "NotSupported")
@provokes(VERB, "VolumeIllegal", "InvalidParameter")
def test_copy_refuses(scene: Scene, chain: ImageInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    other = scene.raw(MIB)
    before = fingerprint(scene.images)
    unknown = uuid.uuid4()
    raised(NoSuchVolume, lambda: copy_volume(scene, VolumeId(unknown)))
    raised(NoSuchImage, lambda: copy_volume(scene, chain.leaf, image=ImageId(unknown)))
    raised(InvalidParameter, lambda: copy_volume(scene, chain.leaf, cluster_size=4096 * 3))
    raised(ImageExists, lambda: copy_volume(scene, chain.leaf, to_image=chain.id))
    raised(ImageExists, lambda: copy_volume(scene, chain.leaf, to_image=other.id))
    error = raised(VolumeExists, lambda: copy_volume(scene, chain.leaf, id=other.leaf))
    assert error.volume == other.leaf
    scene.client.image.prepare(domain=scene.domain, image=chain.id)
    raised(ImageInUse, lambda: copy_volume(scene, chain.leaf))
    scene.client.image.teardown(domain=scene.domain, image=chain.id)
    with monkeypatch.context() as patch:
        patch.setattr("hsm.tools.qemu_nbd.QemuNbd.available", staticmethod(lambda: False))
        raised(NotSupported, lambda: copy_volume(scene, chain.leaf, checksum=True))
    assert fingerprint(scene.images) == before
    scene.edit(chain, LEGALITY="ILLEGAL")
    raised(VolumeIllegal, lambda: copy_volume(scene, chain.leaf))


@provokes(VERB, "CopyDiffers", "ToolFailed")
def test_what_was_copied_badly_is_given_back(scene: Scene, chain: ImageInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    domain = scene.app.context.registry.get(scene.domain)
    real = type(domain).sync_data

    def damage(self: Any, image: ImageId, volume: VolumeId) -> None:
        with open(self.data_path(image, volume), "r+b") as file:
            file.write(b"bad storage")
        real(self, image, volume)

    before = fingerprint(scene.images)
    with monkeypatch.context() as patch:
        patch.setattr(type(domain), "sync_data", damage)
        raised(CopyDiffers, lambda: copy_volume(scene, chain.leaf, format=VolumeFormat.RAW, checksum=True))
    assert fingerprint(scene.images) == before
    with scene.data(chain).open("r+b") as file:
        file.seek(3 * 65536)
        file.write(((1 << 63) | (3 << 9)).to_bytes(8, "big"))
    before = fingerprint(scene.images)
    raised(ToolFailed, lambda: copy_volume(scene, chain.leaf))
    assert fingerprint(scene.images) == before


@provokes("Image.copy", "ImageDamaged", "VolumeDamaged")
@provokes("Image.move", "ImageDamaged", "VolumeDamaged")
@provokes("Image.checksum", "ImageDamaged", "VolumeDamaged")
@provokes(VERB, "ImageDamaged", "VolumeDamaged")
def test_damaged_images_are_not_copied(scene: Scene, other: DomainId) -> None:
    client, cut, torn = scene.client, scene.image(MIB), scene.image(MIB)
    scene.meta(cut).write_text("cut off")
    scene.data(torn).write_bytes(b"no header")
    before = fingerprint(scene.root)
    for image, error in ((cut, ImageDamaged), (torn, VolumeDamaged)):
        given: dict[str, Any] = {"domain": scene.domain, "image": image.id}
        raised(error, lambda given=given: scene.wait(client.image.copy(**given)))  # type: ignore[misc]
        raised(error, lambda given=given: scene.wait(client.image.move(**given, to=other)))  # type: ignore[misc]
        raised(error, lambda given=given: scene.wait(client.image.checksum(**given)))  # type: ignore[misc]
        leaf = torn.leaf if image is torn else cut.leaf
        raised(error, lambda given=given, leaf=leaf: scene.wait(client.volume.copy(**given, volume=leaf)))  # type: ignore[misc]
    assert fingerprint(scene.root) == before
