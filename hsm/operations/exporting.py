# SPDX-License-Identifier: Apache-2.0
"""Data out of a domain, into a file outside.

The source is leased for reading, and the program that reads carries the lease.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from hsm.domains.base import Domain, Held, VolumeRecord
from hsm.operations import chains
from hsm.operations.base import BaseOperation, full, lock_domain, lock_image, storage_errors
from hsm.operations.making import qemu_img
from hsm.operations.outside import copy_private
from hsm.operations.reading import lease_for_reading, readable_chain
from hsm.tasks.locks import Locks
from hsm.tasks.manager import Job, Objects
from hsm.tools.qemu_img import Source
from libvdsm.api.errors import FileNotUsable
from libvdsm.api.image import ExportInfo
from libvdsm.run import CommandError


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
            stack.enter_context(_outside())
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
                copy_private(private.fileno(), target, job)
                os.fsync(target)
        else:
            yield target


@contextmanager
def _outside() -> Iterator[None]:
    """What is full is not the domain: nothing is written there."""
    try:
        yield
    except (OSError, CommandError) as error:
        if reason := full(error):
            raise FileNotUsable(reason=f"{reason} where it is written; make room there, and export again") from None
        raise
