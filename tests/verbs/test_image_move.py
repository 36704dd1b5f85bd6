# SPDX-License-Identifier: Apache-2.0
"""Image.move: the same image on another domain, and never two of it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from hsm.formats import attributes
from hsm.formats.attributes import Attributes, Move
from libvdsm.api.errors import (
    CopyDiffers,
    ImageExists,
    ImageInUse,
    ImageUnfinished,
    NoSuchImage,
    NotSupported,
    NotTemplate,
    SameDomain,
    StorageFailed,
    TemplateInUse,
    TemplateMissing,
    ToolFailed,
    VolumeExists,
    VolumeIllegal,
)
from libvdsm.api.types import DomainId, ImageId, ImageInfo, VolumeId
from tests.domains.tree import fingerprint
from tests.formats import qemu
from tests.verbs.copies import copy, healthy, path_of, seen
from tests.verbs.provoked import provokes
from tests.verbs.scene import MIB, Scene, raised

VERB = "Image.move"


@pytest.fixture
def tmp_path(in_memory: Path) -> Path:
    return in_memory


def move(scene: Scene, image: ImageInfo, to: DomainId, **params: Any) -> ImageInfo:
    return scene.wait(scene.client.image.move(domain=scene.domain, image=image.id, to=to, **params)).image


def test_a_chain_moves_with_everything(scene: Scene, chain: ImageInfo, other: DomainId) -> None:
    states = [seen(scene, chain, volume.id) for volume in chain.chain or []]
    keep(scene, chain, Attributes(tags=("db",)))
    told = scene.wait(scene.client.image.move(domain=scene.domain, image=chain.id, to=other, checksum=True))
    assert told.checksum is not None
    moved = told.image
    assert (moved.id, moved.leaf, moved.domain, moved.pending) == (chain.id, chain.leaf, other, None)
    assert (moved.name, moved.description, moved.snapshots) == (chain.name, chain.description, 2)
    assert moved.chain is not None
    for old, new in zip(chain.chain or [], moved.chain, strict=True):
        same = ("id", "name", "created", "generation", "sequence", "format", "allocation", "parent", "role", "capacity")
        assert [getattr(old, name) for name in same] == [getattr(new, name) for name in same]
    assert [seen(scene, moved, volume.id) for volume in moved.chain] == states
    raised(NoSuchImage, lambda: scene.look(chain))
    assert list(scene.images.iterdir()) == []
    record = scene.app.context.registry.get(other).image(chain.id)
    assert record is not None
    assert record.attributes == Attributes(tags=("db",))
    healthy(scene, other)


def test_moving_there_and_back_is_as_if_nothing_had_been(scene: Scene, chain: ImageInfo, other: DomainId) -> None:
    move(scene, chain, other)
    back = scene.wait(scene.client.image.move(domain=other, image=chain.id, to=scene.domain)).image
    assert back == scene.look(chain)
    assert [seen(scene, back, volume.id) for volume in back.chain or []]
    healthy(scene, other)


def test_the_same_call_again_answers_the_same(scene: Scene, chain: ImageInfo, other: DomainId) -> None:
    assert move(scene, chain, other) == move(scene, chain, other)


@provokes(VERB, "TemplateMissing", "TemplateInUse", "NotTemplate")
def test_a_clone_moves_to_where_its_template_is(scene: Scene, other: DomainId) -> None:
    base = scene.image(MIB)
    qemu.write(scene.data(base), "qcow2", 0x11)
    template = scene.wait(scene.client.image.make_template(domain=scene.domain, image=base.id))
    clone = scene.clone(template, name="clone")
    qemu.write(scene.data(clone), "qcow2", 0x22, 65536)
    state = seen(scene, scene.look(clone))
    before = fingerprint(scene.root)
    assert raised(TemplateMissing, lambda: move(scene, clone, other)).base == template.id
    assert raised(TemplateInUse, lambda: move(scene, template, other)).clones == 1
    fake = scene.wait(scene.client.image.create(domain=other, capacity=MIB, id=template.id, volume=template.leaf))
    raised(NotTemplate, lambda: move(scene, clone, other))
    scene.wait(scene.client.image.delete(domain=other, image=fake.id))
    assert fingerprint(scene.root) == before
    copy(scene, template, to=other)
    moved = move(scene, clone, other)
    assert (moved.template, seen(scene, moved)) == (template.id, state)
    healthy(scene, other)
    scene.wait(scene.client.image.delete(domain=other, image=moved.id))
    scene.wait(scene.client.image.delete(domain=other, image=template.id))
    assert move(scene, template, other).is_template


@provokes(VERB, "SameDomain", "ImageExists", "VolumeExists", "ImageInUse", "NoSuchImage", "VolumeIllegal")
@provokes(VERB, "NotSupported")
def test_move_refuses(scene: Scene, chain: ImageInfo, other: DomainId, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(scene.root)
    assert raised(SameDomain, lambda: move(scene, chain, scene.domain)).image == chain.id
    error = raised(
        NoSuchImage,
        lambda: scene.wait(scene.client.image.move(domain=scene.domain, image=ImageId(uuid.uuid4()), to=other)),
    )
    assert error.domain == scene.domain
    create: Any = scene.client.image.create
    there = scene.wait(create(domain=other, capacity=MIB, id=chain.id))
    raised(ImageExists, lambda: move(scene, chain, other))
    scene.wait(scene.client.image.delete(domain=other, image=there.id))
    there = scene.wait(create(domain=other, capacity=MIB, volume=chain.leaf))
    assert raised(VolumeExists, lambda: move(scene, chain, other)).volume == chain.leaf
    scene.wait(scene.client.image.delete(domain=other, image=there.id))
    with monkeypatch.context() as patch:
        patch.setattr("hsm.tools.qemu_nbd.QemuNbd.available", staticmethod(lambda: False))
        raised(NotSupported, lambda: move(scene, chain, other, checksum=True))
    scene.client.image.prepare(domain=scene.domain, image=chain.id, read_only=True)
    raised(ImageInUse, lambda: move(scene, chain, other))
    scene.client.image.teardown(domain=scene.domain, image=chain.id)
    assert fingerprint(scene.root) == before
    scene.edit(chain, LEGALITY="ILLEGAL")
    raised(VolumeIllegal, lambda: move(scene, chain, other))
    assert list((scene.root.parent.parent / "other").rglob("*.meta")) == []


@provokes(VERB, "CopyDiffers")
def test_a_move_that_reads_back_differently_changes_nothing(
    scene: Scene, chain: ImageInfo, other: DomainId, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain = scene.app.context.registry.get(other)
    real = type(domain).sync_data

    def damage(self: Any, image: ImageId, volume: VolumeId) -> None:
        if volume != chain.leaf:
            with open(self.data_path(image, volume), "r+b") as file:
                file.seek(3 * MIB)
                file.write(b"bad storage")
        real(self, image, volume)

    monkeypatch.setattr(type(domain), "sync_data", damage)
    before = fingerprint(scene.root)
    raised(CopyDiffers, lambda: move(scene, chain, other, checksum=True))
    assert fingerprint(scene.root) == before
    healthy(scene, other)


@provokes(VERB, "ToolFailed")
def test_a_tool_that_fails(
    scene: Scene, chain: ImageInfo, other: DomainId, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin" / "qemu-img"
    tool.write_text("#!/bin/sh\necho no mood >&2; exit 1\n")
    tool.chmod(0o755)
    before = fingerprint(scene.root)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tool.parent), prepend=":")
        assert raised(ToolFailed, lambda: move(scene, chain, other)).reason == "no mood"
    assert fingerprint(scene.root) == before
    healthy(scene, other)


# ---- what is interrupted


def keep(scene: Scene, image: ImageInfo, kept: Attributes) -> None:
    (scene.folder(image) / f"{image.id}.hsm").write_bytes(attributes.write(kept, image.id))


def collect(scene: Scene) -> tuple[Any, Any]:
    report = scene.wait(scene.client.domain.collect_garbage(domain=scene.domain))
    return report.finished, report.unfinished


def test_a_move_that_did_not_arrive_leaves_the_image_where_it_was(
    scene: Scene, chain: ImageInfo, other: DomainId
) -> None:
    chain = scene.wait(scene.client.image.set_tags(domain=scene.domain, image=chain.id, tags=["kept"]))
    keep(scene, chain, Attributes(tags=("kept",), intent=Move(to=other)))
    raised(ImageUnfinished, lambda: scene.snapshot(chain))
    assert collect(scene) == ([chain.id], None)
    assert scene.look(chain) == chain
    assert chain.tags == ["kept"]


def test_of_a_move_that_arrived_the_source_goes(scene: Scene, chain: ImageInfo, other: DomainId) -> None:
    ids = [volume.id for volume in chain.chain or []]
    there = copy(scene, chain, to=other, id=chain.id, volumes=ids).image
    keep(scene, chain, Attributes(intent=Move(to=other)))
    raised(ImageUnfinished, lambda: scene.wait(scene.client.image.delete(domain=scene.domain, image=chain.id)))
    assert collect(scene) == ([chain.id], None)
    raised(NoSuchImage, lambda: scene.look(chain))
    assert scene.client.image.get_info(domain=other, image=chain.id) == there
    healthy(scene, other)


def test_asking_again_brings_an_interrupted_move_to_its_end(scene: Scene, chain: ImageInfo, other: DomainId) -> None:
    keep(scene, chain, Attributes(intent=Move(to=other)))
    moved = move(scene, chain, other)
    assert moved.domain == other
    raised(NoSuchImage, lambda: scene.look(chain))
    healthy(scene, other)


def test_another_image_of_the_same_id_is_no_arrival(scene: Scene, chain: ImageInfo, other: DomainId) -> None:
    scene.wait(scene.client.image.create(domain=other, capacity=MIB, id=chain.id))
    keep(scene, chain, Attributes(intent=Move(to=other)))
    assert collect(scene) == ([chain.id], None)
    assert scene.look(chain) == chain


def test_a_target_that_cannot_be_seen_leaves_the_move_unfinished(
    scene: Scene, chain: ImageInfo, other: DomainId, holder: Callable[[Path], AbstractContextManager[None]]
) -> None:
    keep(scene, chain, Attributes(intent=Move(to=other)))
    before = fingerprint(scene.folder(chain))
    with holder(scene.lease(chain)):
        assert collect(scene) == (None, [chain.id])
    folder = Path(scene.app.context.registry.find(other).path) / str(other) / "images" / str(chain.id)
    folder.mkdir()
    (folder / f"{chain.leaf}.meta").write_text("cut off")
    assert collect(scene) == (None, [chain.id])
    scene.wait(scene.client.domain.detach(domain=other))
    assert collect(scene) == (None, [chain.id])
    assert fingerprint(scene.folder(chain)) == before


@provokes(VERB, "StorageFailed")
def test_a_source_that_fails_at_the_end_is_finished_later(
    scene: Scene, chain: ImageInfo, other: DomainId, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain = scene.app.context.registry.get(scene.domain)

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(type(domain), "unpublish_image", fail)
        raised(StorageFailed, lambda: move(scene, chain, other))
    assert scene.look(chain).pending == "move"
    there = scene.client.image.get_info(domain=other, image=chain.id)
    assert collect(scene) == ([chain.id], None)
    raised(NoSuchImage, lambda: scene.look(chain))
    assert path_of(scene, there).exists()
    healthy(scene, other)
