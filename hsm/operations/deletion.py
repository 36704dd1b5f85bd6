# SPDX-License-Identifier: Apache-2.0
"""Deleting images and volumes.

The commit point is one rename: of an image's folder, or of a volume's metadata.  What it leaves is garbage, given
back at once here, and by the collector if the service ends meanwhile; whether it is to be wiped is in the new name.
What is gone already counts as deleted.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress

import msgspec

from hsm.domains.base import Domain, Garbage, ImageRecord, VolumeRecord, Wanted
from hsm.operations import chains
from hsm.operations.base import (
    BaseOperation,
    domain_lease,
    lock_domain,
    lock_image,
    storage_errors,
)
from hsm.tasks.locks import Locks
from hsm.tasks.manager import Job, Objects
from libvdsm.api.errors import (
    ImageDamaged,
    ImageInUse,
    IsTemplate,
    NoSuchImage,
    NoSuchVolume,
    TemplateInUse,
    VolumeHasChildren,
)
from libvdsm.api.event import ImageDeleted, VolumeDeleted
from libvdsm.api.types import ImageId, Nothing, VolumeId, VolumeRole
from libvdsm.log import Log

log = Log("hsm.deletion")


def give_back(domain: Domain, left: Garbage) -> None:
    """Give back what was just unpublished; trouble with that is the collector's, the deletion is done."""
    try:
        domain.reclaim(left)
    except OSError as error:
        log.warning("left for the collector", path=left.path, error=error)


def made(domain: Domain, record: ImageRecord, volume: VolumeId) -> ImageRecord:
    """Before a volume is unpublished: its image does not depend on its being there.  Under the domain's lease."""
    making = record.attributes.making
    if making is None or making.leaf != volume:
        return record
    kept = msgspec.structs.replace(record.attributes, making=None)
    domain.set_attributes(record.id, kept)
    return msgspec.structs.replace(record, attributes=kept)


def forget(domain: Domain, record: ImageRecord, volume: VolumeId) -> None:
    """After a volume was unpublished: nothing that is kept of its image names it.  Under the domain's lease.

    Not before: whoever ends between the two leaves what concerns nothing, and not a volume without its tags.
    """
    kept = record.attributes.without_volume(volume)
    if kept != record.attributes:
        domain.set_attributes(record.id, kept)


class DeleteImage(BaseOperation):
    """Image.delete"""

    @property
    def locks(self) -> Locks:
        return lock_domain(self.params.domain), lock_image(self.params.domain, self.params.image)

    @property
    def objects(self) -> Objects:
        return Objects(self.params.domain, self.params.image)

    def outcome(self) -> Nothing | None:
        domain = self.context.registry.get(self.params.domain)
        with storage_errors(self.context, domain.id, self.params.image):
            try:
                chains.image_of(domain, self.params.image)
            except NoSuchImage:
                return Nothing()
        return None

    def run(self, job: Job) -> Nothing:
        job.progress("deleting")
        domain = self.context.registry.get(self.params.domain)
        image = self.params.image
        with storage_errors(self.context, domain.id, image):
            with ExitStack() as leases:
                record = chains.image_of(domain, image)
                # Of what cannot be read too: somebody may have prepared it while it could.
                damaged = [bad.volume for bad in record.damaged if bad.volume is not None]
                wanted = [Wanted(volume, image) for volume in [*(own.id for own in record.own), *damaged]]
                leases.callback(domain.acquire(wanted).release)
                with domain_lease(self.context, domain, job):
                    left = self._unpublish(job, domain, {volume.id for volume in record.own})
            self.context.events.emit(ImageDeleted(domain=domain.id, image=image))
            job.progress("giving space back")
            give_back(domain, left)
        return Nothing()

    def _unpublish(self, job: Job, domain: Domain, leased: set[VolumeId]) -> Garbage:
        record = chains.image_of(domain, self.params.image)
        intent = record.attributes.intent
        if intent is not None and intent.binds_others:
            chains.settled(record)
        if late := {volume.id for volume in record.own} - leased:
            raise ImageInUse(image=record.id, volume=late.pop(), holder="whoever just made a snapshot of it")
        if clones := domain.clones(record.id):
            raise TemplateInUse(image=record.id, clones=clones)
        job.commit()
        return domain.unpublish_image(record.id, wipe=self.params.wipe)


class DeleteVolume(BaseOperation):
    """Volume.delete.  ``params.image`` was filled in by the service, or is None when the volume is gone."""

    @property
    def locks(self) -> Locks:
        if self.params.image is None:
            return (lock_domain(self.params.domain),)
        return lock_domain(self.params.domain), lock_image(self.params.domain, self.params.image)

    @property
    def objects(self) -> Objects:
        return Objects(self.params.domain, self.params.image, self.params.volume)

    def outcome(self) -> Nothing | None:
        domain = self.context.registry.get(self.params.domain)
        if self.params.image is None:
            return Nothing()
        with storage_errors(self.context, domain.id, self.params.image):
            try:
                chains.volume_of(domain, self.params.volume, self.params.image)
            except (NoSuchImage, NoSuchVolume):
                return Nothing()
        return None

    def run(self, job: Job) -> Nothing:
        job.progress("deleting")
        domain = self.context.registry.get(self.params.domain)
        image, volume = self.params.image, self.params.volume
        with storage_errors(self.context, domain.id, image):
            with ExitStack() as leases:
                record, _ = self._decide(domain)
                leases.callback(domain.acquire([Wanted(volume, image)]).release)
                with domain_lease(self.context, domain, job):
                    record, found = self._decide(domain)
                    whole = len(record.own) == 1
                    job.commit()
                    record = made(domain, record, volume)
                    if whole:
                        left = domain.unpublish_image(image, wipe=self.params.wipe)
                    else:
                        left = domain.unpublish_volume(image, volume, wipe=self.params.wipe)
                        self._mend(domain, record, found)
            if whole:
                self.context.events.emit(ImageDeleted(domain=domain.id, image=image))
            else:
                self.context.events.emit(VolumeDeleted(domain=domain.id, image=image, volume=volume))
            job.progress("giving space back")
            give_back(domain, left)
        return Nothing()

    def _decide(self, domain: Domain) -> tuple[ImageRecord, VolumeRecord]:
        record, volume = chains.volume_of(domain, self.params.volume, self.params.image)
        if volume.is_linked:
            raise IsTemplate(image=ImageId(volume.metadata.image))
        chains.settled(record)
        chains.expect_generation(volume, self.params.generation)
        # What cannot be read may stand on this volume, or be all that is left below it.
        chains.intact(record)
        if (parent := volume.metadata.parent) is not None and parent not in record.volumes:
            raise ImageDamaged(image=record.id, reason=f"volume {volume.id} stands on {parent}, which is missing")
        if children := record.children().get(volume.id):
            raise VolumeHasChildren(volume=volume.id, children=len(children))
        if clones := domain.clones(record.id):
            raise TemplateInUse(image=record.id, clones=clones)
        return record, volume

    def _mend(self, domain: Domain, record: ImageRecord, deleted: VolumeRecord) -> None:
        """Write that the volume below is the leaf now, and that this one has no tags; if that fails it is so all the
        same, and the collector's."""
        with suppress(OSError):
            forget(domain, record, deleted.id)
        below = record.volumes.get(VolumeId(deleted.metadata.parent)) if deleted.metadata.parent else None
        if below is None or below.is_linked or below.metadata.role is not VolumeRole.INTERNAL:
            return
        with suppress(OSError):
            metadata = msgspec.structs.replace(below.metadata, role=VolumeRole.LEAF)
            domain.rewrite(record.id, below.id, metadata)
