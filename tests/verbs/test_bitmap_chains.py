# SPDX-License-Identifier: Apache-2.0
"""Bitmaps of images whose layers are merged, copied, moved or taken back: what is marked stays right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from libvdsm.api.errors import BitmapUnusable, NotSupported
from libvdsm.api.image_layers import MergeDirection
from libvdsm.api.types import DomainId, ImageId, ImageInfo, VolumeId
from tests.formats import qemu
from tests.verbs.scene import MIB, Scene, raised
from tests.verbs.test_bitmap import STEP, add, crash, extents, listed, write


def layered(scene: Scene, **given: Any) -> tuple[ImageInfo, list[VolumeId]]:
    """Four layers, each with something of its own written; the bitmap began in the first, another in the third."""
    image = scene.image(16 * MIB, name="web01")
    write(scene, image, 0, 2 * MIB, 1)
    add(scene, image, **given)
    volumes = [image.leaf]
    for number in range(4):
        write(scene, image, (3 + 2 * number) * MIB, STEP, number + 2)
        write(scene, image, 12 * MIB + number * STEP, 2 * STEP, number + 2)
        if number == 2:
            add(scene, image, "late")
            write(scene, image, 15 * MIB, 512, 9)
        if number < 3:
            image = scene.snapshot(image, name=f"s{number}")
            volumes.append(image.leaf)
    return image, volumes


def merge(scene: Scene, image: ImageInfo, base: VolumeId, top: VolumeId, **given: Any) -> ImageInfo:
    return scene.wait(scene.client.image.merge(domain=scene.domain, image=image.id, base=base, top=top, **given))


@pytest.mark.parametrize(("base", "top"), [(0, 1), (0, 2), (1, 2), (2, 3), (1, 3), (0, 3)])
def test_merging_keeps_what_is_marked(scene: Scene, base: int, top: int) -> None:
    image, volumes = layered(scene)
    before = {name: extents(scene, image, name) for name in ("b", "late")}
    assert before["late"][0][0] == 9 * MIB
    content = qemu.content(scene.data(image), "qcow2")
    image = merge(scene, image, volumes[base], volumes[top])
    assert qemu.content(scene.data(image), "qcow2") == content
    assert {name: extents(scene, image, name) for name in ("b", "late")} == before
    for volume in image.chain or []:
        qemu.check(scene.data(image, volume.id))
    write(scene, image, 11 * MIB)
    assert extents(scene, image) == sorted([*before["b"], (11 * MIB, STEP)])


def test_deleting_all_snapshots_keeps_what_is_marked(scene: Scene) -> None:
    image, _ = layered(scene)
    before = extents(scene, image)
    while len(image.chain or []) > 1:
        assert image.chain is not None
        verb = scene.client.image.delete_snapshot
        image = scene.wait(verb(domain=scene.domain, image=image.id, volume=image.chain[0].id))
        assert extents(scene, image) == before
    assert [len(item.layers) for item in listed(scene, image).values()] == [1, 1]


def test_finer_ones_say_nothing_less(scene: Scene) -> None:
    image, volumes = layered(scene, granularity=4096)
    before = extents(scene, image)
    image = merge(scene, image, volumes[0], volumes[3])
    marked = extents(scene, image)
    for offset, length in before:
        assert any(begin <= offset and offset + length <= begin + size for begin, size in marked)


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_what_is_not_known_does_not_become_so(scene: Scene, broken: int) -> None:
    image = scene.image(MIB)
    add(scene, image)
    volumes = [image.leaf]
    for number in range(3):
        if number == broken:
            crash(scene.data(image))
        image = scene.snapshot(image)
        volumes.append(image.leaf)
    raised(BitmapUnusable, lambda: extents(scene, image))
    content = qemu.content(scene.data(image), "qcow2")
    for _ in range(3):
        assert image.chain is not None
        image = merge(scene, image, image.chain[0].id, image.chain[1].id, direction=MergeDirection.DOWN)
        assert not listed(scene, image)["b"].usable
    assert qemu.content(scene.data(image), "qcow2") == content
    scene.wait(scene.client.bitmap.clear(domain=scene.domain, image=image.id, bitmap="b"))
    write(scene, image, 0)
    assert extents(scene, image) == [(0, STEP)]


def test_a_base_with_one_in_use_grows_all_the_same(scene: Scene) -> None:
    image = scene.image(MIB)
    add(scene, image)
    base = image.leaf
    crash(scene.data(image))
    volumes = scene.client.volume
    top = scene.wait(volumes.create(domain=scene.domain, image=image.id, parent=base, capacity=4 * MIB)).id
    image = merge(scene, image, base, top, direction=MergeDirection.DOWN)
    assert image.capacity == 4 * MIB
    raised(BitmapUnusable, lambda: extents(scene, image))


def test_up_is_not_where_bitmaps_are(scene: Scene) -> None:
    image, volumes = layered(scene)
    raised(NotSupported, lambda: merge(scene, image, volumes[2], volumes[3], direction=MergeDirection.UP))


def test_a_raw_base_has_none(scene: Scene) -> None:
    image = scene.raw(MIB)
    base = image.leaf
    image = scene.snapshot(image)
    add(scene, image)
    image = merge(scene, image, base, image.leaf)
    assert listed(scene, image) == {}


def test_a_snapshot_that_is_returned_to_goes_on(scene: Scene) -> None:
    image, volumes = layered(scene)
    image = scene.wait(scene.client.image.revert(domain=scene.domain, image=image.id, volume=volumes[0]))
    assert list(listed(scene, image)) == ["b"]
    write(scene, image, MIB)
    assert extents(scene, image) == [(MIB, STEP), (3 * MIB, STEP), (12 * MIB, 2 * STEP)]


@pytest.fixture
def second(scene: Scene, tmp_path: Path) -> DomainId:
    (tmp_path / "second").mkdir()
    return scene.wait(scene.client.domain.create(name="second", path=str(tmp_path / "second"))).id


def marked_there(scene: Scene, domain: DomainId, image: ImageId) -> list[tuple[int, int]]:
    known = scene.client.bitmap.get_extents(domain=domain, image=image, bitmap="b").items
    return [(extent.offset, extent.length) for extent in known]


def test_a_copy_as_it_is_and_a_move_keep_them(scene: Scene, second: DomainId) -> None:
    image, _ = layered(scene)
    before = extents(scene, image)
    verbs = scene.client.image
    copy = scene.wait(verbs.copy(domain=scene.domain, image=image.id, to=second)).image
    assert marked_there(scene, second, copy.id) == before == extents(scene, image)
    scene.wait(verbs.delete(domain=second, image=copy.id))
    scene.wait(verbs.move(domain=scene.domain, image=image.id, to=second))
    assert marked_there(scene, second, image.id) == before


def test_a_copy_of_another_form_has_none_that_knows_too_little(scene: Scene, second: DomainId) -> None:
    image, _ = layered(scene)
    verbs, place = scene.client.image, {"domain": scene.domain, "image": image.id}
    forms: list[dict[str, Any]] = [{"compress": True}, {"collapse": True}, {"cluster_size": 2**17}]
    for form in forms:
        copy = scene.wait(verbs.copy(**place, to=second, **form)).image  # type: ignore[arg-type]
        assert scene.client.bitmap.list(domain=second, image=copy.id).items == [], form


def test_a_copy_of_which_one_layer_stays_as_it_is_has_none(scene: Scene, second: DomainId) -> None:
    image = scene.image(MIB)
    # The base of another cluster size, as others make it.
    qemu.create(scene.data(image), "qcow2", MIB, "-o", "cluster_size=128k")
    add(scene, image)
    write(scene, image, 0)
    image = scene.snapshot(image)
    verb = scene.client.image.copy
    copy = scene.wait(verb(domain=scene.domain, image=image.id, to=second, cluster_size=65536)).image
    assert scene.client.bitmap.list(domain=second, image=copy.id).items == []
    scene.wait(scene.client.bitmap.add(domain=second, image=copy.id, bitmap="b"))
    assert marked_there(scene, second, copy.id) == []
