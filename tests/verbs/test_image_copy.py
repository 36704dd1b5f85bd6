# SPDX-License-Identifier: Apache-2.0
"""Image.copy and Volume.copy: chains kept or collapsed, within a domain and between two, as they are or converted."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from hsm.tools import offload
from libvdsm.api.errors import (
    CopyDiffers,
    ImageExists,
    ImageInUse,
    InvalidParameter,
    NeedsCollapse,
    NoSpace,
    NoSuchImage,
    NoSuchVolume,
    NotSupported,
    NotTemplate,
    TaskStopped,
    TemplateMissing,
    ToolFailed,
    VolumeExists,
    VolumeIllegal,
)
from libvdsm.api.types import (
    Allocation,
    DomainId,
    ImageId,
    ImageInfo,
    VolumeFormat,
    VolumeId,
)
from tests.domains.tree import fingerprint
from tests.formats import qemu
from tests.verbs.copies import copy, healthy, path_of, seen
from tests.verbs.provoked import provokes
from tests.verbs.scene import MIB, Scene, raised

VERB = "Image.copy"


@pytest.fixture
def tmp_path(in_memory: Path) -> Path:
    return in_memory


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
def test_a_chain_is_kept_with_its_snapshots_and_names(
    scene: Scene, chain: ImageInfo, other: DomainId, elsewhere: bool
) -> None:
    source = fingerprint(scene.folder(chain))
    made = copy(scene, chain, name="web02", **({"to": other} if elsewhere else {})).image
    assert made.domain == (other if elsewhere else scene.domain)
    assert (made.name, made.description, made.snapshots) == ("web02", "the shop", 2)
    assert chain.chain is not None
    assert made.chain is not None
    assert [volume.name for volume in made.chain] == ["first", "second", "web02"]
    assert [volume.format for volume in made.chain] == [volume.format for volume in chain.chain]
    assert not {volume.id for volume in made.chain} & {volume.id for volume in chain.chain}
    for old, new in zip(chain.chain, made.chain, strict=True):
        assert seen(scene, made, new.id) == seen(scene, chain, old.id)
    assert fingerprint(scene.folder(chain)) == source
    healthy(scene, other)


def test_what_a_guest_does_not_see_is_kept_too(scene: Scene) -> None:
    """Byte for byte: what is inside a qcow2 file stays, as bitmaps do."""
    image = scene.image(MIB)
    qemu.image_tool("bitmap", "--add", "-f", "qcow2", scene.data(image), "since-monday")
    made = copy(scene, image).image
    found = qemu.info(path_of(scene, made), "qcow2")["format-specific"]["data"]["bitmaps"]
    assert [bitmap["name"] for bitmap in found] == ["since-monday"]
    assert path_of(scene, made).read_bytes() == scene.data(image).read_bytes()


@pytest.mark.parametrize("sectors", [1, 7, 9, 2049])
def test_a_raw_volume_ends_where_it_did(scene: Scene, sectors: int) -> None:
    """Past the page cache whole blocks are written, which may be longer than sectors."""
    image = scene.raw(sectors * 512)
    qemu.write(scene.data(image), "raw", 0x11, (sectors - 1) * 512, 512)
    for format_ in (VolumeFormat.RAW, VolumeFormat.QCOW2):
        made = copy(scene, copy(scene, image, format=format_).image, format=VolumeFormat.RAW).image
        assert path_of(scene, made).read_bytes() == scene.data(image).read_bytes()


@pytest.mark.parametrize("format_", [None, VolumeFormat.RAW, VolumeFormat.QCOW2])
def test_a_chain_is_collapsed_into_one_volume(
    scene: Scene, chain: ImageInfo, other: DomainId, format_: VolumeFormat | None
) -> None:
    made = copy(scene, chain, to=other, collapse=True, format=format_).image
    assert (made.name, made.snapshots, made.capacity) == ("web01", 0, chain.capacity)
    assert made.chain is not None
    assert made.chain[0].format is (format_ or VolumeFormat.QCOW2)
    assert made.chain[0].allocation is Allocation.SPARSE
    assert seen(scene, made) == seen(scene, chain)
    healthy(scene, other)


def test_the_state_of_a_snapshot_is_copied(scene: Scene, chain: ImageInfo) -> None:
    assert chain.chain is not None
    middle = chain.chain[1].id
    kept = copy(scene, chain, volume=middle, name="old").image
    assert (kept.snapshots, kept.name) == (1, "old")
    flat = copy(scene, chain, volume=middle, collapse=True, name="older").image
    assert (flat.snapshots, flat.name) == (0, "older")
    for made in (kept, flat):
        assert seen(scene, made) == seen(scene, chain, middle)
        scene.snapshot(made)
    healthy(scene)


@pytest.mark.parametrize("allocation", [Allocation.SPARSE, Allocation.PREALLOCATED])
@pytest.mark.parametrize("format_", [VolumeFormat.RAW, VolumeFormat.QCOW2])
@pytest.mark.parametrize("was", [VolumeFormat.RAW, VolumeFormat.QCOW2])
def test_format_and_allocation_are_converted(
    scene: Scene, was: VolumeFormat, format_: VolumeFormat, allocation: Allocation
) -> None:
    image = scene.image(4 * MIB, format=was)
    qemu.write(scene.data(image), was.value, 0x5A, MIB, MIB)
    made = copy(scene, image, format=format_, allocation=allocation, checksum=True).image
    assert made.chain is not None
    assert (made.chain[0].format, made.chain[0].allocation) == (format_, allocation)
    assert seen(scene, made) == seen(scene, scene.look(image))
    taken = path_of(scene, made).stat().st_blocks * 512
    assert taken >= 4 * MIB if allocation is Allocation.PREALLOCATED else taken < 3 * MIB
    healthy(scene)


def test_a_preallocated_volume_stays_so(scene: Scene) -> None:
    for format_ in (VolumeFormat.RAW, VolumeFormat.QCOW2):
        image = scene.image(2 * MIB, format=format_, allocation=Allocation.PREALLOCATED)
        qemu.write(scene.data(image), format_.value, 0x5A)
        made = copy(scene, image).image
        assert made.chain is not None
        assert made.chain[0].allocation is Allocation.PREALLOCATED
        assert path_of(scene, made).stat().st_blocks * 512 >= 2 * MIB
        assert seen(scene, made) == seen(scene, scene.look(image))


def test_clusters_and_compression_are_changed_in_every_layer(scene: Scene, chain: ImageInfo) -> None:
    made = copy(scene, chain, format=VolumeFormat.QCOW2, cluster_size=2 * MIB).image
    assert made.chain is not None
    assert [volume.cluster_size for volume in made.chain] == [2 * MIB] * 3
    packed = copy(scene, made, compress=True).image
    assert packed.actual_size < made.actual_size
    assert chain.chain is not None
    for copied in (made, packed):
        assert copied.chain is not None
        for old, new in zip(chain.chain, copied.chain, strict=True):
            assert seen(scene, copied, new.id) == seen(scene, chain, old.id)
    healthy(scene)


def test_a_layer_that_grew_and_one_that_hides_with_zeros_stay_what_they_are(scene: Scene) -> None:
    template = scene.template(MIB)
    image = scene.clone(template, capacity=4 * MIB)
    qemu.write(scene.data(image), "qcow2", 0x11, 0, 4 * MIB)
    image = scene.snapshot(image)
    qemu.image_tool("resize", "-q", "-f", "qcow2", scene.data(image), str(6 * MIB))
    scene.edit(image, CAP=str(6 * MIB))
    subject = scene.look(image)
    qemu.write(scene.data(image), "qcow2", 7, 5 * MIB)
    qemu.zero(scene.data(image), "qcow2", MIB, MIB)
    for params in ({}, {"cluster_size": 4096}, {"compress": True}, {"collapse": True}):
        made = copy(scene, subject, **params).image
        assert seen(scene, made) == seen(scene, subject)
        assert seen(scene, made)[MIB : 2 * MIB] == bytes(MIB)
    healthy(scene)


def test_a_clones_copy_stands_on_the_same_template(scene: Scene) -> None:
    template = scene.template(2 * MIB)
    clone = scene.clone(template, name="one")
    qemu.write(scene.data(clone), "qcow2", 0x22)
    made = copy(scene, clone, name="two").image
    assert (made.template, made.snapshots, made.name) == (template.id, 0, "two")
    assert scene.look(made.id).actual_size < MIB
    assert seen(scene, made) == seen(scene, scene.look(clone))
    healthy(scene)


@provokes(VERB, "TemplateMissing")
def test_a_clone_follows_its_template_to_another_domain(scene: Scene, other: DomainId) -> None:
    base = scene.image(2 * MIB, name="base")
    qemu.write(scene.data(base), "qcow2", 0x11, MIB)
    template = scene.wait(scene.client.image.make_template(domain=scene.domain, image=base.id))
    clone = scene.clone(template, name="one")
    qemu.write(scene.data(clone), "qcow2", 0x22)
    before = fingerprint(scene.root)
    error = raised(TemplateMissing, lambda: copy(scene, clone, to=other))
    assert (error.image, error.base, error.volume, error.domain) == (clone.id, template.id, template.leaf, other)
    assert "collapse" in str(error)
    there = copy(scene, template, to=other).image
    assert (there.id, there.leaf, there.is_template) == (template.id, template.leaf, True)
    made = copy(scene, clone, to=other).image
    assert made.template == template.id
    assert seen(scene, made) == seen(scene, scene.look(clone))
    assert scene.client.image.get_info(domain=other, image=made.id).template == template.id
    healthy(scene, other)
    assert fingerprint(scene.root) == before


def test_a_template_collapsed_is_an_ordinary_image(scene: Scene, other: DomainId) -> None:
    template = scene.template(MIB)
    made = copy(scene, template, to=other, collapse=True).image
    assert (made.is_template, made.id == template.id) == (False, False)
    again = copy(scene, template).image
    assert (again.is_template, again.id == template.id) == (True, False)
    clone = scene.clone(template)
    assert scene.look(clone).chain is not None
    flat = copy(scene, clone, volume=template.leaf).image
    assert (flat.is_template, flat.template, flat.snapshots) == (False, None, 0)


@provokes(VERB, "NotTemplate")
def test_a_volume_that_only_looks_like_the_template(scene: Scene, other: DomainId) -> None:
    template = scene.template(MIB)
    clone = scene.clone(template)
    make = scene.client.image.create
    scene.wait(make(domain=other, capacity=MIB, id=template.id, volume=template.leaf))
    raised(NotTemplate, lambda: copy(scene, clone, to=other))


def test_tags_go_with_the_copy(scene: Scene, chain: ImageInfo, other: DomainId) -> None:
    text = f'{{"version":1,"image":"{chain.id}","tags":["db"],"volumes":{{"{chain.leaf}":{{"tags":["new"]}}}}}}'
    (scene.folder(chain) / f"{chain.id}.hsm").write_text(text)
    made = copy(scene, chain, to=other).image
    domain = scene.app.context.registry.get(other)
    record = domain.image(made.id)
    assert record is not None
    assert (record.attributes.tags, record.attributes.making) == (("db",), None)
    assert record.attributes.volumes[made.leaf].tags == ("new",)
    flat = copy(scene, chain, to=other, collapse=True).image
    record = domain.image(flat.id)
    assert record is not None
    assert (record.attributes.tags, record.attributes.volumes) == (("db",), {})


def test_the_checksum_of_both_sides_is_told(scene: Scene, chain: ImageInfo) -> None:
    told = copy(scene, chain, collapse=True, format=VolumeFormat.RAW, checksum=True)
    assert told.checksum is not None
    again = scene.client.image.checksum(domain=scene.domain, image=told.image.id)
    assert scene.wait(again) == told.checksum
    assert copy(scene, chain).checksum is None


@provokes(VERB, "CopyDiffers")
def test_a_copy_that_reads_back_differently_is_given_back(
    scene: Scene, chain: ImageInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain = scene.app.context.registry.get(scene.domain)
    real = type(domain).sync_data

    def damage(self: Any, image: ImageId, volume: VolumeId) -> None:
        with open(self.data_path(image, volume), "r+b") as file:
            file.write(b"bad storage")
        real(self, image, volume)

    monkeypatch.setattr(type(domain), "sync_data", damage)
    before = fingerprint(scene.images)
    error = raised(CopyDiffers, lambda: copy(scene, chain, collapse=True, format=VolumeFormat.RAW, checksum=True))
    assert error.source != error.copy
    assert fingerprint(scene.images) == before


def test_the_same_call_again_answers_the_same(scene: Scene, chain: ImageInfo, other: DomainId) -> None:
    ids: dict[str, Any] = {"id": ImageId(uuid.uuid4()), "volumes": [VolumeId(uuid.uuid4()) for _ in range(3)]}
    made = copy(scene, chain, to=other, **ids)
    assert [volume.id for volume in made.image.chain or []] == ids["volumes"]
    scene.wait(scene.client.image.delete(domain=scene.domain, image=chain.id))
    assert copy(scene, chain, to=other, **ids) == made


def test_progress_counts_what_a_guest_sees_in_all_layers(scene: Scene, chain: ImageInfo) -> None:
    task = scene.client.image.copy(domain=scene.domain, image=chain.id)
    scene.wait(task)
    done = scene.client.task.get_info(task=task.id).progress
    assert (done.done, done.total, done.percent) == (3 * chain.capacity, 3 * chain.capacity, 100.0)


def test_a_copy_is_held_to_its_rate_and_can_be_stopped(scene: Scene) -> None:
    image = scene.raw(16 * MIB)
    qemu.write(scene.data(image), "raw", 0x11, 0, 16 * MIB)
    before = fingerprint(scene.root)
    began = time.monotonic()
    task = scene.client.image.copy(domain=scene.domain, image=image.id, rate=MIB)
    while scene.client.task.get_info(task=task.id).progress.done == 0 and time.monotonic() < began + 20:
        scene.client.task.wait(task=task.id, timeout=0.1)
    scene.client.task.stop(task=task.id)
    raised(TaskStopped, lambda: scene.wait(task))
    assert time.monotonic() - began < 15
    assert fingerprint(scene.root) == before


def test_a_server_that_copies_is_asked_to(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system is one whose server copies; this one's kernel does the same."""
    monkeypatch.setattr(offload, "reflink", lambda *_: False)
    monkeypatch.setattr(offload, "is_by_server", lambda _: True)
    calls: list[tuple[int, ...]] = []
    real = os.copy_file_range

    def ask(*given: int) -> int:
        calls.append(given)
        return real(*given)

    monkeypatch.setattr(os, "copy_file_range", ask)
    image = scene.image(4 * MIB)
    qemu.write(scene.data(image), "qcow2", 0x11, MIB, MIB)
    made = copy(scene, image).image
    assert calls
    assert path_of(scene, made).read_bytes() == scene.data(image).read_bytes()
    assert path_of(scene, made).stat().st_blocks == scene.data(image).stat().st_blocks


