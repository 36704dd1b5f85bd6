# SPDX-License-Identifier: Apache-2.0
"""Going back to a snapshot: its state becomes the present one, and stays a snapshot.

A change in place (``hsm.operations.intents``), whose commit point is the intent: what was above the snapshot is lost
from then on.  A new leaf is made before it, as garbage, so that a full storage changes nothing; whoever finishes makes
it anew where it is not there.  It is published first, and what was above goes from the top down; so at no time is the
image without a leaf.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass

from hsm.domains.base import Domain, Held, ImageRecord
from hsm.formats import description
from hsm.formats.attributes import AnyIntent, Revert
from hsm.formats.luks import Luks
from hsm.operations import chains
from hsm.operations.base import Context, domain_lease
from hsm.operations.bitmap_layers import passed_on
from hsm.operations.encryption import luks_on
from hsm.operations.inplace import InPlace, end, let_go, own_volume, tell
from hsm.operations.making import Plan, plan_volume
from hsm.tasks.manager import Job
from libvdsm.api.errors import NotSnapshot, VolumeExists
from libvdsm.api.event import VolumeCreated
from libvdsm.api.types import Allocation, ImageId, VolumeFormat, VolumeId


@dataclass(frozen=True)
class _Made:
    """The new leaf is made already, encrypted with this."""

    luks: Luks | None = None


def finish(
    context: Context, job: Job, domain: Domain, image: ImageId, held: Held, *, made: _Made | None = None
) -> bool:
    """Do what is left to be done."""
    luks = made.luks if made else _luks(context, domain, chains.image_of(domain, image))
    with domain_lease(context, domain):
        record = chains.image_of(domain, image)
        intent = record.attributes.intent
        assert isinstance(intent, Revert)
        leaf, gone = VolumeId(intent.leaf), tuple(VolumeId(volume) for volume in intent.gone)
        if leaf not in record.volumes:
            job.progress("making the new layer")
            plan = _plan(domain, record, intent, luks)
            with ExitStack() as lease:
                if made is None:
                    lease.callback(domain.begin_volume(plan.new).release)
                    domain.make_data(plan.new, plan.content)
                domain.publish(image, leaf, plan.metadata)
        left = end(domain, image, gone, wipe=intent.wipe)
    context.events.emit(VolumeCreated(domain=domain.id, image=image, volume=leaf))
    tell(context, domain, image, (), gone)
    let_go(job, domain, held, left)
    return True


def _luks(context: Context, domain: Domain, record: ImageRecord) -> Luks | None:
    """What the new leaf is encrypted with, if it has to be made anew."""
    intent = record.attributes.intent
    if not isinstance(intent, Revert) or intent.leaf in record.volumes:
        return None
    return luks_on(context, domain, record, record.volumes[VolumeId(intent.to)])


def _plan(domain: Domain, record: ImageRecord, intent: Revert, luks: Luks | None) -> Plan:
    """An empty layer of the snapshot's size, with the present name and description."""
    parent = record.volumes[VolumeId(intent.to)]
    present = record.volumes[VolumeId(intent.gone[0])].metadata.description
    return plan_volume(
        domain=domain.id,
        image=record.id,
        volume=VolumeId(intent.leaf),
        capacity=parent.metadata.capacity,
        format_=VolumeFormat.QCOW2,
        allocation=Allocation.SPARSE,
        description=description.write(present, snapshot=""),
        parent=parent,
        bitmaps=passed_on(parent, parent.metadata.capacity),
        luks=luks,
    )


class RevertImage(InPlace):
    """Image.revert.  ``params.leaf`` was filled in by the service."""

    _made = _Made()

    def make_ready(self, domain: Domain, record: ImageRecord, intent: AnyIntent) -> None:
        self._made = _Made(luks_on(self.context, domain, record, record.volumes[self.params.volume]))

    def done(self, record: ImageRecord) -> bool:
        leaf = record.volumes.get(self.params.leaf)
        if leaf is None:
            return False
        if leaf.metadata.parent != self.params.volume:
            raise VolumeExists(volume=leaf.id, reason=f"it stands on {leaf.metadata.parent or 'nothing'}")
        return True

    def mine(self, intent: AnyIntent) -> bool:
        return isinstance(intent, Revert) and (intent.to, intent.leaf) == (self.params.volume, self.params.leaf)

    def decide(self, domain: Domain, record: ImageRecord) -> Revert:
        to = own_volume(domain, record, self.params.volume)
        chain = chains.chain_of(record, chains.leaf_of(record))
        gone = tuple(volume.id for volume in chain[: chain.index(to)])
        if not gone:
            raise NotSnapshot(image=record.id, volume=to.id)
        return Revert(to=to.id, leaf=self.params.leaf, gone=gone, wipe=self.params.wipe)

    def prepare(self, undo: ExitStack, domain: Domain, intent: AnyIntent) -> Held:
        assert isinstance(intent, Revert)
        plan = _plan(domain, chains.image_of(domain, self.params.image), intent, self._made.luks)
        undo.callback(_abandon, domain, plan)
        held = domain.begin_volume(plan.new)
        undo.callback(held.release)
        domain.make_data(plan.new, plan.content)
        return held

    def finish(self, job: Job, domain: Domain, held: Held, *, fresh: bool) -> None:
        finish(self.context, job, domain, self.params.image, held, made=self._made if fresh else None)


def _abandon(domain: Domain, plan: Plan) -> None:
    """Give back what was made; what cannot be is the collector's."""
    with suppress(OSError):
        domain.abandon(plan.new.image, plan.new.volume)
