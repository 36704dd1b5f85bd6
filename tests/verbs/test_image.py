# SPDX-License-Identifier: Apache-2.0
"""Image: what each verb does, what it answers, and what it refuses.  Import, export, templates, and preparing have
modules of their own."""

from __future__ import annotations

import os
import time
import uuid
from functools import partial
from typing import Any

import pytest

from libvdsm.api.errors import (
    ImageExists,
    ImageInUse,
    InvalidParameter,
    IsTemplate,
    NoSuchImage,
    NotSupported,
    TemplateInUse,
    VolumeExists,
    VolumeIllegal,
)
from libvdsm.api.types import (
    Allocation,
    Compat,
    ImageId,
    ImageInfo,
    Legality,
    TaskState,
    VolumeFormat,
    VolumeId,
    VolumeInfo,
    VolumeRole,
)
from tests.domains.tree import fingerprint
from tests.formats import qemu
from tests.verbs.provoked import provokes
from tests.verbs.scene import GIB, MIB, Scene, raised

UNKNOWN = ImageId(uuid.UUID("00000000-0000-4000-8000-00000000dead"))


def image_id() -> ImageId:
    return ImageId(uuid.uuid4())


def volume_id() -> VolumeId:
    return VolumeId(uuid.uuid4())


def space(scene: Scene, image: ImageInfo) -> int:
    return os.stat(scene.data(image)).st_blocks * 512


# ---- create


def test_create_makes_an_empty_image_and_tells_all_of_it(scene: Scene) -> None:
    before = int(time.time())
    image, volume = image_id(), volume_id()
    made = scene.image(10 * GIB, name="web01", description="front end", id=image, volume=volume)
    after = time.time()
    assert before <= made.created <= after
    leaf = VolumeInfo(
        id=volume,
        domain=scene.domain,
        image=image,
        format=VolumeFormat.QCOW2,
        allocation=Allocation.SPARSE,
        role=VolumeRole.LEAF,
        legality=Legality.LEGAL,
        capacity=10 * GIB,
        actual_size=space(scene, made),
        length=scene.data(made).stat().st_size,
        created=made.created,
        generation=0,
        sequence=1,
        name="web01",
        description="front end",
        cluster_size=65536,
        compat=Compat.V3,
    )
    assert made == ImageInfo(
        id=image,
        domain=scene.domain,
        leaf=volume,
        capacity=10 * GIB,
        actual_size=leaf.actual_size,
        created=made.created,
        is_template=False,
        legality=Legality.LEGAL,
        snapshots=0,
        name="web01",
        description="front end",
        chain=[leaf],
    )
    assert scene.look(made) == made
    assert 0 < made.actual_size < MIB
    qemu.check(scene.data(made))
    assert qemu.info(scene.data(made), "qcow2")["virtual-size"] == 10 * GIB


def test_create_chooses_ids_and_needs_no_name(scene: Scene) -> None:
    one, other = scene.image(), scene.image()
    assert len({one.id, one.leaf, other.id, other.leaf}) == 4
    assert (one.name, one.description) == (None, None)


def test_create_writes_what_ovirt_reads(scene: Scene) -> None:
    made = scene.image(GIB, name="диск", description="Daten")
    assert sorted(path.name for path in scene.folder(made).iterdir()) == [
        str(made.leaf),
        f"{made.leaf}.lease",
        f"{made.leaf}.meta",
    ]
    assert scene.meta(made).read_text() == (
        f"CAP={GIB}\nCTIME={int(made.created)}\n"
        'DESCRIPTION={"DiskAlias":"диск","DiskDescription":"Daten"}\n'
        f"DISKTYPE=DATA\nDOMAIN={scene.domain}\nFORMAT=COW\nGEN=0\nIMAGE={made.id}\nLEGALITY=LEGAL\n"
        "PUUID=00000000-0000-0000-0000-000000000000\nSEQ=1\nTYPE=SPARSE\nVOLTYPE=LEAF\nEOF\n"
    )


@pytest.mark.parametrize(("asked", "made"), [(1, 512), (512, 512), (513, 1024), (2**40 + 1, 2**40 + 512)])
@pytest.mark.parametrize("format_", [VolumeFormat.RAW, VolumeFormat.QCOW2])
def test_create_rounds_up_to_whole_sectors(scene: Scene, asked: int, made: int, format_: VolumeFormat) -> None:
    image = scene.image(asked, format=format_)
    assert image.capacity == made
    assert qemu.info(scene.data(image), format_.value)["virtual-size"] == made


