# SPDX-License-Identifier: Apache-2.0
"""Transfers on storage: an upload's volume is published illegal, and made legal when all of it is there.

Starting an upload makes garbage first, and publishes last, as every creation does; with the volume goes the time at
which it is given up, kept in the image's attributes.  ``finish`` has one commit point, the metadata that say legal.
Until then the volume is leased, by this service and by the server that writes it; and who finds it illegal, out of
time, never changed, and its lease free, may give it back.  A download leases the chain that it reads.

Where a crash leaves a transfer: before publication, nowhere; after it, interrupted; after the commit point, finished.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace

import msgspec

from hsm.domains.base import Domain, Held, LeaseBusy, VolumeRecord, Wanted
from hsm.formats import description
from hsm.formats.attributes import Attributes, VolumeAttributes
from hsm.formats.luks import Luks
from hsm.operations import chains, expiring
from hsm.operations.base import Context, domain_lease, lock_domain, lock_image, storage_errors
from hsm.operations.creation import absent
from hsm.operations.deletion import give_back
from hsm.operations.encryption import new_luks, prove_keys, source_of
from hsm.operations.making import Plan, empty_data, plan_volume
from hsm.operations.reading import lease_for_reading, readable_chain
from hsm.tasks.locks import Locks
from hsm.tools.nbd_export import Export
from hsm.tools.nodes import Source
from hsm.transfers.states import Event
from hsm.transfers.store import Record
from hsm.transfers.transfers import Live
from libvdsm.api.errors import (
    NoSuchImage,
    NoSuchTransfer,
    NoSuchVolume,
    TransferStateWrong,
    VolumeDamaged,
)
from libvdsm.api.event import ImageDeleted, VolumeCreated
from libvdsm.api.transfer import Content, TransferState
from libvdsm.api.types import Allocation, Legality, TransferId
from libvdsm.declare import ApiError
from libvdsm.log import Log
from libvdsm.run import CommandError

log = Log("hsm.transferring")

_SECTOR = 512
_DYING = 2.0
_MOMENT = 0.01
_RENEWALS = 24
"""So often while a transfer goes on for as long as it would be kept without."""
_READY = (TransferState.RUNNING, TransferState.PAUSED)


def find(context: Context, transfer: TransferId) -> Live:
    live = context.transfers.find(transfer)
    if live is None:
        raise NoSuchTransfer(transfer=transfer)
    return live


def locks(live: Live) -> Locks:
    """What somebody who changes a transfer's state needs."""
    record = live.record
    return lock_domain(record.domain), lock_image(record.domain, record.image, shared=not record.is_upload)


def wrong(live: Live, reason: str) -> TransferStateWrong:
    return TransferStateWrong(transfer=live.record.id, state=live.record.state.value, reason=reason)


# ---- beginning


def upload(context: Context, record: Record, text: str | None) -> Live:
    """Make the volume of a new upload, and open it."""
    domain = context.registry.get(record.domain)
    with storage_errors(context, record.domain, record.image), ExitStack() as undo:
        expiring.clear(context, domain, record.image, record.volume)
        live = context.transfers.begin(record)
        undo.callback(context.transfers.drop, live)
        live.held = _publish(context, domain, record, text)
        undo.callback(_undo, context, domain, live)
        context.events.emit(VolumeCreated(domain=record.domain, image=record.image, volume=record.volume))
        context.transfers.open(live, export(context, domain, record, fresh=True))
        undo.pop_all()
    return live


def download(context: Context, record: Record, chain: list[VolumeRecord]) -> Live:
    """Open what is to be read; ``chain`` as it was seen."""
    domain = context.registry.get(record.domain)
    with storage_errors(context, record.domain, record.image), ExitStack() as undo:
        image = chains.image_of(domain, record.image)
        held = lease_for_reading(domain, image, chain)
        undo.callback(held.release)
        readable_chain(domain, chains.image_of(domain, record.image), record.volume)
        live = context.transfers.begin(record, held)
        undo.callback(context.transfers.drop, live)
        context.transfers.open(live, export(context, domain, record))
        undo.pop_all()
    return live