@provokes(VERB, "ImageInUse")
def test_an_image_that_is_written_is_not_copied_and_one_that_is_read_is(scene: Scene, chain: ImageInfo) -> None:
    scene.client.image.prepare(domain=scene.domain, image=chain.id)
    assert raised(ImageInUse, lambda: copy(scene, chain)).image == chain.id
    assert chain.chain is not None
    copy(scene, chain, volume=chain.chain[1].id)
    scene.client.image.teardown(domain=scene.domain, image=chain.id)
    scene.client.image.prepare(domain=scene.domain, image=chain.id, read_only=True)
    copy(scene, chain)


@provokes(VERB, "NeedsCollapse", "NoSuchImage", "NoSuchVolume", "InvalidParameter", "ImageExists", "VolumeExists")
@provokes(VERB, "NotSupported", "VolumeIllegal")
def test_copy_refuses(scene: Scene, chain: ImageInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(scene.images)
    for form, word in (({"format": "raw"}, "raw"), ({"allocation": "preallocated"}, "preallocated")):
        error = raised(NeedsCollapse, lambda form=form: copy(scene, chain, **form))  # type: ignore[misc]
        assert (error.image, error.volumes, error.form) == (chain.id, 3, word)
    raised(NoSuchImage, lambda: copy(scene, ImageId(uuid.uuid4())))
    raised(NoSuchVolume, lambda: copy(scene, chain, volume=VolumeId(uuid.uuid4())))
    bad: list[dict[str, Any]] = [
        {"cluster_size": 4096 * 3},
        {"cluster_size": 2048},
        {"rate": 1},
        {"volumes": []},
        {"volumes": [uuid.uuid4()]},
        {"volumes": [uuid.UUID(int=5)] * 3},
        {"collapse": True, "format": "raw", "compress": True},
        {"collapse": True, "allocation": "preallocated", "compress": True},
    ]
    for params in bad:
        raised(InvalidParameter, lambda params=params: copy(scene, chain, **params))  # type: ignore[misc]
    raised(ImageExists, lambda: copy(scene, chain, id=chain.id))
    other = scene.image(MIB)
    raised(ImageExists, lambda: copy(scene, chain, id=other.id))
    raised(VolumeExists, lambda: copy(scene, chain, collapse=True, volumes=[other.leaf]))
    scene.wait(scene.client.image.delete(domain=scene.domain, image=other.id))
    with monkeypatch.context() as patch:
        patch.setattr("hsm.tools.qemu_nbd.QemuNbd.available", staticmethod(lambda: False))
        assert "libnbd" in raised(NotSupported, lambda: copy(scene, chain, checksum=True)).reason
    assert fingerprint(scene.images) == before
    scene.edit(chain, LEGALITY="ILLEGAL")
    raised(VolumeIllegal, lambda: copy(scene, chain))


@provokes(VERB, "ToolFailed")
def test_data_that_cannot_be_read_fails_the_copy(scene: Scene) -> None:
    image = scene.image(MIB)
    with scene.data(image).open("r+b") as file:
        file.seek(3 * 65536)
        file.write(((1 << 63) | (3 << 9)).to_bytes(8, "big"))
    before = fingerprint(scene.root)
    raised(ToolFailed, lambda: copy(scene, image, format=VolumeFormat.RAW))
    assert fingerprint(scene.root) == before


@provokes(VERB, "NoSpace")
@provokes("Image.move", "NoSpace")
def test_what_is_full_is_the_domain_that_is_written(scene: Scene, chain: ImageInfo, tmp_path: Path, small: Any) -> None:
    with small(tmp_path / "small", 2 * MIB) as folder:
        little = scene.wait(scene.client.domain.create(name="little", path=str(folder))).id
        before = fingerprint(scene.folder(chain))
        assert raised(NoSpace, lambda: copy(scene, chain, to=little)).domain == little
        move = scene.client.image.move
        assert (
            raised(NoSpace, lambda: scene.wait(move(domain=scene.domain, image=chain.id, to=little))).domain == little
        )
        assert fingerprint(scene.folder(chain)) == before
        scene.client.domain.detach(domain=little)
