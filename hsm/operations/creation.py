# SPDX-License-Identifier: Apache-2.0
"""Creating empty volumes: new images, snapshots, clones.

Commit point and undo are ``hsm.operations.making``'s.  A snapshot first writes into the present leaf's metadata what
it will be (frozen, with the snapshot's name); until the new leaf is published that says nothing, since what is a leaf
is derived from what is published.  After a crash: published, it is done; else nothing was changed.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any
from uuid import UUID

import msgspec

from hsm.domains.base import Domain, ImageRecord, VolumeRecord, Wanted
from hsm.formats import description
from hsm.formats.luks import Luks
from hsm.operations import chains, describe, encryption
from hsm.operations.base import (
    BaseOperation,
    Context,
    lock_domain,
    lock_image,
    storage_errors,
)
from hsm.operations.bitmap_layers import passed_on
from hsm.operations.making import Plan, empty_data, make_volume, plan_volume, round_up
from hsm.tasks.locks import Locks
from hsm.tasks.manager import Job, Objects
from libvdsm.api.errors import (
    CannotChange,
    CannotShrink,
    ImageExists,
    ImageInUse,
    IsTemplate,
    NoSuchVolume,
    NotTemplate,
    VolumeExists,
    VolumeHasChildren,
)
from libvdsm.api.types import (
    Allocation,
    DomainId,
    ImageId,
    ImageInfo,
    VolumeFormat,
    VolumeId,
    VolumeInfo,
    VolumeRole,
)


class _Creation(BaseOperation):
    """What all of them share; subclasses say which image, which volume, and what to make."""

    allocation = Allocation.SPARSE
    luks: Luks | None = None
    """what the new volume is encrypted with, once that was made"""

    def __init__(self, context: Context, params: Any) -> None:
        super().__init__(context, params)
        self.domain_id: DomainId = params.domain
        self.image_id: ImageId = params.id
        self.volume_id: VolumeId = params.volume

    @property
    def locks(self) -> Locks:
        named = [] if self.secret is None else [encryption.lock_secret(self.secret, shared=True)]
        return lock_domain(self.domain_id), lock_image(self.domain_id, self.image_id), *named

    @property
    def objects(self) -> Objects:
        return Objects(self.domain_id, self.image_id, self.volume_id)

    def domain(self) -> Domain:
        return self.context.registry.get(self.domain_id)

    def outcome(self) -> Any:
        domain = self.domain()
        with storage_errors(self.context, self.domain_id, self.image_id):
            record = domain.image(self.image_id)
            if record is None or not record.published:
                return None
            volume = record.volumes.get(self.volume_id)
            if volume is None:
                return self.existing_image(record)
            reason = self.difference(volume)
            if self.secret is not None and record.attributes.secret != self.secret:
                reason = "it is not encrypted with that secret"
            if reason:
                raise VolumeExists(volume=self.volume_id, reason=reason)
            return self.result(domain, record)

    @property
    def secret(self) -> UUID | None:
        """What the caller wants a new image to be encrypted with."""
        found: UUID | None = getattr(self.params, "secret", None)
        return found

    def new_luks(self, domain: Domain) -> Luks | None:
        """What the new volume is encrypted with.  Under the leases of what it stands on."""
        return encryption.new_luks(self.context, self.secret)

    def existing_image(self, record: ImageRecord) -> None:
        """The image is there and the volume is not."""
        raise ImageExists(image=record.id, reason="it has other volumes")

    def difference(self, volume: VolumeRecord) -> str | None:
        """How a volume that is there differs from what is asked for."""
        wanted = getattr(self.params, "capacity", None)
        if wanted is not None and volume.metadata.capacity != round_up(wanted):
            return f"it has {volume.metadata.capacity} bytes"
        return None

    def result(self, domain: Domain, record: ImageRecord) -> ImageInfo | VolumeInfo:
        return describe.image_info(domain.id, record, None, chain=True)

    def decide(self, domain: Domain) -> Plan:
        raise NotImplementedError

    def leases(self, domain: Domain) -> list[Wanted]:
        """The leases of what the new volume stands on."""
        return []

    def run(self, job: Job) -> Any:
        job.progress("making the volume")
        domain = self.domain()
        with storage_errors(self.context, self.domain_id, self.image_id), ExitStack() as leases:
            if wanted := self.leases(domain):
                with storage_errors(self.context, self.domain_id, wanted[0].image):
                    leases.callback(domain.acquire(wanted).release)
            self.luks = self.new_luks(domain)
            slow = self.allocation is Allocation.PREALLOCATED
            make_volume(
                job, self.context, domain, lambda: self.decide(domain), empty_data(self.context, domain), slow=slow
            )
            return self.result(domain, chains.image_of(domain, self.image_id))


class CreateImage(_Creation):
    """Image.create"""

    def __init__(self, context: Context, params: Any) -> None:
        super().__init__(context, params)
        self.allocation = params.allocation

    def difference(self, volume: VolumeRecord) -> str | None:
        if volume.metadata.format is not self.params.format:
            return f"its format is {volume.metadata.format.value}"
        if volume.metadata.allocation is not self.params.allocation:
            return f"its allocation is {volume.metadata.allocation.value}"
        return super().difference(volume)

    def decide(self, domain: Domain) -> Plan:
        absent(domain, self.image_id)
        return plan_volume(
            domain=domain.id,
            image=self.image_id,
            volume=self.volume_id,
            capacity=round_up(self.params.capacity),
            format_=self.params.format,
            allocation=self.params.allocation,
            description=description.write(name=self.params.name, description=self.params.description),
            luks=self.luks,
        )


def absent(domain: Domain, image: ImageId) -> None:
    """There is no such image, nor a part of one that a crash left.  Under the domain's lease."""
    record = domain.image(image)
    if record is not None and not record.published and record.attributes.making is not None:
        leaf = VolumeId(record.attributes.making.leaf)
        domain.abandon(image, leaf)
        if (record := domain.image(image)) is not None:
            raise ImageInUse(image=image, volume=leaf, holder="whoever is making it")
    if record is not None and record.published:
        raise ImageExists(image=image, reason="somebody made it meanwhile")