def test_create_takes_space_only_when_asked_to(scene: Scene) -> None:
    sparse, taken = scene.raw(8 * MIB), scene.raw(8 * MIB, allocation=Allocation.PREALLOCATED)
    layered = scene.image(8 * MIB, allocation=Allocation.PREALLOCATED)
    assert scene.data(sparse).stat().st_size == scene.data(taken).stat().st_size == 8 * MIB
    assert space(scene, sparse) == 0
    assert space(scene, taken) == taken.actual_size == 8 * MIB
    assert space(scene, layered) == layered.actual_size >= 8 * MIB
    assert scene.metadata(taken).allocation is scene.metadata(layered).allocation is Allocation.PREALLOCATED
    qemu.check(scene.data(layered))


@pytest.mark.parametrize("format_", [VolumeFormat.RAW, VolumeFormat.QCOW2])
@pytest.mark.parametrize("allocation", [Allocation.SPARSE, Allocation.PREALLOCATED])
def test_a_new_image_reads_as_zeros_and_keeps_what_is_written(
    scene: Scene, format_: VolumeFormat, allocation: Allocation
) -> None:
    path = scene.data(scene.image(4 * MIB, format=format_, allocation=allocation))
    assert qemu.holds(path, format_.value, 0, 0, 4 * MIB)
    qemu.write(path, format_.value, 0x5A, MIB, MIB)
    assert qemu.holds(path, format_.value, 0x5A, MIB, MIB)


def test_the_same_creation_again_answers_the_same(scene: Scene) -> None:
    given: dict[str, Any] = {"id": image_id(), "volume": volume_id(), "name": "a", "format": VolumeFormat.RAW}
    first = scene.image(MIB, **given)
    qemu.write(scene.data(first), "raw", 7)
    before = fingerprint(scene.root)
    again = scene.image(MIB, **given)
    assert (again.id, again.leaf, again.created) == (first.id, first.leaf, first.created)
    assert fingerprint(scene.root) == before


@provokes("Image.create", "ImageExists", "VolumeExists")
def test_another_creation_with_the_same_ids_is_refused(scene: Scene) -> None:
    first = scene.image(MIB)
    before = fingerprint(scene.root)
    ids: dict[str, Any] = {"id": first.id, "volume": first.leaf}
    others: list[dict[str, Any]] = [
        {"capacity": 2 * MIB},
        {"capacity": MIB, "format": VolumeFormat.RAW},
        {"capacity": MIB, "allocation": Allocation.PREALLOCATED},
    ]
    for other in others:
        error = raised(VolumeExists, partial(scene.image, **ids, **other))
        assert error.volume == first.leaf
    assert raised(ImageExists, lambda: scene.image(MIB, id=first.id)).image == first.id
    assert raised(VolumeExists, lambda: scene.image(MIB, volume=first.leaf)).volume == first.leaf
    assert fingerprint(scene.root) == before


@provokes("Image.create", "NotSupported")
def test_what_qcow2_cannot_hold_is_refused_and_raw_is_not(scene: Scene) -> None:
    assert scene.image(2**51).capacity == 2**51
    raised(NotSupported, lambda: scene.image(2**51 + 1))
    assert scene.raw(2**43).capacity == 2**43


@provokes("Image.create", "InvalidParameter")
def test_creation_refuses_what_the_format_cannot_hold(scene: Scene) -> None:
    refused: list[dict[str, Any]] = [
        {"capacity": 0},
        {"name": ""},
        {"name": "a\nb"},
        {"name": "a" * 65},
        {"description": "a\x00"},
    ]
    for given in refused:
        raised(InvalidParameter, partial(scene.image, **given))
    error = raised(InvalidParameter, lambda: scene.image(name="ä" * 64, description="ö" * 64))
    assert "215" in error.reason
    assert scene.client.image.list(domain=scene.domain).items == []


@provokes("Image.create", "ImageInUse")
def test_an_image_that_somebody_else_is_making_is_in_use(scene: Scene, maker: Any) -> None:
    image, volume = image_id(), volume_id()
    with maker(image, volume):
        error = raised(ImageInUse, lambda: scene.image(id=image, volume=volume))
    assert (error.image, error.volume) == (image, volume)
    assert f"process {os.getpid()} " in error.holder


# ---- snapshot


