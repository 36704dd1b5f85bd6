# SPDX-License-Identifier: Apache-2.0
"""Images of several layers with known data, and what each layer of one shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from libvdsm.api.image_layers import MergeDirection
from libvdsm.api.types import ImageInfo, VolumeFormat, VolumeId
from tests.formats import qemu
from tests.verbs.scene import MIB, Scene

KIB = 2**10
DOWN, UP, AUTO = MergeDirection.DOWN, MergeDirection.UP, MergeDirection.AUTO


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
        ends: dict[str, Any] = {"base": self.volumes[base], "top": self.volumes[top]}
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


def written_template(scene: Scene, pattern: int, capacity: int = 4 * MIB) -> ImageInfo:
    made = scene.image(capacity)
    qemu.write(scene.data(made), "qcow2", pattern, 0, capacity)
    return scene.wait(scene.client.image.make_template(domain=scene.domain, image=made.id))
