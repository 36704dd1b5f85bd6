# SPDX-License-Identifier: Apache-2.0
"""Copying images: whole ones, kept or collapsed, and single states, within a domain and between two.

Commit point: the publication of the copy's newest volume (``hsm.operations.chain_making``).  The source is leased for
reading from begin to end.  After a crash: published, it is done; else there is garbage, and nothing was changed.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from hsm.domains.base import Domain, ImageRecord, VolumeRecord
from hsm.formats import description
from hsm.operations import chains, describe, encryption
from hsm.operations.base import BaseOperation, Context, lock_domain, lock_image, storage_errors
from hsm.operations.copying import Copying, Wish
from hsm.operations.creation import CreateImage, absent
from hsm.operations.filling import filling
from hsm.operations.layers import Form, Layer, Selection, lay_out, refuse_unfit, select
from hsm.operations.making import Plan, make_volume, plan_volume
from hsm.operations.reading import lease_for_reading, readable_chain
from hsm.tasks.locks import Locks
from hsm.tasks.manager import Job, Objects
from libvdsm.api.errors import ImageExists, VolumeExists
from libvdsm.api.image_copies import CopyInfo
from libvdsm.api.types import Allocation, DomainId, ImageInfo, VolumeFormat, VolumeId, VolumeRole


class CopyImage(BaseOperation):
    """Image.copy.  ``params.to``, ``id`` and ``volumes`` were filled in by the service."""

    verb = "Image.copy"

    @property
    def locks(self) -> Locks:
        given = self.params
        domains = {lock_domain(given.domain), lock_domain(given.to)}
        return (
            *domains,
            lock_image(given.domain, given.image, shared=True),
            lock_image(given.to, given.id),
            *([encryption.lock_secret(given.secret, shared=True)] if given.secret else []),
        )

    @property
    def objects(self) -> Objects:
        return Objects(self.params.to, self.params.id, self.params.volumes[-1])

    @property
    def form(self) -> Form:
        given = self.params
        return Form(given.format, given.allocation, given.cluster_size, given.compress, given.secret, given.decrypt)

    def outcome(self) -> CopyInfo | None:
        """What there is of the copy tells; the source may be another by now."""
        target = self.context.registry.get(self.params.to)
        self.context.registry.find(self.params.domain)
        with storage_errors(self.context, target.id, self.params.id):
            record = target.image(self.params.id)
            if record is None or not record.published:
                return None
            if {volume.id for volume in record.own} != set(self.params.volumes):
                raise ImageExists(image=record.id, reason="it has other volumes")
            leaf = chains.leaf_of(record)
            if reason := self._difference(leaf) or self._difference_in_secret(record):
                raise VolumeExists(volume=leaf.id, reason=reason)
            return CopyInfo(image=describe.image_info(target.id, record, None, chain=True))

    def _difference(self, leaf: VolumeRecord) -> str | None:
        """How a copy that is there differs from what is asked for, as far as the source is still there to tell."""
        if self.params.format not in (None, leaf.metadata.format):
            return f"its format is {leaf.metadata.format.value}"
        wanted = self._source_of(self.context.registry.get(self.params.domain))
        if wanted is not None and wanted.metadata.capacity != leaf.metadata.capacity:
            return f"it has {leaf.metadata.capacity} bytes"
        return None

    def _difference_in_secret(self, record: ImageRecord) -> str | None:
        found, given = record.attributes.secret, self.params
        if given.decrypt and found is not None:
            return "it is encrypted"
        return "it is not encrypted with that secret" if given.secret not in (None, found) else None

    def _source_of(self, domain: Domain) -> VolumeRecord | None:
        """The volume whose state is copied, if it can be found."""
        record = domain.image(self.params.image)
        if record is None or record.damaged:
            return None
        if self.params.volume is not None:
            return record.volumes.get(self.params.volume)
        return next(iter(record.leaves()), None)

    def select(self, domain: Domain) -> Selection:
        with storage_errors(self.context, domain.id, self.params.image):
            selection = select(domain, self.params.image, self.params.volume, collapse=self.params.collapse)
        refuse_unfit(self.verb, selection, self.form)
        return selection

    def run(self, job: Job) -> CopyInfo:
        job.progress("looking at the image")
        given = self.params
        source, target = self.context.registry.get(given.domain), self.context.registry.get(given.to)
        place = (target.id, given.id)

        def layers(selection: Selection) -> list[Layer]:
            return lay_out(selection, self.form, place, given.volumes, name=given.name)

        with storage_errors(self.context, source.id, given.image), ExitStack() as leases:
            selection = self.select(source)
            held = lease_for_reading(source, selection.record, selection.chain)
            leases.callback(held.release)
            copying = Copying(self.context, source, target, lambda: self.select(source), layers, given.volumes)
            checksum = copying.run(job, held, Wish(given.rate, given.checksum))
        with storage_errors(self.context, target.id, given.id):
            record = chains.image_of(target, given.id)
            return CopyInfo(image=describe.image_info(target.id, record, None, chain=True), checksum=checksum)


class _VolumesCopy:
    """Volume.copy's parameters under the names that Image.copy has for them."""

    def __init__(self, params: Any) -> None:
        self.domain: DomainId = params.domain
        self.image = params.image
        self.volume = params.volume
        self.collapse = True
        self.name = params.name
        self.to = params.to
        self.format = params.format
        self.allocation = params.allocation
        self.cluster_size = params.cluster_size
        self.compress = params.compress
        self.rate = params.rate
        self.checksum = params.checksum
        self.secret = params.secret
        self.decrypt = params.decrypt
        self.id = params.to_image
        self.volumes: list[VolumeId] = [params.id]


