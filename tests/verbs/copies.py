# SPDX-License-Identifier: Apache-2.0
"""Making copies, and looking at them, on whichever domain they are."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from libvdsm.api.image_copies import CopyInfo
from libvdsm.api.types import DomainId, ImageId, ImageInfo, VolumeId
from tests.formats import qemu
from tests.verbs.scene import Scene


def copy(scene: Scene, image: ImageInfo | ImageId, **params: Any) -> CopyInfo:
    id_ = image if isinstance(image, uuid.UUID) else image.id
    return scene.wait(scene.client.image.copy(domain=scene.domain, image=id_, **params))


def path_of(scene: Scene, image: ImageInfo, volume: VolumeId | None = None) -> Path:
    """A volume's file, on whichever domain."""
    root = Path(scene.app.context.registry.find(image.domain).path)
    return root / str(image.domain) / "images" / str(image.id) / str(volume or image.leaf)


def seen(scene: Scene, image: ImageInfo, volume: VolumeId | None = None) -> bytes:
    """What a guest sees."""
    volumes = {info.id: info for info in image.chain or []}
    return qemu.content(path_of(scene, image, volume), volumes[volume or image.leaf].format.value)


def healthy(scene: Scene, *domains: DomainId) -> None:
    for domain in (scene.domain, *domains):
        assert scene.wait(scene.client.domain.check(domain=domain, deep=True)).problems == []
        assert scene.client.domain.get_stats(domain=domain).garbage == 0
