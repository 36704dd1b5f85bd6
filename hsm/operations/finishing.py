# SPDX-License-Identifier: Apache-2.0
"""The end of a transfer whose data is all there.

Nobody can write any more: the server is gone, and what it had in memory is stable.  Then the header is inspected and
the checksum compared, if there is one.  The commit point is the metadata that say legal.  Before it a failure leaves
the transfer paused, or interrupted where something that was sent may be lost; after it a restart finds it finished.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import msgspec

from hsm.domains.base import Domain, ImageRecord, VolumeRecord
from hsm.formats.volume import next_generation
from hsm.operations import chains, expiring, transferring
from hsm.operations.base import BaseOperation, Context, domain_lease, storage_errors
from hsm.operations.describe import transfer_info
from hsm.operations.encryption import itself
from hsm.operations.inspecting import inspect, not_whole
from hsm.operations.making import qemu_img
from hsm.tasks.locks import Locks
from hsm.tasks.manager import Job, Objects
from hsm.transfers.states import Event
from libvdsm.api.errors import ChecksumMismatch, TaskStopped, VolumeDamaged
from libvdsm.api.event import VolumeChanged
from libvdsm.api.transfer import Content, TransferInfo, TransferState
from libvdsm.api.types import FileFormat, Legality, VolumeFormat
from libvdsm.declare import ApiError
from libvdsm.log import Log
from libvdsm.run import CommandError

log = Log("hsm.finishing")

_SECTOR = 512
_READY = (TransferState.RUNNING, TransferState.PAUSED)


class FinishTransfer(BaseOperation):
    """Transfer.finish"""

    def __init__(self, context: Context, params: Any) -> None:
        super().__init__(context, params)
        self.live = transferring.find(context, params.transfer)

    @property
    def locks(self) -> Locks:
        return transferring.locks(self.live)

    @property
    def objects(self) -> Objects:
        record = self.live.record
        return Objects(record.domain, record.image, record.volume)

    def outcome(self) -> TransferInfo | None:
        if self.live.record.state is not TransferState.FINISHED:
            return None
        if self.params.checksum and self.live.record.checksum not in (None, self.params.checksum):
            raise ChecksumMismatch(expected=self.params.checksum, found=self.live.record.checksum or "")
        return transfer_info(self.context.transfers, self.live)

    def run(self, job: Job) -> TransferInfo:
        live, transfers = self.live, self.context.transfers
        with live.turn, ExitStack() as undo:
            self._ready()
            transfers.change(live, Event.FINISH)
            undo.push(self._not_finished)
            with ExitStack() as stay, storage_errors(self.context, live.record.domain, live.record.image):
                if self.params.checksum is not None:
                    stay.enter_context(transfers.staying(live))
                job.progress("making it stable")
                self._close()
                checksum = self._upload(job) if live.record.is_upload else self.params.checksum
            undo.pop_all()
            transfers.release(live)
            transfers.change(live, Event.COMPLETE, checksum=checksum)
            return transfer_info(self.context.transfers, live)

    def _ready(self) -> None:
        live = self.live
        state, record = live.record.state, live.record
        whole = not record.is_upload or record.arrived >= record.size
        fit = state in _READY or (state is TransferState.INTERRUPTED and whole)
        if not fit or live.held is None:
            raise transferring.wrong(
                live, "resume it, and send what has not arrived" if not live.ended else "it has ended"
            )

    def _close(self) -> None:
        try:
            self.context.transfers.close(self.live)
        except CommandError:
            self._lost = True
            raise

    _lost = False
    """whether something that was sent may not be there"""

    def _not_finished(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        problem = error.message if isinstance(error, ApiError) and not isinstance(error, TaskStopped) else None
        self.context.transfers.change(self.live, Event.BREAK if self._lost else Event.PAUSE, problem=problem)

    def _upload(self, job: Job) -> str | None:
        """Look at what came, and make it legal; its checksum, if it was compared."""
        record = self.live.record
        domain = self.context.registry.get(record.domain)
        if transferring.is_committed(domain, record):
            # By a try of ours that failed just after: under its lease nobody else makes it so.
            transferring.commit_again(self.context, domain, record)
            return None
        domain.sync_data(record.image, record.volume)
        job.progress("looking at it")
        capacity = self._inspect(domain)
        image, volume = self._sound(domain, capacity)
        self._whole(job, domain, image, volume)
        if self.params.checksum is not None:
            self._compare(job, domain)
        with domain_lease(self.context, domain, job):
            image, volume = self._sound(domain, capacity)
            metadata = msgspec.structs.replace(
                volume.metadata,
                capacity=capacity,
                legality=Legality.LEGAL,
                generation=next_generation(volume.metadata.generation),
            )
            job.commit()
            domain.rewrite(record.image, record.volume, metadata)
            _forget_expiry(domain, image, volume)
        self.context.events.emit(VolumeChanged(domain=record.domain, image=record.image, volume=record.volume))
        checksum: str | None = self.params.checksum
        return checksum

    def _inspect(self, domain: Domain) -> int:
        """The size that the guest sees, of a file that refers to no other.

        What a guest sees of a qcow2 volume was written by our own server into a file of ours: its header, which no
        client reaches, is compared with the metadata, and needs no judges.
        """
        record = self.live.record
        if record.content is Content.DATA and record.format is VolumeFormat.QCOW2:
            return record.size
        descriptor = os.open(domain.data_path(record.image, record.volume), os.O_RDONLY | os.O_CLOEXEC)
        try:
            found = inspect(self.context, descriptor, FileFormat(record.format.value))
        finally:
            os.close(descriptor)
        if found.capacity % _SECTOR or not found.capacity:
            raise VolumeDamaged(
                volume=record.volume, reason=f"its header says {found.capacity} bytes, no whole sectors"
            )
        return found.capacity

    def _whole(self, job: Job, domain: Domain, image: ImageRecord, volume: VolumeRecord) -> None:
        """Nothing is missing of a file that was sent as it is, nor contradicts itself."""
        if self.live.record.content is Content.FILE and volume.metadata.format is VolumeFormat.QCOW2:
            source = itself(self.context, domain, image, volume)
            if said := qemu_img(self.context).check(source, stop=job.stop_asked):
                raise not_whole(said)

    def _sound(self, domain: Domain, capacity: int) -> tuple[ImageRecord, VolumeRecord]:
        """The volume as it lies there, still as illegal as it was made, with nothing wrong in it."""
        record = self.live.record
        image = chains.image_of(domain, record.image)
        volume = image.volumes.get(record.volume)
        reason = "it is not there any more"
        if volume is not None:
            chains.prove(volume)
            changed = msgspec.structs.replace(
                volume, metadata=msgspec.structs.replace(volume.metadata, capacity=capacity)
            )
            reason = chains.wrong_size(changed) or ""
            if record.content is Content.DATA and capacity != record.size:
                reason = f"it has {capacity} bytes, and {record.size} were to come"
            if not chains.gives_up(image, volume):
                reason = "somebody changed it"
        if reason or volume is None:
            raise VolumeDamaged(volume=record.volume, reason=reason)
        return image, volume

    def _compare(self, job: Job, domain: Domain) -> None:
        record = self.live.record
        job.progress("comparing checksums", 0, record.size)
        found = self.context.transfers.checksum(
            self.live, transferring.export(self.context, domain, record, read_only=True), job.check
        )
        if found != self.params.checksum:
            # What is there is of no use, so all of it is to be sent again.
            self.context.transfers.amend(self.live, arrived=0)
            raise ChecksumMismatch(expected=self.params.checksum, found=found)


def _forget_expiry(domain: Domain, image: ImageRecord, volume: VolumeRecord) -> None:
    """A volume that is whole has no time at which it is given up; if that stays, it means nothing."""
    kept = image.attributes.volumes.get(volume.id)
    if kept is None or kept.expires is None:
        return
    try:
        expiring.set_expiry(domain, image, volume, None)
    except OSError as error:
        log.warning("an expiry stays that means nothing", image=image.id, error=error)
