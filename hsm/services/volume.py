# SPDX-License-Identifier: Apache-2.0
"""Volume: the layers of images."""

from __future__ import annotations

import builtins

from hsm.operations import chains, describe
from hsm.operations.base import storage_errors
from hsm.operations.encryption import source_of
from hsm.operations.making import qemu_img
from hsm.paging import Listing
from hsm.services.base import Service, fitting
from hsm.services.image_copies import fitting_clusters
from libvdsm.api.errors import ImageExists, InvalidParameter, NoSuchVolume, VolumeDamaged
from libvdsm.api.image_copies import CopyInfo
from libvdsm.api.types import (
    Allocation,
    Compat,
    DomainId,
    FileFormat,
    ImageId,
    Legality,
    Nothing,
    SecretId,
    TagChange,
    TaskInfo,
    VolumeFormat,
    VolumeId,
    VolumeInfo,
)
from libvdsm.api.volume import Measure, Volume, VolumePage


class VolumeService(Service, Volume):
    def create(
        self,
        *,
        domain: DomainId,
        image: ImageId | None = None,
        parent: VolumeId | None = None,
        capacity: int | None = None,
        format: VolumeFormat = VolumeFormat.QCOW2,
        allocation: Allocation = Allocation.SPARSE,
        description: str | None = None,
        id: VolumeId | None = None,
    ) -> TaskInfo[VolumeInfo]:
        fitting("Volume.create", name=None, description=description)
        if parent is None and capacity is None:
            raise InvalidParameter(verb="Volume.create", reason="a volume without a parent needs a capacity")
        if image is None and id is not None:
            # The same call again: the image that was chosen then.
            image = self._home(domain, id)
        return self.submit(
            "Volume.create",
            domain=domain,
            image=image or ImageId(self.new_id("image")),
            parent=parent,
            capacity=capacity,
            format=format,
            allocation=allocation,
            description=description,
            id=id or VolumeId(self.new_id("volume")),
        )

    def _home(self, domain: DomainId, volume: VolumeId) -> ImageId | None:
        opened = self.context.registry.get(domain)
        with storage_errors(self.context, domain):
            return opened.find_volume(volume)

    def _existing(self, domain: DomainId, volume: VolumeId, image: ImageId | None) -> ImageId:
        found = image or self._home(domain, volume)
        if found is None:
            raise NoSuchVolume(domain=domain, volume=volume)
        self.context.registry.find(domain)
        return found

    def get_info(self, *, domain: DomainId, volume: VolumeId, image: ImageId | None = None) -> VolumeInfo:
        opened = self.context.registry.get(domain)
        with storage_errors(self.context, domain):
            record, found = chains.volume_of(opened, volume, image)
            return describe.volume_info(domain, found, record.role(found))

    def list(
        self,
        *,
        domain: DomainId,
        image: ImageId | None = None,
        filter: str | None = None,
        sort: str | None = None,
        limit: int = 10_000,
        start: str | None = None,
    ) -> VolumePage:
        # By sequence rather than by depth: a merge of layers below does not move a volume in the list.
        listing = Listing(
            "Volume.list",
            VolumeInfo,
            default="image,sequence,created",
            filter=filter,
            sort=sort,
            start=start,
            scope=(domain, image),
        )
        opened = self.context.registry.get(domain)
        infos: list[VolumeInfo] = []
        with storage_errors(self.context, domain):
            if image is not None:
                infos = describe.volume_infos(domain, chains.image_of(opened, image))
            else:
                wanted = listing.pinned("image")
                for item in opened.image_ids():
                    record = opened.glance(item) if wanted is None or item in wanted else None
                    if record is not None:
                        infos += describe.volume_infos(domain, record)
        items, following = listing.page(infos, limit)
        return VolumePage(items=items, next=following)

    def resize(
        self,
        *,
        domain: DomainId,
        volume: VolumeId,
        capacity: int,
        image: ImageId | None = None,
        generation: int | None = None,
        shrink: bool = False,
    ) -> TaskInfo[VolumeInfo]:
        home = self._existing(domain, volume, image)
        return self.submit(
            "Volume.resize",
            domain=domain,
            volume=volume,
            capacity=capacity,
            image=home,
            generation=generation,
            shrink=shrink,
        )

    def set_description(
        self,
        *,
        domain: DomainId,
        volume: VolumeId,
        description: str,
        image: ImageId | None = None,
        generation: int | None = None,
    ) -> TaskInfo[VolumeInfo]:
        fitting("Volume.setDescription", name=None, description=description)
        home = self._existing(domain, volume, image)
        return self.submit(
            "Volume.setDescription",
            domain=domain,
            volume=volume,
            description=description,
            image=home,
            generation=generation,
        )

    def set_legality(
        self,
        *,
        domain: DomainId,
        volume: VolumeId,
        legality: Legality,
        image: ImageId | None = None,
        generation: int | None = None,
    ) -> TaskInfo[VolumeInfo]:
        if legality is Legality.FAKE:
            raise InvalidParameter(verb="Volume.setLegality", reason="a volume is marked legal or illegal")
        home = self._existing(domain, volume, image)
        return self.submit(
            "Volume.setLegality", domain=domain, volume=volume, legality=legality, image=home, generation=generation
        )

    def measure(
        self,
        *,
        domain: DomainId,
        volume: VolumeId,
        image: ImageId | None = None,
        format: FileFormat = FileFormat.QCOW2,
        chain: bool = True,
    ) -> Measure:
        if format not in (FileFormat.RAW, FileFormat.QCOW2):
            raise InvalidParameter(verb="Volume.measure", reason="format is raw or qcow2")
        opened = self.context.registry.get(domain)
        with storage_errors(self.context, domain, image):
            record, found = chains.volume_of(opened, volume, image)
            chains.chain_of(record, found)
            if chains.arriving(record):
                raise VolumeDamaged(
                    volume=found.id, reason="its upload has not ended: go on with it, or cancel the transfer"
                )
            source = source_of(self.context, opened, record, found, alone=not chain)
            sizes = qemu_img(self.context).measure(source, format.value)
        return Measure(required=sizes.required, fully_allocated=sizes.fully_allocated)

    def copy(
        self,
        *,
        domain: DomainId,
        volume: VolumeId,
        name: str | None = None,
        image: ImageId | None = None,
        to: DomainId | None = None,
        format: VolumeFormat | None = None,
        allocation: Allocation | None = None,
        cluster_size: int | None = None,
        compress: bool = False,
        rate: int | None = None,
        checksum: bool = False,
        to_image: ImageId | None = None,
        id: VolumeId | None = None,
        secret: SecretId | None = None,
        decrypt: bool = False,
    ) -> TaskInfo[CopyInfo]:
        fitting("Volume.copy", name=name, description=None)
        fitting_clusters("Volume.copy", cluster_size)
        home = self._existing(domain, volume, image)
        self.context.registry.find(to or domain)
        if id is not None and to_image is None:
            # The same call again: the image that was chosen then.
            to_image = self._home(to or domain, id)
        if to_image == home and to in (None, domain):
            raise ImageExists(image=home, reason="the volume that is to be copied is in it")
        return self.submit(
            "Volume.copy",
            domain=domain,
            volume=volume,
            name=name,
            image=home,
            to=to or domain,
            format=format,
            allocation=allocation,
            cluster_size=cluster_size,
            compress=compress,
            rate=rate,
            checksum=checksum,
            to_image=to_image or ImageId(self.new_id("image")),
            id=id or VolumeId(self.new_id("volume")),
            secret=secret,
            decrypt=decrypt,
        )

    def delete(
        self,
        *,
        domain: DomainId,
        volume: VolumeId,
        image: ImageId | None = None,
        wipe: bool = False,
        generation: int | None = None,
    ) -> TaskInfo[Nothing]:
        home = image or self._home(domain, volume)
        return self.submit("Volume.delete", domain=domain, volume=volume, image=home, wipe=wipe, generation=generation)

    def set_tags(
        self,
        *,
        domain: DomainId,
        volume: VolumeId,
        tags: builtins.list[str],
        change: TagChange = TagChange.REPLACE,
        image: ImageId | None = None,
    ) -> TaskInfo[VolumeInfo]:
        home = self._existing(domain, volume, image)
        return self.submit("Volume.setTags", domain=domain, volume=volume, tags=tags, change=change, image=home)

    def amend(
        self, *, domain: DomainId, volume: VolumeId, compat: Compat | None = None, image: ImageId | None = None
    ) -> TaskInfo[VolumeInfo]:
        if compat not in (Compat.V2, Compat.V3):
            raise InvalidParameter(verb="Volume.amend", reason="say what is to be changed: compat is v3")
        home = self._existing(domain, volume, image)
        return self.submit("Volume.amend", domain=domain, volume=volume, compat=compat, image=home)
