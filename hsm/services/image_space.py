# SPDX-License-Identifier: Apache-2.0
"""Image: the verb that gives back space which an image takes and does not need."""

from __future__ import annotations

from hsm.services.base import Service
from libvdsm.api.image_space import ImageSpace, SparsifyInfo
from libvdsm.api.types import DomainId, ImageId, TaskInfo, VolumeId


class ImageSpaceService(Service, ImageSpace):
    def sparsify(
        self, *, domain: DomainId, image: ImageId, volume: VolumeId | None = None, rate: int | None = None
    ) -> TaskInfo[SparsifyInfo]:
        self.context.registry.find(domain)
        return self.submit("Image.sparsify", domain=domain, image=image, volume=volume, rate=rate)
