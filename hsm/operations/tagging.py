# SPDX-License-Identifier: Apache-2.0
"""Tags of images and volumes: words of the user's, kept in the image's attributes.

No data is concerned, so no volume's lease is needed: the domain's own orders the writers, and what is added or removed
is added to what is there then.  The commit point is the one rename that replaces the attributes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hsm.domains.base import Domain, ImageRecord
from hsm.formats.attributes import Attributes
from hsm.operations import chains, describe
from hsm.operations.base import BaseOperation, domain_lease, lock_domain, lock_image, storage_errors
from hsm.tasks.locks import Locks
from hsm.tasks.manager import Job, Objects
from libvdsm.api.errors import IsTemplate
from libvdsm.api.event import EventData, ImageChanged, VolumeChanged
from libvdsm.api.types import ImageId, ImageInfo, TagChange, VolumeInfo


def changed(present: tuple[str, ...], change: TagChange, given: list[str]) -> tuple[str, ...]:
    """The tags afterwards: each once, in the order in which they came."""
    wanted = tuple(dict.fromkeys(given))
    if change is TagChange.ADD:
        return tuple(dict.fromkeys((*present, *wanted)))
    if change is TagChange.REMOVE:
        return tuple(tag for tag in present if tag not in wanted)
    return wanted


class _Tagging(BaseOperation):
    """What both share.  ``params.image`` was filled in by the service."""

    @property
    def locks(self) -> Locks:
        return lock_domain(self.params.domain), lock_image(self.params.domain, self.params.image)

    def find(self, domain: Domain) -> ImageRecord:
        """The image; what is kept of it is known, and nobody is at work on it."""
        raise NotImplementedError

    def wanted(self, record: ImageRecord) -> Attributes:
        raise NotImplementedError

    def told(self, domain: Domain) -> Any:
        """The result, from what is on storage."""
        raise NotImplementedError

    @property
    def event(self) -> EventData:
        raise NotImplementedError

    @contextmanager
    def _domain(self) -> Iterator[Domain]:
        domain = self.context.registry.get(self.params.domain)
        with storage_errors(self.context, domain.id, self.params.image):
            yield domain

    def outcome(self) -> Any:
        with self._domain() as domain:
            record = self.find(domain)
            return self.told(domain) if self.wanted(record) == record.attributes else None

    def run(self, job: Job) -> Any:
        job.progress("changing tags")
        with self._domain() as domain:
            with domain_lease(self.context, domain, job):
                record = self.find(domain)
                wanted = self.wanted(record)
                job.commit()
                domain.set_attributes(record.id, wanted)
            self.context.events.emit(self.event)
            return self.told(domain)


class TagImage(_Tagging):
    """Image.setTags"""

    @property
    def objects(self) -> Objects:
        return Objects(self.params.domain, self.params.image)

    def find(self, domain: Domain) -> ImageRecord:
        record = chains.image_of(domain, self.params.image)
        chains.intact(record)
        chains.settled(record)
        return record

    def wanted(self, record: ImageRecord) -> Attributes:
        tags = changed(record.attributes.tags, self.params.change, self.params.tags)
        return record.attributes.with_tags(tags)

    def told(self, domain: Domain) -> ImageInfo:
        record = chains.image_of(domain, self.params.image)
        prepared = describe.prepared_of(domain, record, self.context.keepers.all())
        return describe.image_info(domain.id, record, prepared, chain=True)

    @property
    def event(self) -> ImageChanged:
        return ImageChanged(domain=self.params.domain, image=self.params.image)


class TagVolume(_Tagging):
    """Volume.setTags"""

    @property
    def objects(self) -> Objects:
        return Objects(self.params.domain, self.params.image, self.params.volume)

    def find(self, domain: Domain) -> ImageRecord:
        record, volume = chains.volume_of(domain, self.params.volume, self.params.image)
        if volume.is_linked:
            raise IsTemplate(image=ImageId(volume.metadata.image))
        chains.intact(record)
        chains.settled(record)
        return record

    def wanted(self, record: ImageRecord) -> Attributes:
        volume = self.params.volume
        tags = changed(record.attributes.tags_of(volume), self.params.change, self.params.tags)
        return record.attributes.with_tags(tags, volume)

    def told(self, domain: Domain) -> VolumeInfo:
        record, volume = chains.volume_of(domain, self.params.volume, self.params.image)
        return describe.volume_info(domain.id, volume, record.role(volume))

    @property
    def event(self) -> VolumeChanged:
        return VolumeChanged(domain=self.params.domain, image=self.params.image, volume=self.params.volume)
