# SPDX-License-Identifier: Apache-2.0
"""Merging neighbouring layers of an image into one, and deleting snapshots, which is the same.

A change in place (``hsm.operations.intents``): down into the lowest, or up into the uppermost
(``hsm.operations.pulling``).  Down: the data is committed into the base, which no layer above shows otherwise than
before while that goes on, so it can be done again; the base gets the size and the name of the state that it has now;
what stands on the uppermost is put onto the base; the others are unpublished, and the intent goes.  The base stays
legal throughout, as oVirt wants it.
"""

from __future__ import annotations

import msgspec

from hsm.domains.base import Domain, Held, ImageRecord, VolumeRecord
from hsm.formats.attributes import AnyIntent, MergeDown, MergeUp
from hsm.formats.volume import next_generation
from hsm.operations import bitmap_guard, bitmap_merging, chains, encryption, pulling
from hsm.operations.base import Context, domain_lease, storage_errors
from hsm.operations.cutting import cut
from hsm.operations.encryption import itself, source_of
from hsm.operations.inplace import InPlace, Moving, as_parent, end, is_qcow2, let_go, own_volume, percent_of, tell
from hsm.operations.making import qemu_layers
from hsm.tasks.manager import Job
from libvdsm.api.errors import NotBelow, NotSnapshot, NotSupported
from libvdsm.api.image_layers import MergeDirection
from libvdsm.api.types import Allocation, ImageId, Legality, VolumeFormat, VolumeId, VolumeRole

Run = list[VolumeRecord]
"""Neighbours, the uppermost first; at least two."""


# ---- down


def finish_down(context: Context, job: Job, domain: Domain, image: ImageId, held: Held, *, fresh: bool = False) -> bool:
    """Do what is left to be done."""
    record, intent = _intent(domain, image)
    bitmap_guard.mend(domain, record, intent.guarded)
    if not intent.moved:
        _commit(context, job, domain, image, held, fresh=fresh)
        with domain_lease(context, domain):
            record, intent = _intent(domain, image)
            for volume in intent.gone:
                metadata = record.volumes[VolumeId(volume)].metadata
                if metadata.legality is Legality.LEGAL:
                    metadata = msgspec.structs.replace(metadata, legality=Legality.ILLEGAL)
                    domain.rewrite(image, VolumeId(volume), metadata)
            intent = msgspec.structs.replace(intent, moved=True)
            domain.set_attributes(image, msgspec.structs.replace(record.attributes, intent=intent))
    _put_child_on_base(context, domain, image, held)
    _publish(context, job, domain, image, held)
    return True


def _intent(domain: Domain, image: ImageId) -> tuple[ImageRecord, MergeDown]:
    record = chains.image_of(domain, image)
    intent = record.attributes.intent
    assert isinstance(intent, MergeDown)
    return record, intent


def _commit(context: Context, job: Job, domain: Domain, image: ImageId, held: Held, *, fresh: bool) -> None:
    record, intent = _intent(domain, image)
    base, top = record.volumes[VolumeId(intent.base)], record.volumes[VolumeId(intent.gone[0])]
    total = sum(record.volumes[VolumeId(volume)].actual_size for volume in intent.gone)
    run = [record.volumes[VolumeId(volume)] for volume in (*intent.gone, intent.base)]
    bitmap_merging.prepare(context, domain, record, run, intent.known, held)
    job.progress("moving data down", 0, total)
    on_percent = percent_of(job, "moving data down", total)
    if encryption.is_encrypted(record):
        _commit_each(context, job, domain, record, run, held)
    else:
        qemu_layers(context).commit(
            source_of(context, domain, record, top),
            domain.data_path(image, base.id),
            descriptors=held.descriptors,
            on_percent=on_percent,
        )
    job.progress("writing to stable storage", total, total)
    domain.sync_data(image, base.id)
    capacity = top.metadata.capacity
    if base.metadata.capacity > capacity:
        # What is beyond the end of the state that it has now must not show again in what stands on it.
        cut(context, domain, chains.image_of(domain, image).volumes[base.id], capacity, held)
    if is_qcow2(base) and not fresh:
        qemu_layers(context).mend(itself(context, domain, record, base), descriptors=held.descriptors)
        domain.sync_data(image, base.id)
    bitmap_merging.merge(context, domain, chains.image_of(domain, image), run, intent.known, held)
    if base.metadata.allocation is Allocation.PREALLOCATED:
        # Zeros are committed as holes, whose space was to be kept.
        length = chains.image_of(domain, image).volumes[base.id].length
        domain.extend_data(image, base.id, length, base.metadata.allocation)


