# SPDX-License-Identifier: Apache-2.0
"""What the changes in place of whole images have in common: merging, reverting, flattening, rebasing.

An operation decides on an intent (``hsm.operations.intents``) under the leases of all of the image's volumes; writing
it is the commit point, and from then on the change is finished, by the same function whoever finishes it.  Before it,
what could stand in the way is looked at: who uses the image, and whether there is room.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import msgspec

from hsm.domains.base import Domain, Garbage, Held, ImageRecord, VolumeRecord, Wanted
from hsm.formats.attributes import AnyIntent
from hsm.operations import chains, describe, encryption
from hsm.operations.base import BaseOperation, Context, domain_lease, lock_domain, lock_image, storage_errors
from hsm.operations.deletion import give_back
from hsm.operations.encryption import itself, source_of
from hsm.operations.making import qemu_img, qemu_layers
from hsm.tasks.locks import Locks
from hsm.tasks.manager import Job, Objects
from hsm.tools.qemu_layers import Extent
from libvdsm.api.errors import ImageInUse, IsTemplate, NoSpace, NoSuchVolume, VolumeDamaged
from libvdsm.api.event import VolumeChanged, VolumeDeleted
from libvdsm.api.types import ImageId, ImageInfo, VolumeFormat, VolumeId, VolumeRole


class InPlace(BaseOperation):
    """One such change.  Subclasses say what is wanted, and how to tell that it is so already."""

    @property
    def locks(self) -> Locks:
        return lock_domain(self.params.domain), lock_image(self.params.domain, self.params.image)

    @property
    def objects(self) -> Objects:
        return Objects(self.params.domain, self.params.image)

    @property
    def resumes(self) -> bool:
        return True

    def done(self, record: ImageRecord) -> bool:
        """Whether an image on which nothing is unfinished is as asked for."""
        raise NotImplementedError

    def mine(self, intent: AnyIntent) -> bool:
        """Whether an intent is this call's."""
        raise NotImplementedError

    def decide(self, domain: Domain, record: ImageRecord) -> AnyIntent:
        """What is to be done with a sound image, or the declared error that says why not.  Changes nothing."""
        raise NotImplementedError

    def touched(self, intent: AnyIntent) -> tuple[VolumeId, ...]:
        """The volumes whose data are read or written for that."""
        return ()

    def moving(self, record: ImageRecord, intent: AnyIntent) -> Moving:
        """The data that has to be moved for that."""
        return Moving()

    def more_leases(self, domain: Domain) -> list[Wanted]:
        """Of what is not the image's, and has to stay as it is until the end."""
        return []

    def make_ready(self, domain: Domain, record: ImageRecord, intent: AnyIntent) -> None:
        """Do what takes long and changes nothing, before the domain's lease is taken."""

    def prepare(self, undo: ExitStack, domain: Domain, intent: AnyIntent) -> Held | None:
        """Make, as garbage, what has to be there before the intent is, and its lease.  Under the domain's lease."""
        return None

    def finish(self, job: Job, domain: Domain, held: Held, *, fresh: bool) -> None:
        """Do what the intent says.  ``fresh``: it was just written; else whatever was done of it is done again."""
        raise NotImplementedError

    def outcome(self) -> ImageInfo | None:
        domain = self.context.registry.get(self.params.domain)
        with storage_errors(self.context, domain.id, self.params.image):
            record = chains.image_of(domain, self.params.image)
            if record.attributes.intent is not None:
                self._mine_only(record)
                return None
            # A volume that cannot be read is not gone.
            so_already = not record.damaged and self.done(record)
            return describe.image_info(domain.id, record, None, chain=True) if so_already else None

    def run(self, job: Job) -> ImageInfo:
        job.progress("looking at the image")
        domain = self.context.registry.get(self.params.domain)
        image = self.params.image
        with storage_errors(self.context, domain.id, image), ExitStack() as leases:
            record = chains.image_of(domain, image)
            if record.attributes.intent is None:
                # What can never be is not waited for, and tells why before who.
                self._decide(domain, record)
            held = domain.acquire([*whole(record), *self.more_leases(domain)])
            leases.callback(held.release)
            record = leased(domain, record)
            if record.attributes.intent is None:
                self._begin(leases, job, domain, record)
                self.finish(job, domain, held, fresh=True)
            else:
                self._mine_only(record)
                job.commit()
                self.finish(job, domain, held, fresh=False)
            return describe.image_info(domain.id, chains.image_of(domain, image), None, chain=True)

    def _begin(self, stack: ExitStack, job: Job, domain: Domain, record: ImageRecord) -> None:
        intent = self._decide(domain, record)
        for volume in self.touched(intent):
            # What no program can read to its end would leave the image unfinished for good.
            job.check()
            readable(self.context, domain, record.volumes[volume], job)
        encryption.prove_image(self.context, domain, record)
        self.make_ready(domain, record, intent)
        room(self.context, domain, self.moving(record, intent))
        with domain_lease(self.context, domain, job), ExitStack() as undo:
            record = leased(domain, record)
            intent = self._decide(domain, record)
            made = self.prepare(undo, domain, intent)
            job.commit()
            domain.set_attributes(record.id, msgspec.structs.replace(record.attributes, intent=intent))
            undo.pop_all()
            if made is not None:
                stack.callback(made.release)

    def _decide(self, domain: Domain, record: ImageRecord) -> AnyIntent:
        chains.settled(record)
        chain = chains.chain_of(record, chains.leaf_of(record))
        if chain[0].metadata.role is VolumeRole.TEMPLATE:
            raise IsTemplate(image=record.id)
        chains.usable(domain, record, chain)
        return self.decide(domain, record)

    def _mine_only(self, record: ImageRecord) -> None:
        intent = record.attributes.intent
        if intent is not None and not self.mine(intent):
            chains.settled(record)


