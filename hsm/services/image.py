# SPDX-License-Identifier: Apache-2.0
"""Image: virtual disks."""

from __future__ import annotations

import builtins
import os
import uuid
from contextlib import suppress

from hsm.operations import chains, copying, describe, use
from hsm.operations.base import lock_domain, lock_image, storage_errors
from hsm.paging import page
from hsm.services.base import fitting
from hsm.services.image_layers import ImageLayerService
from hsm.tools.opener import open_for
from libvdsm.api.errors import (
    DomainDamaged,
    FileNotUsable,
    InvalidParameter,
    NoSuchDomain,
    NotSupported,
    StorageFailed,
    VolumeExists,
)
from libvdsm.api.image import ExportInfo, Image, ImagePage
from libvdsm.api.types import (
    Allocation,
    DomainId,
    FileFormat,
    ImageId,
    ImageInfo,
    Nothing,
    PreparedInfo,
    TaskInfo,
    VolumeFormat,
    VolumeId,
)

_EXPORTED = (FileFormat.RAW, FileFormat.QCOW2)


def _image(given: ImageId | None) -> ImageId:
    return given or ImageId(uuid.uuid4())


class ImageService(ImageLayerService, Image):
    def _volume(self, domain: DomainId, image: ImageId, given: VolumeId | None) -> VolumeId:
        """The id of a new volume; one that was given is no other image's."""
        if given is None:
            return VolumeId(uuid.uuid4())
        opened = self.context.registry.get(domain)
        with storage_errors(self.context, domain):
            home = opened.find_volume(given)
        if home not in (None, image):
            raise VolumeExists(volume=given, reason=f"it is image {home}'s")
        return given

    def create(
        self,
        *,
        domain: DomainId,
        capacity: int,
        name: str | None = None,
        format: VolumeFormat = VolumeFormat.QCOW2,
        allocation: Allocation = Allocation.SPARSE,
        description: str | None = None,
        id: ImageId | None = None,
        volume: VolumeId | None = None,
    ) -> TaskInfo[ImageInfo]:
        fitting("Image.create", name=name, description=description)
        self.context.registry.find(domain)
        new = _image(id)
        return self.submit(
            "Image.create",
            domain=domain,
            capacity=capacity,
            name=name,
            format=format,
            allocation=allocation,
            description=description,
            id=new,
            volume=self._volume(domain, new, volume),
        )

    def snapshot(
        self, *, domain: DomainId, image: ImageId, name: str | None = None, volume: VolumeId | None = None
    ) -> TaskInfo[ImageInfo]:
        self.context.registry.find(domain)
        return self.submit(
            "Image.snapshot", domain=domain, image=image, name=name, volume=self._volume(domain, image, volume)
        )

    def clone(
        self,
        *,
        domain: DomainId,
        template: ImageId,
        name: str | None = None,
        capacity: int | None = None,
        description: str | None = None,
        id: ImageId | None = None,
        volume: VolumeId | None = None,
    ) -> TaskInfo[ImageInfo]:
        fitting("Image.clone", name=name, description=description)
        self.context.registry.find(domain)
        new = _image(id)
        return self.submit(
            "Image.clone",
            domain=domain,
            template=template,
            name=name,
            capacity=capacity,
            description=description,
            id=new,
            volume=self._volume(domain, new, volume),
        )

    def make_template(
        self,
        *,
        domain: DomainId,
        image: ImageId,
        name: str | None = None,
        id: ImageId | None = None,
        volume: VolumeId | None = None,
    ) -> TaskInfo[ImageInfo]:
        self.context.registry.find(domain)
        if name is None and (id or volume):
            raise InvalidParameter(verb="Image.makeTemplate", reason="id and volume are a copy's, which needs a name")
        if name is None:
            return self.submit("Image.makeTemplate", domain=domain, image=image)
        new = _image(id)
        return self.submit(
            "Image.makeTemplate",
            domain=domain,
            image=image,
            name=name,
            id=new,
            volume=self._volume(domain, new, volume),
        )

    def list(self, *, domain: DomainId | None = None, limit: int = 10_000, start: str | None = None) -> ImagePage:
        if domain is not None:
            found = self._images(domain)
        else:
            found = []
            for item in self.context.registry.all():
                # A domain that cannot be reached hides no other; Domain.list tells of it.
                with suppress(DomainDamaged, StorageFailed, NoSuchDomain):
                    found += self._images(item.id)
        found.sort(key=_key)
        items, following = page(found, _key, limit, start)
        return ImagePage(items=items, next=following)

    def _images(self, domain: DomainId) -> builtins.list[ImageInfo]:
        opened = self.context.registry.get(domain)
        keepers = self.context.keepers.all()
        infos = []
        with storage_errors(self.context, domain):
            for image in opened.image_ids():
                record = opened.image(image)
                if record is not None and record.published:
                    infos.append(describe.image_info(domain, record, describe.prepared_of(opened, record, keepers)))
        return infos

    def get_info(self, *, domain: DomainId, image: ImageId) -> ImageInfo:
        opened = self.context.registry.get(domain)
        with storage_errors(self.context, domain, image):
            record = chains.image_of(opened, image)
            prepared = describe.prepared_of(opened, record, self.context.keepers.all())
            return describe.image_info(domain, record, prepared, chain=True)

    def import_(
        self,
        *,
        domain: DomainId,
        source: int | None = None,
        path: str | None = None,
        source_format: FileFormat | None = None,
        name: str | None = None,
        format: VolumeFormat = VolumeFormat.QCOW2,
        allocation: Allocation = Allocation.SPARSE,
        capacity: int | None = None,
        description: str | None = None,
        id: ImageId | None = None,
        volume: VolumeId | None = None,
    ) -> TaskInfo[ImageInfo]:
        fitting("Image.import", name=name, description=description)
        self.context.registry.find(domain)
        new = _image(id)
        return self.submit(
            "Image.import",
            domain=domain,
            volume=self._volume(domain, new, volume),
            source=self._file("Image.import", source, path, write=False),
            path=path,
            source_format=source_format,
            name=name,
            format=format,
            allocation=allocation,
            capacity=capacity,
            description=description,
            id=new,
        )

    def export(
        self,
        *,
        domain: DomainId,
        image: ImageId,
        target: int | None = None,
        path: str | None = None,
        format: FileFormat = FileFormat.QCOW2,
        volume: VolumeId | None = None,
    ) -> TaskInfo[ExportInfo]:
        self.context.registry.find(domain)
        if format not in _EXPORTED:
            raise NotSupported(reason="exports are raw or qcow2")
        return self.submit(
            "Image.export",
            domain=domain,
            image=image,
            target=self._file("Image.export", target, path, write=True),
            path=path,
            format=format,
            volume=volume,
        )

    def _file(self, verb: str, descriptor: int | None, path: str | None, *, write: bool) -> int:
        """A file of our own to work on: one that came with the call, or one opened with the caller's rights."""
        if (descriptor is None) == (path is None):
            name = "target" if write else "source"
            raise InvalidParameter(verb=verb, reason=f"give either {name}, an open file, or path")
        if descriptor is not None:
            return copying.own_file(descriptor, write=write)
        connection = self.caller.connection
        if connection.uid is None:
            raise NotSupported(reason="over TCP no file of this host can be opened: nobody knows with whose rights")
        assert path is not None
        try:
            opened = open_for(connection.uid, path, write=write)
        except OSError as error:
            raise FileNotUsable(reason=f"{path}: {error.strerror or error}") from None
        try:
            return copying.own_file(opened, write=write)
        finally:
            os.close(opened)

    def prepare(self, *, domain: DomainId, image: ImageId, read_only: bool = False) -> PreparedInfo:
        with self.parts.tasks.hold((lock_domain(domain), lock_image(domain, image)), self.context.lease_wait):
            return use.prepare(self.context, domain, image, read_only=read_only)

    def teardown(self, *, domain: DomainId, image: ImageId) -> Nothing:
        with self.parts.tasks.hold((lock_domain(domain), lock_image(domain, image)), self.context.lease_wait):
            use.teardown(self.context, domain, image)
        return Nothing()

    def delete(self, *, domain: DomainId, image: ImageId, wipe: bool = False) -> TaskInfo[Nothing]:
        self.context.registry.find(domain)
        return self.submit("Image.delete", domain=domain, image=image, wipe=wipe)


def _key(info: ImageInfo) -> str:
    return f"{info.name or ''} {info.id}"
