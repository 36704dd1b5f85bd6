# SPDX-License-Identifier: Apache-2.0
"""Garbage first, publish last: the steps that every operation which makes a volume has in common.

Commit point: ``Domain.publish``, one rename (files) of the volume's metadata into place.  Before it everything is
garbage, which the undo below gives back, and after a crash the collector: it can tell, since the maker holds the new
volume's lease from the first moment, taken while it held the domain's.  A slow maker lets go of the domain's lease
while it writes data, and looks again at everything when it has it back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

from hsm.domains.base import Domain, Held, NewVolume, VolumeRecord
from hsm.formats import attributes as attributes_format
from hsm.formats import qcow2
from hsm.formats.attributes import Attributes
from hsm.formats.bitmaps import Bitmap
from hsm.formats.luks import Luks
from hsm.formats.volume import VolumeMetadata
from hsm.operations.base import Context, domain_lease
from hsm.tasks.manager import Job
from hsm.tools.qemu_img import QemuImg
from hsm.tools.qemu_io import QemuIo
from hsm.tools.qemu_layers import QemuLayers
from libvdsm.api.errors import ImageInUse, NotSupported, VolumeExists
from libvdsm.api.event import VolumeChanged, VolumeCreated
from libvdsm.api.types import (
    Allocation,
    DomainId,
    ImageId,
    Legality,
    VolumeFormat,
    VolumeId,
    VolumeRole,
)
from libvdsm.declare import ApiError
from libvdsm.log import Log

log = Log("hsm.making")

_SECTOR = 512


@dataclass(frozen=True)
class Plan:
    """A volume to be made, as decided from what is on storage."""

    new: NewVolume
    metadata: VolumeMetadata
    content: list[tuple[int, bytes]]
    frozen: VolumeMetadata | None = None
    """the new metadata of the leaf that the volume goes on top of"""
    attributes: Attributes = attributes_format.NONE
    """of a new image"""


def round_up(capacity: int) -> int:
    """To whole sectors, as guests see disks."""
    return -(-capacity // _SECTOR) * _SECTOR


def plan_volume(
    *,
    domain: DomainId,
    image: ImageId,
    volume: VolumeId,
    capacity: int,
    format_: VolumeFormat,
    allocation: Allocation,
    description: str,
    parent: VolumeRecord | None = None,
    frozen: VolumeMetadata | None = None,
    role: VolumeRole = VolumeRole.LEAF,
    bitmaps: tuple[Bitmap, ...] = (),
    luks: Luks | None = None,
) -> Plan:
    """A volume, empty or on top of a parent; with bitmaps of these names in which nothing is marked.

    ``luks``: what it is encrypted with, and its image if it is the first of one.
    """
    if parent is not None and parent.id == volume:
        # In a new image the parent is linked under this very name, and would be written.
        raise VolumeExists(volume=volume, reason="it is what the new volume is to stand on")
    if format_ is VolumeFormat.QCOW2 and capacity > qcow2.max_capacity():
        raise NotSupported(reason=f"a qcow2 volume of more than {qcow2.max_capacity()} bytes")
    length = capacity
    content: list[tuple[int, bytes]] = []
    if format_ is VolumeFormat.QCOW2:
        below, below_format = (str(parent.id), parent.metadata.format.value) if parent else (None, None)
        if luks is None and parent is not None and parent.header is not None and parent.header.encrypted:
            # Somebody has deleted what was there, and made an encrypted one of the same id.
            raise ImageInUse(image=image, volume=parent.id, holder="whoever just encrypted it")
        length, content = qcow2.new(capacity, below, below_format, bitmaps, luks)
    metadata = VolumeMetadata(
        domain=domain,
        image=image,
        parent=parent.id if parent else None,
        capacity=capacity,
        format=format_,
        allocation=allocation,
        role=role,
        legality=Legality.LEGAL,
        created=int(time.time()),
        description=description,
        sequence=parent.metadata.sequence + 1 if parent and parent.folder == image and not parent.is_linked else 1,
    )
    template = None
    if parent is not None and parent.metadata.image != image:
        template = (ImageId(parent.metadata.image), parent.id)
    first = parent is None or parent.is_linked or parent.metadata.image != image
    new = NewVolume(image, volume, length, format_, allocation, first, template)
    kept = Attributes(secret=luks.secret) if luks is not None and first else attributes_format.NONE
    return Plan(new, metadata, content, frozen, kept)


def make_volume(
    job: Job,
    context: Context,
    domain: Domain,
    decide: Callable[[], Plan],
    fill: Callable[[Plan, Held], None],
    *,
    slow: bool,
) -> None:
    """Make and publish a volume.

    ``decide`` reads storage and says what to make, or raises; it is asked whenever the domain's lease was taken.
    ``fill`` makes the data, stable when it returns, by programs that carry the lease that it is given.
    """
    with ExitStack() as undo:
        with ExitStack() as lease:
            lease.enter_context(domain_lease(context, domain, job))
            plan = decide()
            new = plan.new
            undo.callback(abandon, context, domain, new)
            held = domain.begin_volume(new)
            undo.callback(held.release)
            if slow:
                lease.close()
                fill(plan, held)
                lease.enter_context(domain_lease(context, domain, job))
                plan = decide()
            else:
                fill(plan, held)
            if plan.frozen is not None and plan.metadata.parent is not None:
                domain.rewrite(new.image, VolumeId(plan.metadata.parent), plan.frozen)
            if plan.attributes != attributes_format.NONE:
                domain.set_attributes(new.image, plan.attributes)
            job.commit()
            domain.publish(new.image, new.volume, plan.metadata)
        undo.pop_all()
        held.release()
    if plan.frozen is not None and plan.metadata.parent is not None:
        parent = VolumeId(plan.metadata.parent)
        context.events.emit(VolumeChanged(domain=domain.id, image=new.image, volume=parent))
    context.events.emit(VolumeCreated(domain=domain.id, image=new.image, volume=new.volume))


def abandon(context: Context, domain: Domain, new: NewVolume) -> None:
    """Give back what was made of a volume that will not be."""
    try:
        with domain_lease(context, domain):
            domain.abandon(new.image, new.volume)
    except (OSError, ApiError) as error:
        log.warning("left for the collector", image=new.image, volume=new.volume, error=error)


def empty_data(context: Context, domain: Domain) -> Callable[[Plan, Held], None]:
    """Fills a volume with nothing."""

    def fill(plan: Plan, held: Held) -> None:
        new = plan.new
        if new.format is VolumeFormat.QCOW2 and new.allocation is Allocation.PREALLOCATED:
            path = domain.data_path(new.image, new.volume)
            # The program would make the file with permissions of its own choice.
            domain.make_data(replace(new, length=0, allocation=Allocation.SPARSE), [])
            qemu_img(context).create(path, plan.metadata.capacity, descriptors=held.descriptors, preallocated=True)
            domain.sync_data(new.image, new.volume)
        else:
            domain.make_data(new, plan.content)

    return fill


def qemu_img(context: Context) -> QemuImg:
    storage = context.config.storage
    return QemuImg(context.runner, deadline=storage.tool_deadline, quick=storage.quick_deadline)


def qemu_io(context: Context) -> QemuIo:
    return QemuIo(context.runner, deadline=context.config.storage.tool_deadline)


def qemu_layers(context: Context) -> QemuLayers:
    storage = context.config.storage
    return QemuLayers(context.runner, deadline=storage.tool_deadline, quick=storage.quick_deadline)
