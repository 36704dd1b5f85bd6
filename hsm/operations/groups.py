# SPDX-License-Identifier: Apache-2.0
"""Several images in one step: all of them or none.

1. All leases are taken, all is decided, and what is new is made beside the old: a full disk shows now.
2. Each image but one gets a mark that names that one, the leader.  A mark alone binds nobody.
3. The commit point: the leader gets an intent that names all of them.
4. One by one is changed and its mark taken away; the leader is last.

Whoever finishes a group after a crash begins at its leader.  A mark whose leader has no such intent is taken away: the
group was never begun.  Nobody uses an image that has a mark, so nothing is written between the commit point and the
change that follows from it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from hsm.domains.base import Domain, Garbage, Held, ImageRecord, LeaseBusy, Wanted
from hsm.formats.attributes import Attributes, DeleteMany, Intent, Member, SnapshotMany
from hsm.formats.luks import Luks
from hsm.operations import chains, describe
from hsm.operations.base import BaseOperation, Context, domain_lease, lock_domain, lock_image, storage_errors
from hsm.operations.creation import layer_on
from hsm.operations.deletion import give_back
from hsm.operations.encryption import luks_on
from hsm.operations.making import Plan, empty_data
from hsm.tasks.locks import Locks
from hsm.tasks.manager import Job, Objects
from libvdsm.api.errors import ImageInUse, IsTemplate, TemplateInUse, VolumeExists
from libvdsm.api.event import ImageDeleted, VolumeChanged, VolumeCreated
from libvdsm.api.image import ImageGroup
from libvdsm.api.types import ImageId, Nothing, VolumeId, VolumeRole

GroupIntent = SnapshotMany | DeleteMany
I = TypeVar("I", SnapshotMany, DeleteMany)  # noqa: E741  an intent

_Luks = Mapping[ImageId, Luks | None]
"""What the new layers of images are encrypted with."""
_BATCH = 0.5
"""Seconds after which the domain's lease is let go of between two changes."""


@contextmanager
def _in_batches(context: Context, domain: Domain, job: Job | None = None) -> Iterator[Callable[[], None]]:
    """The domain's lease, let go of now and then: what is given is to be called before each change."""
    with ExitStack() as lease:
        until = 0.0

        def turn() -> None:
            nonlocal until
            if time.monotonic() > until:
                lease.close()
                lease.enter_context(domain_lease(context, domain, job))
                until = time.monotonic() + _BATCH

        yield turn


def _mark(domain: Domain, image: ImageId, intent: Intent | None) -> None:
    """Write an image's intent.  Under the domain's lease."""
    record = domain.image(image)
    if record is not None and record.published and record.attributes.intent != intent:
        domain.set_attributes(image, msgspec.structs.replace(record.attributes, intent=intent))


def _unbound(domain: Domain, record: ImageRecord) -> ImageRecord:
    """The image without a mark that binds nobody.  Under the leases of its volumes, which every maker of a group has."""
    mark = record.attributes.intent
    if not isinstance(mark, Member) or _is_begun(domain, mark):
        return record
    return msgspec.structs.replace(record, attributes=msgspec.structs.replace(record.attributes, intent=None))


def _is_begun(domain: Domain, mark: Member) -> bool:
    leader = domain.image(ImageId(mark.leader))
    intent = leader.attributes.intent if leader else None
    return isinstance(intent, GroupIntent) and intent.group == mark.group


class _Group(BaseOperation):
    """What all groups share."""

    @property
    def images(self) -> list[ImageId]:
        images: list[ImageId] = self.params.images
        return images

    @property
    def locks(self) -> Locks:
        images = sorted(set(self.images))
        return lock_domain(self.params.domain), *(lock_image(self.params.domain, image) for image in images)

    @property
    def objects(self) -> Objects:
        return Objects(self.params.domain, self.images[0])

    @property
    def resumes(self) -> bool:
        return True

    def domain(self) -> Domain:
        return self.context.registry.get(self.params.domain)

    def acquire(self, domain: Domain, stack: ExitStack, images: list[ImageId]) -> None:
        """The leases of all volumes of all images."""
        for image in sorted(images):
            with storage_errors(self.context, domain.id, image):
                record = chains.image_of(domain, image)
                stack.callback(domain.acquire(_own(record)).release)

    def begun(self, domain: Domain, kind: type[I]) -> I | None:
        """The intent of this very group, if it was written before."""
        for image in self.images:
            with storage_errors(self.context, domain.id, image):
                record = domain.image(image)
            intent = record.attributes.intent if record else None
            if isinstance(intent, kind) and set(intent.images) <= set(self.images):
                return intent
        return None

    def commit(self, job: Job, domain: Domain, intent: GroupIntent) -> None:
        """Marks, then the commit point; without it the marks are taken away again."""
        leader, *others = intent.images
        mark = Member(leader=leader, group=intent.group)
        with ExitStack() as undo, _in_batches(self.context, domain, job) as turn:
            for image in others:
                turn()
                undo.callback(self._unmark, domain, ImageId(image))
                _mark(domain, ImageId(image), mark)
            turn()
            job.commit()
            _mark(domain, ImageId(leader), intent)
            undo.pop_all()

    def _unmark(self, domain: Domain, image: ImageId) -> None:
        with domain_lease(self.context, domain):
            _mark(domain, image, None)


