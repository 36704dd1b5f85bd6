# SPDX-License-Identifier: Apache-2.0
"""Volume: what each verb does, what it answers, and what it refuses."""

from __future__ import annotations

import subprocess
import time
import uuid
from typing import Any

import pytest

from hsm.operations.base import lock_domain
from libvdsm.api.errors import (
    CannotChange,
    CannotShrink,
    GenerationMismatch,
    ImageDamaged,
    ImageExists,
    ImageInUse,
    InvalidParameter,
    IsTemplate,
    NoSuchImage,
    NoSuchVolume,
    NotSupported,
    NotTemplate,
    TemplateInUse,
    ToolFailed,
    VolumeDamaged,
    VolumeExists,
    VolumeHasChildren,
    VolumeIllegal,
)
from libvdsm.api.types import (
    Allocation,
    FileFormat,
    ImageId,
    ImageInfo,
    Legality,
    VolumeFormat,
    VolumeId,
    VolumeInfo,
    VolumeRole,
)
from libvdsm.api.volume import Measure
from tests.domains.tree import fingerprint
from tests.formats import qemu
from tests.verbs.provoked import provokes
from tests.verbs.scene import GIB, MIB, Scene, raised

UNKNOWN = uuid.UUID("00000000-0000-4000-8000-00000000dead")


def create(scene: Scene, **params: Any) -> VolumeInfo:
    return scene.wait(scene.client.volume.create(domain=scene.domain, **params))


def resize(scene: Scene, of: ImageInfo, capacity: int, **params: Any) -> VolumeInfo:
    given = {"volume": of.leaf, **params}
    return scene.wait(scene.client.volume.resize(domain=scene.domain, capacity=capacity, **given))


def describe(scene: Scene, volume: VolumeId, text: str, **params: Any) -> VolumeInfo:
    task = scene.client.volume.set_description(domain=scene.domain, volume=volume, description=text, **params)
    return scene.wait(task)


def mark(scene: Scene, volume: VolumeId, legality: Legality, **params: Any) -> VolumeInfo:
    task = scene.client.volume.set_legality(domain=scene.domain, volume=volume, legality=legality, **params)
    return scene.wait(task)


def delete(scene: Scene, volume: VolumeId, **params: Any) -> None:
    scene.wait(scene.client.volume.delete(domain=scene.domain, volume=volume, **params))


def look(scene: Scene, volume: VolumeId, **params: Any) -> VolumeInfo:
    return scene.client.volume.get_info(domain=scene.domain, volume=volume, **params)


class OpenedByQemu:
    """A QEMU that has an image open for writing, without having asked anybody."""

    def __init__(self, scene: Scene, image: ImageInfo) -> None:
        self._argv = ["qemu-io", "-f", "qcow2", str(scene.data(image))]

    def __enter__(self) -> None:
        self._process = subprocess.Popen(self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"length\n")
        self._process.stdin.flush()
        assert b"1 MiB" in self._process.stdout.readline()

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


# ---- create


def test_create_without_a_parent_makes_an_image_of_one_volume(scene: Scene) -> None:
    volume = VolumeId(uuid.uuid4())
    before = int(time.time())
    made = create(scene, capacity=GIB - 1, description="d", id=volume, format=VolumeFormat.RAW)
    image = scene.client.image.get_info(domain=scene.domain, image=made.image)
    assert before <= made.created <= time.time()
    assert made == VolumeInfo(
        id=volume,
        domain=scene.domain,
        image=image.id,
        format=VolumeFormat.RAW,
        allocation=Allocation.SPARSE,
        role=VolumeRole.LEAF,
        legality=Legality.LEGAL,
        capacity=GIB,
        actual_size=0,
        length=GIB,
        created=made.created,
        generation=0,
        sequence=1,
        description="d",
    )
    assert (image.leaf, image.description, image.snapshots) == (volume, "d", 0)
    assert scene.data(image).stat().st_size == GIB


def test_create_in_an_image_that_is_named(scene: Scene) -> None:
    image = ImageId(uuid.uuid4())
    made = create(scene, capacity=MIB, image=image, allocation=Allocation.PREALLOCATED)
    assert (made.image, made.allocation, made.format) == (image, Allocation.PREALLOCATED, VolumeFormat.QCOW2)
    assert made.actual_size >= MIB


