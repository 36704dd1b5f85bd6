# SPDX-License-Identifier: Apache-2.0
"""Image: the verbs that copy and move, and say what a copy is compared by."""

from __future__ import annotations

from hsm.operations.base import storage_errors
from hsm.operations.layers import select
from hsm.services.base import Service, fitting
from libvdsm.api.errors import ImageExists, InvalidParameter, SameDomain, VolumeExists
from libvdsm.api.image_copies import ChecksumInfo, CopyInfo, ImageCopies
from libvdsm.api.types import Allocation, DomainId, ImageId, SecretId, TaskInfo, VolumeFormat, VolumeId, VolumeRole


class ImageCopyService(Service, ImageCopies):
    def copy(
        self,
        *,
        domain: DomainId,
        image: ImageId,
        name: str | None = None,
        to: DomainId | None = None,
        volume: VolumeId | None = None,
        collapse: bool = False,
        format: VolumeFormat | None = None,
        allocation: Allocation | None = None,
        cluster_size: int | None = None,
        compress: bool = False,
        rate: int | None = None,
        checksum: bool = False,
        id: ImageId | None = None,
        volumes: list[VolumeId] | None = None,
        secret: SecretId | None = None,
        decrypt: bool = False,
    ) -> TaskInfo[CopyInfo]:
        fitting("Image.copy", name=name, description=None)
        fitting_clusters("Image.copy", cluster_size)
        target = to or domain
        self.context.registry.find(domain)
        self.context.registry.find(target)
        new, ids = id, volumes
        if ids is None:
            same, ids = self._ids(domain, image, volume, elsewhere=target != domain, collapse=collapse)
            new = new or same
        elif not ids or len(set(ids)) != len(ids):
            raise InvalidParameter(verb="Image.copy", reason="volumes: an id for each volume, no two the same")
        new = new or ImageId(self.new_id("image"))
        if new == image and target == domain:
            raise ImageExists(image=image, reason="it is the one that is to be copied")
        if volumes is not None:
            self._refuse_taken(target, new, volumes)
        return self.submit(
            "Image.copy",
            domain=domain,
            image=image,
            name=name,
            to=target,
            volume=volume,
            collapse=collapse,
            format=format,
            allocation=allocation,
            cluster_size=cluster_size,
            compress=compress,
            rate=rate,
            checksum=checksum,
            id=new,
            volumes=ids,
            secret=secret,
            decrypt=decrypt,
        )

    def _ids(
        self, domain: DomainId, image: ImageId, volume: VolumeId | None, *, elsewhere: bool, collapse: bool
    ) -> tuple[ImageId | None, list[VolumeId]]:
        """Ids for a copy: new ones, but a template stays the same one on another domain."""
        source = self.context.registry.get(domain)
        with storage_errors(self.context, domain, image):
            selection = select(source, image, volume, collapse=collapse)
        if elsewhere and not selection.collapsed and selection.top.metadata.role is VolumeRole.TEMPLATE:
            return image, [found.id for found in selection.volumes]
        return None, [VolumeId(self.new_id(f"copy of {found.id}")) for found in selection.volumes]

    def _refuse_taken(self, target: DomainId, image: ImageId, volumes: list[VolumeId]) -> None:
        """Ids that were given are nobody else's."""
        opened = self.context.registry.get(target)
        with storage_errors(self.context, target):
            for given in volumes:
                if (home := opened.find_volume(given)) not in (None, image):
                    raise VolumeExists(volume=given, reason=f"it is image {home}'s")

    def move(
        self, *, domain: DomainId, image: ImageId, to: DomainId, rate: int | None = None, checksum: bool = False
    ) -> TaskInfo[CopyInfo]:
        self.context.registry.find(domain)
        self.context.registry.find(to)
        if to == domain:
            raise SameDomain(image=image, domain=domain)
        return self.submit("Image.move", domain=domain, image=image, to=to, rate=rate, checksum=checksum)

    def checksum(
        self, *, domain: DomainId, image: ImageId, volume: VolumeId | None = None, block_size: int = 4 * 2**20
    ) -> TaskInfo[ChecksumInfo]:
        self.context.registry.find(domain)
        return self.submit("Image.checksum", domain=domain, image=image, volume=volume, block_size=block_size)


def fitting_clusters(verb: str, size: int | None) -> None:
    """Clusters have a length that is a power of 2."""
    if size is not None and size & (size - 1):
        raise InvalidParameter(verb=verb, reason=f"clusters of {size} bytes: a power of 2 is needed")
