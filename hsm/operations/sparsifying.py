# SPDX-License-Identifier: Apache-2.0
"""Giving back the space of what reads as zeros in an image's layers, in place.

1. Zeros in the file become holes of the file: not a byte of it changes, whatever its format.
2. The tables of a qcow2 file are made to say of clusters which are holes that they are zeros, so that those who copy
   or measure it know without reading; and clusters of which they said so become holes.

No step changes what anybody reads, in this volume or in those above it, so no order among them has to be kept, there is
no commit point and no intent, and it can be stopped anywhere (``docs/decisions/0020-sparsifying.md``).  Bitmaps are not
touched.  Whoever does this holds the layers' leases exclusively: the tables are not changed under a program that keeps
them in memory.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack

from hsm.domains import durable
from hsm.domains.base import Domain, ImageRecord, VolumeRecord, Wanted
from hsm.formats import clusters
from hsm.formats.qcow2 import BadHeader, Header
from hsm.operations import chains, describe, encryption
from hsm.operations.base import BaseOperation, domain_lease, lock_domain, lock_image, storage_errors
from hsm.operations.filling import Meter
from hsm.operations.inplace import own_volume, readable
from hsm.tasks.locks import Locks
from hsm.tasks.manager import Job, Objects
from hsm.tools import holes
from hsm.tools.copying import Course
from libvdsm.api.errors import CannotChange, ImageInUse, NotSupported, VolumeDamaged
from libvdsm.api.event import VolumeChanged
from libvdsm.api.image_space import SparsifyInfo
from libvdsm.api.types import Allocation
from libvdsm.run import CommandStopped

_CANNOT = frozenset({errno.EOPNOTSUPP, errno.ENOSYS})
_SMALLEST = 4096
"""Holes are not made smaller, however small the clusters are: storage gives back no less."""


class SparsifyImage(BaseOperation):
    """Image.sparsify"""

    @property
    def locks(self) -> Locks:
        return lock_domain(self.params.domain), lock_image(self.params.domain, self.params.image)

    @property
    def objects(self) -> Objects:
        return Objects(self.params.domain, self.params.image, self.params.volume)

    def run(self, job: Job) -> SparsifyInfo:
        job.progress("looking at the image")
        domain = self.context.registry.get(self.params.domain)
        image = self.params.image
        with storage_errors(self.context, domain.id, image), ExitStack() as leases:
            layers = self._layers(domain, chains.image_of(domain, image))
            leases.callback(domain.acquire([Wanted(layer.id, image) for layer in layers]).release)
            leased = {layer.id for layer in layers}
            # Nothing of the domain's own is changed; whoever may not change it changes no data of it either.
            with domain_lease(self.context, domain):
                layers = self._layers(domain, chains.image_of(domain, image))
                if late := [layer.id for layer in layers if layer.id not in leased]:
                    raise ImageInUse(image=image, volume=late[0], holder="whoever just made a snapshot of it")
            encryption.prove_image(self.context, domain, chains.image_of(domain, image))
            freed = self._all(job, domain, layers)
            record = chains.image_of(domain, image)
            return SparsifyInfo(freed=freed, image=describe.image_info(domain.id, record, None, chain=True))

    def _layers(self, domain: Domain, record: ImageRecord) -> list[VolumeRecord]:
        """The layers that are to be looked at, or the declared error that says why none is."""
        chains.settled(record)
        chain = chains.chain_of(record, chains.leaf_of(record))
        chains.usable(domain, record, chain)
        if self.params.volume is None:
            layers = [volume for volume in chain if not volume.is_linked]
        else:
            layers = [own_volume(domain, record, self.params.volume)]
        sparse = [layer for layer in layers if layer.metadata.allocation is not Allocation.PREALLOCATED]
        if not sparse:
            raise CannotChange(volume=layers[0].id, reason="it is preallocated, and its space is what it was made for")
        return sparse

    def _all(self, job: Job, domain: Domain, layers: list[VolumeRecord]) -> int:
        """Bytes that came back."""
        for layer in layers:
            # Tables that contradict themselves may lie in what is somebody's data.
            readable(self.context, domain, layer, job)
        meter = Meter(job, sum(layer.length for layer in layers))
        freed = 0
        for layer in layers:
            course = meter.course("looking for zeros", layer.length, self.params.rate)
            try:
                freed += sparsify(domain.data_path(layer.folder, layer.id), layer.header, course)
            except BadHeader as error:
                raise VolumeDamaged(volume=layer.id, reason=str(error)) from None
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise
                reason = "the file system beneath the domain makes no holes in files"
                raise NotSupported(reason=reason) from None
            self.context.events.emit(VolumeChanged(domain=domain.id, image=layer.folder, volume=layer.id))
        return freed


def sparsify(path: str, header: Header | None, course: Course) -> int:
    """Give back what a volume's file does not need, and have that stable: how many bytes came back.

    ``header`` of a qcow2 file.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        # Space that nobody has asked the storage for yet is counted only then; and what was written by somebody whom a
        # power cut might take back is not relied upon.
        os.fsync(descriptor)
        before = os.fstat(descriptor).st_blocks
        block = min(holes.BLOCK, max(_SMALLEST, header.cluster_size)) if header else holes.BLOCK
        holes.dig(descriptor, block=block, on_percent=course.on_percent, stop=course.stop, rate=course.rate)
        if header is not None and clusters.can_tell(header):
            tell(descriptor, header, course.stop)
        os.fsync(descriptor)
        return max(0, before - os.fstat(descriptor).st_blocks) * 512
    finally:
        os.close(descriptor)


def tell(descriptor: int, header: Header, stop: Callable[[], bool]) -> None:
    """Have a qcow2 file's tables say which of its clusters are zeros."""
    is_hole = holes.Holes(descriptor)
    length = os.fstat(descriptor).st_size
    found = clusters.tables(header, length, lambda offset, count: os.pread(descriptor, count, offset))
    for offset, table in found:
        if stop():
            raise CommandStopped
        changes, unused = clusters.zeros(table, header.cluster_size, is_hole)
        for place, entries in changes:
            durable.write_at(descriptor, entries, offset + place)
        for place in unused:
            holes.punch(descriptor, place, place + header.cluster_size)
