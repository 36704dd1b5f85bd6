# SPDX-License-Identifier: Apache-2.0
"""Collecting garbage: giving back what crashed or stopped operations left behind.

Changes nothing that is published, so it has no commit point and may end anywhere.  What was only begun is judged
under the domain's lease, in batches of at most half a second; what was unpublished needs its own lease alone.
Before that it finishes what was interrupted: changes in place that have begun, roles that a crash left wrongly written,
and tags of volumes that are gone.
"""

from __future__ import annotations

import time

import msgspec

from hsm.domains.base import Domain, Garbage, ImageRecord, VolumeRecord
from hsm.operations import expiring, intents
from hsm.operations.base import (
    BaseOperation,
    Context,
    domain_lease,
    lock_domain,
    storage_errors,
    writable,
)
from hsm.tasks.locks import Locks
from hsm.tasks.manager import Job, Objects
from libvdsm.api.domain import GarbageReport
from libvdsm.api.event import GarbageCollected
from libvdsm.api.types import ImageId, VolumeId, VolumeRole
from libvdsm.log import Log

log = Log("hsm.collecting")

_BATCH = 0.5


class CollectGarbage(BaseOperation):
    """Domain.collectGarbage"""

    @property
    def locks(self) -> Locks:
        return (lock_domain(self.params.domain),)

    @property
    def objects(self) -> Objects:
        return Objects(self.params.domain)

    def run(self, job: Job) -> GarbageReport:
        job.progress("collecting")
        domain = self.context.registry.get(self.params.domain)
        with storage_errors(self.context, domain.id):
            return collect(self.context, domain, job)


def collect(context: Context, domain: Domain, job: Job) -> GarbageReport:
    """Finish what was interrupted, then give back what can be."""
    finished, unfinished, given_up = _settle(context, domain, job)
    found = domain.garbage()
    if found:
        writable(domain)
    removed: list[str] = given_up
    kept: list[str] = []
    freed = 0
    begun = [garbage for garbage in found if garbage.begun]
    while begun:
        with domain_lease(context, domain):
            until = time.monotonic() + _BATCH
            while begun and time.monotonic() < until:
                freed += _reclaim(domain, begun.pop(), removed, kept)
        job.check()
    for garbage in found:
        if not garbage.begun:
            job.check()
            freed += _reclaim(domain, garbage, removed, kept)
    if removed:
        log.info("garbage collected", domain=domain.id, items=len(removed), bytes=freed)
        context.events.emit(GarbageCollected(domain=domain.id, items=len(removed)))
    return GarbageReport(
        domain=domain.id,
        removed=sorted(removed),
        kept=sorted(kept),
        freed=freed,
        finished=finished or None,
        unfinished=unfinished or None,
    )


def _settle(context: Context, domain: Domain, job: Job) -> tuple[list[ImageId], list[ImageId], list[str]]:
    """Finish the changes in place that have begun and not ended: the images where that was done, and where not.

    Uploads that nobody went on with in time are given up: what was removed so.
    """
    finished: list[ImageId] = []
    unfinished: list[ImageId] = []
    given_up: list[str] = []
    for image in domain.image_ids():
        job.check()
        record = domain.image(image)
        if record is None:
            continue
        if record.attributes.intent is not None:
            (finished if intents.try_finish(context, job, domain, image) else unfinished).append(image)
        elif record.attributes.making is not None and record.published:
            _forget_making(context, domain, image)
        elif expiring.is_due(record):
            given_up += expiring.give_up(context, job, domain, image)
        elif expiring.is_stale(record):
            expiring.forget(context, domain, image)
        else:
            _forget_tags(context, domain, record)
            mend_roles(context, domain, record)
    # What waited for another image's turn has been finished with that one.
    late = [image for image in unfinished if not _has_intent(domain, image)]
    return sorted([*finished, *late]), [image for image in unfinished if image not in late], given_up


def _has_intent(domain: Domain, image: ImageId) -> bool:
    record = domain.image(image)
    return record is not None and record.attributes.intent is not None


def _forget_making(context: Context, domain: Domain, image: ImageId) -> None:
    """An image that was made whole needs no word of that any more."""
    with domain_lease(context, domain):
        record = domain.image(image)
        if record is not None and record.published:
            domain.set_attributes(image, msgspec.structs.replace(record.attributes, making=None))


def _forget_tags(context: Context, domain: Domain, seen: ImageRecord) -> None:
    """The tags of volumes that were deleted, where a crash left them."""
    if not _gone(seen):
        return
    with domain_lease(context, domain):
        record = domain.image(seen.id)
        if record is not None and (gone := _gone(record)):
            kept = record.attributes
            for volume in gone:
                kept = kept.without_volume(volume)
            domain.set_attributes(record.id, kept)


def _gone(record: ImageRecord) -> list[VolumeId]:
    """What tags are kept of and is not there, in an image of which everything is known."""
    kept = record.attributes
    if not record.published or record.damaged or kept.intent is not None or kept.making is not None:
        return []
    # What expires is about to come, or to go, by way of others.
    gone = kept.volumes.keys() - record.volumes.keys()
    return [VolumeId(volume) for volume in gone if kept.volumes[volume].expires is None]


def mend_roles(context: Context, domain: Domain, seen: ImageRecord) -> None:
    """Write leaf and internal as they are, where a crash between publishing and writing left them otherwise.

    Nothing here trusts what is written; oVirt does.
    """
    if not _misnamed(seen):
        return
    with domain_lease(context, domain):
        for volume, role in _misnamed(domain.image(seen.id)):
            metadata = msgspec.structs.replace(volume.metadata, role=role)
            domain.rewrite(seen.id, volume.id, metadata)
            log.info("role mended", image=seen.id, volume=volume.id, role=role.value)


def _misnamed(record: ImageRecord | None) -> list[tuple[VolumeRecord, VolumeRole]]:
    """The volumes of a sound image whose written role is not the derived one."""
    if record is None or not record.published or record.damaged or record.attributes.intent is not None:
        return []
    if len(record.leaves()) != 1:
        return []
    roles = [(volume, record.role(volume)) for volume in record.own]
    return [(volume, role) for volume, role in roles if volume.metadata.role is not role]


def _reclaim(domain: Domain, garbage: Garbage, removed: list[str], kept: list[str]) -> int:
    freed = domain.reclaim(garbage)
    (kept if freed is None else removed).append(garbage.path)
    return freed or 0
