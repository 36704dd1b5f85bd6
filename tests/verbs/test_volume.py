# SPDX-License-Identifier: Apache-2.0
"""Volume: what each verb does, what it answers, and what it refuses."""

from __future__ import annotations

import json
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


# ---- resize


@pytest.mark.parametrize("format_", [VolumeFormat.RAW, VolumeFormat.QCOW2])
@pytest.mark.parametrize("allocation", [Allocation.SPARSE, Allocation.PREALLOCATED])
def test_resize_makes_a_leaf_larger_and_keeps_its_data(
    scene: Scene, format_: VolumeFormat, allocation: Allocation
) -> None:
    image = scene.image(MIB, format=format_, allocation=allocation)
    qemu.write(scene.data(image), format_.value, 0x11, 0, MIB)
    grown = resize(scene, image, 3 * MIB - 1)
    assert (grown.capacity, grown.generation) == (3 * MIB, 1)
    assert scene.metadata(image).capacity == 3 * MIB
    assert qemu.content(scene.data(image), format_.value) == (b"\x11" * MIB).ljust(3 * MIB, b"\0")
    assert scene.look(image).capacity == 3 * MIB
    if format_ is VolumeFormat.RAW and allocation is Allocation.PREALLOCATED:
        assert grown.actual_size >= 3 * MIB
    before = fingerprint(scene.root)
    assert resize(scene, image, 3 * MIB) == grown, "it is so already"
    assert fingerprint(scene.root) == before


def test_a_grown_overlay_reads_zeros_beyond_its_parent(scene: Scene) -> None:
    image = scene.raw(MIB)
    qemu.write(scene.data(image), "raw", 0x11, 0, MIB)
    image = scene.snapshot(image)
    resize(scene, image, 2 * MIB)
    assert qemu.content(scene.data(image), "qcow2") == (b"\x11" * MIB).ljust(2 * MIB, b"\0")
    qemu.check(scene.data(image))


@pytest.mark.parametrize("format_", [VolumeFormat.RAW, VolumeFormat.QCOW2])
def test_resize_makes_a_leaf_smaller_when_asked_in_so_many_words(scene: Scene, format_: VolumeFormat) -> None:
    image = scene.image(3 * MIB, format=format_)
    qemu.write(scene.data(image), format_.value, 0x11, 0, 3 * MIB)
    raised(CannotShrink, lambda: resize(scene, image, MIB))
    cut = resize(scene, image, MIB, shrink=True)
    assert (cut.capacity, cut.generation) == (MIB, 1)
    assert qemu.content(scene.data(image), format_.value) == b"\x11" * MIB
    assert scene.look(image).pending is None
    before = fingerprint(scene.root)
    assert resize(scene, image, MIB, shrink=True) == cut, "it is so already"
    assert fingerprint(scene.root) == before
    assert resize(scene, image, 2 * MIB, shrink=True).capacity == 2 * MIB, "it may grow all the same"
    assert qemu.content(scene.data(image), format_.value) == (b"\x11" * MIB).ljust(2 * MIB, b"\0")


def test_an_overlay_becomes_smaller_than_what_it_stands_on(scene: Scene) -> None:
    image = scene.raw(2 * MIB)
    qemu.write(scene.data(image), "raw", 0x11, 0, 2 * MIB)
    image = scene.snapshot(image)
    resize(scene, image, MIB, shrink=True)
    assert qemu.content(scene.data(image), "qcow2") == b"\x11" * MIB
    resize(scene, image, 2 * MIB)
    assert qemu.content(scene.data(image), "qcow2") == (b"\x11" * MIB).ljust(2 * MIB, b"\0"), "what was cut is gone"


