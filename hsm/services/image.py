# SPDX-License-Identifier: Apache-2.0
"""Image: virtual disks."""

from __future__ import annotations

import builtins
import os
from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from hsm.operations import chains, describe, use
from hsm.operations.base import lock_domain, lock_image, storage_errors
from hsm.operations.encryption import able
from hsm.operations.outside import own_file
from hsm.paging import Listing
from hsm.services.base import fitting
from hsm.services.image_copies import ImageCopyService
from hsm.services.image_layers import ImageLayerService
from hsm.services.image_space import ImageSpaceService
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
from libvdsm.api.image import ExportInfo, Image, ImageGroup, ImagePage
from libvdsm.api.types import (
    Allocation,
    DomainId,
    FileFormat,
    ImageId,
    ImageInfo,
    Nothing,
    PreparedInfo,
    SecretId,
    TagChange,
    TaskInfo,
    VolumeFormat,
    VolumeId,
)

_EXPORTED = (FileFormat.RAW, FileFormat.QCOW2)


class ImageService(ImageCopyService, ImageLayerService, ImageSpaceService, Image):
    def _image(self, given: ImageId | None) -> ImageId:
        return given or ImageId(self.new_id("image"))

    def _volume(self, domain: DomainId, image: ImageId, given: VolumeId | None) -> VolumeId:
        """The id of a new volume; one that was given is no other image's."""
        if given is None:
            # Several may be asked for in one call.
            return VolumeId(self.new_id(f"volume of {image}"))
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
        secret: SecretId | None = None,
    ) -> TaskInfo[ImageInfo]:
        fitting("Image.create", name=name, description=description)
        if secret is not None:
            able(format, allocation)
        self.context.registry.find(domain)
        new = self._image(id)
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
            secret=secret,
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
        secret: SecretId | None = None,
    ) -> TaskInfo[ImageInfo]:
        fitting("Image.clone", name=name, description=description)
        self.context.registry.find(domain)
        new = self._image(id)
        return self.submit(
            "Image.clone",
            domain=domain,
            template=template,
            name=name,
            capacity=capacity,
            description=description,
            id=new,
            volume=self._volume(domain, new, volume),
            secret=secret,
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
        new = self._image(id)
        return self.submit(
            "Image.makeTemplate",
            domain=domain,
            image=image,
            name=name,
            id=new,
            volume=self._volume(domain, new, volume),
        )

    def list(
        self,
        *,
        domain: DomainId | None = None,
        filter: str | None = None,
        sort: str | None = None,
        limit: int = 10_000,
        start: str | None = None,
    ) -> ImagePage:
        listing = Listing(
            "Image.list", ImageInfo, default="name", filter=filter, sort=sort, start=start, scope=(domain,)
        )
        ids = listing.pinned("id")
        if domain is not None:
            found = self._images(domain, ids)
        else:
            found = []
            wanted = listing.pinned("domain")
            for item in self.context.registry.all():
                if wanted is not None and item.id not in wanted:
                    continue
                # A domain that cannot be reached hides no other; Domain.list tells of it.
                with suppress(DomainDamaged, StorageFailed, NoSuchDomain):
                    found += self._images(item.id, ids)
        items, following = listing.page(found, limit)
        return ImagePage(items=items, next=following)

    def _images(self, domain: DomainId, wanted: frozenset[ImageId] | None) -> builtins.list[ImageInfo]:
        opened = self.context.registry.get(domain)
        keepers = self.context.keepers.all()
        infos = []
        with storage_errors(self.context, domain):
            for image in opened.image_ids():
                record = opened.glance(image) if wanted is None or image in wanted else None
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
        secret: SecretId | None = None,
    ) -> TaskInfo[ImageInfo]:
        fitting("Image.import", name=name, description=description)
        if secret is not None:
            able(format, allocation)
        self.context.registry.find(domain)
        new = self._image(id)
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
            secret=secret,
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
            return own_file(descriptor, write=write)
        connection = self.caller.connection
        if connection.uid is None:
            raise NotSupported(reason="over TCP no file of this host can be opened: nobody knows with whose rights")
        assert path is not None
        try:
            opened = open_for(connection.uid, path, write=write)
        except OSError as error:
            raise FileNotUsable(reason=f"{path}: {error.strerror or error}") from None
        try:
            return own_file(opened, write=write)
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

    def snapshot_many(
        self,
        *,
        domain: DomainId,
        images: builtins.list[ImageId],
        name: str | None = None,
        volumes: builtins.list[VolumeId] | None = None,
    ) -> TaskInfo[ImageGroup]:
        self.context.registry.find(domain)
        _different("Image.snapshotMany", images)
        given: Sequence[VolumeId | None] = volumes or [None] * len(images)
        if len(given) != len(images):
            reason = f"{len(images)} images, and {len(given)} ids for their new volumes"
            raise InvalidParameter(verb="Image.snapshotMany", reason=reason)
        _different("Image.snapshotMany", [volume for volume in given if volume])
        new = [self._volume(domain, image, volume) for image, volume in zip(images, given, strict=True)]
        return self.submit("Image.snapshotMany", domain=domain, images=images, name=name, volumes=new)

    def delete_many(self, *, domain: DomainId, images: builtins.list[ImageId], wipe: bool = False) -> TaskInfo[Nothing]:
        self.context.registry.find(domain)
        _different("Image.deleteMany", images)
        return self.submit("Image.deleteMany", domain=domain, images=images, wipe=wipe)

    def set_tags(
        self,
        *,
        domain: DomainId,
        image: ImageId,
        tags: builtins.list[str],
        change: TagChange = TagChange.REPLACE,
    ) -> TaskInfo[ImageInfo]:
        self.context.registry.find(domain)
        return self.submit("Image.setTags", domain=domain, image=image, tags=tags, change=change)


def _key(info: ImageInfo) -> str:
    return f"{info.name or ''} {info.id}"


def _different(verb: str, ids: Sequence[UUID]) -> None:
    if len(set(ids)) < len(ids):
        raise InvalidParameter(verb=verb, reason="the same id is named twice")
