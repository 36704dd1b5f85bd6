# SPDX-License-Identifier: Apache-2.0
"""Tags of images and volumes."""

from __future__ import annotations

import functools
import uuid
from typing import Any

import pytest

from hsm.formats import attributes
from hsm.formats.attributes import TAGS_LIMIT, Attributes, VolumeAttributes
from libvdsm.api.errors import (
    ImageDamaged,
    InvalidParameter,
    IsTemplate,
    NoSuchImage,
    NoSuchVolume,
    VolumeDamaged,
)
from libvdsm.api.image_layers import MergeDirection
from libvdsm.api.types import DomainId, ImageId, ImageInfo, TagChange, VolumeId, VolumeInfo
from tests.domains.tree import fingerprint
from tests.verbs.conftest import Restart
from tests.verbs.provoked import provokes
from tests.verbs.scene import MIB, Scene, raised


def tag(scene: Scene, image: ImageInfo | ImageId, *tags: str, **given: Any) -> ImageInfo:
    id_ = image.id if isinstance(image, ImageInfo) else image
    return scene.wait(scene.client.image.set_tags(domain=scene.domain, image=id_, tags=list(tags), **given))


def tag_volume(scene: Scene, volume: VolumeId, *tags: str, **given: Any) -> VolumeInfo:
    return scene.wait(scene.client.volume.set_tags(domain=scene.domain, volume=volume, tags=list(tags), **given))


def kept(scene: Scene, image: ImageInfo) -> Attributes:
    """What lies on storage."""
    return attributes.parse((scene.folder(image) / f"{image.id}.hsm").read_bytes(), image.id)


def keep(scene: Scene, image: ImageInfo, what: Attributes) -> None:
    (scene.folder(image) / f"{image.id}.hsm").write_bytes(attributes.write(what, image.id))


def listed(scene: Scene, filter_: str) -> list[str | None]:
    return [image.name for image in scene.client.image.list(domain=scene.domain, filter=filter_).items]


def tags_of(scene: Scene, volume: VolumeId) -> list[str] | None:
    return scene.client.volume.get_info(domain=scene.domain, volume=volume).tags


def test_tags_are_set_added_and_removed(scene: Scene) -> None:
    image = scene.image(MIB, name="web01")
    assert image.tags is None
    assert tag(scene, image, "gold", "env=prod", "gold").tags == ["gold", "env=prod"], "each once, in their order"
    assert tag(scene, image, "env=prod", "größer, \u2713", change=TagChange.ADD).tags == [
        "gold",
        "env=prod",
        "größer, \u2713",
    ]
    assert tag(scene, image, "gold", "nothing", change=TagChange.REMOVE).tags == ["env=prod", "größer, \u2713"]
    assert tag(scene, image, "new").tags == ["new"]
    assert scene.look(image).tags == ["new"]
    assert kept(scene, image) == Attributes(tags=("new",))
    assert tag(scene, image).tags is None
    assert not (scene.folder(image) / f"{image.id}.hsm").exists()


def test_volumes_have_tags_of_their_own(scene: Scene) -> None:
    image = scene.snapshot(scene.image(MIB), name="before")
    assert image.chain is not None
    base, leaf = (volume.id for volume in image.chain)
    assert tag_volume(scene, base, "consistent").tags == ["consistent"]
    assert tag_volume(scene, leaf, "a", "b", image=image.id).tags == ["a", "b"]
    assert tag_volume(scene, leaf, "a", change=TagChange.REMOVE).tags == ["b"]
    assert tags_of(scene, base) == ["consistent"]
    info = scene.look(image)
    assert info.tags is None
    assert [volume.tags for volume in info.chain or []] == [["consistent"], ["b"]]
    assert tag_volume(scene, base).tags is None
    assert kept(scene, image) == Attributes(volumes={leaf: VolumeAttributes(tags=("b",))})
    found = scene.client.volume.list(domain=scene.domain, filter="tags has b").items
    assert [volume.id for volume in found] == [leaf]


def test_images_are_found_by_their_tags(scene: Scene) -> None:
    for name, tags in (("a", ("backup", "env=prod")), ("b", ("backup", "env=test")), ("c", ())):
        tag(scene, scene.image(MIB, name=name), *tags)
    assert listed(scene, "tags has backup") == ["a", "b"]
    assert listed(scene, 'tags has "env=prod" or tags is absent') == ["a", "c"]
    assert listed(scene, 'tags ~ "env=*" and not tags has "env=prod"') == ["b"]
    assert listed(scene, "tags has Backup") == []