def test_shrinking_refuses_what_growing_refuses(scene: Scene) -> None:
    image, template = scene.image(2 * MIB), scene.template(2 * MIB)
    raised(IsTemplate, lambda: resize(scene, template, MIB, shrink=True))
    raised(GenerationMismatch, lambda: resize(scene, image, MIB, shrink=True, generation=5))
    scene.client.image.prepare(domain=scene.domain, image=image.id)
    raised(ImageInUse, lambda: resize(scene, image, MIB, shrink=True))
    scene.client.image.teardown(domain=scene.domain, image=image.id)
    upper = scene.snapshot(image)
    before = fingerprint(scene.root)
    raised(VolumeHasChildren, lambda: resize(scene, image, MIB, shrink=True))
    assert fingerprint(scene.root) == before
    assert scene.look(upper).pending is None


VERB = "Volume.resize"


@provokes(VERB, "CannotShrink", "VolumeHasChildren", "IsTemplate", "ImageInUse", "VolumeIllegal", "NoSuchVolume")
@provokes(VERB, "GenerationMismatch", "NoSuchImage", "ImageDamaged", "VolumeDamaged", "ToolFailed", "InvalidParameter")
def test_resize_refuses(scene: Scene) -> None:
    image, template = scene.image(MIB), scene.template(MIB)
    clone = scene.clone(template)
    error = raised(CannotShrink, lambda: resize(scene, image, MIB - 512))
    assert (error.volume, error.capacity) == (image.leaf, MIB)
    raised(InvalidParameter, lambda: resize(scene, image, 0))
    raised(NoSuchVolume, lambda: resize(scene, image, GIB, volume=UNKNOWN))
    raised(NoSuchImage, lambda: resize(scene, image, GIB, image=ImageId(UNKNOWN)))
    assert raised(IsTemplate, lambda: resize(scene, template, GIB)).image == template.id
    assert raised(IsTemplate, lambda: resize(scene, template, GIB, image=clone.id)).image == template.id
    scene.client.image.prepare(domain=scene.domain, image=clone.id)
    assert raised(IsTemplate, lambda: resize(scene, template, GIB)).image == template.id
    scene.client.image.teardown(domain=scene.domain, image=clone.id)
    error = raised(GenerationMismatch, lambda: resize(scene, image, GIB, generation=5))
    assert (error.volume, error.expected, error.found) == (image.leaf, 5, 0)
    scene.client.image.prepare(domain=scene.domain, image=image.id)
    raised(ImageInUse, lambda: resize(scene, image, GIB))
    scene.client.image.teardown(domain=scene.domain, image=image.id)
    upper = scene.snapshot(image)
    raised(VolumeHasChildren, lambda: resize(scene, image, GIB))
    scene.edit(upper, image.leaf, LEGALITY="ILLEGAL")
    raised(VolumeIllegal, lambda: resize(scene, upper, GIB))
    scene.edit(upper, image.leaf, LEGALITY="LEGAL", PUUID=str(UNKNOWN))
    raised(VolumeDamaged, lambda: resize(scene, upper, GIB))
    scene.meta(upper, image.leaf).write_bytes(b"")
    raised(ImageDamaged, lambda: resize(scene, upper, GIB))
    used = scene.image(MIB)
    with OpenedByQemu(scene, used):
        error = raised(ToolFailed, lambda: resize(scene, used, GIB))
    assert "lock" in error.reason
    assert resize(scene, used, GIB, generation=0).capacity == GIB
    assert resize(scene, used, GIB, generation=0).generation == 1, "it is so already"


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


# ---- setDescription


def test_set_description_changes_the_text_and_leaves_name_and_generation(scene: Scene) -> None:
    image = scene.image(MIB, name="web", description="old")
    changed = describe(scene, image.leaf, "näu")
    assert (changed.name, changed.description, changed.generation) == ("web", "näu", 0)
    assert scene.look(image).description == "näu"
    assert json.loads(scene.metadata(image).description) == {"DiskAlias": "web", "DiskDescription": "näu"}
    assert describe(scene, image.leaf, "").description is None
    assert json.loads(scene.metadata(image).description) == {"DiskAlias": "web"}


def test_set_description_keeps_what_others_wrote_beside_it(scene: Scene) -> None:
    image = scene.image(MIB)
    scene.edit(image, DESCRIPTION='{"DiskAlias":"a","Custom":[1,2]}')
    describe(scene, image.leaf, "new")
    assert json.loads(scene.metadata(image).description) == {
        "DiskAlias": "a",
        "Custom": [1, 2],
        "DiskDescription": "new",
    }