def test_create_on_a_leaf_is_a_snapshot_that_may_grow(scene: Scene) -> None:
    base = scene.image(MIB, name="web", description="old")
    qemu.write(scene.data(base), "qcow2", 0x11)
    made = create(scene, image=base.id, parent=base.leaf, capacity=2 * MIB, description="new")
    assert (made.parent, made.capacity, made.sequence, made.role) == (base.leaf, 2 * MIB, 2, VolumeRole.LEAF)
    assert (made.name, made.description) == ("web", "new")
    image = scene.look(base)
    assert (image.leaf, image.snapshots, image.capacity) == (made.id, 1, 2 * MIB)
    assert qemu.content(scene.data(image), "qcow2") == (b"\x11" * 65536).ljust(2 * MIB, b"\0")


def test_create_on_a_templates_volume_is_a_clone(scene: Scene) -> None:
    template = scene.template(MIB)
    made = create(scene, parent=template.leaf)
    image = scene.client.image.get_info(domain=scene.domain, image=made.image)
    assert (image.template, made.parent, made.capacity, image.snapshots) == (template.id, template.leaf, MIB, 0)


def test_the_same_creation_again_answers_the_same(scene: Scene) -> None:
    template, base = scene.template(MIB), scene.image(MIB)
    for given in (
        {"capacity": MIB, "id": uuid.uuid4()},
        {"parent": template.leaf, "id": uuid.uuid4()},
        {"image": base.id, "parent": base.leaf, "id": uuid.uuid4()},
    ):
        first = create(scene, **given)
        before = fingerprint(scene.root)
        assert create(scene, **given) == first
        assert fingerprint(scene.root) == before


VERB = "Volume.create"


@provokes(VERB, "VolumeExists", "ImageExists", "NoSuchVolume", "NoSuchImage", "VolumeHasChildren", "CannotShrink")
@provokes(VERB, "CannotChange", "NotTemplate", "IsTemplate", "NotSupported", "InvalidParameter", "ImageInUse")
@provokes(VERB, "VolumeIllegal", "VolumeDamaged", "ImageDamaged")
def test_create_refuses(scene: Scene) -> None:
    image, template, marked = scene.image(MIB), scene.template(MIB), scene.image(MIB)
    raised(InvalidParameter, lambda: create(scene))
    raised(InvalidParameter, lambda: create(scene, capacity=1, description="ö" * 110))
    raised(VolumeExists, lambda: create(scene, capacity=2 * MIB, id=image.leaf))
    raised(VolumeExists, lambda: create(scene, image=image.id, parent=image.leaf, id=image.leaf))
    raised(ImageExists, lambda: create(scene, capacity=MIB, image=image.id))
    raised(ImageExists, lambda: create(scene, parent=template.leaf, image=image.id))
    raised(NoSuchVolume, lambda: create(scene, image=image.id, parent=UNKNOWN))
    raised(NotTemplate, lambda: create(scene, parent=image.leaf))
    raised(IsTemplate, lambda: create(scene, image=template.id, parent=template.leaf))
    raised(CannotShrink, lambda: create(scene, image=image.id, parent=image.leaf, capacity=512))
    raised(CannotChange, lambda: create(scene, image=image.id, parent=image.leaf, format=VolumeFormat.RAW))
    preallocated = Allocation.PREALLOCATED
    raised(CannotChange, lambda: create(scene, image=image.id, parent=image.leaf, allocation=preallocated))
    raised(NotSupported, lambda: create(scene, capacity=2**52))
    error = raised(VolumeHasChildren, lambda: create(scene, image=scene.snapshot(image).id, parent=image.leaf))
    assert (error.volume, error.children) == (image.leaf, 1)
    scene.edit(marked, LEGALITY="ILLEGAL")
    raised(VolumeIllegal, lambda: create(scene, image=marked.id, parent=marked.leaf))
    scene.edit(marked, LEGALITY="LEGAL", DOMAIN=str(UNKNOWN))
    raised(VolumeDamaged, lambda: create(scene, image=marked.id, parent=marked.leaf))
    used = scene.image(MIB)
    scene.client.image.prepare(domain=scene.domain, image=used.id)
    raised(ImageInUse, lambda: create(scene, image=used.id, parent=used.leaf))
    deep = scene.snapshot(scene.image(MIB))
    scene.meta(deep, (deep.chain or [])[0].id).write_bytes(b"")
    raised(ImageDamaged, lambda: create(scene, image=deep.id, parent=deep.leaf))
    gone = scene.image(MIB)
    with scene.app.tasks.hold((lock_domain(scene.domain, shared=False),), 1.0):
        task = scene.client.image.delete(domain=scene.domain, image=gone.id)
        late = scene.client.volume.create(domain=scene.domain, image=gone.id, parent=gone.leaf)
    scene.wait(task)
    raised(NoSuchImage, lambda: scene.wait(late))


# ---- getInfo, list


