# SPDX-License-Identifier: Apache-2.0
"""Moving an image to another domain: a copy with all its ids, and then the source goes.

Commit point: the publication of the leaf on the target.  Before it the source's attributes get an intent, so that any
host sees what is to become of it: is the image published on the target with the same newest volume, the source is
unpublished; else the intent is dropped.  While there is an intent nobody uses the source, so at no time can two of
them be written.  The source's leases are held exclusively from begin to end, also by every program, so whoever gets
them knows that no mover is alive.  The two domains' own leases are never held at once.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import msgspec

from hsm.domains.base import Domain, Held, ImageRecord, Wanted
from hsm.formats.attributes import Move
from hsm.operations import chains, describe
from hsm.operations.base import (
    BaseOperation,
    Context,
    domain_lease,
    lock_domain,
    lock_image,
    storage_errors,
    writable,
)
from hsm.operations.copying import Copying, Wish
from hsm.operations.deletion import give_back
from hsm.operations.layers import AS_IT_IS, Layer, Selection, lay_out, select
from hsm.tasks.locks import Locks
from hsm.tasks.manager import Job, Objects
from libvdsm.api.errors import (
    ImageDamaged,
    ImageExists,
    NoSuchImage,
    TemplateInUse,
    VolumeExists,
)
from libvdsm.api.event import ImageDeleted
from libvdsm.api.image_copies import ChecksumInfo, CopyInfo
from libvdsm.api.types import DomainId, ImageId, VolumeId
from libvdsm.declare import ApiError
from libvdsm.log import Log

log = Log("hsm.moving")


def finish(context: Context, job: Job, domain: Domain, image: ImageId, held: Held) -> bool:
    """Do what is left of an interrupted move: the source goes, or stays as if nothing had been.

    The source's leases are held, exclusively, so nobody is at work on it any more.
    """
    record = chains.image_of(domain, image)
    intent = record.attributes.intent
    assert isinstance(intent, Move)
    if _arrived(context, record, DomainId(intent.to)):
        depart(context, job, domain, image, held)
    else:
        withdraw(context, domain, image)
    return True


def _arrived(context: Context, record: ImageRecord, to: DomainId) -> bool:
    """Whether the image is published on the target.  Raises what keeps that from being seen."""
    target = context.registry.get(to)
    with storage_errors(context, to, record.id):
        found = target.image(record.id)
        if found is None or not found.published:
            return False
        # Of damage nobody knows what it was; the source is kept until somebody has looked.
        chains.intact(found)
    return {volume.id for volume in record.own} <= found.volumes.keys()


def depart(context: Context, job: Job, domain: Domain, image: ImageId, held: Held) -> None:
    """The source goes, and its leases are let go of; the image is on the target."""
    with domain_lease(context, domain):
        left = domain.unpublish_image(image, wipe=False)
    context.events.emit(ImageDeleted(domain=domain.id, image=image))
    job.progress("giving space back")
    # Of garbage the leases are free.
    held.release()
    give_back(domain, left)


def withdraw(context: Context, domain: Domain, image: ImageId) -> None:
    """The image stays where it is."""
    with domain_lease(context, domain):
        record = chains.image_of(domain, image)
        domain.set_attributes(image, msgspec.structs.replace(record.attributes, intent=None))


class MoveImage(BaseOperation):
    """Image.move"""

    def __init__(self, context: Context, params: Any) -> None:
        super().__init__(context, params)
        self._begun = False

    @property
    def locks(self) -> Locks:
        given = self.params
        return (
            *{lock_domain(given.domain), lock_domain(given.to)},
            lock_image(given.domain, given.image),
            lock_image(given.to, given.image),
        )

    @property
    def objects(self) -> Objects:
        return Objects(self.params.domain, self.params.image)

    @property
    def mine(self) -> Move:
        return Move(to=self.params.to)

    @property
    def resumes(self) -> bool:
        """What has an intent is brought to its end; what has none has left nothing but garbage."""
        return self._begun

    def outcome(self) -> CopyInfo | None:
        """It is there, and not here any more."""
        domain = self.context.registry.get(self.params.domain)
        with storage_errors(self.context, domain.id, self.params.image):
            record = domain.image(self.params.image)
        if record is not None and record.published:
            self._begun = record.attributes.intent == self.mine
            return None
        return self._there()

    def _there(self, checksum: ChecksumInfo | None = None) -> CopyInfo:
        target = self.context.registry.get(self.params.to)
        with storage_errors(self.context, target.id, self.params.image):
            record = target.image(self.params.image)
            if record is None or not record.published:
                raise NoSuchImage(domain=self.params.domain, image=self.params.image)
            info = describe.image_info(target.id, record, None, chain=True)
            return CopyInfo(image=info, checksum=checksum)

    def run(self, job: Job) -> CopyInfo:
        job.progress("looking at the image")
        given = self.params
        source, target = self.context.registry.get(given.domain), self.context.registry.get(given.to)
        with storage_errors(self.context, source.id, given.image), ExitStack() as leases:
            selection = self._select(source)
            held = source.acquire(
                [Wanted(volume.id, given.image, shared=volume.is_linked) for volume in selection.chain]
            )
            leases.callback(held.release)
            selection = self._select(source)
            if selection.record.attributes.intent is not None:
                finish(self.context, job, source, given.image, held)
                if (done := self.outcome()) is not None:
                    return done
                selection = self._select(source)
            checksum = self._move(job, source, target, selection, held)
        return self._there(checksum)

    def _select(self, source: Domain) -> Selection:
        with storage_errors(self.context, source.id, self.params.image):
            return select(source, self.params.image, mine=self.mine)

    def _move(self, job: Job, source: Domain, target: Domain, selection: Selection, held: Held) -> ChecksumInfo | None:
        image, wish = selection.record.id, Wish(self.params.rate, self.params.checksum)
        ids = [volume.id for volume in selection.volumes]
        self._refuse(source, target, selection.record, ids)

        def layers(found: Selection) -> list[Layer]:
            return lay_out(found, AS_IT_IS, (target.id, image), ids, name=None, moved=True)

        copying = Copying(self.context, source, target, lambda: self._select(source), layers, ids)
        try:
            checksum = copying.run(job, held, wish, ready=lambda: self._intend(job, source))
        except BaseException:
            self._after_failure(job, source, held)
            raise
        depart(self.context, job, source, image, held)
        return checksum

    def _refuse(self, source: Domain, target: Domain, record: ImageRecord, ids: list[VolumeId]) -> None:
        """What stands in the way on either side.  Volumes keep their ids, which others may have there."""
        writable(source)
        if len(record.own) != len(ids):
            raise ImageDamaged(image=record.id, reason="it has volumes that are not in its chain")
        if clones := source.clones(record.id):
            raise TemplateInUse(image=record.id, clones=clones)
        with storage_errors(self.context, target.id, record.id):
            there = target.image(record.id)
            if there is not None and there.published:
                raise ImageExists(image=record.id, reason=f"domain {target.id} has an image of this id")
            for id_ in ids:
                if (home := target.find_volume(id_)) not in (None, record.id):
                    raise VolumeExists(volume=id_, reason=f"on domain {target.id} it is image {home}'s")

    def _intend(self, job: Job, source: Domain) -> None:
        """Say on storage what is about to happen, for whoever has to finish it."""
        with domain_lease(self.context, source, job):
            record = self._select(source).record
            if clones := source.clones(record.id):
                raise TemplateInUse(image=record.id, clones=clones)
            source.set_attributes(record.id, msgspec.structs.replace(record.attributes, intent=self.mine))

    def _after_failure(self, job: Job, source: Domain, held: Held) -> None:
        """An intent does not outlive the failure, where storage allows."""
        try:
            record = source.image(self.params.image)
            if record is not None and record.attributes.intent is not None:
                finish(self.context, job, source, record.id, held)
        except (ApiError, OSError) as error:
            log.warning("left for the collector", image=self.params.image, error=error)