def test_what_is_so_already_changes_nothing(scene: Scene) -> None:
    image = scene.image(MIB)
    tag(scene, image, "a", "b")
    before = fingerprint(scene.root)
    after = scene.client.event.poll().next
    tag(scene, image, "a", "b", "a")
    tag(scene, image, "b", change=TagChange.ADD)
    tag(scene, image, "c", change=TagChange.REMOVE)
    tag_volume(scene, image.leaf)
    assert fingerprint(scene.root) == before
    assert {event.name for event in scene.client.event.poll(after=after).items} <= {"TaskChanged"}


def test_tags_of_a_volume_keep_what_else_is_kept_of_it(scene: Scene) -> None:
    image = scene.image(MIB)
    other = VolumeId(uuid.uuid4())
    before = Attributes(tags=("image",), volumes={image.leaf: VolumeAttributes(expires=2e9)})
    keep(scene, image, before)
    tag_volume(scene, image.leaf, "x")
    assert kept(scene, image).volumes == {image.leaf: VolumeAttributes(tags=("x",), expires=2e9)}
    tag_volume(scene, image.leaf)
    assert kept(scene, image) == before
    assert other not in kept(scene, image).volumes


def test_tags_can_be_changed_in_use_and_of_templates(scene: Scene) -> None:
    image = scene.snapshot(scene.image(MIB))
    scene.client.image.prepare(domain=scene.domain, image=image.id)
    info = tag(scene, image, "running")
    assert info.tags == ["running"]
    assert info.prepared is not None
    tag_volume(scene, image.leaf, "busy")
    template = scene.template(MIB)
    assert tag(scene, template, "debian").tags == ["debian"]
    assert tag_volume(scene, template.leaf, "12").tags == ["12"]


# ---- what becomes of them


def test_tags_stay_through_snapshots_templates_and_restarts(scene: Scene, restart: Restart) -> None:
    image = scene.image(MIB, name="web01")
    tag(scene, image, "gold")
    tag_volume(scene, image.leaf, "first")
    image = scene.snapshot(image)
    assert image.tags == ["gold"]
    assert [volume.tags for volume in image.chain or []] == [["first"], None]
    single = scene.image(MIB)
    tag(scene, single, "base")
    assert scene.wait(scene.client.image.make_template(domain=scene.domain, image=single.id)).tags == ["base"]
    again = restart(scene.domain)
    assert again.look(image.id).tags == ["gold"]
    assert again.look(single.id).tags == ["base"]


def test_a_clone_and_a_copy_begin_without(scene: Scene) -> None:
    template = scene.template(MIB)
    tag(scene, template, "base")
    tag_volume(scene, template.leaf, "layer")
    clone = scene.look(scene.clone(template))
    assert clone.tags is None
    assert [volume.tags for volume in clone.chain or []] == [["layer"], None], "the template's are shown"
    tag(scene, clone, "mine")
    assert scene.look(template).tags == ["base"]
    copy = scene.client.image.make_template(domain=scene.domain, image=clone.id, name="copy")
    assert scene.wait(copy).tags is None


def test_a_template_s_volume_shows_its_tags_in_the_chain_of_a_clone(scene: Scene) -> None:
    template = scene.template(MIB)
    clone = scene.clone(template)
    tag_volume(scene, template.leaf, "golden")
    tag_volume(scene, clone.leaf, "mine")
    assert [volume.tags for volume in scene.look(clone).chain or []] == [["golden"], ["mine"]]
    tag_volume(scene, template.leaf)
    assert [volume.tags for volume in scene.look(clone).chain or []] == [None, ["mine"]]
    tag_volume(scene, template.leaf, "golden")
    (scene.folder(template) / f"{template.id}.hsm").write_bytes(b"{")
    now = scene.look(clone)
    assert (now.damage, [volume.tags for volume in now.chain or []]) == (None, [None, ["mine"]])


