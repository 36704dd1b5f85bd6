# SPDX-License-Identifier: Apache-2.0
"""Image: the verbs that change which layers an image consists of."""

from __future__ import annotations

from hsm.operations.base import storage_errors
from hsm.operations.merging import child_of
from hsm.services.base import Service
from libvdsm.api.errors import InvalidParameter, VolumeExists
from libvdsm.api.image_layers import ImageLayers, MergeDirection
from libvdsm.api.types import DomainId, ImageId, ImageInfo, TaskInfo, VolumeId


class ImageLayerService(Service, ImageLayers):
    def delete_snapshot(
        self,
        *,
        domain: DomainId,
        image: ImageId,
        volume: VolumeId,
        child: VolumeId | None = None,
        wipe: bool = False,
    ) -> TaskInfo[ImageInfo]:
        opened = self.context.registry.get(domain)
        on_top = child or child_of(self.context, opened, image, volume)
        return self.submit("Image.deleteSnapshot", domain=domain, image=image, volume=volume, child=on_top, wipe=wipe)

    def merge(
        self,
        *,
        domain: DomainId,
        image: ImageId,
        base: VolumeId,
        top: VolumeId,
        direction: MergeDirection = MergeDirection.AUTO,
        wipe: bool = False,
    ) -> TaskInfo[ImageInfo]:
        if base == top:
            raise InvalidParameter(verb="Image.merge", reason="base and top are the two ends of a run, and one volume")
        if direction is MergeDirection.UNKNOWN:
            raise InvalidParameter(verb="Image.merge", reason="direction is auto, down or up")
        self.context.registry.find(domain)
        return self.submit(
            "Image.merge", domain=domain, image=image, base=base, top=top, direction=direction, wipe=wipe
        )

    def revert(
        self,
        *,
        domain: DomainId,
        image: ImageId,
        volume: VolumeId,
        leaf: VolumeId | None = None,
        wipe: bool = False,
    ) -> TaskInfo[ImageInfo]:
        opened = self.context.registry.get(domain)
        if leaf is not None:
            with storage_errors(self.context, domain, image):
                home = opened.find_volume(leaf)
            if home not in (None, image):
                raise VolumeExists(volume=leaf, reason=f"it belongs to image {home}")
        new = leaf or VolumeId(self.new_id(f"leaf on {volume}"))
        return self.submit("Image.revert", domain=domain, image=image, volume=volume, leaf=new, wipe=wipe)

    def flatten(
        self, *, domain: DomainId, image: ImageId, discard_snapshots: bool = False, wipe: bool = False
    ) -> TaskInfo[ImageInfo]:
        self.context.registry.find(domain)
        return self.submit("Image.flatten", domain=domain, image=image, discard_snapshots=discard_snapshots, wipe=wipe)

    def rebase(self, *, domain: DomainId, image: ImageId, template: ImageId | None = None) -> TaskInfo[ImageInfo]:
        self.context.registry.find(domain)
        return self.submit("Image.rebase", domain=domain, image=image, template=template)

    def resize(self, *, domain: DomainId, image: ImageId, capacity: int, shrink: bool = False) -> TaskInfo[ImageInfo]:
        self.context.registry.find(domain)
        return self.submit("Image.resize", domain=domain, image=image, capacity=capacity, shrink=shrink)
