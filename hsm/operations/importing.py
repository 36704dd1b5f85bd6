# SPDX-License-Identifier: Apache-2.0
"""Data into a domain from a file outside.

An import is a creation that takes long: its volume is published when all its data is on stable storage, and after a
crash before that it is garbage.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from hsm.domains.base import Domain, VolumeRecord
from hsm.formats import description
from hsm.operations import chains, encryption
from hsm.operations.base import storage_errors
from hsm.operations.creation import CreateImage, absent
from hsm.operations.filling import filling
from hsm.operations.inspecting import inspect, not_whole
from hsm.operations.making import Plan, make_volume, plan_volume, qemu_img, round_up
from hsm.operations.outside import copy_private
from hsm.tasks.manager import Job
from hsm.tools.nodes import Source
from libvdsm.api.errors import CannotShrink
from libvdsm.api.types import FileFormat


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
            self._whole(job, source, found.format)
            capacity = round_up(self.params.capacity or found.capacity)
            if capacity < found.capacity:
                raise CannotShrink(volume=self.volume_id, capacity=found.capacity)
            outside = Source(f"/dev/fd/{source}", found.format, alone=True)
            key = encryption.key_of(self.context, self.secret) if self.secret else None
            self.luks = self.new_luks(domain)
            fill = filling(job, self.context, domain, outside, capacity, (source,), key=key)
            make_volume(job, self.context, domain, lambda: self._plan(domain, capacity), fill, slow=True)
            return self.result(domain, chains.image_of(domain, self.image_id))

    def _whole(self, job: Job, source: int, format_: str) -> None:
        """Nothing is missing of the file: what its tables point at beyond its end would be read as zeros."""
        if format_ == FileFormat.RAW.value:
            return
        outside = Source(f"/dev/fd/{source}", format_, alone=True)
        if said := qemu_img(self.context).check(outside, stop=job.stop_asked, descriptors=(source,)):
            raise not_whole(said)

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
            luks=self.luks,
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
            copy_private(source, private.fileno(), job)
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
