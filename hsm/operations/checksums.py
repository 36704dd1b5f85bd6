# SPDX-License-Identifier: Apache-2.0
"""The checksum of what a guest sees, whatever the format it is stored in.

Nothing on the domain changes.  The volumes are leased for reading, and the program that reads them carries the leases.
"""

from __future__ import annotations

from contextlib import ExitStack

from hsm.operations import chains
from hsm.operations.base import BaseOperation, Context, lock_domain, lock_image, storage_errors
from hsm.operations.encryption import readable_source
from hsm.operations.filling import Meter
from hsm.operations.reading import lease_for_reading, readable_chain
from hsm.tasks.locks import Locks
from hsm.tasks.manager import Job, Objects
from hsm.tools import blockhash
from hsm.tools.copying import Course
from hsm.tools.nodes import Source
from hsm.tools.qemu_nbd import QemuNbd
from libvdsm.api.errors import NotSupported
from libvdsm.api.image_copies import ChecksumInfo


def compute(
    context: Context,
    source: Source,
    course: Course,
    *,
    descriptors: tuple[int, ...],
    block_size: int = blockhash.BLOCK_SIZE,
) -> ChecksumInfo:
    """Of a volume and all below it."""
    if not QemuNbd.available():
        raise NotSupported(reason="checksums need qemu-nbd and libnbd's Python module (python3-libnbd) on this host")
    nbd = QemuNbd(context.runner, deadline=context.config.storage.tool_deadline)
    with nbd.reading(source, descriptors=descriptors, stop=course.stop) as disk:
        checksum = blockhash.of_disk(disk, block_size, course.on_percent)
        return ChecksumInfo(
            algorithm=blockhash.ALGORITHM, block_size=block_size, checksum=checksum, capacity=disk.capacity
        )


class ChecksumImage(BaseOperation):
    """Image.checksum"""

    @property
    def locks(self) -> Locks:
        return lock_domain(self.params.domain), lock_image(self.params.domain, self.params.image, shared=True)

    @property
    def objects(self) -> Objects:
        return Objects(self.params.domain, self.params.image, self.params.volume)

    def run(self, job: Job) -> ChecksumInfo:
        domain = self.context.registry.get(self.params.domain)
        with storage_errors(self.context, domain.id, self.params.image), ExitStack() as leases:
            record = chains.image_of(domain, self.params.image)
            held = lease_for_reading(domain, record, readable_chain(domain, record, self.params.volume))
            leases.callback(held.release)
            record = chains.image_of(domain, self.params.image)
            top = readable_chain(domain, record, self.params.volume)[0]
            capacity = top.metadata.capacity
            return compute(
                self.context,
                readable_source(self.context, domain, record, top),
                Meter(job, capacity).course("reading", capacity),
                descriptors=held.descriptors,
                block_size=self.params.block_size,
            )