def _own(record: ImageRecord) -> list[Wanted]:
    """Of what cannot be read too: somebody may have prepared it while it could."""
    damaged = [bad.volume for bad in record.damaged if bad.volume is not None]
    return [Wanted(volume, record.id) for volume in [*(own.id for own in record.own), *damaged]]


class SnapshotImages(_Group):
    """Image.snapshotMany"""

    @property
    def layers(self) -> dict[ImageId, VolumeId]:
        return dict(zip(self.images, self.params.volumes, strict=True))

    def outcome(self) -> ImageGroup | None:
        domain = self.domain()
        infos = []
        missing = 0
        for image, volume in self.layers.items():
            with storage_errors(self.context, domain.id, image):
                record = chains.image_of(domain, image)
                infos.append(describe.image_info(domain.id, record, None, chain=True))
            if volume not in record.volumes:
                missing += 1
            elif record.volumes[volume].metadata.parent is None:
                raise VolumeExists(volume=volume, reason="it stands on nothing")
        return None if missing or any(info.pending for info in infos) else ImageGroup(items=infos)

    def run(self, job: Job) -> Any:
        domain = self.domain()
        with ExitStack() as stack:
            self.acquire(domain, stack, self.images)
            intent = self.begun(domain, SnapshotMany)
            if again := intent is not None:
                job.commit()
            else:
                intent = SnapshotMany(
                    group=uuid.uuid4(),
                    images=tuple(self.images),
                    volumes=tuple(self.params.volumes),
                    name=self.params.name,
                )
                self._luks = self._encryption(job, domain)
                made = stack.enter_context(self._made(job, domain))
                with storage_errors(self.context, domain.id, self.images[0]):
                    self.commit(job, domain, intent)
                made.pop_all()
            _publish_layers(self.context, job, domain, intent, made=None if again else self._luks)
        return self.outcome()

    _luks: _Luks = MappingProxyType({})

    def _encryption(self, job: Job, domain: Domain) -> _Luks:
        found = {}
        for image in self.images:
            job.check()
            with storage_errors(self.context, domain.id, image):
                record = chains.image_of(domain, image)
                found[image] = luks_on(self.context, domain, record, chains.leaf_of(record))
        return MappingProxyType(found)

    @contextmanager
    def _made(self, job: Job, domain: Domain) -> Iterator[ExitStack]:
        """All the layers, beside the old; they are given back unless that is taken out of the stack."""
        with ExitStack() as helds, ExitStack() as undo:
            with _in_batches(self.context, domain, job) as turn:
                for done, (image, volume) in enumerate(self.layers.items()):
                    job.check()
                    job.progress("making the layers", done, len(self.images))
                    with storage_errors(self.context, domain.id, image):
                        turn()
                        record = _unbound(domain, chains.image_of(domain, image))
                        plan = _layer(domain, record, volume, self.params.name, self._luks.get(image))
                        undo.callback(self._abandon, domain, image, volume)
                        held = domain.begin_volume(plan.new)
                        undo.callback(held.release)
                        helds.callback(held.release)
                        empty_data(self.context, domain)(plan, held)
            yield undo

    def _abandon(self, domain: Domain, image: ImageId, volume: VolumeId) -> None:
        with domain_lease(self.context, domain):
            domain.abandon(image, volume)


def _layer(domain: Domain, record: ImageRecord, volume: VolumeId, name: str | None, luks: Luks | None) -> Plan:
    """The new layer of one image, as decided from what is on storage."""
    leaf = chains.leaf_of(record)
    if leaf.metadata.role is VolumeRole.TEMPLATE:
        raise IsTemplate(image=record.id)
    chains.usable(domain, record, chains.chain_of(record, leaf))
    return layer_on(leaf, volume, leaf.metadata.capacity, name, luks=luks)


def _publish_layers(context: Context, job: Job, domain: Domain, intent: SnapshotMany, *, made: _Luks | None) -> None:
    """Publish what is not yet, each with its mark taken away; the leader's intent goes last.

    ``made``: we have just made the layers, encrypted with this, and hold their leases; else they may have been given
    back since.
    """
    layers = [(ImageId(i), VolumeId(v)) for i, v in zip(intent.images, intent.volumes, strict=True)]
    luks = made if made is not None else _anew(context, domain, layers)
    with _in_batches(context, domain) as turn:
        for done, (image, volume) in enumerate([*layers[1:], layers[0]]):
            job.progress("publishing", done, len(layers))
            with storage_errors(context, domain.id, image):
                turn()
                record = domain.image(image)
                if record is None or not record.published:
                    continue
                if volume not in record.volumes:
                    unbound = msgspec.structs.replace(record, attributes=Attributes(secret=record.attributes.secret))
                    plan = _layer(domain, unbound, volume, intent.name, luks.get(image))
                    _publish_layer(context, domain, plan, made=made is not None)
                _mark(domain, image, None)


