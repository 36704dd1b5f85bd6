# SPDX-License-Identifier: Apache-2.0
"""Several images in one step: all of them or none."""

from __future__ import annotations

import uuid
from pathlib import Path

import msgspec
import pytest

from hsm.formats import attributes
from hsm.formats.attributes import Attributes, DeleteMany, Intent, Member, SnapshotMany
from libvdsm.api.errors import (
    ImageDamaged,
    ImageInUse,
    ImageUnfinished,
    InvalidParameter,
    IsTemplate,
    NoSuchImage,
    TemplateInUse,
    VolumeDamaged,
    VolumeExists,
    VolumeIllegal,
)
from libvdsm.api.image import ImageGroup
from libvdsm.api.types import ImageId, ImageInfo, VolumeId
from libvdsm.client.client import Client
from tests.domains.tree import fingerprint
from tests.formats import qemu
from tests.verbs.provoked import provokes
from tests.verbs.scene import MIB, Scene, raised

UNKNOWN = ImageId(uuid.UUID("00000000-0000-4000-8000-00000000dead"))
SNAPSHOT, DELETE = "Image.snapshotMany", "Image.deleteMany"


@pytest.fixture
def tmp_path(in_memory: Path) -> Path:
    return in_memory


def three(scene: Scene) -> list[ImageInfo]:
    """A qcow2 image, a raw one and one with a snapshot, each with data."""
    images = [scene.image(MIB, name="first"), scene.raw(MIB, name="second"), scene.snapshot(scene.image(MIB))]
    for number, image in enumerate(images):
        qemu.write(scene.data(image), "raw" if number == 1 else "qcow2", 0x11 * (number + 1))
    return images


def freeze(scene: Scene, images: list[ImageInfo], **params: object) -> ImageGroup:
    ids = [image.id for image in images]
    return scene.wait(scene.client.image.snapshot_many(domain=scene.domain, images=ids, **params))  # type: ignore[arg-type]


def delete(scene: Scene, ids: list[ImageId], **params: object) -> None:
    scene.wait(scene.client.image.delete_many(domain=scene.domain, images=ids, **params))  # type: ignore[arg-type]


def intend(scene: Scene, image: ImageInfo, intent: Intent) -> None:
    kept = Attributes(intent=intent)  # type: ignore[arg-type]
    (scene.folder(image) / f"{image.id}.hsm").write_bytes(attributes.write(kept, image.id))


def marks(scene: Scene) -> list[str]:
    return [path.name for path in scene.images.glob("*/*.hsm")]


def test_images_are_frozen_together(scene: Scene) -> None:
    images = three(scene)
    volumes = [VolumeId(uuid.uuid4()) for _ in images]
    group = freeze(scene, images, name="kept", volumes=volumes)
    assert [item.id for item in group.items] == [image.id for image in images]
    assert [item.leaf for item in group.items] == volumes
    assert [item.snapshots for item in group.items] == [1, 1, 2]
    for number, image in enumerate(group.items):
        assert image.chain is not None
        assert image.chain[-2].name == "kept"
        content = qemu.content(scene.data(image), "qcow2")
        assert content == (bytes([0x11 * (number + 1)]) * 65536).ljust(MIB, b"\0")
        assert scene.look(image) == image
    assert marks(scene) == []
    before = fingerprint(scene.root)
    assert freeze(scene, images, name="kept", volumes=volumes) == group, "the same call again"
    assert fingerprint(scene.root) == before


@provokes(SNAPSHOT, "ImageInUse", "NoSuchImage", "IsTemplate", "VolumeIllegal", "VolumeDamaged", "ImageDamaged")
@provokes(SNAPSHOT, "VolumeExists", "InvalidParameter")
def test_where_one_cannot_be_frozen_none_is(scene: Scene) -> None:
    images = three(scene)
    last = images[-1]
    before = fingerprint(scene.root)
    raised(NoSuchImage, lambda: freeze(scene, [*images[:2], msgspec.structs.replace(last, id=UNKNOWN)]))
    raised(InvalidParameter, lambda: freeze(scene, [images[0], images[0]]))
    raised(InvalidParameter, lambda: freeze(scene, images, volumes=[VolumeId(uuid.uuid4())]))
    raised(VolumeExists, lambda: freeze(scene, images[:2], volumes=[last.leaf, VolumeId(uuid.uuid4())]))
    raised(VolumeExists, lambda: freeze(scene, images[:2], volumes=[images[0].leaf, VolumeId(uuid.uuid4())]))
    assert fingerprint(scene.root) == before
    scene.client.image.prepare(domain=scene.domain, image=last.id)
    assert raised(ImageInUse, lambda: freeze(scene, images)).image == last.id
    scene.client.image.teardown(domain=scene.domain, image=last.id)
    assert fingerprint(scene.root) == before
    template = scene.template(MIB)
    before = fingerprint(scene.root)
    assert raised(IsTemplate, lambda: freeze(scene, [*images, template])).image == template.id
    assert _without_times(fingerprint(scene.root)) == _without_times(before)
    for error, fields in (
        (VolumeIllegal, {"LEGALITY": "ILLEGAL"}),
        (VolumeDamaged, {"LEGALITY": "LEGAL", "CAP": str(2 * MIB)}),
    ):
        scene.edit(last, None, **fields)
        before = fingerprint(scene.root)
        raised(error, lambda: freeze(scene, images))
        assert _without_times(fingerprint(scene.root)) == _without_times(before)
    scene.meta(last).write_bytes(b"")
    raised(ImageDamaged, lambda: freeze(scene, images))
    assert [scene.look(image).snapshots for image in images[:2]] == [0, 0]


