# SPDX-License-Identifier: Apache-2.0
"""Volume: the layers of images."""

from __future__ import annotations

import uuid

from hsm.operations import chains, describe
from hsm.operations.base import storage_errors
from hsm.operations.making import qemu_img
from hsm.paging import page
from hsm.services.base import Service, fitting
from hsm.tools.qemu_img import Source
from libvdsm.api.errors import InvalidParameter, NoSuchVolume, VolumeDamaged
from libvdsm.api.types import (
    Allocation,
    DomainId,
    FileFormat,
    ImageId,
    Legality,
    Nothing,
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
            image=image or ImageId(uuid.uuid4()),
            parent=parent,
            capacity=capacity,
            format=format,
            allocation=allocation,
            description=description,
            id=id or VolumeId(uuid.uuid4()),
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
        self, *, domain: DomainId, image: ImageId | None = None, limit: int = 10_000, start: str | None = None
    ) -> VolumePage:
        opened = self.context.registry.get(domain)
        infos: list[VolumeInfo] = []
        with storage_errors(self.context, domain):
            if image is not None:
                infos = describe.volume_infos(domain, chains.image_of(opened, image))
            else:
                for item in opened.image_ids():
                    record = opened.image(item)
                    if record is not None:
                        infos += describe.volume_infos(domain, record)
        items, following = page_of_volumes(infos, limit, start)
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
                raise VolumeDamaged(volume=found.id, reason="its upload has not ended")
            source = Source(opened.data_path(record.id, found.id), found.metadata.format.value, alone=not chain)
            sizes = qemu_img(self.context).measure(source, format.value)
        return Measure(required=sizes.required, fully_allocated=sizes.fully_allocated)

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


def page_of_volumes(infos: list[VolumeInfo], limit: int, start: str | None) -> tuple[list[VolumeInfo], str | None]:
    """By image, and inside an image the oldest first: the place in that order is the key."""
    if start is None and len(infos) <= limit:
        return infos, None
    keys = {info.id: f"{info.image} {place:06d} {info.id}" for place, info in _places(infos)}
    return page(infos, lambda info: keys[info.id], limit, start)


def _places(infos: list[VolumeInfo]) -> list[tuple[int, VolumeInfo]]:
    places = []
    place, image = 0, None
    for info in infos:
        place = place + 1 if info.image == image else 0
        image = info.image
        places.append((place, info))
    return places