def _publish(context: Context, domain: Domain, record: Record, text: str | None) -> Held:
    """The volume, illegal, with the time at which it is given up; its lease."""
    expires = record.created + context.config.transfer.expiry
    luks = new_luks(context, record.secret)
    with ExitStack() as undo:
        with ExitStack() as lease:
            lease.enter_context(domain_lease(context, domain))
            absent(domain, record.image)
            plan = _plan(record, text, luks)
            undo.callback(_abandon, context, domain, plan)
            held = domain.begin_volume(plan.new)
            undo.callback(held.release)
            if record.allocation is Allocation.PREALLOCATED:
                lease.close()
            if record.content is Content.FILE:
                domain.make_data(plan.new, plan.content)
            else:
                empty_data(context, domain)(plan, held)
            if record.allocation is Allocation.PREALLOCATED:
                lease.enter_context(domain_lease(context, domain))
                absent(domain, record.image)
            kept = Attributes(volumes={record.volume: VolumeAttributes(expires=expires)}, secret=record.secret)
            domain.set_attributes(record.image, kept)
            domain.publish(record.image, record.volume, plan.metadata)
        undo.pop_all()
    return held


def _plan(record: Record, text: str | None, luks: Luks | None) -> Plan:
    plan = plan_volume(
        domain=record.domain,
        image=record.image,
        volume=record.volume,
        capacity=record.size,
        format_=record.format,
        allocation=record.allocation,
        description=description.write(name=record.name, description=text),
        luks=luks,
    )
    metadata = msgspec.structs.replace(plan.metadata, legality=Legality.ILLEGAL)
    if record.content is Content.FILE:
        # Its header comes from outside, and so does its size for the guest.
        return replace(plan, new=replace(plan.new, length=record.size), metadata=metadata, content=[])
    return replace(plan, metadata=metadata)


def _abandon(context: Context, domain: Domain, plan: Plan) -> None:
    try:
        with domain_lease(context, domain):
            domain.abandon(plan.new.image, plan.new.volume)
    except (OSError, ApiError) as error:
        log.warning("left for the collector", image=plan.new.image, volume=plan.new.volume, error=error)


def export(context: Context, domain: Domain, record: Record, *, read_only: bool = False, fresh: bool = False) -> Export:
    """What is served of a transfer.  ``fresh``: it was just made, with the secret that there is."""
    sparse = record.allocation is Allocation.SPARSE
    if record.content is Content.FILE:
        source = Source(domain.data_path(record.image, record.volume), "raw")
    else:
        image = chains.image_of(domain, record.image)
        source = source_of(context, domain, image, image.volumes[record.volume])
        if not fresh:
            # The server answers before it opens what it serves, so nobody would be told.
            prove_keys(context, source)
    return Export(source, read_only=read_only or not record.is_upload, sparse=sparse)


# ---- going on


def resume(context: Context, live: Live) -> None:
    """Open a transfer again.  Where its image is gone for good it has failed."""
    record = live.record
    with storage_errors(context, record.domain, record.image), live.turn:
        domain = context.registry.get(record.domain)
        try:
            hold(domain, live)
            _fit(domain, record)
        except (NoSuchImage, NoSuchVolume) as error:
            _give_up(context, live, error)
            raise
        context.transfers.open(live, export(context, domain, record))


def _give_up(context: Context, live: Live, error: ApiError) -> None:
    context.transfers.halt(live)
    context.transfers.release(live)
    context.transfers.change(live, Event.FAIL, problem=error.message)


def hold(domain: Domain, live: Live) -> None:
    """Have the leases of a transfer that goes on."""
    record = live.record
    if live.held is not None:
        return
    image = chains.image_of(domain, record.image)
    if not record.is_upload:
        live.held = lease_for_reading(domain, image, readable_chain(domain, image, record.volume))
    elif record.volume not in image.volumes:
        raise NoSuchVolume(domain=record.domain, volume=record.volume)
    else:
        live.held = domain.acquire([Wanted(record.volume, record.image)])


def _fit(domain: Domain, record: Record) -> None:
    """What is on storage is what the transfer left there."""
    image = chains.image_of(domain, record.image)
    if not record.is_upload:
        readable_chain(domain, image, record.volume)
        return
    volume = image.volumes.get(record.volume)
    if volume is None:
        raise NoSuchVolume(domain=record.domain, volume=record.volume)
    if not chains.gives_up(image, volume):
        raise VolumeDamaged(volume=record.volume, reason="somebody changed it since")
    if record.content is Content.DATA:
        chains.prove(volume)
        if reason := chains.wrong_size(volume):
            raise VolumeDamaged(volume=volume.id, reason=reason)


def pause(context: Context, live: Live) -> None:
    """Close a transfer.  What it has told its clients of is stable, or it is interrupted."""
    with live.turn:
        try:
            context.transfers.close(live)
        except CommandError as error:
            context.transfers.change(live, Event.BREAK, problem=str(error))
            raise
        context.transfers.change(live, Event.PAUSE, problem=live.record.problem)


# ---- ending