@provokes("Volume.getInfo", "NoSuchVolume", "NoSuchImage")
def test_get_info_finds_a_volume_with_or_without_its_image(scene: Scene) -> None:
    template = scene.template(MIB, name="t")
    clone = scene.clone(template, name="c")
    leaf = look(scene, clone.leaf)
    assert clone.chain is not None
    assert leaf == clone.chain[1] == look(scene, clone.leaf, image=clone.id)
    shared = look(scene, template.leaf)
    assert (shared.image, shared.role, shared.name) == (template.id, VolumeRole.TEMPLATE, "t")
    error = raised(NoSuchVolume, lambda: look(scene, VolumeId(UNKNOWN)))
    assert (error.domain, error.volume) == (scene.domain, UNKNOWN)
    raised(NoSuchVolume, lambda: look(scene, clone.leaf, image=template.id))
    raised(NoSuchImage, lambda: look(scene, clone.leaf, image=ImageId(UNKNOWN)))


def test_get_info_reads_the_storage_anew(scene: Scene) -> None:
    image = scene.image(64 * MIB)
    before = look(scene, image.leaf)
    qemu.write(scene.data(image), "qcow2", 1, 0, 8 * MIB)
    after = look(scene, image.leaf)
    assert after.actual_size >= before.actual_size + 8 * MIB
    assert after.length >= before.length + 8 * MIB
    scene.edit(image, GEN="999", SEQ="7", CTIME="1700000000")
    edited = look(scene, image.leaf)
    assert (edited.generation, edited.sequence, edited.created) == (999, 7, 1_700_000_000)


@provokes("Volume.list", "NoSuchImage")
def test_list_tells_volumes_by_image_the_oldest_first(scene: Scene) -> None:
    images = sorted((scene.snapshot(scene.snapshot(scene.image(MIB))) for _ in range(2)), key=lambda image: image.id)
    chains = [[volume.id for volume in image.chain or []] for image in images]
    volumes = scene.client.volume.list
    assert [volume.id for volume in volumes(domain=scene.domain).items] == chains[0] + chains[1]
    assert volumes(domain=scene.domain, image=images[1].id).items == images[1].chain
    found: list[VolumeId] = []
    start = None
    while True:
        page = volumes(domain=scene.domain, limit=2, start=start)
        assert 1 <= len(page.items) <= 2
        found += [volume.id for volume in page.items]
        if (start := page.next) is None:
            break
    assert found == chains[0] + chains[1]
    raised(NoSuchImage, lambda: volumes(domain=scene.domain, image=ImageId(UNKNOWN)))


def test_a_clones_list_leaves_out_what_is_the_templates(scene: Scene) -> None:
    template = scene.template(MIB)
    clone = scene.clone(template)
    listed = scene.client.volume.list(domain=scene.domain)
    assert sorted(volume.id for volume in listed.items) == sorted([template.leaf, clone.leaf])
    assert [volume.id for volume in scene.client.volume.list(domain=scene.domain, image=clone.id).items] == [clone.leaf]


# ---- measure


@pytest.mark.parametrize("format_", [FileFormat.RAW, FileFormat.QCOW2])
def test_measure_tells_what_a_copy_takes(scene: Scene, format_: FileFormat, tmp_path: Any) -> None:
    base = scene.image(16 * MIB)
    qemu.write(scene.data(base), "qcow2", 1, 0, 4 * MIB)
    image = scene.snapshot(base)
    qemu.write(scene.data(image), "qcow2", 2, 8 * MIB, 2 * MIB)

    def measure(**params: Any) -> Measure:
        return scene.client.volume.measure(domain=scene.domain, format=format_, **params)

    whole, alone = measure(volume=image.leaf), measure(volume=image.leaf, chain=False)
    target = tmp_path / "copy"
    scene.wait(scene.client.image.export(domain=scene.domain, image=image.id, path=str(target), format=format_))
    assert whole.required == target.stat().st_size
    assert whole.fully_allocated >= 16 * MIB
    assert measure(volume=base.leaf).required < whole.required or format_ is FileFormat.RAW
    assert alone.required == whole.required - (4 * MIB if format_ is FileFormat.QCOW2 else 0)
    assert measure(volume=image.leaf, image=image.id) == whole


VERB = "Volume.measure"