def _tagged_chain(scene: Scene) -> ImageInfo:
    """Three volumes, each with a tag, and so has the image."""
    image = scene.snapshot(scene.snapshot(scene.image(MIB), name="first"), name="second")
    for number, volume in enumerate(image.chain or []):
        tag_volume(scene, volume.id, f"layer {number}")
    return tag(scene, image, "of the image", "größer")


def _shown(image: ImageInfo) -> tuple[list[str] | None, list[list[str] | None]]:
    return image.tags, [volume.tags for volume in image.chain or []]


_ALL = (["of the image", "größer"], [["layer 0"], ["layer 1"], ["layer 2"]])


def test_tags_go_with_a_copy_that_keeps_the_chain(scene: Scene, other: DomainId) -> None:
    image = _tagged_chain(scene)
    assert _shown(image) == _ALL
    for to in (scene.domain, other):
        copied = scene.wait(scene.client.image.copy(domain=scene.domain, image=image.id, to=to)).image
        assert copied.id != image.id
        assert _shown(copied) == _shown(scene.client.image.get_info(domain=to, image=copied.id)) == _ALL
    assert _shown(scene.look(image)) == _ALL


def test_a_copy_that_is_collapsed_has_those_of_the_image(scene: Scene) -> None:
    image = _tagged_chain(scene)
    copied = scene.wait(scene.client.image.copy(domain=scene.domain, image=image.id, collapse=True)).image
    assert _shown(copied) == (_ALL[0], [None])


def test_tags_go_with_a_move_there_and_back(scene: Scene, other: DomainId) -> None:
    image = _tagged_chain(scene)
    move = scene.client.image.move
    moved = scene.wait(move(domain=scene.domain, image=image.id, to=other)).image
    assert _shown(moved) == _shown(scene.client.image.get_info(domain=other, image=image.id)) == _ALL
    assert _shown(scene.wait(move(domain=other, image=image.id, to=scene.domain)).image) == _ALL


@pytest.mark.parametrize(
    ("direction", "left"),
    [(MergeDirection.DOWN, [["layer 0"], ["layer 2"]]), (MergeDirection.UP, [["layer 1"], ["layer 2"]])],
)
def test_a_merge_leaves_the_tags_of_the_volume_that_is_left(
    scene: Scene, direction: MergeDirection, left: list[list[str]]
) -> None:
    image = _tagged_chain(scene)
    assert image.chain is not None
    base, top = image.chain[0].id, image.chain[1].id
    merge = scene.client.image.merge
    merged = scene.wait(merge(domain=scene.domain, image=image.id, base=base, top=top, direction=direction))
    assert _shown(merged) == _shown(scene.look(image)) == (_ALL[0], left)


def test_a_volume_that_is_deleted_takes_its_tags_with_it(scene: Scene) -> None:
    image = scene.snapshot(scene.image(MIB))
    assert image.chain is not None
    base, leaf = (volume.id for volume in image.chain)
    tag(scene, image, "image")
    tag_volume(scene, base, "base")
    tag_volume(scene, leaf, "leaf")
    scene.wait(scene.client.volume.delete(domain=scene.domain, volume=leaf))
    assert kept(scene, image) == Attributes(tags=("image",), volumes={base: VolumeAttributes(tags=("base",))})
    made = scene.client.image.snapshot(domain=scene.domain, image=image.id, volume=leaf)
    assert [volume.tags for volume in scene.wait(made).chain or []] == [["base"], None], (
        "the same id, and another volume"
    )
    scene.wait(scene.client.image.delete(domain=scene.domain, image=image.id))
    assert scene.wait(scene.client.image.create(domain=scene.domain, capacity=MIB, id=image.id)).tags is None


def test_the_collector_forgets_tags_of_volumes_that_are_gone(scene: Scene) -> None:
    """As a crash between a volume's end and its tags' leaves them."""
    image = scene.image(MIB)
    gone, coming = uuid.uuid4(), uuid.uuid4()
    stays = {image.leaf: VolumeAttributes(tags=("x",)), coming: VolumeAttributes(expires=2e9)}
    keep(scene, image, Attributes(tags=("t",), volumes={**stays, gone: VolumeAttributes(tags=("old",))}))
    assert scene.look(image).damage is None
    scene.wait(scene.client.domain.collect_garbage(domain=scene.domain))
    assert kept(scene, image) == Attributes(tags=("t",), volumes=stays)


