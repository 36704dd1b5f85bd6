# SPDX-License-Identifier: Apache-2.0
"""Image.merge and deleteSnapshot: which layers are left, and that what they show stays."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from hsm.formats import attributes
from hsm.formats.attributes import Attributes
from libvdsm.api.errors import (
    NotBelow,
)
from libvdsm.api.image_layers import MergeDirection
from libvdsm.api.types import VolumeFormat, VolumeId
from tests.domains.tree import fingerprint
from tests.formats import qemu
from tests.verbs.layers import DOWN, KIB, UP, Chain, contents, guest, sound, written_template
from tests.verbs.provoked import provokes
from tests.verbs.scene import MIB, Scene, raised


@pytest.fixture
def tmp_path(in_memory: Path) -> Path:
    return in_memory


@pytest.mark.parametrize("format_", [VolumeFormat.RAW, VolumeFormat.QCOW2])
@pytest.mark.parametrize("direction", [DOWN, UP])
@pytest.mark.parametrize("run", [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)])
def test_a_run_becomes_one_volume_that_shows_what_its_uppermost_showed(
    scene: Scene, format_: VolumeFormat, direction: MergeDirection, run: tuple[int, int]
) -> None:
    chain = Chain(scene, scene.look(scene.image(4 * MIB, format=format_, name="disk")))
    base, top = run
    result = chain.merge(base, top, direction)
    left = chain.volumes[base if direction is DOWN else top]
    expected = [left if n == base else volume for n, volume in enumerate(chain.volumes) if n <= base or n > top]
    now = sound(scene, chain.image)
    assert result == now
    assert [volume.id for volume in now.chain or []] == expected
    after = contents(scene, chain.image)
    assert after.pop(left) == chain.before[chain.volumes[top]]
    assert after == {volume: chain.before[volume] for volume in expected if volume != left}
    assert now.name == "disk"
    names = [None, "first", "second", "third", "disk"]
    shown = [volume.name for volume in now.chain or []]
    assert shown == [names[n + 1] for n, volume in enumerate(chain.volumes) if n < base or n >= top]


@pytest.mark.parametrize("format_", [VolumeFormat.RAW, VolumeFormat.QCOW2])
@pytest.mark.parametrize("direction", [DOWN, UP])
@pytest.mark.parametrize("sizes", [(8, 8, 8), (2, 8, 8), (4, 2, 8), (8, 2, 4), (8, 4, 2), (2, 2, 1)])
@pytest.mark.parametrize("run", [(0, 2), (1, 2), (0, 3)])
def test_layers_of_different_sizes_are_merged(
    scene: Scene, format_: VolumeFormat, direction: MergeDirection, sizes: tuple[int, int, int], run: tuple[int, int]
) -> None:
    chain = Chain(scene, scene.look(scene.image(4 * MIB, format=format_)), sizes)
    chain.merge(*run, direction)
    after = contents(scene, chain.image)
    assert list(after.values()) == [chain.before[chain.volumes[n]] for n in range(4) if n < run[0] or n >= run[1]]
    sound(scene, chain.image)


def test_the_direction_that_moves_less_is_taken(scene: Scene) -> None:
    image = scene.image(4 * MIB)
    low = image.leaf
    qemu.write(scene.data(image), "qcow2", 0x11, 0, MIB)
    image = scene.snapshot(image)
    middle = image.leaf
    qemu.write(scene.data(image), "qcow2", 0x22, 0, 3 * MIB)
    image = scene.snapshot(image)
    qemu.write(scene.data(image), "qcow2", 0x33, 0, 64 * KIB)
    merge = scene.client.image.merge
    result = scene.wait(merge(domain=scene.domain, image=image.id, base=low, top=middle))
    assert [volume.id for volume in result.chain or []] == [middle, image.leaf]
    result = scene.wait(merge(domain=scene.domain, image=image.id, base=middle, top=image.leaf))
    assert (result.leaf, result.snapshots) == (middle, 0)


@pytest.mark.parametrize("format_", ["raw", "qcow2"])
def test_a_lowest_volume_that_is_raw_or_preallocated_stays_so(scene: Scene, format_: str) -> None:
    image = scene.image(4 * MIB, format=format_, allocation="preallocated")
    base = image.leaf
    image = scene.snapshot(image)
    qemu.write(scene.data(image), "qcow2", 0x22, 0, 2 * MIB)
    guest(scene.data(image), "write -q -z 2M 1M")
    merge = scene.client.image.merge
    result = scene.wait(merge(domain=scene.domain, image=image.id, base=base, top=image.leaf))
    assert result.leaf == base
    assert result.chain is not None
    assert (result.chain[0].format.value, result.chain[0].allocation.value) == (format_, "preallocated")
    assert scene.data(result).stat().st_blocks * 512 >= 4 * MIB
    sound(scene, image)


def test_merging_again_answers_the_same(scene: Scene) -> None:
    chain = Chain(scene, scene.look(scene.image(4 * MIB)))
    for direction in (DOWN, UP):
        result = chain.merge(1, 2, direction)
        before = fingerprint(scene.images)
        assert chain.merge(1, 2, direction) == chain.merge(1, 2) == result
        assert fingerprint(scene.images) == before


def test_what_goes_is_wiped_when_asked(scene: Scene) -> None:
    for direction, gone in ((DOWN, 3), (UP, 2)):
        chain = Chain(scene, scene.look(scene.image(4 * MIB)))
        with scene.data(chain.image, chain.volumes[gone]).open("rb") as file:
            chain.merge(2, 3, direction, wipe=True)
            assert file.read().count(0) == file.tell()


def test_tags_of_volumes_that_go_are_dropped(scene: Scene) -> None:
    chain = Chain(scene, scene.look(scene.image(4 * MIB)))
    kept: dict[uuid.UUID, attributes.VolumeAttributes] = {
        volume: attributes.VolumeAttributes(tags=("kept",)) for volume in chain.volumes
    }
    path = scene.folder(chain.image) / f"{chain.image.id}.hsm"
    path.write_bytes(attributes.write(Attributes(tags=("image",), volumes=kept), chain.image.id))
    chain.merge(0, 2, DOWN)
    found = attributes.parse(path.read_bytes(), chain.image.id)
    assert (found.tags, list(found.volumes)) == (("image",), [chain.volumes[0], chain.volumes[3]])


def test_an_image_s_age_stays_when_its_oldest_volume_goes(scene: Scene) -> None:
    chain = Chain(scene, scene.look(scene.image(4 * MIB)))
    scene.edit(chain.image, chain.volumes[0], CTIME="1000")
    assert chain.merge(0, 3, UP).created == 1000


def test_a_clone_s_layers_are_merged_and_stay_on_the_template(scene: Scene) -> None:
    for direction in (DOWN, UP):
        template = written_template(scene, 0x77)
        chain = Chain(scene, scene.look(scene.clone(template)))
        result = chain.merge(0, 3, direction)
        assert result.template == template.id
        assert list(contents(scene, chain.image).values()) == [chain.before[chain.volumes[3]]]
        sound(scene, chain.image)


# ---- deleting snapshots


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_deleted_snapshot_leaves_all_other_states(scene: Scene, position: int) -> None:
    chain = Chain(scene, scene.look(scene.image(4 * MIB, name="disk")))
    names = [volume.name for volume in scene.look(chain.image).chain or []]
    delete = scene.client.image.delete_snapshot
    params: dict[str, Any] = {"domain": scene.domain, "image": chain.image.id, "volume": chain.volumes[position]}
    result = scene.wait(delete(**params))
    shown = list(chain.before.values())
    assert list(contents(scene, chain.image).values()) == shown[:position] + shown[position + 1 :]
    assert [volume.name for volume in result.chain or []] == names[:position] + names[position + 1 :]
    sound(scene, chain.image)
    again = scene.wait(delete(**params, child=chain.volumes[position + 1]))
    assert again == result


def test_a_snapshot_that_never_was_counts_as_deleted(scene: Scene) -> None:
    image = scene.snapshot(scene.image(MIB))
    before = fingerprint(scene.images)
    delete = scene.client.image.delete_snapshot
    scene.wait(delete(domain=scene.domain, image=image.id, volume=VolumeId(uuid.uuid4())))
    assert fingerprint(scene.images) == before


@provokes("Image.deleteSnapshot", "NotBelow")
def test_a_snapshot_is_not_deleted_when_another_stands_on_it_than_the_caller_saw(scene: Scene) -> None:
    chain = Chain(scene, scene.look(scene.image(4 * MIB)))
    delete = scene.client.image.delete_snapshot
    first, _, third, _ = chain.volumes
    before = fingerprint(scene.images)
    call = lambda: scene.wait(delete(domain=scene.domain, image=chain.image.id, volume=first, child=third))  # noqa: E731
    assert raised(NotBelow, call).top == third
    assert fingerprint(scene.images) == before
