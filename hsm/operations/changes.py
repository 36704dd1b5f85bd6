# SPDX-License-Identifier: Apache-2.0
"""Changes of volumes that are there: size, text, legality, and becoming a template.

A change of metadata is one rename, its commit point.  A resize grows the data first and then says so; both steps can
be done again, and a restart does, so an interrupted resize is finished.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import msgspec

from hsm.domains.base import Domain, Held, ImageRecord, VolumeRecord, Wanted
from hsm.formats import description
from hsm.formats.attributes import Intent
from hsm.formats.volume import VolumeMetadata, next_generation
from hsm.operations import chains, describe
from hsm.operations.base import (
    BaseOperation,
    Context,
    domain_lease,
    lock_domain,
    lock_image,
    storage_errors,
    writable,
)
from hsm.operations.cutting import cut
from hsm.operations.encryption import itself, source_of
from hsm.operations.making import qemu_img, qemu_layers, round_up
from hsm.tasks.locks import Locks
from hsm.tasks.manager import Job, Objects
from libvdsm.api.errors import CannotShrink, HasSnapshots, IsTemplate, VolumeDamaged, VolumeHasChildren
from libvdsm.api.event import VolumeChanged
from libvdsm.api.types import ImageId, ImageInfo, VolumeFormat, VolumeInfo, VolumeRole
from libvdsm.declare import ApiError
from libvdsm.log import Log
from libvdsm.run import CommandError

log = Log("hsm.changes")


class _Change(BaseOperation):
    """What all of them share: a volume, its image, and a new form of its metadata.

    ``params.image`` was filled in by the service.
    """

    @property
    def locks(self) -> Locks:
        return lock_domain(self.params.domain), lock_image(self.params.domain, self.params.image)

    @property
    def objects(self) -> Objects:
        return Objects(self.params.domain, self.params.image, self.params.volume)

    def domain(self) -> Domain:
        return self.context.registry.get(self.params.domain)

    def find(self, domain: Domain) -> tuple[ImageRecord, VolumeRecord]:
        record, volume = chains.volume_of(domain, self.params.volume, self.params.image)
        if volume.is_linked:
            raise IsTemplate(image=ImageId(volume.metadata.image))
        chains.settled(record, self.mine)
        return record, volume

    @property
    def mine(self) -> Intent | None:
        """The intent that this operation would write, and so may find."""
        return None

    def is_so(self, volume: VolumeRecord) -> bool:
        """Whether the volume is as asked for already."""
        raise NotImplementedError

    def outcome(self) -> VolumeInfo | None:
        domain = self.domain()
        with storage_errors(self.context, domain.id, self.params.image):
            record, volume = self.find(domain)
            if not self.is_so(volume):
                return None
            return describe.volume_info(domain.id, volume, record.role(volume))

    def changed(self, record: ImageRecord, volume: VolumeRecord) -> VolumeMetadata:
        """The new metadata, or the declared error that says why not."""
        raise NotImplementedError

    def leases(self, record: ImageRecord, volume: VolumeRecord) -> list[Wanted]:
        return [Wanted(volume.id, record.id)]

    def prepare(self, job: Job, domain: Domain, volume: VolumeRecord, held: Held | None) -> None:
        """What comes before the metadata."""

    def take_back(self, domain: Domain, held: Held | None) -> None:
        """What was prepared is not to be: the metadata could not be written."""

    def run(self, job: Job) -> VolumeInfo:
        job.progress("changing the volume")
        domain = self.domain()
        with storage_errors(self.context, domain.id, self.params.image), ExitStack() as leases:
            record, volume = self.find(domain)
            # What can never be is not waited for, and tells why before who.
            self.changed(record, volume)
            held = None
            if wanted := self.leases(record, volume):
                held = domain.acquire(wanted)
                leases.callback(held.release)
            record, volume = self.find(domain)
            chains.expect_generation(volume, self.params.generation)
            self.changed(record, volume)
            self.prepare(job, domain, volume, held)
            try:
                volume = commit_metadata(job, self.context, domain, lambda: self._again(domain, volume))
            except (OSError, ApiError):
                self.take_back(domain, held)
                raise
            record, volume = self.find(domain)
            return describe.volume_info(domain.id, volume, record.role(volume))

    def _again(self, domain: Domain, before: VolumeRecord) -> tuple[VolumeRecord, VolumeMetadata]:
        record, volume = self.find(domain)
        chains.expect_generation(volume, before.metadata.generation)
        return volume, self.changed(record, volume)


def commit_metadata(
    job: Job, context: Context, domain: Domain, decide: Callable[[], tuple[VolumeRecord, VolumeMetadata]]
) -> VolumeRecord:
    """Replace a volume's metadata with what ``decide`` says under the domain's lease."""
    with domain_lease(context, domain, job):
        volume, metadata = decide()
        job.commit()
        domain.rewrite(volume.folder, volume.id, metadata)
    context.events.emit(VolumeChanged(domain=domain.id, image=volume.folder, volume=volume.id))
    return volume


class SetDescription(_Change):
    """Volume.setDescription.  Needs no volume lease: no data is concerned, and the domain's own orders the writers."""

    def leases(self, record: ImageRecord, volume: VolumeRecord) -> list[Wanted]:
        return []

    def is_so(self, volume: VolumeRecord) -> bool:
        return description.read(volume.metadata.description, leaf=True)[1] == (self.params.description or None)

    def changed(self, record: ImageRecord, volume: VolumeRecord) -> VolumeMetadata:
        text = description.write(volume.metadata.description, description=self.params.description)
        return msgspec.structs.replace(volume.metadata, description=text)