@provokes(VERB, "NoSuchVolume", "NoSuchImage", "ImageDamaged", "VolumeDamaged", "InvalidParameter", "ToolFailed")
def test_measure_refuses(scene: Scene) -> None:
    image = scene.snapshot(scene.image(MIB))
    measure = scene.client.volume.measure
    given: dict[str, Any] = {"domain": scene.domain, "volume": image.leaf}
    raised(NoSuchVolume, lambda: measure(domain=scene.domain, volume=VolumeId(UNKNOWN)))
    raised(NoSuchImage, lambda: measure(**given, image=ImageId(UNKNOWN)))
    raised(InvalidParameter, lambda: measure(**given, format=FileFormat.VMDK))
    assert image.chain is not None
    other = scene.image(MIB)
    with scene.data(other).open("r+b") as file:  # the first-level table begins in the middle of a cluster
        file.seek(40)
        file.write((3 << 9).to_bytes(8, "big"))
    raised(ToolFailed, lambda: measure(domain=scene.domain, volume=other.leaf))
    scene.edit(image, image.chain[0].id, PUUID=str(UNKNOWN))
    raised(VolumeDamaged, lambda: measure(**given))
    scene.meta(image, image.chain[0].id).write_bytes(b"")
    raised(ImageDamaged, lambda: measure(**given))


def test_a_volume_that_a_guest_writes_can_be_looked_at_and_measured(scene: Scene) -> None:
    image = scene.image(MIB)
    scene.client.image.prepare(domain=scene.domain, image=image.id)
    with OpenedByQemu(scene, image):
        assert look(scene, image.leaf).capacity == MIB
        assert scene.client.volume.measure(domain=scene.domain, volume=image.leaf).required > 0
        report = scene.wait(scene.client.domain.check(domain=scene.domain, deep=True))
        assert report.problems == []


# ---- delete


def test_deleting_the_leaf_returns_to_the_state_below(scene: Scene) -> None:
    base = scene.image(MIB, name="web")
    qemu.write(scene.data(base), "qcow2", 0x11)
    upper = scene.snapshot(base, name="kept")
    qemu.write(scene.data(upper), "qcow2", 0x22)
    delete(scene, upper.leaf)
    after = scene.look(base)
    assert (after.leaf, after.snapshots, after.name) == (base.leaf, 0, "web")
    assert (after.chain or [])[0].role is VolumeRole.LEAF
    assert scene.metadata(base).role is VolumeRole.LEAF
    assert qemu.holds(scene.data(after), "qcow2", 0x11)
    assert sorted(path.name for path in scene.folder(base).iterdir()) == [
        f"{base.leaf}{suffix}" for suffix in ("", ".lease", ".meta")
    ]
    qemu.write(scene.data(after), "qcow2", 0x33)
    delete(scene, upper.leaf, image=base.id)
    delete(scene, upper.leaf)


def test_the_last_volume_takes_its_image_with_it(scene: Scene) -> None:
    image, template = scene.image(MIB), scene.template(MIB)
    clone = scene.clone(template)
    delete(scene, image.leaf)
    delete(scene, clone.leaf, wipe=True)
    assert [found.name for found in scene.images.iterdir()] == [str(template.id)]
    delete(scene, template.leaf)
    assert list(scene.images.iterdir()) == []


def test_a_wiped_volume_leaves_no_data_on_the_storage(scene: Scene) -> None:
    base = scene.raw(MIB)
    for wipe in (False, True):
        upper = scene.snapshot(base)
        qemu.write(scene.data(upper), "qcow2", 0x5A, 0, MIB)
        with scene.data(upper).open("rb") as data:
            delete(scene, upper.leaf, wipe=wipe)
            assert (data.read().count(0x5A) == 0) is wipe


VERB = "Volume.delete"


@provokes(VERB, "VolumeHasChildren", "TemplateInUse", "IsTemplate", "ImageInUse", "GenerationMismatch")
@provokes(VERB, "VolumeDamaged", "ImageDamaged")
def test_delete_refuses(scene: Scene) -> None:
    base, template = scene.image(MIB), scene.template(MIB)
    upper, clone = scene.snapshot(base), scene.clone(template)
    before = fingerprint(scene.root)
    error = raised(VolumeHasChildren, lambda: delete(scene, base.leaf))
    assert (error.volume, error.children) == (base.leaf, 1)
    error = raised(TemplateInUse, lambda: delete(scene, template.leaf))
    assert (error.image, error.clones) == (template.id, 1)
    assert raised(IsTemplate, lambda: delete(scene, template.leaf, image=clone.id)).image == template.id
    raised(GenerationMismatch, lambda: delete(scene, upper.leaf, generation=3))
    scene.client.image.prepare(domain=scene.domain, image=base.id)
    raised(ImageInUse, lambda: delete(scene, upper.leaf))
    assert fingerprint(scene.root) == before
    scene.client.image.teardown(domain=scene.domain, image=base.id)
    scene.meta(upper, base.leaf).write_bytes(b"")
    raised(ImageDamaged, lambda: delete(scene, upper.leaf))
    raised(VolumeDamaged, lambda: delete(scene, base.leaf, image=base.id))