def test_the_collector_leaves_what_it_does_not_wholly_know(scene: Scene) -> None:
    image = scene.snapshot(scene.image(MIB))
    before = Attributes(volumes={uuid.uuid4(): VolumeAttributes(tags=("old",))})
    keep(scene, image, before)
    scene.meta(image).write_bytes(b"nonsense")
    scene.wait(scene.client.domain.collect_garbage(domain=scene.domain))
    assert kept(scene, image) == before


# ---- refusals


def test_tags_are_bounded(scene: Scene) -> None:
    image = scene.image(MIB)
    many = [f"{number:02d}" for number in range(32)]
    assert tag(scene, image, *many).tags == many
    before = fingerprint(scene.root)
    error = raised(InvalidParameter, lambda: tag(scene, image, "32", change=TagChange.ADD))
    assert "33 tags, and 32 are the limit" in str(error)
    assert tag(scene, image, "31", change=TagChange.ADD).tags == many
    for wrong in ([*many, "32"], [""], ["x" * 65], ["a\nb"], ["\0"]):
        raised(InvalidParameter, functools.partial(tag, scene, image, *wrong))
    assert fingerprint(scene.root) == before


def test_all_tags_of_an_image_together_are_bounded(scene: Scene) -> None:
    """So that there is always room for what a change has to note."""
    image = scene.snapshot(scene.image(MIB))
    assert image.chain is not None
    long = [f"{number:02d}" + "ü" * 62 for number in range(11)]
    tag(scene, image, *long)
    before = fingerprint(scene.root)
    error = raised(InvalidParameter, lambda: tag_volume(scene, image.leaf, *long))
    assert f"{TAGS_LIMIT} are the limit" in str(error)
    assert fingerprint(scene.root) == before
    tag(scene, image)
    assert tag_volume(scene, image.leaf, *long).tags == long


@provokes("Image.setTags", "NoSuchImage", "ImageDamaged")
def test_tags_of_an_image_are_refused(scene: Scene) -> None:
    image, torn, newer = scene.image(MIB), scene.snapshot(scene.image(MIB)), scene.image(MIB)
    raised(NoSuchImage, lambda: tag(scene, ImageId(uuid.uuid4()), "x"))
    scene.meta(torn).write_bytes(b"nonsense")
    raised(ImageDamaged, lambda: tag(scene, torn, "x"))
    document = scene.folder(newer) / f"{newer.id}.hsm"
    document.write_text('{"version": 99, "image": "x", "tags": ["kept"]}')
    raised(ImageDamaged, lambda: tag(scene, newer, "x"))
    assert "kept" in document.read_text(), "what a newer service wrote is not lost"
    assert tag(scene, image, "x").tags == ["x"]


@provokes("Volume.setTags", "NoSuchImage", "NoSuchVolume", "ImageDamaged", "VolumeDamaged", "IsTemplate")
def test_tags_of_a_volume_are_refused(scene: Scene) -> None:
    torn, template = scene.snapshot(scene.image(MIB)), scene.template(MIB)
    clone = scene.clone(template)
    assert torn.chain is not None
    below = torn.chain[0].id
    unknown = VolumeId(uuid.uuid4())
    raised(NoSuchVolume, lambda: tag_volume(scene, unknown, "x"))
    raised(NoSuchVolume, lambda: tag_volume(scene, unknown, "x", image=clone.id))
    raised(NoSuchImage, lambda: tag_volume(scene, clone.leaf, "x", image=ImageId(uuid.uuid4())))
    assert raised(IsTemplate, lambda: tag_volume(scene, template.leaf, "x", image=clone.id)).image == template.id
    scene.meta(torn).write_bytes(b"nonsense")
    raised(VolumeDamaged, lambda: tag_volume(scene, torn.leaf, "x", image=torn.id))
    raised(ImageDamaged, lambda: tag_volume(scene, below, "x", image=torn.id))


@pytest.mark.parametrize("change", list(TagChange)[:3])
def test_a_change_that_is_asked_for_again_answers_the_same(scene: Scene, change: TagChange) -> None:
    image = scene.image(MIB)
    tag(scene, image, "a", "b")
    once = tag(scene, image, "b", "c", change=change)
    assert tag(scene, image, "b", "c", change=change) == once
