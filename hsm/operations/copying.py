# SPDX-License-Identifier: Apache-2.0
"""Data into and out of a domain: import, export, and a template made from a copy.

An import is a creation that takes long: its volume is published when all its data is on stable storage, and after a
crash before that it is garbage.  A copy's source is leased for reading, and the program that reads carries the lease.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from hsm.domains.base import Domain, Held, ImageRecord, VolumeRecord, Wanted
from hsm.formats import description
from hsm.operations import chains, describe
from hsm.operations.base import (
    BaseOperation,
    Context,
    lock_domain,
    lock_image,
    storage_errors,
)
from hsm.operations.creation import CreateImage, absent
from hsm.operations.inspecting import inspect
from hsm.operations.making import (
    Plan,
    empty_data,
    make_volume,
    plan_volume,
    qemu_img,
    round_up,
)
from hsm.tasks.locks import Locks
from hsm.tasks.manager import Job, Objects
from hsm.tools.qemu_img import Source
from libvdsm.api.errors import (
    CannotShrink,
    FileNotUsable,
    NoSuchVolume,
)
from libvdsm.api.image import ExportInfo
from libvdsm.api.types import (
    Allocation,
    FileFormat,
    ImageInfo,
    VolumeFormat,
    VolumeId,
    VolumeRole,
)

_CHUNK = 4 * 2**20


class ImportImage(CreateImage):
    """Image.import.  ``params.source`` is an open file of ours, closed at the end."""

    def close(self) -> None:
        if self.params.source is not None:
            os.close(self.params.source)

    def difference(self, volume: VolumeRecord) -> str | None:
        if self.params.format is not volume.metadata.format:
            return f"its format is {volume.metadata.format.value}"
        if self.params.capacity and round_up(self.params.capacity) != volume.metadata.capacity:
            return f"it has {volume.metadata.capacity} bytes"
        return None

    def run(self, job: Job) -> Any:
        job.progress("looking at the file")
        domain = self.domain()
        with storage_errors(self.context, self.domain_id, self.image_id), ExitStack() as stack:
            found = inspect(self.context, self.params.source, self.params.source_format)
            source = stack.enter_context(self._readable(job, found.format))
            if source != self.params.source:
                found = inspect(self.context, source, FileFormat(found.format))
            capacity = round_up(self.params.capacity or found.capacity)
            if capacity < found.capacity:
                raise CannotShrink(volume=self.volume_id, capacity=found.capacity)
            outside = Source(f"/dev/fd/{source}", found.format, alone=True)
            fill = copying(job, self.context, domain, outside, capacity, (source,))
            make_volume(job, self.context, domain, lambda: self._plan(domain, capacity), fill, slow=True)
            return self.result(domain, chains.image_of(domain, self.image_id))

    def _plan(self, domain: Domain, capacity: int) -> Plan:
        absent(domain, self.image_id)
        return plan_volume(
            domain=domain.id,
            image=self.image_id,
            volume=self.volume_id,
            capacity=max(capacity, 512),
            format_=self.params.format,
            allocation=self.params.allocation,
            description=description.write(name=self.params.name, description=self.params.description),
        )

    @contextmanager
    def _readable(self, job: Job, found: str) -> Iterator[int]:
        """The file as the copying tool may open it: itself, or a private copy.

        A file whose format can refer to others is only as good as its last inspection while somebody else can still
        write it; and a descriptor of a file that this service may not open itself cannot be handed on by its name.
        """
        source = self.params.source
        if _can_reopen(source) and (found == "raw" or _only_ours(source)):
            yield source
            return
        with tempfile.TemporaryFile(dir=self.context.config.service.state_dir) as private:
            _copy(source, private.fileno(), job)
            yield private.fileno()


def _can_reopen(descriptor: int) -> bool:
    try:
        os.close(os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _only_ours(descriptor: int) -> bool:
    """Whether nobody but this service's user and root can write the file."""
    status = os.fstat(descriptor)
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & 0o022


def _copy(source: int, target: int, job: Job) -> None:
    """Copy the data of a file, leaving out its holes."""
    end = os.fstat(source).st_size
    os.ftruncate(target, end)
    offset = 0
    while offset < end:
        job.check()
        job.progress("taking a private copy", offset, end)
        data = os.pread(source, _CHUNK, offset)
        if not data:
            return
        if data.count(0) != len(data):
            os.pwrite(target, data, offset)
        offset += len(data)