def _commit_each(context: Context, job: Job, domain: Domain, record: ImageRecord, run: Run, held: Held) -> None:
    """Commit the layers of a run into its lowest, one after the other, the lowest first.

    The program finds one further down by the name in a header, which a chain that is spelled out does not have; but
    it takes each for standing on the base, which by then keeps the state of all below.  What is beyond the end of that
    state goes before the next: there the next one shows zeros.
    """
    base, total = run[-1], sum(volume.actual_size for volume in run[:-1])
    below = source_of(context, domain, record, base)
    done = 0
    for volume in reversed(run[:-1]):
        before = done

        def on_percent(percent: float, volume: VolumeRecord = volume, before: int = before) -> None:
            job.progress("moving data down", before + int(volume.actual_size * percent / 100), total)

        source = source_of(context, domain, record, volume, alone=True).on(below)
        qemu_layers(context).commit(source, None, descriptors=held.descriptors, on_percent=on_percent)
        domain.sync_data(record.id, base.id)
        cut(context, domain, chains.image_of(domain, record.id).volumes[base.id], volume.metadata.capacity, held)
        done += volume.actual_size


def _put_child_on_base(context: Context, domain: Domain, image: ImageId, held: Held) -> None:
    record, intent = _intent(domain, image)
    if intent.child is None:
        return
    child, base = record.volumes[VolumeId(intent.child)], record.volumes[VolumeId(intent.base)]
    header, parent = child.header, as_parent(base)
    if header is None or (header.backing_file, header.backing_format) != parent:
        source = itself(context, domain, record, child)
        qemu_layers(context).name_parent(source, parent, descriptors=held.descriptors)
    domain.sync_data(image, child.id)


def _publish(context: Context, job: Job, domain: Domain, image: ImageId, held: Held) -> None:
    """Say how it is now."""
    with domain_lease(context, domain):
        record, intent = _intent(domain, image)
        base = record.volumes[VolumeId(intent.base)]
        gone = tuple(VolumeId(volume) for volume in intent.gone)
        top = record.volumes.get(gone[0])
        if top is not None:
            # Until the uppermost is unpublished its metadata tell what the base's are to be.
            metadata = msgspec.structs.replace(
                base.metadata,
                capacity=top.metadata.capacity,
                description=top.metadata.description,
                role=VolumeRole.LEAF if intent.child is None else VolumeRole.INTERNAL,
                generation=intent.generation,
            )
            if metadata != base.metadata:
                domain.rewrite(image, base.id, metadata)
            if intent.child is not None:
                child = record.volumes[VolumeId(intent.child)]
                if child.metadata.parent != base.id:
                    domain.rewrite(image, child.id, msgspec.structs.replace(child.metadata, parent=base.id))
        left = end(domain, image, gone, wipe=intent.wipe)
    changed = (base.id,) if intent.child is None else (base.id, VolumeId(intent.child))
    tell(context, domain, image, changed, gone)
    let_go(job, domain, held, left)


# ---- which run, and which way


def run_of(domain: Domain, record: ImageRecord, base: VolumeId, top: VolumeId) -> Run:
    """The own volumes of an image from ``top`` down to ``base``."""
    lowest = own_volume(domain, record, base)
    run = [own_volume(domain, record, top)]
    while run[-1] is not lowest:
        below = record.volumes.get(VolumeId(run[-1].metadata.parent)) if run[-1].metadata.parent else None
        if below is None or below.is_linked:
            raise NotBelow(image=record.id, base=base, top=top)
        run.append(below)
    if len(run) == 1:
        raise NotBelow(image=record.id, base=base, top=top)
    return run


def intent_of(record: ImageRecord, run: Run, direction: MergeDirection, *, wipe: bool) -> MergeDown | MergeUp:
    """What to do with a run of neighbours."""
    top, base = run[0], run[-1]
    if _goes_up(run, direction):
        return MergeUp(
            top=top.id,
            gone=tuple(volume.id for volume in run[1:]),
            parent=base.metadata.parent,
            generation=next_generation(top.metadata.generation),
            wipe=wipe,
        )
    child = next(iter(record.children().get(top.id, [])), None)
    written = [base, top, *([record.volumes[child]] if child else [])]
    return MergeDown(
        base=base.id,
        gone=tuple(volume.id for volume in run[:-1]),
        child=child,
        guarded=bitmap_guard.guard(written),
        known=bitmap_merging.known(run),
        generation=next_generation(base.metadata.generation),
        wipe=wipe,
    )


def _goes_up(run: Run, direction: MergeDirection) -> bool:
    top, base = run[0], run[-1]
    reason = unfit_to_pull(top)
    if direction is MergeDirection.UP and reason:
        raise NotSupported(reason=reason)
    if direction is not MergeDirection.AUTO:
        return direction is MergeDirection.UP
    if reason or base.metadata.format is VolumeFormat.RAW or base.metadata.allocation is Allocation.PREALLOCATED:
        # Up, the image would become sparse qcow2, which nobody asked for.
        return False
    return sum(volume.actual_size for volume in run[1:]) < sum(volume.actual_size for volume in run[:-1])


