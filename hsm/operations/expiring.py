# SPDX-License-Identifier: Apache-2.0
"""Uploads that nobody went on with, as the collector finds them: on any host, from what is on storage alone.

An upload's volume is illegal from its publication until all of it is there, and says until when that may take.  After
that, and with its lease free, nobody is at work on it.  The commit point is its unpublishing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import msgspec

from hsm.domains.base import Domain, ImageRecord, LeaseBusy, VolumeRecord, Wanted
from hsm.formats.attributes import VolumeAttributes
from hsm.operations import chains
from hsm.operations.base import Context, domain_lease, lock_image
from hsm.operations.deletion import give_back
from hsm.tasks.manager import Job
from libvdsm.api.event import ImageDeleted
from libvdsm.api.types import ImageId, VolumeId
from libvdsm.log import Log

log = Log("hsm.expiring")


def is_due(record: ImageRecord) -> bool:
    """Whether an image's upload has had its time."""
    volume = chains.arriving(record) if record.published else None
    expires = chains.gives_up(record, volume) if volume else None
    return expires is not None and expires < time.time()


def give_up(context: Context, job: Job, domain: Domain, image: ImageId) -> list[str]:
    """Give an upload back, unless somebody holds it: what was removed."""
    with job.trying((lock_image(domain.id, image),)) as taken:
        record = domain.image(image) if taken else None
        if record is None or not is_due(record):
            return []
        try:
            if not _unpublish(context, domain, record, is_due):
                return []
        except LeaseBusy:
            return []
        log.info("an upload was given up", domain=domain.id, image=image)
    return [f"images/{image}"]


def clear(context: Context, domain: Domain, image: ImageId, volume: VolumeId) -> None:
    """Give back what a start of this very upload left that failed just after its commit point.  Raises ``LeaseBusy``.

    No transfer knows it, so nobody could go on with it.
    """
    record = domain.image(image)
    if record is not None and record.published and _is_of(record, volume):
        _unpublish(context, domain, record, lambda again: _is_of(again, volume))


def _is_of(record: ImageRecord, volume: VolumeId) -> bool:
    arriving = chains.arriving(record)
    return arriving is not None and arriving.id == volume


def _unpublish(context: Context, domain: Domain, record: ImageRecord, wanted: Callable[[ImageRecord], bool]) -> bool:
    """Under its lease and the domain's, if it is still wanted then: whether it was."""
    held = domain.acquire([Wanted(volume.id, record.id) for volume in record.own])
    try:
        with domain_lease(context, domain):
            again = domain.image(record.id)
            if again is None or not wanted(again):
                return False
            left = domain.unpublish_image(record.id, wipe=False)
    finally:
        held.release()
    context.events.emit(ImageDeleted(domain=domain.id, image=record.id))
    give_back(domain, left)
    return True


def is_stale(record: ImageRecord) -> bool:
    """Whether something says when it expires that does not."""
    return any(_stale(record))


def forget(context: Context, domain: Domain, image: ImageId) -> None:
    """Take away expiries that mean nothing, as a failure just after a finishing leaves them."""
    with domain_lease(context, domain):
        record = domain.image(image)
        while record is not None and (volume := next(_stale(record), None)) is not None:
            set_expiry(domain, record, volume, None)
            record = domain.image(image)


def _stale(record: ImageRecord) -> Iterator[VolumeRecord]:
    for id_, kept in record.attributes.volumes.items():
        volume = record.volumes.get(VolumeId(id_))
        if kept.expires is not None and volume is not None and chains.gives_up(record, volume) is None:
            yield volume


def set_expiry(domain: Domain, image: ImageRecord, volume: VolumeRecord, expires: float | None) -> None:
    kept = msgspec.structs.replace(image.attributes.volumes.get(volume.id, VolumeAttributes()), expires=expires)
    volumes = {**image.attributes.volumes, volume.id: kept}
    if kept == VolumeAttributes():
        del volumes[volume.id]
    domain.set_attributes(image.id, msgspec.structs.replace(image.attributes, volumes=volumes))
