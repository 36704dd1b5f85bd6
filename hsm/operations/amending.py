# SPDX-License-Identifier: Apache-2.0
"""Changing what a qcow2 volume's own header says of its format: its version, upwards.

Commit point: one write of the file's first sector, which storage makes or does not make; what lies behind it means the
same in both versions.  So there is nothing between the two, and no intent.  ``qemu-img amend`` writes the header's
whole cluster, twice, and moves the name of the backing file out of the first sector (seen with strace): a power cut in
the middle of that leaves a volume that has lost what it stands on.

A template's volume is one file in all its clones' folders; its lease is too.
"""

from __future__ import annotations

from contextlib import ExitStack

from hsm.domains import durable
from hsm.domains.base import Domain, ImageRecord, VolumeRecord, Wanted
from hsm.formats import qcow2
from hsm.formats.qcow2 import BadHeader, Header
from hsm.operations import chains, describe
from hsm.operations.base import BaseOperation, domain_lease, lock_domain, lock_image, storage_errors
from hsm.operations.inplace import own_volume
from hsm.tasks.locks import Locks
from hsm.tasks.manager import Job, Objects
from libvdsm.api.errors import CannotChange
from libvdsm.api.event import VolumeChanged
from libvdsm.api.types import Compat, VolumeInfo

_VERSIONS = ((Compat.V2, 2), (Compat.V3, 3))


class AmendVolume(BaseOperation):
    """Volume.amend.  ``params.image`` was filled in by the service."""

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
        chains.settled(record)
        return record, own_volume(domain, record, volume.id)

    def outcome(self) -> VolumeInfo | None:
        domain = self.domain()
        with storage_errors(self.context, domain.id, self.params.image):
            record, volume = self.find(domain)
            if volume.header is None or (self.params.compat, volume.header.version) not in _VERSIONS:
                return None
            return describe.volume_info(domain.id, volume, record.role(volume))

    def run(self, job: Job) -> VolumeInfo:
        job.progress("changing the header")
        domain = self.domain()
        with storage_errors(self.context, domain.id, self.params.image), ExitStack() as leases:
            volume = self._decide(domain)
            leases.callback(domain.acquire([Wanted(volume.id, volume.folder)]).release)
            with domain_lease(self.context, domain):
                volume = self._decide(domain)
                job.commit()
                try:
                    durable.write_into(domain.data_path(volume.folder, volume.id), qcow2.upgraded, qcow2.READ)
                except BadHeader as error:
                    # Before anything was written.
                    raise CannotChange(volume=volume.id, reason=str(error)) from None
            self.context.events.emit(VolumeChanged(domain=domain.id, image=volume.folder, volume=volume.id))
            record, volume = self.find(domain)
            return describe.volume_info(domain.id, volume, record.role(volume))

    def _decide(self, domain: Domain) -> VolumeRecord:
        """The volume, which can be changed so, or the declared error that says why not."""
        record, volume = self.find(domain)
        chains.usable(domain, record, chains.chain_of(record, volume))
        if reason := self._unfit(volume.header):
            raise CannotChange(volume=volume.id, reason=reason)
        return volume

    def _unfit(self, header: Header | None) -> str | None:
        if header is None:
            return "it is raw, and has no version"
        if self.params.compat is Compat.V2:
            return "what version 3 says of zeros and bitmaps cannot be said in version 2; there is no way down"
        if header.snapshots:
            return "it has internal snapshots of qcow2, whose records differ between the versions; remove them"
        return None