def unfit_to_pull(top: VolumeRecord) -> str | None:
    """Why data cannot be pulled into a volume so that an interruption could be made good, or None."""
    header = top.header
    if header is not None and (header.bitmaps_at or header.bitmaps_damage):
        return f"data cannot be moved up into volume {top.id}, which has bitmaps; merge down, or remove them"
    if header is not None and header.snapshots:
        return f"data cannot be moved up into volume {top.id}, which has internal snapshots of qcow2; remove them"
    return None


def pulled(record: ImageRecord, top: VolumeRecord, parent: object, depth: int) -> Moving:
    """What comes into a volume from so many layers below it."""
    return Moving(pulling.below(record, top, parent), top, range(1, depth + 1), top)


class _Merging(InPlace):
    """What merging is; subclasses say which run."""

    def run_in(self, domain: Domain, record: ImageRecord) -> Run:
        raise NotImplementedError

    @property
    def direction(self) -> MergeDirection:
        return MergeDirection.AUTO

    @property
    def ends(self) -> tuple[VolumeId, VolumeId | None]:
        """The ids of the run's lowest and uppermost volume; None if the caller leaves that open."""
        raise NotImplementedError

    def done(self, record: ImageRecord) -> bool:
        base, top = self.ends
        return (base in record.volumes) != (top in record.volumes) if top else base not in record.volumes

    def mine(self, intent: AnyIntent) -> bool:
        if isinstance(intent, MergeDown):
            return (intent.base, intent.gone[0]) == self.ends
        return isinstance(intent, MergeUp) and (intent.gone[-1], intent.top) == self.ends

    def decide(self, domain: Domain, record: ImageRecord) -> AnyIntent:
        run = self.run_in(domain, record)
        return intent_of(record, run, self.direction, wipe=self.params.wipe)

    def touched(self, intent: AnyIntent) -> tuple[VolumeId, ...]:
        assert isinstance(intent, MergeDown | MergeUp)
        left = intent.base if isinstance(intent, MergeDown) else intent.top
        return tuple(VolumeId(volume) for volume in (left, *intent.gone))

    def moving(self, record: ImageRecord, intent: AnyIntent) -> Moving:
        if isinstance(intent, MergeUp):
            top = record.volumes[VolumeId(intent.top)]
            return pulled(record, top, intent.parent, len(intent.gone))
        assert isinstance(intent, MergeDown)
        run = [record.volumes[VolumeId(volume)] for volume in (*intent.gone, intent.base)]
        return Moving(sum(volume.actual_size for volume in run[:-1]), run[0], range(len(run) - 1), run[-1])

    def finish(self, job: Job, domain: Domain, held: Held, *, fresh: bool) -> None:
        intent = chains.image_of(domain, self.params.image).attributes.intent
        work = finish_down if isinstance(intent, MergeDown) else pulling.finish
        work(self.context, job, domain, self.params.image, held, fresh=fresh)


class Merge(_Merging):
    """Image.merge"""

    @property
    def ends(self) -> tuple[VolumeId, VolumeId | None]:
        return self.params.base, self.params.top

    @property
    def direction(self) -> MergeDirection:
        found: MergeDirection = self.params.direction
        return found

    def run_in(self, domain: Domain, record: ImageRecord) -> Run:
        return run_of(domain, record, self.params.base, self.params.top)


class DeleteSnapshot(_Merging):
    """Image.deleteSnapshot: the volume that keeps the state is merged with the one on top of it.

    ``params.child`` was filled in by the service.  Which one of the two is left, and so which ids there are, depends
    on what is moved; with both known, doing it again is told from doing it to the next.
    """

    @property
    def ends(self) -> tuple[VolumeId, VolumeId | None]:
        return self.params.volume, self.params.child

    def done(self, record: ImageRecord) -> bool:
        volume, child = self.ends
        return volume not in record.volumes or (child is not None and child not in record.volumes)

    def run_in(self, domain: Domain, record: ImageRecord) -> Run:
        volume = own_volume(domain, record, self.params.volume)
        children = record.children().get(volume.id, [])
        if not children or self.params.child is None:
            raise NotSnapshot(image=record.id, volume=volume.id)
        if self.params.child not in children:
            raise NotBelow(image=record.id, base=volume.id, top=self.params.child)
        return [record.volumes[self.params.child], volume]


def child_of(context: Context, domain: Domain, image: ImageId, volume: VolumeId) -> VolumeId | None:
    """What stands on a volume; of one whose snapshot is being deleted what stood on it when that began."""
    with storage_errors(context, domain.id, image):
        record = chains.image_of(domain, image)
        intent = record.attributes.intent
        if isinstance(intent, MergeDown) and (intent.base, len(intent.gone)) == (volume, 1):
            return VolumeId(intent.gone[0])
        if isinstance(intent, MergeUp) and intent.gone == (volume,):
            return VolumeId(intent.top)
        chains.settled(record)
        return next(iter(record.children().get(volume, [])), None)