def end(context: Context, live: Live, event: Event) -> None:
    """Give a transfer up.  An upload's image is unpublished, which is the commit point."""
    record = live.record
    with storage_errors(context, record.domain, record.image), live.turn:
        if record.is_upload:
            domain = context.registry.get(record.domain)
            try:
                hold(domain, live)
            except (NoSuchImage, NoSuchVolume):
                log.info("its image is gone already", id=record.id)
            context.transfers.halt(live)
            _unpublish(context, domain, live)
        else:
            context.transfers.halt(live)
            context.transfers.release(live)
        context.transfers.change(live, event)


def _unpublish(context: Context, domain: Domain, live: Live) -> None:
    """Give an upload's volume back, if it is still one, and then its lease."""
    record = live.record
    left = None
    try:
        with domain_lease(context, domain):
            image = domain.image(record.image)
            volume = image.volumes.get(record.volume) if image else None
            if image is not None and volume is not None and chains.gives_up(image, volume):
                left = domain.unpublish_image(record.image, wipe=False)
    except OSError:
        if domain.image(record.image) is None:
            # It failed just after: what is left is the collector's.
            context.transfers.release(live)
        raise
    context.transfers.release(live)
    if left is not None:
        context.events.emit(ImageDeleted(domain=record.domain, image=record.image))
        give_back(domain, left)


def _undo(context: Context, domain: Domain, live: Live) -> None:
    """The same, where nobody can be told of trouble: it is given back when it expires."""
    try:
        _unpublish(context, domain, live)
    except (OSError, ApiError) as error:
        context.transfers.release(live)
        log.warning("an upload that did not begin stays until it expires", image=live.record.image, error=error)


# ---- after a restart


def recover(context: Context) -> None:
    """Settle the transfers that a service before this one has left; their leases are held before anybody is served."""
    for live in context.transfers.live():
        try:
            _settle(context, live)
        except ApiError as error:
            context.transfers.amend(live, problem=error.message)
            log.warning("a transfer cannot be taken up now", id=live.record.id, error=error.message)


def _settle(context: Context, live: Live) -> None:
    record, transfers = live.record, context.transfers
    before = record.state
    if before in (TransferState.STARTING, TransferState.RUNNING, TransferState.FINISHING):
        transfers.change(live, Event.BREAK, problem=record.problem)
    with storage_errors(context, record.domain, record.image):
        domain = context.registry.get(record.domain)
        image = domain.image(record.image)
        volume = image.volumes.get(record.volume) if image is not None and image.published else None
        if before is TransferState.STARTING and (volume is None or not record.is_upload):
            # Nobody was told of it.
            transfers.drop(live)
        elif record.is_upload and volume is None:
            transfers.change(live, Event.FAIL, problem="its image is gone")
        elif before is TransferState.FINISHING and is_committed(domain, record):
            commit_again(context, domain, record)
            transfers.change(live, Event.FINISH)
            transfers.change(live, Event.COMPLETE)
        else:
            _hold_soon(domain, live)


def _hold_soon(domain: Domain, live: Live) -> None:
    """Have its leases, which the programs of a killed service may carry for another moment."""
    until = time.monotonic() + _DYING
    while True:
        try:
            hold(domain, live)
        except LeaseBusy:
            if time.monotonic() > until:
                raise
            time.sleep(_MOMENT)
        else:
            return


def is_committed(domain: Domain, record: Record) -> bool:
    """Whether an upload's volume was made legal by its finishing, and by nobody since."""
    image = domain.image(record.image)
    volume = image.volumes.get(record.volume) if image is not None else None
    return volume is not None and volume.metadata.legality is Legality.LEGAL and volume.metadata.generation == 1


def commit_again(context: Context, domain: Domain, record: Record) -> None:
    """Make the commit stable, which may have been cut off between its rename and its synchronisation."""
    with domain_lease(context, domain):
        image = chains.image_of(domain, record.image)
        volume = image.volumes[record.volume]
        domain.rewrite(record.image, record.volume, volume.metadata)
        expiring.set_expiry(domain, image, volume, None)


def touched(context: Context, live: Live, when: float) -> None:
    """Somebody went on with it at a time.  What is kept of its end is renewed now and then, not at every step."""
    record, expiry = live.record, context.config.transfer.expiry
    if when - record.touched < expiry / _RENEWALS:
        return
    context.transfers.update(live, touched=when)
    if not record.is_upload:
        return
    domain = context.registry.get(record.domain)
    with storage_errors(context, record.domain, record.image), domain_lease(context, domain):
        image = domain.image(record.image)
        volume = image.volumes.get(record.volume) if image is not None else None
        if image is not None and volume is not None and chains.gives_up(image, volume):
            expiring.set_expiry(domain, image, volume, when + expiry)
