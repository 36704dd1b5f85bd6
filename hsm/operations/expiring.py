# SPDX-License-Identifier: Apache-2.0
"""Uploads that nobody went on with, as the collector finds them: on any host, from what is on storage alone.

An upload's volume is illegal from its publication until all of it is there, and says until when that may take.  After
that, and with its lease free, nobody is at work on it.  The commit point is its unpublishing.
"""

from __future__ import annotations

import time

from hsm.domains.base import Domain, ImageRecord, LeaseBusy, Wanted
from hsm.operations import chains
from hsm.operations.base import Context, domain_lease, lock_image
from hsm.operations.deletion import give_back
from hsm.tasks.manager import Job
from libvdsm.api.event import ImageDeleted
from libvdsm.api.types import ImageId
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
            held = domain.acquire([Wanted(volume.id, image) for volume in record.own])
        except LeaseBusy:
            return []
        try:
            with domain_lease(context, domain):
                record = domain.image(image)
                if record is None or not is_due(record):
                    return []
                left = domain.unpublish_image(image, wipe=False)
        finally:
            held.release()
        log.info("an upload was given up", domain=domain.id, image=image)
        context.events.emit(ImageDeleted(domain=domain.id, image=image))
        give_back(domain, left)
    return [f"images/{image}"]