def _without_times(facts: dict[str, str]) -> set[str]:
    """Only what is there: making and giving back leaves folders with other times."""
    return set(facts)


def test_images_are_deleted_together(scene: Scene) -> None:
    images, stays = three(scene), scene.image(MIB)
    ids = [image.id for image in images]
    delete(scene, [*ids, UNKNOWN], wipe=True)
    assert [item.id for item in scene.client.image.list(domain=scene.domain).items] == [stays.id]
    assert [path.name for path in scene.images.iterdir()] == [str(stays.id)]
    delete(scene, ids)  # what is gone counts as deleted


@provokes(DELETE, "ImageInUse", "TemplateInUse", "InvalidParameter")
def test_where_one_cannot_be_deleted_none_is(scene: Scene) -> None:
    images, template = three(scene), scene.template(MIB)
    clone, other = scene.clone(template), scene.clone(template)
    ids = [image.id for image in images]
    before = fingerprint(scene.root)
    raised(InvalidParameter, lambda: delete(scene, [ids[0], ids[0]]))
    assert raised(TemplateInUse, lambda: delete(scene, [*ids, template.id])).clones == 2
    assert raised(TemplateInUse, lambda: delete(scene, [template.id, clone.id])).clones == 1
    scene.client.image.prepare(domain=scene.domain, image=ids[2])
    assert raised(ImageInUse, lambda: delete(scene, ids)).image == ids[2]
    scene.client.image.teardown(domain=scene.domain, image=ids[2])
    assert fingerprint(scene.root) == before
    delete(scene, [template.id, clone.id, other.id])
    assert {item.id for item in scene.client.image.list(domain=scene.domain).items} == set(ids)


# ---- interrupted


def _begin(scene: Scene, images: list[ImageInfo], intent: SnapshotMany | DeleteMany) -> None:
    """As a crash right after the commit point leaves it."""
    intend(scene, images[0], intent)
    for image in images[1:]:
        intend(scene, image, Member(leader=images[0].id, group=intent.group))


def _client(scene: Scene) -> Client:
    return scene.client


def test_the_collector_finishes_a_group_that_was_begun(scene: Scene) -> None:
    images = three(scene)
    ids, volumes = tuple(image.id for image in images), tuple(uuid.uuid4() for _ in images)
    _begin(scene, images, SnapshotMany(group=uuid.uuid4(), images=ids, volumes=volumes, name="kept"))
    for image in images:
        raised(ImageUnfinished, lambda image=image: scene.snapshot(image))  # type: ignore[misc]
    report = scene.wait(_client(scene).domain.collect_garbage(domain=scene.domain))
    assert report.unfinished is None
    assert report.finished
    assert set(report.finished) <= set(ids)
    assert [scene.look(image).leaf for image in images] == list(volumes)
    assert marks(scene) == []


def test_the_same_call_finishes_a_group_that_was_begun(scene: Scene) -> None:
    images = three(scene)
    ids, volumes = tuple(image.id for image in images), [VolumeId(uuid.uuid4()) for _ in images]
    _begin(scene, images, SnapshotMany(group=uuid.uuid4(), images=ids, volumes=tuple(volumes), name="kept"))
    assert [item.leaf for item in freeze(scene, images, name="kept", volumes=volumes).items] == volumes
    assert marks(scene) == []


def test_the_collector_finishes_a_deletion_that_was_begun(scene: Scene) -> None:
    images, stays = three(scene), scene.image(MIB)
    ids = tuple(image.id for image in images)
    _begin(scene, images, DeleteMany(group=uuid.uuid4(), images=ids, wipe=False))
    raised(ImageUnfinished, lambda: scene.wait(scene.client.image.delete(domain=scene.domain, image=ids[0])))
    scene.wait(_client(scene).domain.collect_garbage(domain=scene.domain))
    assert [path.name for path in scene.images.iterdir()] == [str(stays.id)]


def test_a_mark_without_its_leader_s_intent_binds_nobody(scene: Scene) -> None:
    images = three(scene)
    for image in images[1:]:
        intend(scene, image, Member(leader=images[0].id, group=uuid.uuid4()))
    group = freeze(scene, images[:2])
    assert [item.snapshots for item in group.items] == [1, 1]
    scene.wait(_client(scene).domain.collect_garbage(domain=scene.domain))
    assert marks(scene) == []
    assert scene.look(images[2]).leaf == images[2].leaf


def test_a_group_with_somebody_at_work_waits(scene: Scene) -> None:
    images = three(scene)
    ids, volumes = tuple(image.id for image in images), tuple(uuid.uuid4() for _ in images)
    scene.client.image.prepare(domain=scene.domain, image=ids[2], read_only=True)
    _begin(scene, images, SnapshotMany(group=uuid.uuid4(), images=ids, volumes=volumes))
    before = fingerprint(scene.root)
    report = scene.wait(_client(scene).domain.collect_garbage(domain=scene.domain))
    assert (report.finished, report.unfinished) == (None, sorted(ids))
    assert fingerprint(scene.root) == before