class SetLegality(_Change):
    """Volume.setLegality"""

    def is_so(self, volume: VolumeRecord) -> bool:
        return volume.metadata.legality is self.params.legality

    def changed(self, record: ImageRecord, volume: VolumeRecord) -> VolumeMetadata:
        generation = next_generation(volume.metadata.generation)
        return msgspec.structs.replace(volume.metadata, legality=self.params.legality, generation=generation)


class Resize(_Change):
    """Volume.resize"""

    @property
    def resumes(self) -> bool:
        return True

    def is_so(self, volume: VolumeRecord) -> bool:
        capacity = round_up(self.params.capacity)
        return volume.metadata.capacity == capacity and volume.header_capacity in (None, capacity)

    def changed(self, record: ImageRecord, volume: VolumeRecord) -> VolumeMetadata:
        self.resizable(record, volume)
        capacity = round_up(self.params.capacity)
        if volume.metadata.capacity > capacity:
            raise CannotShrink(volume=volume.id, capacity=volume.metadata.capacity)
        growing_to = max(capacity, volume.header_capacity or 0)
        chains.usable(self.domain(), record, chains.chain_of(record, volume), growing_to=growing_to)
        return msgspec.structs.replace(
            volume.metadata,
            capacity=capacity,
            generation=next_generation(volume.metadata.generation),
        )

    def resizable(self, record: ImageRecord, volume: VolumeRecord) -> None:
        """It is the leaf, and no template."""
        if volume.metadata.role is VolumeRole.TEMPLATE:
            raise IsTemplate(image=record.id)
        children = record.children().get(volume.id)
        if children:
            raise VolumeHasChildren(volume=volume.id, children=len(children))
        chains.leaf_of(record)

    def prepare(self, job: Job, domain: Domain, volume: VolumeRecord, held: Held | None) -> None:
        writable(domain)
        source = source_of(self.context, domain, self.find(domain)[0], volume)
        # The data is changed in place, so what has begun is finished.
        job.commit()
        job.progress("growing the data")
        capacity = round_up(self.params.capacity)
        if volume.metadata.format is VolumeFormat.RAW:
            domain.extend_data(volume.folder, volume.id, capacity, volume.metadata.allocation)
            return
        if volume.header_capacity is not None and volume.header_capacity > capacity:
            assert held is not None
            self._forget_growth(domain, volume, capacity, held)
        elif volume.header_capacity is not None and volume.header_capacity < capacity:
            qemu_img(self.context).resize(source, capacity, descriptors=held.descriptors if held else ())
        domain.sync_data(volume.folder, volume.id)

    def take_back(self, domain: Domain, held: Held | None) -> None:
        """A full domain may have had room for the data's growth, and none for the metadata."""
        try:
            volume = self.find(domain)[1]
            if held is not None and (volume.header_capacity or 0) > volume.metadata.capacity:
                self._forget_growth(domain, volume, volume.metadata.capacity, held)
        except (OSError, ApiError, CommandError) as error:
            log.warning("a resize that failed was not taken back", volume=self.params.volume, error=error)

    def _forget_growth(self, domain: Domain, volume: VolumeRecord, capacity: int, held: Held) -> None:
        """Cut off what a resize that did not end has added, which no guest has seen; what holds data is kept."""
        assert volume.header is not None
        source = itself(self.context, domain, self.find(domain)[0], volume)
        end = -(-capacity // volume.header.cluster_size) * volume.header.cluster_size
        if any(extent.end > end for extent in qemu_layers(self.context).data(source)):
            raise VolumeDamaged(
                volume=volume.id,
                reason=f"its header says {volume.header_capacity} bytes and its metadata {volume.metadata.capacity}, "
                "and there is data beyond that; resize it to what its header says",
            )
        cut(self.context, domain, volume, capacity, held)


class MakeTemplate(BaseOperation):
    """Image.makeTemplate without a name: the image's one volume is shared from then on."""

    @property
    def locks(self) -> Locks:
        return lock_domain(self.params.domain), lock_image(self.params.domain, self.params.image)

    @property
    def objects(self) -> Objects:
        return Objects(self.params.domain, self.params.image)

    def outcome(self) -> ImageInfo | None:
        domain = self.context.registry.get(self.params.domain)
        with storage_errors(self.context, domain.id, self.params.image):
            record = chains.image_of(domain, self.params.image)
            leaf = chains.leaf_of(record)
        if leaf.metadata.role is not VolumeRole.TEMPLATE:
            return None
        return describe.image_info(domain.id, record, None, chain=True)

    def run(self, job: Job) -> Any:
        job.progress("sharing the volume")
        domain = self.context.registry.get(self.params.domain)
        with storage_errors(self.context, domain.id, self.params.image), ExitStack() as leases:
            leaf = self._decide(domain)[0]
            leases.callback(domain.acquire([Wanted(leaf.id, self.params.image)]).release)
            commit_metadata(job, self.context, domain, lambda: self._decide(domain))
        return self.outcome()

    def _decide(self, domain: Domain) -> tuple[VolumeRecord, VolumeMetadata]:
        record = chains.image_of(domain, self.params.image)
        leaf = chains.leaf_of(record)
        chain = chains.chain_of(record, leaf)
        chains.usable(domain, record, chain)
        if len(chain) > 1:
            raise HasSnapshots(image=record.id, snapshots=len(chain) - 1)
        metadata = leaf.metadata
        return leaf, msgspec.structs.replace(
            metadata, role=VolumeRole.TEMPLATE, generation=next_generation(metadata.generation)
        )