class Snapshot(_Creation):
    """Image.snapshot"""

    def __init__(self, context: Context, params: Any) -> None:
        self._leased: VolumeRecord | None = None
        BaseOperation.__init__(self, context, params)
        self.domain_id, self.image_id, self.volume_id = params.domain, params.image, params.volume

    def existing_image(self, record: ImageRecord) -> None:
        """It has to be there."""

    def difference(self, volume: VolumeRecord) -> str | None:
        return None if volume.metadata.parent is not None else "it stands on nothing"

    def leases(self, domain: Domain) -> list[Wanted]:
        leaf = chains.leaf_of(chains.image_of(domain, self.image_id))
        if leaf.metadata.role is VolumeRole.TEMPLATE:
            raise IsTemplate(image=self.image_id)
        self._leased = leaf
        return [Wanted(leaf.id, self.image_id)]

    def new_luks(self, domain: Domain) -> Luks | None:
        assert self._leased is not None
        return encryption.luks_on(self.context, domain, chains.image_of(domain, self.image_id), self._leased)

    def capacity(self, leaf: VolumeRecord) -> int:
        return leaf.metadata.capacity

    def decide(self, domain: Domain) -> Plan:
        record = chains.image_of(domain, self.image_id)
        leaf = chains.leaf_of(record)
        chains.usable(domain, record, chains.chain_of(record, leaf))
        if self._leased is None or leaf.id != self._leased.id:
            raise ImageInUse(image=self.image_id, volume=leaf.id, holder="whoever just made a snapshot of it")
        return self.on_top(domain, leaf, self.params.name, None)

    def on_top(self, domain: Domain, leaf: VolumeRecord, snapshot: str | None, text: str | None) -> Plan:
        return layer_on(leaf, self.volume_id, self.capacity(leaf), snapshot, text, luks=self.luks)


def layer_on(
    leaf: VolumeRecord,
    volume: VolumeId,
    capacity: int,
    snapshot: str | None,
    text: str | None = None,
    *,
    luks: Luks | None = None,
) -> Plan:
    """An empty layer on top of a leaf, which is kept under a name of its own from then on."""
    old = leaf.metadata.description
    frozen = msgspec.structs.replace(
        leaf.metadata, role=VolumeRole.INTERNAL, description=description.write(old, snapshot=snapshot or "")
    )
    return plan_volume(
        domain=DomainId(leaf.metadata.domain),
        image=leaf.folder,
        volume=volume,
        capacity=capacity,
        format_=VolumeFormat.QCOW2,
        allocation=Allocation.SPARSE,
        description=description.write(old, snapshot="", description=text),
        parent=leaf,
        frozen=frozen,
        # Each layer records what is written while it is the newest.
        bitmaps=passed_on(leaf, capacity),
        luks=luks,
    )


