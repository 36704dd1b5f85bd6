# SPDX-License-Identifier: Apache-2.0
"""Transfer: uploads and downloads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hsm.operations import chains, transferring
from hsm.operations.base import lock_domain, lock_image, storage_errors
from hsm.operations.describe import transfer_info
from hsm.operations.making import round_up
from hsm.operations.reading import readable_chain
from hsm.paging import Listing
from hsm.services.base import Service, fitting
from hsm.tasks.store import StoreError
from hsm.transfers.states import Event
from hsm.transfers.store import Record
from hsm.transfers.transfers import Live, new_ticket
from libvdsm.api.errors import (
    ImageExists,
    InvalidParameter,
    NotSupported,
    ToolFailed,
    TransferExists,
    Unavailable,
    VolumeExists,
)
from libvdsm.api.transfer import Content, Direction, Transfer, TransferInfo, TransferPage, TransferState
from libvdsm.api.types import (
    Allocation,
    DomainId,
    ImageId,
    TaskInfo,
    TransferId,
    VolumeFormat,
    VolumeId,
)
from libvdsm.declare import Right
from libvdsm.run import CommandError

_VERB = "Transfer.start"


class TransferService(Service, Transfer):
    def start(
        self,
        *,
        domain: DomainId,
        direction: Direction,
        image: ImageId | None = None,
        volume: VolumeId | None = None,
        size: int | None = None,
        name: str | None = None,
        format: VolumeFormat = VolumeFormat.QCOW2,
        allocation: Allocation = Allocation.SPARSE,
        content: Content = Content.DATA,
        description: str | None = None,
        note: str | None = None,
        id: TransferId | None = None,
    ) -> TransferInfo:
        self.context.registry.find(domain)
        if direction is Direction.DOWNLOAD:
            if any((size, name, description)) or content is not Content.DATA:
                raise InvalidParameter(verb=_VERB, reason="size, name, description and content are an upload's")
            if image is None:
                raise InvalidParameter(verb=_VERB, reason="a download needs the image")
            return self._told(self._download(id or TransferId(self.new_id("transfer")), domain, image, volume, note))
        fitting(_VERB, name=name, description=description)
        if size is None:
            raise InvalidParameter(verb=_VERB, reason="an upload needs the size")
        if content is Content.FILE and (format is not VolumeFormat.QCOW2 or allocation is not Allocation.SPARSE):
            raise NotSupported(reason="what travels as a file is sparse qcow2")
        now = time.time()
        record = Record(
            id=id or TransferId(self.new_id("transfer")),
            ticket=new_ticket(),
            direction=direction,
            content=content,
            state=TransferState.STARTING,
            domain=domain,
            image=image or ImageId(self.new_id("image")),
            volume=volume or VolumeId(self.new_id("volume")),
            format=format,
            allocation=allocation,
            size=round_up(size),
            created=now,
            touched=now,
            name=name,
            note=note,
        )
        return self._told(self._upload(record, description, image, volume))

    def _upload(self, record: Record, text: str | None, image: ImageId | None, volume: VolumeId | None) -> Live:
        same = ("direction", "content", "domain", "format", "allocation", "size", "name")
        locks = lock_domain(record.domain), lock_image(record.domain, record.image)
        with self._locked(locks):
            if (known := self._same(record, (*same, *["image"] * bool(image), *["volume"] * bool(volume)))) is not None:
                return known
            opened = self.context.registry.get(record.domain)
            with storage_errors(self.context, record.domain):
                found = opened.image(record.image)
                again = found is not None and chains.arriving(found) and record.volume in found.volumes
                if volume is not None and not again and opened.find_volume(volume) is not None:
                    raise VolumeExists(volume=volume, reason="it is another upload's, or an image's")
                if found is not None and found.published and not again:
                    raise ImageExists(image=record.image, reason="it is not this transfer's")
            return transferring.upload(self.context, record, text)

    def _download(
        self, transfer: TransferId, domain: DomainId, image: ImageId, volume: VolumeId | None, note: str | None
    ) -> Live:
        with self._locked((lock_domain(domain), lock_image(domain, image, shared=True))):
            opened = self.context.registry.get(domain)
            with storage_errors(self.context, domain, image):
                chain = readable_chain(opened, chains.image_of(opened, image), volume)
            now, top = time.time(), chain[0]
            record = Record(
                id=transfer,
                ticket=new_ticket(),
                direction=Direction.DOWNLOAD,
                content=Content.DATA,
                state=TransferState.STARTING,
                domain=domain,
                image=image,
                volume=top.id,
                format=top.metadata.format,
                size=top.metadata.capacity,
                created=now,
                touched=now,
                note=note,
            )
            same = ("direction", "domain", "image", *["volume"] * bool(volume))
            return self._same(record, same) or transferring.download(self.context, record, chain)

    def _same(self, record: Record, members: tuple[str, ...]) -> Live | None:
        """The transfer with this id, if it was asked for with the same words."""
        known = self.context.transfers.find(record.id)
        if known is None:
            return None
        for member in members:
            if (found := getattr(known.record, member)) != getattr(record, member):
                raise TransferExists(transfer=record.id, reason=f"its {member} is {getattr(found, 'value', found)}")
        return known

    def get_info(self, *, transfer: TransferId) -> TransferInfo:
        return self._told(transferring.find(self.context, transfer))

    def list(
        self,
        *,
        domain: DomainId | None = None,
        state: TransferState | None = None,
        filter: str | None = None,
        sort: str | None = None,
        limit: int = 1000,
        start: str | None = None,
    ) -> TransferPage:
        listing = Listing(
            "Transfer.list",
            TransferInfo,
            default="-created",
            filter=filter,
            sort=sort,
            start=start,
            scope=(domain, state),
        )
        # What this caller is told: a filter finds no key that is not shown.
        found = [
            self._told(live)
            for live in self.context.transfers.all()
            if domain in (None, live.record.domain) and state in (None, live.record.state)
        ]
        items, following = listing.page(found, limit)
        return TransferPage(items=items, next=following)

    def checkpoint(self, *, transfer: TransferId, arrived: int) -> TransferInfo:
        live = transferring.find(self.context, transfer)
        if arrived > live.record.size:
            raise InvalidParameter(verb="Transfer.checkpoint", reason=f"its size is {live.record.size}")
        with self._written(), live.turn:
            if not live.record.is_upload or live.record.state is not TransferState.RUNNING:
                raise transferring.wrong(live, "only an upload that runs moves on")
            self.context.transfers.checkpoint(live)
            self.context.transfers.update(live, arrived=max(arrived, live.record.arrived), problem=None)
        return self._told(live)

    def pause(self, *, transfer: TransferId) -> TransferInfo:
        with self._changing(transfer) as live:
            if live.record.state is TransferState.RUNNING:
                transferring.pause(self.context, live)
            elif live.record.state is not TransferState.PAUSED:
                raise transferring.wrong(live, "only one that runs can be paused")
        return self._told(live)

    def resume(self, *, transfer: TransferId) -> TransferInfo:
        with self._changing(transfer) as live:
            if live.record.state in (TransferState.PAUSED, TransferState.INTERRUPTED):
                transferring.resume(self.context, live)
            elif live.record.state is not TransferState.RUNNING:
                raise transferring.wrong(live, "it cannot go on")
        return self._told(live)

    def cancel(self, *, transfer: TransferId) -> TransferInfo:
        with self._changing(transfer) as live:
            if not live.ended:
                transferring.end(self.context, live, Event.CANCEL)
            elif live.record.state is TransferState.FINISHED:
                upload = "the image is there; delete that, if it is not wanted"
                raise transferring.wrong(live, upload if live.record.is_upload else "all of it has been read")
        return self._told(live)

    def finish(self, *, transfer: TransferId, checksum: str | None = None) -> TaskInfo[TransferInfo]:
        return self.submit("Transfer.finish", transfer=transfer, checksum=checksum)

    @contextmanager
    def _changing(self, transfer: TransferId) -> Iterator[Live]:
        live = transferring.find(self.context, transfer)
        with self._locked(transferring.locks(live)), live.turn:
            yield live

    @contextmanager
    def _locked(self, locks: Any) -> Iterator[None]:
        with self._written(), self.parts.tasks.hold(locks, self.context.lease_wait):
            yield

    @contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            raise Unavailable(reason=str(error)) from None
        except CommandError as error:
            raise ToolFailed(tool=error.program, reason=error.reason) from None

    def _told(self, live: Live) -> TransferInfo:
        may = self.caller.connection.right >= Right.OPERATE
        return transfer_info(self.context.transfers, live, key=may)