def test_snapshot_freezes_the_state_and_goes_on_in_a_new_layer(scene: Scene) -> None:
    first = scene.image(GIB, name="web", description="text")
    qemu.write(scene.data(first), "qcow2", 0x11)
    volume = volume_id()
    second = scene.snapshot(first, name="before the upgrade", volume=volume)
    assert (second.id, second.leaf, second.snapshots) == (first.id, volume, 1)
    assert (second.name, second.description, second.capacity) == ("web", "text", GIB)
    assert second.chain is not None
    base, leaf = second.chain
    assert (base.id, base.role, base.name, base.sequence) == (first.leaf, VolumeRole.INTERNAL, "before the upgrade", 1)
    assert (leaf.id, leaf.role, leaf.name, leaf.sequence) == (volume, VolumeRole.LEAF, "web", 2)
    assert (leaf.parent, leaf.backing_file) == (base.id, str(base.id))
    qemu.write(scene.data(second), "qcow2", 0x22)
    assert qemu.holds(scene.data(second), "qcow2", 0x22)
    assert qemu.holds(scene.data(first), "qcow2", 0x11), "the kept state was not touched"
    qemu.check(scene.data(second))
    assert scene.metadata(second).parent == first.leaf
    assert scene.metadata(first).role is VolumeRole.INTERNAL


def test_a_snapshot_shows_what_was_there_before(scene: Scene) -> None:
    for image in (scene.image(MIB), scene.raw(MIB)):
        qemu.write(scene.data(image), (image.chain or [])[0].format.value, 0x33, 0, MIB)
        made = scene.snapshot(scene.snapshot(image))
        assert qemu.holds(scene.data(made), "qcow2", 0x33, 0, MIB)
        assert [volume["format"] for volume in qemu.info(scene.data(made), "qcow2", chain=True)] == [
            "qcow2",
            "qcow2",
            (image.chain or [])[0].format.value,
        ]


def test_the_same_snapshot_again_answers_the_same(scene: Scene) -> None:
    image, volume = scene.image(), volume_id()
    first = scene.snapshot(image, volume=volume)
    before = fingerprint(scene.root)
    assert scene.snapshot(image, volume=volume) == first
    assert fingerprint(scene.root) == before


@provokes(
    "Image.snapshot", "VolumeExists", "ImageInUse", "IsTemplate", "VolumeIllegal", "NoSuchImage", "InvalidParameter"
)
def test_snapshot_refuses(scene: Scene) -> None:
    image, template = scene.image(), scene.template()
    snapshot = scene.client.image.snapshot
    raised(VolumeExists, lambda: scene.snapshot(image, volume=image.leaf))
    raised(VolumeExists, lambda: scene.snapshot(image, volume=template.leaf))
    assert raised(IsTemplate, lambda: scene.snapshot(template)).image == template.id
    error = raised(NoSuchImage, lambda: scene.wait(snapshot(domain=scene.domain, image=UNKNOWN)))
    assert (error.domain, error.image) == (scene.domain, UNKNOWN)
    long = scene.image(description="d" * 180)
    raised(InvalidParameter, lambda: scene.snapshot(long, name="s" * 64))
    scene.client.image.prepare(domain=scene.domain, image=image.id)
    error = raised(ImageInUse, lambda: scene.snapshot(image))
    assert (error.image, error.volume, error.host) == (image.id, image.leaf, os.uname().nodename)
    assert "prepared on this host" in error.holder
    marked = scene.image()
    scene.edit(marked, LEGALITY="ILLEGAL")
    assert raised(VolumeIllegal, lambda: scene.snapshot(marked)).volume == marked.leaf
    assert scene.look(image).snapshots == 0


# ---- list, getInfo


def test_list_tells_images_by_name_and_page_by_page(scene: Scene) -> None:
    made = {name: scene.image(name=name) for name in ("c", "a", "b")}
    unnamed = scene.image()
    whole = scene.client.image.list(domain=scene.domain)
    assert [image.name for image in whole.items] == [None, "a", "b", "c"]
    assert whole.next is None
    assert all(image.chain is None for image in whole.items)
    pages = []
    start = None
    while True:
        page = scene.client.image.list(domain=scene.domain, limit=1, start=start)
        pages += page.items
        if (start := page.next) is None:
            break
        if len(pages) == 2:
            scene.wait(scene.client.image.delete(domain=scene.domain, image=made["a"].id))
    assert [image.id for image in pages] == [unnamed.id, made["a"].id, made["b"].id, made["c"].id]