def test_set_description_works_while_the_image_is_in_use_and_on_frozen_volumes(scene: Scene) -> None:
    image = scene.snapshot(scene.image(MIB), name="kept")
    scene.client.image.prepare(domain=scene.domain, image=image.id)
    assert image.chain is not None
    base = describe(scene, image.chain[0].id, "of the snapshot")
    assert (base.name, base.description, base.role) == ("kept", "of the snapshot", VolumeRole.INTERNAL)
    assert describe(scene, image.leaf, "of the image").description == "of the image"


VERB = "Volume.setDescription"


@provokes(VERB, "NoSuchVolume", "NoSuchImage", "GenerationMismatch", "IsTemplate", "InvalidParameter", "VolumeDamaged")
def test_set_description_refuses(scene: Scene) -> None:
    image, template = scene.image(MIB, name="n" * 64), scene.template(MIB)
    clone = scene.clone(template)
    raised(NoSuchVolume, lambda: describe(scene, VolumeId(UNKNOWN), "x"))
    raised(NoSuchImage, lambda: describe(scene, image.leaf, "x", image=ImageId(UNKNOWN)))
    raised(GenerationMismatch, lambda: describe(scene, image.leaf, "x", generation=1))
    raised(IsTemplate, lambda: describe(scene, template.leaf, "x", image=clone.id))
    raised(InvalidParameter, lambda: describe(scene, image.leaf, "a\nb"))
    raised(InvalidParameter, lambda: describe(scene, image.leaf, "d" * 180))
    assert look(scene, image.leaf).description is None
    assert describe(scene, template.leaf, "of the template").description == "of the template"
    scene.meta(image).write_bytes(b"")
    raised(VolumeDamaged, lambda: describe(scene, image.leaf, "x"))


# ---- setLegality


def test_set_legality_marks_a_volume_and_raises_its_generation(scene: Scene) -> None:
    image = scene.image(MIB)
    marked = mark(scene, image.leaf, Legality.ILLEGAL)
    assert (marked.legality, marked.generation) == (Legality.ILLEGAL, 1)
    assert "LEGALITY=ILLEGAL\n" in scene.meta(image).read_text()
    assert scene.look(image).legality is Legality.ILLEGAL
    assert mark(scene, image.leaf, Legality.ILLEGAL).generation == 1, "it is so already"
    assert mark(scene, image.leaf, Legality.LEGAL, generation=1).generation == 2
    scene.edit(image, GEN="999")
    assert mark(scene, image.leaf, Legality.ILLEGAL).generation == 0, "the generation wraps"


VERB = "Volume.setLegality"


@provokes(VERB, "NoSuchVolume", "NoSuchImage", "GenerationMismatch", "IsTemplate", "InvalidParameter")
@provokes(VERB, "ImageInUse", "VolumeDamaged")
def test_set_legality_refuses(scene: Scene) -> None:
    image, template = scene.image(MIB), scene.template(MIB)
    clone = scene.clone(template)
    illegal = Legality.ILLEGAL
    raised(NoSuchVolume, lambda: mark(scene, VolumeId(UNKNOWN), illegal))
    raised(NoSuchImage, lambda: mark(scene, image.leaf, illegal, image=ImageId(UNKNOWN)))
    raised(GenerationMismatch, lambda: mark(scene, image.leaf, illegal, generation=1))
    raised(IsTemplate, lambda: mark(scene, template.leaf, illegal, image=clone.id))
    raised(InvalidParameter, lambda: mark(scene, image.leaf, Legality.FAKE))
    scene.client.image.prepare(domain=scene.domain, image=clone.id)
    raised(ImageInUse, lambda: mark(scene, clone.leaf, illegal))
    raised(ImageInUse, lambda: mark(scene, template.leaf, illegal))
    scene.meta(image).write_bytes(b"")
    raised(VolumeDamaged, lambda: mark(scene, image.leaf, illegal))


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