class CopyVolume(CopyImage):
    """Volume.copy"""

    verb = "Volume.copy"

    def __init__(self, context: Context, params: Any) -> None:
        super().__init__(context, _VolumesCopy(params))


class CopyTemplate(CreateImage):
    """Image.makeTemplate with a name: the image's present state as a new template of one volume."""

    def __init__(self, context: Context, params: Any) -> None:
        BaseOperation.__init__(self, context, params)
        self.domain_id, self.image_id, self.volume_id = params.domain, params.id, params.volume

    @property
    def locks(self) -> Locks:
        return (*super().locks, lock_image(self.domain_id, self.params.image, shared=True))

    def difference(self, volume: VolumeRecord) -> str | None:
        return None if volume.metadata.role is VolumeRole.TEMPLATE else "it is no template"

    def run(self, job: Job) -> ImageInfo:
        job.progress("copying")
        domain = self.domain()
        with storage_errors(self.context, self.domain_id, self.params.image), ExitStack() as leases:
            record = chains.image_of(domain, self.params.image)
            held = lease_for_reading(domain, record, readable_chain(domain, record, None))
            leases.callback(held.release)
            record = chains.image_of(domain, self.params.image)
            leaf = readable_chain(domain, record, None)[0]
            source = encryption.readable_source(self.context, domain, record, leaf)
            capacity = leaf.metadata.capacity
            self.luks = encryption.luks_on(self.context, domain, record, leaf)
            fill = filling(job, self.context, domain, source, capacity, held.descriptors, key=source.key)
            make_volume(job, self.context, domain, lambda: self._plan(domain, leaf), fill, slow=True)
            return describe.image_info(domain.id, chains.image_of(domain, self.image_id), None, chain=True)

    def _plan(self, domain: Domain, leaf: VolumeRecord) -> Plan:
        absent(domain, self.image_id)
        return plan_volume(
            domain=domain.id,
            image=self.image_id,
            volume=self.volume_id,
            capacity=leaf.metadata.capacity,
            format_=VolumeFormat.QCOW2,
            allocation=Allocation.SPARSE,
            description=description.write(leaf.metadata.description, name=self.params.name, snapshot=""),
            role=VolumeRole.TEMPLATE,
            luks=self.luks,
        )