def whole(record: ImageRecord) -> list[Wanted]:
    """The leases of all that an image consists of: its own volumes exclusively, a template's shared."""
    return [Wanted(volume.id, record.id, shared=volume.is_linked) for volume in record.volumes.values()]


def leased(domain: Domain, seen: ImageRecord) -> ImageRecord:
    """The image as it is now, whose volumes are all among those that were leased."""
    record = chains.image_of(domain, seen.id)
    if late := record.volumes.keys() - seen.volumes.keys():
        raise ImageInUse(image=record.id, volume=late.pop(), holder="whoever just made a snapshot of it")
    return record


def own_volume(domain: Domain, record: ImageRecord, volume: VolumeId) -> VolumeRecord:
    """A volume of an image, and not its template's."""
    found = record.volumes.get(volume)
    if found is None:
        raise NoSuchVolume(domain=domain.id, volume=volume)
    if found.is_linked:
        raise IsTemplate(image=ImageId(found.metadata.image))
    return found


def readable(context: Context, domain: Domain, volume: VolumeRecord, job: Job) -> None:
    """A volume's tables are whole."""
    if is_qcow2(volume):
        source = itself(context, domain, chains.image_of(domain, volume.folder), volume)
        if said := qemu_img(context).check(source, stop=job.stop_asked):
            raise VolumeDamaged(volume=volume.id, reason=said)


# ---- room


@dataclass(frozen=True)
class Moving:
    """Data that goes from some layers into another.

    ``bytes``: what they take; ``top``: the volume that all of it is seen through; ``depths``: the layers that it comes
    from, 0 being that volume; ``into``: the volume that it goes to.
    """

    bytes: int = 0
    top: VolumeRecord | None = None
    depths: range = range(0)
    into: VolumeRecord | None = None


def room(context: Context, domain: Domain, moving: Moving) -> None:
    """There is room for what has to be moved.  Only where it may be short are the layers looked into."""
    free = domain.space().free
    if moving.bytes <= free or moving.top is None or moving.into is None:
        return
    layers, record = qemu_layers(context), chains.image_of(domain, moving.top.folder)
    source = source_of(context, domain, record, moving.top)
    comes = [extent for extent in layers.data(source) if extent.depth in moving.depths]
    there: list[Extent] = []
    if moving.into is not moving.top:
        there = [e for e in layers.data(source_of(context, domain, record, moving.into)) if e.depth == 0]
    if (needed := added(comes, there)) > free:
        raise NoSpace(domain=domain.id, reason=f"{needed} bytes have to be moved, and {free} are free")


def added(comes: list[Extent], there: list[Extent]) -> int:
    """How many bytes of what comes fall where there is no data yet.  Both sorted, as they are told."""
    total, place = 0, 0
    for extent in comes:
        total += extent.length
        while place < len(there) and there[place].end <= extent.start:
            place += 1
        for over in there[place:]:
            if over.start >= extent.end:
                break
            total -= min(over.end, extent.end) - max(over.start, extent.start)
    return total


# ---- the end of all of them


def end(domain: Domain, image: ImageId, gone: tuple[VolumeId, ...], *, wipe: bool) -> list[Garbage]:
    """Unpublish what nobody needs any more, the uppermost first, and take the intent away.  Under the domain's lease."""
    record = chains.image_of(domain, image)
    left = [domain.unpublish_volume(image, volume, wipe=wipe) for volume in gone if volume in record.volumes]
    kept = msgspec.structs.replace(record.attributes, intent=None)
    for volume in gone:
        kept = kept.without_volume(volume)
    domain.set_attributes(image, kept)
    return left


def tell(
    context: Context, domain: Domain, image: ImageId, changed: tuple[VolumeId, ...], gone: tuple[VolumeId, ...]
) -> None:
    """Events of what has become of an image's volumes."""
    for volume in changed:
        context.events.emit(VolumeChanged(domain=domain.id, image=image, volume=volume))
    for volume in gone:
        context.events.emit(VolumeDeleted(domain=domain.id, image=image, volume=volume))


def let_go(job: Job, domain: Domain, held: Held, left: list[Garbage]) -> None:
    """The intent is gone, and with it what the leases were for; while they are held nothing can be given back."""
    job.progress("giving space back")
    held.release()
    for garbage in left:
        give_back(domain, garbage)


def as_parent(volume: VolumeRecord) -> tuple[str, str]:
    """How a header names it: by its bare id, and its format."""
    return str(volume.id), volume.metadata.format.value


def percent_of(job: Job, step: str, total: int) -> Any:
    """What to do with a program's word of how far it is."""
    return lambda percent: job.progress(step, int(total * percent / 100), total)


def is_qcow2(volume: VolumeRecord) -> bool:
    return volume.metadata.format is VolumeFormat.QCOW2