def _anew(context: Context, domain: Domain, layers: list[tuple[ImageId, VolumeId]]) -> _Luks:
    """What layers that have to be made again are encrypted with."""
    found = {}
    for image, volume in layers:
        with storage_errors(context, domain.id, image):
            record = domain.image(image)
            if record is not None and record.published and volume not in record.volumes:
                found[image] = luks_on(context, domain, record, chains.leaf_of(record))
    return MappingProxyType(found)


def _publish_layer(context: Context, domain: Domain, plan: Plan, *, made: bool) -> None:
    image, volume = plan.new.image, plan.new.volume
    parent = VolumeId(plan.metadata.parent or volume)
    with ExitStack() as stack:
        if not made:
            held = domain.begin_volume(plan.new)
            stack.callback(held.release)
            empty_data(context, domain)(plan, held)
        if plan.frozen is not None:
            domain.rewrite(image, parent, plan.frozen)
        domain.publish(image, volume, plan.metadata)
    context.events.emit(VolumeChanged(domain=domain.id, image=image, volume=parent))
    context.events.emit(VolumeCreated(domain=domain.id, image=image, volume=volume))


class DeleteImages(_Group):
    """Image.deleteMany"""

    def outcome(self) -> Nothing | None:
        return None if self._there(self.domain()) else Nothing()

    def _there(self, domain: Domain) -> list[ImageRecord]:
        """What is not gone yet; templates last, as others of the group may stand on them."""
        found = []
        for image in self.images:
            with storage_errors(self.context, domain.id, image):
                record = domain.image(image)
            if record is not None and record.published:
                found.append(record)
        return sorted(found, key=lambda record: any(v.metadata.role is VolumeRole.TEMPLATE for v in record.own))

    def run(self, job: Job) -> Nothing:
        domain = self.domain()
        with ExitStack() as stack:
            intent = self.begun(domain, DeleteMany)
            there = self._there(domain)
            self.acquire(domain, stack, [record.id for record in there])
            if intent is not None:
                job.commit()
            else:
                intent = self._decided(domain, {record.id: {own.id for own in record.own} for record in there})
                with storage_errors(self.context, domain.id, self.images[0]):
                    self.commit(job, domain, intent)
            left = _unpublish(self.context, job, domain, intent)
        job.progress("giving space back")
        for garbage in left:
            give_back(domain, garbage)
        return Nothing()

    def _decided(self, domain: Domain, leased: dict[ImageId, set[VolumeId]]) -> DeleteMany:
        there = [_unbound(domain, record) for record in self._there(domain)]
        for record in there:
            with storage_errors(self.context, domain.id, record.id):
                chains.settled(record)
                if late := {own.id for own in record.own} - leased.get(record.id, set()):
                    raise ImageInUse(image=record.id, volume=late.pop(), holder="whoever just made it")
                inside = sum(
                    any(v.is_linked and v.metadata.image == record.id for v in other.volumes.values())
                    for other in there
                )
                if (clones := domain.clones(record.id)) > inside:
                    raise TemplateInUse(image=record.id, clones=clones - inside)
        images = tuple(record.id for record in there)
        return DeleteMany(group=uuid.uuid4(), images=(images[-1], *images[:-1]), wipe=self.params.wipe)


def _unpublish(context: Context, job: Job, domain: Domain, intent: DeleteMany) -> list[Garbage]:
    """Unpublish what is not yet, the leader last: what is to be given back, once the leases are let go of."""
    leader, *others = (ImageId(image) for image in intent.images)
    left = []
    with _in_batches(context, domain) as turn:
        for done, image in enumerate([*others, leader]):
            job.progress("deleting", done, len(intent.images))
            with storage_errors(context, domain.id, image):
                turn()
                record = domain.image(image)
                if record is None or not record.published:
                    continue
                left.append(domain.unpublish_image(image, wipe=intent.wipe))
            context.events.emit(ImageDeleted(domain=domain.id, image=image))
    return left


def finish(context: Context, job: Job, domain: Domain, image: ImageId, _held: Held) -> bool:
    """Finish a group, given its leader.  What it unpublishes is garbage, given back by whoever collects it."""
    record = chains.image_of(domain, image)
    intent = record.attributes.intent
    assert isinstance(intent, GroupIntent)
    with ExitStack() as stack:
        for other in (ImageId(member) for member in intent.images if member != image):
            found = domain.image(other)
            if found is None or not found.published:
                continue
            if not stack.enter_context(job.trying((lock_image(domain.id, other),))):
                return False
            try:
                stack.callback(domain.acquire(_own(found)).release)
            except LeaseBusy:
                return False
        if isinstance(intent, SnapshotMany):
            _publish_layers(context, job, domain, intent, made=None)
        else:
            _unpublish(context, job, domain, intent)
    return True


def finish_member(context: Context, _job: Job, domain: Domain, image: ImageId, _held: Held) -> bool:
    """Take a mark away that binds nobody; of a group that was begun the leader's turn finishes all."""
    with domain_lease(context, domain):
        record = chains.image_of(domain, image)
        if _unbound(domain, record) is record:
            return False
        _mark(domain, image, None)
    return True