def test_list_without_a_domain_goes_over_all(scene: Scene, tmp_path: Any) -> None:
    (tmp_path / "second").mkdir()
    other = scene.wait(scene.client.domain.create(name="second", path=str(tmp_path / "second")))
    here = scene.image(name="here")
    there = scene.wait(scene.client.image.create(domain=other.id, name="there", capacity=GIB))
    assert [image.id for image in scene.client.image.list().items] == [here.id, there.id]
    assert [image.id for image in scene.client.image.list(domain=other.id).items] == [there.id]
    os.rename(tmp_path / "second", tmp_path / "lost")
    assert [image.id for image in scene.client.image.list().items] == [here.id], "one domain hides no other"
    os.rename(tmp_path / "lost", tmp_path / "second")


@provokes("Image.getInfo", "NoSuchImage")
def test_get_info_tells_each_layers_own_size(scene: Scene) -> None:
    image = scene.image(64 * MIB)
    qemu.write(scene.data(image), "qcow2", 1, 0, 4 * MIB)
    image = scene.snapshot(image)
    qemu.write(scene.data(image), "qcow2", 2, 0, MIB)
    info = scene.look(image)
    assert info.chain is not None
    sizes = [volume.actual_size for volume in info.chain]
    assert sizes == [os.stat(scene.data(image, volume.id)).st_blocks * 512 for volume in info.chain]
    assert 4 * MIB <= sizes[0] < 6 * MIB
    assert MIB <= sizes[1] < 2 * MIB
    assert info.actual_size == sum(sizes)
    raised(NoSuchImage, lambda: scene.look(UNKNOWN))


# ---- delete


def test_delete_takes_the_whole_image_and_gives_its_space_back(scene: Scene) -> None:
    other = scene.image(name="stays")
    image = scene.snapshot(scene.snapshot(scene.image()))
    scene.wait(scene.client.image.delete(domain=scene.domain, image=image.id))
    assert [path.name for path in scene.images.iterdir()] == [str(other.id)]
    scene.wait(scene.client.image.delete(domain=scene.domain, image=image.id))
    raised(NoSuchImage, lambda: scene.look(image))


def test_deleting_a_clone_leaves_the_template_and_then_the_template_goes_too(scene: Scene) -> None:
    base = scene.image(MIB)
    qemu.write(scene.data(base), "qcow2", 0x11)
    template = scene.wait(scene.client.image.make_template(domain=scene.domain, image=base.id))
    clone = scene.clone(template)
    scene.wait(scene.client.image.delete(domain=scene.domain, image=clone.id, wipe=True))
    assert qemu.holds(scene.data(template), "qcow2", 0x11), "wiping spares what is the template's"
    scene.wait(scene.client.image.delete(domain=scene.domain, image=template.id))
    assert list(scene.images.iterdir()) == []


def test_a_wiped_image_leaves_no_data_on_the_storage(scene: Scene) -> None:
    for wipe in (False, True):
        image = scene.raw(MIB)
        qemu.write(scene.data(image), "raw", 0x5A, 0, MIB)
        with scene.data(image).open("rb") as data:
            scene.wait(scene.client.image.delete(domain=scene.domain, image=image.id, wipe=wipe))
            assert (data.read().count(0x5A) == 0) is wipe


@provokes("Image.delete", "TemplateInUse", "ImageInUse")
def test_delete_refuses(scene: Scene) -> None:
    template = scene.template()
    scene.clone(template)
    before = fingerprint(scene.root)
    delete = scene.client.image.delete
    error = raised(TemplateInUse, lambda: scene.wait(delete(domain=scene.domain, image=template.id)))
    assert (error.image, error.clones) == (template.id, 1)
    assert fingerprint(scene.root) == before
    image = scene.image()
    scene.client.image.prepare(domain=scene.domain, image=image.id, read_only=True)
    raised(ImageInUse, lambda: scene.wait(delete(domain=scene.domain, image=image.id)))


def test_a_task_tells_what_it_works_on(scene: Scene) -> None:
    image = scene.image(name="a")
    task = scene.client.image.snapshot(domain=scene.domain, image=image.id)
    ended = scene.client.task.wait(task=task.id)
    assert (ended.verb, ended.state, ended.domain, ended.image) == (
        "Image.snapshot",
        TaskState.SUCCEEDED,
        scene.domain,
        image.id,
    )
    assert ended.volume == scene.look(image).leaf
    assert ended.progress.percent == 100
    assert ended.started is not None
    assert ended.ended is not None
    assert ended.created <= ended.started <= ended.ended <= time.time()
