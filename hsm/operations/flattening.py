# SPDX-License-Identifier: Apache-2.0
"""Images that cease to depend on a template, or come to depend on another.

Both are a pull (``hsm.operations.pulling``): flattening into the leaf, of all that it stands on; rebasing into the
image's lowest volume, of what its template shows and the new one does not.  A template is linked into the image's
folder while both the domain's lease and the template's are held, after the intent was written; and taken out of it
before the intent goes.
"""

from __future__ import annotations

from hsm.domains.base import Domain, Held, ImageRecord, VolumeRecord, Wanted
from hsm.formats.attributes import AnyIntent, Flatten, Pull, Rebase
from hsm.formats.volume import next_generation
from hsm.operations import chains, pulling
from hsm.operations.base import lock_image
from hsm.operations.encryption import prove_image
from hsm.operations.inplace import InPlace, Moving
from hsm.operations.merging import pulled, unfit_to_pull
from hsm.tasks.locks import Locks
from hsm.tasks.manager import Job
from libvdsm.api.errors import CannotChange, CannotEncrypt, NotSupported, NotTemplate, WouldLoseSnapshots
from libvdsm.api.types import VolumeFormat, VolumeId, VolumeRole


class _Pulling(InPlace):
    """What both have in common."""

    def touched(self, intent: AnyIntent) -> tuple[VolumeId, ...]:
        assert isinstance(intent, Pull)
        return tuple(VolumeId(volume) for volume in (intent.top, *intent.gone))

    def finish(self, job: Job, domain: Domain, held: Held, *, fresh: bool) -> None:
        pulling.finish(self.context, job, domain, self.params.image, held, fresh=fresh)


class FlattenImage(_Pulling):
    """Image.flatten"""

    def done(self, record: ImageRecord) -> bool:
        return len(record.volumes) == 1

    def mine(self, intent: AnyIntent) -> bool:
        return isinstance(intent, Flatten)

    def decide(self, domain: Domain, record: ImageRecord) -> Flatten:
        chain = chains.chain_of(record, chains.leaf_of(record))
        leaf, own = chain[0], [volume for volume in chain if not volume.is_linked]
        if len(own) > 1 and not self.params.discard_snapshots:
            raise WouldLoseSnapshots(image=record.id, snapshots=len(own) - 1)
        if reason := unfit_to_pull(leaf):
            raise NotSupported(reason=reason)
        return Flatten(
            top=leaf.id,
            gone=tuple(volume.id for volume in own[1:]),
            unlink=_linked(chain),
            generation=next_generation(leaf.metadata.generation),
            wipe=self.params.wipe,
        )

    def moving(self, record: ImageRecord, intent: AnyIntent) -> Moving:
        chain = chains.chain_of(record, chains.leaf_of(record))
        return pulled(record, chain[0], None, len(chain) - 1)


class RebaseImage(_Pulling):
    """Image.rebase"""

    @property
    def locks(self) -> Locks:
        if self.params.template is None:
            return super().locks
        return (*super().locks, lock_image(self.params.domain, self.params.template, shared=True))

    def more_leases(self, domain: Domain) -> list[Wanted]:
        if self.params.template is None:
            return []
        return [Wanted(self._template(domain).id, self.params.template, shared=True)]

    def _template(self, domain: Domain) -> VolumeRecord:
        record = chains.image_of(domain, self.params.template)
        leaf = chains.leaf_of(record)
        if leaf.metadata.role is not VolumeRole.TEMPLATE:
            raise NotTemplate(image=record.id)
        chains.usable(domain, record, chains.chain_of(record, leaf))
        return leaf

    def make_ready(self, domain: Domain, record: ImageRecord, intent: AnyIntent) -> None:
        if self.params.template is not None:
            prove_image(self.context, domain, chains.image_of(domain, self.params.template))

    def done(self, record: ImageRecord) -> bool:
        linked = next((volume for volume in record.volumes.values() if volume.is_linked), None)
        stands_on = linked.metadata.image if linked else None
        return bool(stands_on == self.params.template)

    def mine(self, intent: AnyIntent) -> bool:
        return isinstance(intent, Rebase) and intent.template == self.params.template

    def decide(self, domain: Domain, record: ImageRecord) -> Rebase:
        template = self._template(domain) if self.params.template is not None else None
        chain = chains.chain_of(record, chains.leaf_of(record))
        base = _lowest(chain)
        if base.metadata.format is not VolumeFormat.QCOW2:
            raise CannotChange(volume=base.id, reason="it is raw, and only qcow2 volumes stand on others")
        if reason := unfit_to_pull(base):
            raise NotSupported(reason=reason)
        if template is not None and template.header is not None and template.header.encrypted:
            _never_plain(record, template)
        return Rebase(
            top=base.id,
            parent=template.id if template else None,
            template=self.params.template,
            unlink=_linked(chain),
            generation=next_generation(base.metadata.generation),
        )

    def moving(self, record: ImageRecord, intent: AnyIntent) -> Moving:
        chain = chains.chain_of(record, chains.leaf_of(record))
        return pulled(record, _lowest(chain), None, 1)


def _never_plain(record: ImageRecord, template: VolumeRecord) -> None:
    """What is encrypted would be copied into the plain layers above it."""
    if record.attributes.secret is None:
        home = template.metadata.image
        raise CannotEncrypt(reason=f"template {home} is, and the image is not; copy it with a secret first")


def _lowest(chain: list[VolumeRecord]) -> VolumeRecord:
    """An image's oldest volume of its own."""
    return [volume for volume in chain if not volume.is_linked][-1]


def _linked(chain: list[VolumeRecord]) -> VolumeId | None:
    """A template's volume below an image, if there is one."""
    return chain[-1].id if chain[-1].is_linked else None