def copying(
    job: Job, context: Context, domain: Domain, source: Source, capacity: int, descriptors: tuple[int, ...]
) -> Callable[[Plan, Held], None]:
    """Fills a volume from a source; the program that copies inherits ``descriptors`` and the new volume's lease."""
    empty = empty_data(context, domain)

    def fill(plan: Plan, held: Held) -> None:
        job.progress("copying", 0, capacity)
        empty(plan, held)
        new = plan.new
        qemu_img(context).convert(
            source,
            domain.data_path(new.image, new.volume),
            new.format.value,
            descriptors=(*descriptors, *held.descriptors),
            direct=domain.capabilities.shared,
            existing=True,
            on_percent=lambda percent: job.progress("copying", int(capacity * percent / 100), capacity),
            stop=job.stop_asked,
        )
        job.progress("writing to stable storage", capacity, capacity)
        domain.sync_data(new.image, new.volume)

    return fill


def readable_chain(domain: Domain, record: ImageRecord, volume: VolumeId | None) -> list[VolumeRecord]:
    """The chain below a volume, or below the leaf, fit to be read."""
    top = chains.leaf_of(record) if volume is None else record.volumes.get(volume)
    if top is None:
        raise NoSuchVolume(domain=domain.id, volume=volume or VolumeId(record.id))
    chain = chains.chain_of(record, top)
    chains.usable(domain, record, chain)
    return chain


def lease_for_reading(domain: Domain, image: ImageRecord, chain: list[VolumeRecord]) -> Held:
    """Shared leases of a whole chain."""
    return domain.acquire([Wanted(volume.id, image.id, shared=True) for volume in chain])


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
            source = Source(domain.data_path(record.id, leaf.id), leaf.metadata.format.value)
            capacity = leaf.metadata.capacity
            fill = copying(job, self.context, domain, source, capacity, held.descriptors)
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
        )


class ExportImage(BaseOperation):
    """Image.export.  ``params.target`` is an open file of ours, closed at the end.

    Nothing on the domain changes; after a crash the file is to be thrown away.
    """

    @property
    def locks(self) -> Locks:
        return (
            lock_domain(self.params.domain),
            lock_image(self.params.domain, self.params.image, shared=True),
        )

    @property
    def objects(self) -> Objects:
        return Objects(self.params.domain, self.params.image, self.params.volume)

    def close(self) -> None:
        if self.params.target is not None:
            os.close(self.params.target)

    def run(self, job: Job) -> ExportInfo:
        domain = self.context.registry.get(self.params.domain)
        with storage_errors(self.context, domain.id, self.params.image), ExitStack() as stack:
            record = chains.image_of(domain, self.params.image)
            chain = readable_chain(domain, record, self.params.volume)
            held = lease_for_reading(domain, record, chain)
            stack.callback(held.release)
            record = chains.image_of(domain, self.params.image)
            top = readable_chain(domain, record, self.params.volume)[0]
            target = stack.enter_context(self._writable(job))
            self._convert(job, domain, top, target, held)
            return ExportInfo(
                format=self.params.format, length=os.fstat(target).st_size, capacity=top.metadata.capacity
            )

    def _convert(self, job: Job, domain: Domain, top: VolumeRecord, target: int, held: Held) -> None:
        capacity = top.metadata.capacity
        job.progress("copying", 0, capacity)
        os.ftruncate(target, 0)
        qemu_img(self.context).convert(
            Source(domain.data_path(self.params.image, top.id), top.metadata.format.value),
            f"/dev/fd/{target}",
            self.params.format.value,
            descriptors=(target, *held.descriptors),
            direct=False,
            existing=False,
            on_percent=lambda percent: job.progress("copying", int(capacity * percent / 100), capacity),
            stop=job.stop_asked,
        )
        job.progress("writing to stable storage", capacity, capacity)
        os.fsync(target)

    @contextmanager
    def _writable(self, job: Job) -> Iterator[int]:
        """The file as the copying tool may open it: itself, or a private one that is copied into it at the end."""
        target = self.params.target
        try:
            os.close(os.open(f"/proc/self/fd/{target}", os.O_RDWR | os.O_CLOEXEC))
        except OSError:
            with tempfile.TemporaryFile(dir=self.context.config.service.state_dir) as private:
                yield private.fileno()
                os.ftruncate(target, 0)
                _copy(private.fileno(), target, job)
                os.fsync(target)
        else:
            yield target


def own_file(descriptor: int, *, write: bool) -> int:
    """A descriptor of our own for a file that a caller passed, fit for the direction."""
    mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
    kind = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISBLK(kind)):
        raise FileNotUsable(reason="it is neither a file nor a block device")
    if mode not in ((os.O_RDWR,) if write else (os.O_RDONLY, os.O_RDWR)):
        raise FileNotUsable(reason=f"it is not open for {'reading and writing' if write else 'reading'}")
    return os.dup(descriptor)