class Clone(_Creation):
    """Image.clone"""

    @property
    def locks(self) -> Locks:
        return (*super().locks, lock_image(self.domain_id, self.params.template, shared=True))

    def existing_image(self, record: ImageRecord) -> None:
        raise ImageExists(image=record.id, reason="it has other volumes")

    def difference(self, volume: VolumeRecord) -> str | None:
        template = self.domain().image(self.params.template)
        if template is None or volume.metadata.parent not in template.volumes:
            return "it does not stand on this template"
        return super().difference(volume)

    def leases(self, domain: Domain) -> list[Wanted]:
        template = self._template(domain)
        # Shared: nobody deletes the template while this goes on, and others may clone it too.
        return [Wanted(template.id, self.params.template, shared=True)]

    def new_luks(self, domain: Domain) -> Luks | None:
        template = chains.image_of(domain, self.params.template)
        if self.secret in (None, template.attributes.secret):
            return encryption.luks_on(self.context, domain, template, chains.leaf_of(template))
        return encryption.new_luks(self.context, self.secret)

    def _template(self, domain: Domain) -> VolumeRecord:
        record = chains.image_of(domain, self.params.template)
        leaf = chains.leaf_of(record)
        if leaf.metadata.role is not VolumeRole.TEMPLATE:
            raise NotTemplate(image=self.params.template)
        chains.usable(domain, record, chains.chain_of(record, leaf))
        return leaf

    def decide(self, domain: Domain) -> Plan:
        absent(domain, self.image_id)
        template = self._template(domain)
        capacity = round_up(self.params.capacity or template.metadata.capacity)
        if capacity < template.metadata.capacity:
            raise CannotShrink(volume=template.id, capacity=template.metadata.capacity)
        return plan_volume(
            domain=domain.id,
            image=self.image_id,
            volume=self.volume_id,
            capacity=capacity,
            format_=VolumeFormat.QCOW2,
            allocation=Allocation.SPARSE,
            description=description.write(name=self.params.name, description=self.params.description),
            parent=template,
            luks=self.luks,
        )


class _AsVolume:
    """The result of Volume.create."""

    volume_id: VolumeId

    def result(self, domain: Domain, record: ImageRecord) -> VolumeInfo:
        volume = record.volumes[self.volume_id]
        return describe.volume_info(domain.id, volume, record.role(volume))


class _NewBase(_AsVolume, CreateImage):
    """Volume.create without a parent.  ``params`` as rearranged by ``create_volume``."""


class _OnLeaf(_AsVolume, Snapshot):
    """Volume.create on an image's leaf."""

    def difference(self, volume: VolumeRecord) -> str | None:
        if volume.metadata.parent != self.params.parent:
            return f"it stands on {volume.metadata.parent}"
        return _Creation.difference(self, volume)

    def leases(self, domain: Domain) -> list[Wanted]:
        record, parent = chains.volume_of(domain, self.params.parent, self.image_id)
        children = record.children().get(parent.id)
        if children:
            raise VolumeHasChildren(volume=parent.id, children=len(children))
        return super().leases(domain)

    def capacity(self, leaf: VolumeRecord) -> int:
        wanted = round_up(self.params.capacity or leaf.metadata.capacity)
        if wanted < leaf.metadata.capacity:
            raise CannotShrink(volume=leaf.id, capacity=leaf.metadata.capacity)
        return wanted

    def on_top(self, domain: Domain, leaf: VolumeRecord, snapshot: str | None, text: str | None) -> Plan:
        return super().on_top(domain, leaf, None, self.params.description)


class _OnTemplate(_AsVolume, Clone):
    """Volume.create of a new image on a template's volume."""

    def difference(self, volume: VolumeRecord) -> str | None:
        if volume.metadata.parent != self.params.parent:
            return f"it stands on {volume.metadata.parent}"
        return _Creation.difference(self, volume)


class _Rearranged:
    """Volume.create's parameters under the names that Image's verbs have for them."""

    def __init__(self, params: Any, template: ImageId | None) -> None:
        self.domain = params.domain
        self.id = self.image = params.image
        self.volume = params.id
        self.template = template
        self.parent = params.parent
        self.capacity = params.capacity
        self.format = params.format
        self.allocation = params.allocation
        self.description = params.description
        self.name: str | None = None


def _home(domain: Domain, image: ImageId, volume: VolumeId) -> ImageId | None:
    """The image that a volume belongs to, looked for first in the one that is given: a domain may have thousands."""
    record = domain.image(image)
    found = record.volumes.get(volume) if record else None
    return ImageId(found.metadata.image) if found else domain.find_volume(volume)


def create_volume(context: Context, params: Any) -> BaseOperation:
    """Volume.create: which of the three ways, by what the parent is."""
    if params.parent is None:
        return _NewBase(context, _Rearranged(params, None))
    if params.format is not VolumeFormat.QCOW2 or params.allocation is not Allocation.SPARSE:
        raise CannotChange(volume=params.parent, reason="a volume on top of another is sparse qcow2")
    domain = context.registry.get(params.domain)
    with storage_errors(context, domain.id, params.image):
        home = _home(domain, params.image, params.parent)
    if home is None:
        raise NoSuchVolume(domain=domain.id, volume=params.parent)
    if home == params.image:
        return _OnLeaf(context, _Rearranged(params, None))
    return _OnTemplate(context, _Rearranged(params, home))
