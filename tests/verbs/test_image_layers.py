# SPDX-License-Identifier: Apache-2.0
"""Image.merge, deleteSnapshot, revert, flatten and rebase: which layers are left, and that what they show stays."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from libvdsm.api.image_layers import MergeDirection
from libvdsm.api.types import ImageInfo, Legality, VolumeFormat, VolumeId
from tests.formats import qemu
from tests.verbs.scene import MIB, Scene

KIB = 2**10
DOWN, UP, AUTO = MergeDirection.DOWN, MergeDirection.UP, MergeDirection.AUTO


@pytest.fixture
def tmp_path(in_memory: Path) -> Path:
    return in_memory


def guest(path: Path, *commands: str) -> None:
    """What a guest does to a qcow2 volume."""
    for command in commands:
        qemu.image_io(path, "qcow2", command)


def contents(scene: Scene, image: ImageInfo) -> dict[VolumeId, bytes]:
    """What each own layer shows."""
    found = {}
    for volume in scene.look(image).chain or []:
        if volume.image == image.id:
            found[volume.id] = qemu.content(scene.data(image, volume.id), volume.format.value)
            if volume.format is VolumeFormat.QCOW2:
                qemu.check(scene.data(image, volume.id))
    return found


class Chain:
    """Four layers: data, other data over it, zeros over data and discarded ranges, and a leaf with little in it."""

    def __init__(self, scene: Scene, made: ImageInfo, sizes: tuple[int, int, int] = (4, 4, 4)) -> None:
        self.scene = scene
        self.image = made
        format_ = made.chain[-1].format.value if made.chain else "qcow2"
        qemu.write(scene.data(made), format_, 0x11, 0, 2 * MIB)
        self.volumes = [made.leaf]
        self._layer(sizes[0], "first", "write -q -P 0x22 1M 1M")
        self._layer(sizes[1], "second", "write -q -P 0x33 1280k 640k", "write -q -z 0 256k", "discard -q 1920k 64k")
        self._layer(sizes[2], "third", "write -q -P 0x44 100k 4k")
        self.before = contents(scene, self.image)

    def _layer(self, size: int, name: str, *commands: str) -> None:
        scene = self.scene
        self.image = scene.snapshot(self.image, name=name)
        if size * MIB != self.image.capacity:
            resize = scene.client.volume.resize
            scene.wait(resize(domain=scene.domain, volume=self.image.leaf, capacity=size * MIB, shrink=True))
        self.volumes.append(self.image.leaf)
        guest(scene.data(self.image), *commands)
        self.image = scene.look(self.image)

    def merge(self, base: int, top: int, direction: MergeDirection = AUTO, **params: Any) -> ImageInfo:
        ends = {"base": self.volumes[base], "top": self.volumes[top]}
        verb = self.scene.client.image.merge
        return self.scene.wait(
            verb(domain=self.scene.domain, image=self.image.id, direction=direction, **ends, **params)
        )


def sound(scene: Scene, image: ImageInfo) -> ImageInfo:
    """The image, which can be used, and in whose folder nothing is left."""
    now = scene.look(image)
    assert (now.pending, now.damage) == (None, None)
    report = scene.wait(scene.client.domain.check(domain=scene.domain, deep=True))
    assert report.problems == []
    names = {path.name.partition(".")[0] for path in scene.folder(image).iterdir()}
    assert names == {str(volume.id) for volume in now.chain or []}
    scene.client.image.prepare(domain=scene.domain, image=image.id)
    scene.client.image.teardown(domain=scene.domain, image=image.id)
    return now


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
