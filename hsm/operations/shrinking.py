# SPDX-License-Identifier: Apache-2.0
"""Making a leaf smaller: what lies beyond the new end is lost, so it is asked for in so many words.

A change in place (``hsm.operations.intents``).  After the intent: the data is cut, then the metadata say so, then the
intent goes.  The commit point is the intent: from then on nobody uses the image before it is done.
"""

from __future__ import annotations

from contextlib import ExitStack

import msgspec

from hsm.domains.base import Domain, Held, Wanted
from hsm.formats.attributes import Shrink
from hsm.formats.volume import next_generation
from hsm.operations import chains, describe, encryption
from hsm.operations.base import Context, domain_lease, storage_errors
from hsm.operations.changes import Resize
from hsm.operations.cutting import cut
from hsm.operations.making import round_up
from hsm.tasks.manager import Job
from libvdsm.api.event import VolumeChanged
from libvdsm.api.types import ImageId, VolumeId, VolumeInfo


def finish(context: Context, job: Job, domain: Domain, image: ImageId, held: Held) -> bool:
    """Do what is left to be done."""
    record = chains.image_of(domain, image)
    intent = record.attributes.intent
    assert isinstance(intent, Shrink)
    volume = record.volumes[VolumeId(intent.volume)]
    job.progress("cutting the data")
    cut(context, domain, volume, intent.capacity, held)
    with domain_lease(context, domain):
        record = chains.image_of(domain, image)
        metadata = record.volumes[volume.id].metadata
        if metadata.capacity != intent.capacity:
            generation = next_generation(metadata.generation)
            domain.rewrite(
                image,
                volume.id,
                msgspec.structs.replace(metadata, capacity=intent.capacity, generation=generation),
            )
        domain.set_attributes(image, msgspec.structs.replace(record.attributes, intent=None))
    context.events.emit(VolumeChanged(domain=domain.id, image=image, volume=volume.id))
    return True


class ShrinkingResize(Resize):
    """Volume.resize with ``shrink``: larger as always, or smaller."""

    @property
    def mine(self) -> Shrink:
        return Shrink(volume=self.params.volume, capacity=round_up(self.params.capacity))

    def outcome(self) -> VolumeInfo | None:
        domain = self.domain()
        with storage_errors(self.context, domain.id, self.params.image):
            if self.find(domain)[0].attributes.intent is not None:
                return None
        return super().outcome()

    def run(self, job: Job) -> VolumeInfo:
        domain = self.domain()
        with storage_errors(self.context, domain.id, self.params.image), ExitStack() as leases:
            record, volume = self.find(domain)
            if record.attributes.intent is None and volume.metadata.capacity <= self.mine.capacity:
                return super().run(job)
            held = domain.acquire([Wanted(volume.id, record.id)])
            leases.callback(held.release)
            encryption.prove_image(self.context, domain, record)
            with domain_lease(self.context, domain, job):
                record, volume = self.find(domain)
                if record.attributes.intent is None:
                    chains.expect_generation(volume, self.params.generation)
                    self.resizable(record, volume)
                    chains.usable(domain, record, chains.chain_of(record, volume))
                    job.commit()
                    domain.set_attributes(record.id, msgspec.structs.replace(record.attributes, intent=self.mine))
            finish(self.context, job, domain, record.id, held)
            record, volume = self.find(domain)
            return describe.volume_info(domain.id, volume, record.role(volume))
