# SPDX-License-Identifier: Apache-2.0
"""What a copy of an image consists of: which volumes are read, and what is made of each.

An image is copied layer by layer, or collapsed into one volume.  A layer of which nothing changes is copied as a file,
byte for byte, which keeps what a guest does not see too; only the name of what it stands on is written anew.  Any
other is written by a tool.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from uuid import UUID

import msgspec

from hsm.domains.base import Domain, ImageRecord, NewVolume, VolumeRecord
from hsm.formats import description, qcow2
from hsm.formats.attributes import Attributes, Intent, VolumeAttributes
from hsm.formats.volume import VolumeMetadata
from hsm.operations import chains
from hsm.operations.encryption import able, secret_of
from hsm.operations.making import Plan
from hsm.operations.reading import readable_chain
from libvdsm.api.errors import InvalidParameter, NeedsCollapse, NotSupported
from libvdsm.api.types import Allocation, DomainId, ImageId, Legality, VolumeFormat, VolumeId, VolumeRole


@dataclass(frozen=True)
class Form:
    """How a copy is to be laid out.  What is None stays as it is."""

    format: VolumeFormat | None = None
    allocation: Allocation | None = None
    cluster_size: int | None = None
    compress: bool = False
    secret: UUID | None = None
    decrypt: bool = False
    """encrypted with another secret, or not any more"""


AS_IT_IS = Form()


@dataclass(frozen=True)
class Selection:
    """What of an image is copied: its volumes, the base first, and the template's volume that they stand on."""

    record: ImageRecord
    volumes: list[VolumeRecord]
    template: VolumeRecord | None
    chain: list[VolumeRecord]
    """all that is read, the newest first"""
    collapsed: bool
    secret: UUID | None = None
    """what the uppermost, and all of its image, is encrypted with"""

    @property
    def top(self) -> VolumeRecord:
        return self.chain[0]


def select(
    domain: Domain,
    image: ImageId,
    volume: VolumeId | None = None,
    *,
    collapse: bool = False,
    mine: Intent | None = None,
) -> Selection:
    """The chain below a volume, or below the leaf.  A template's own state seen through a clone is collapsed."""
    record = chains.image_of(domain, image)
    chain = readable_chain(domain, record, volume, mine)
    secret = secret_of(domain, record, chain[0])
    if collapse or chain[0].is_linked:
        return Selection(record, [chain[0]], None, chain, collapsed=True, secret=secret)
    own = [found for found in chain if not found.is_linked]
    template = chain[-1] if chain[-1].is_linked else None
    return Selection(record, own[::-1], template, chain, collapsed=False, secret=secret)


@dataclass(frozen=True)
class Layer:
    """One volume to be made, and what is read for it."""

    source: VolumeRecord
    plan: Plan
    same: bool
    """byte for byte"""
    form: Form
    backing_format: VolumeFormat | None
    secret: UUID | None
    """what the new volume is encrypted with"""


def encrypted_with(selection: Selection, form: Form) -> UUID | None:
    """The secret of a copy: as asked for, else as it is."""
    return None if form.decrypt else form.secret or selection.secret


def refuse_unfit(verb: str, selection: Selection, form: Form) -> None:
    """The form fits what is copied, or the caller is told."""
    count = len(selection.volumes) + (selection.template is not None)
    format_ = form.format or selection.top.metadata.format
    if count > 1 and (form.format is VolumeFormat.RAW or form.allocation is Allocation.PREALLOCATED):
        what = "raw" if form.format is VolumeFormat.RAW else "preallocated"
        raise NeedsCollapse(image=selection.record.id, volumes=count, form=what)
    if form.secret is not None and form.decrypt:
        raise InvalidParameter(verb=verb, reason="either a secret, or no encryption any more")
    secret = encrypted_with(selection, form)
    if count > 1 and secret != selection.secret:
        raise NeedsCollapse(image=selection.record.id, volumes=count, form="re-encrypted")
    if secret is not None:
        able(format_, form.allocation or selection.top.metadata.allocation, form.cluster_size, compress=form.compress)
    if format_ is VolumeFormat.RAW and (form.compress or form.cluster_size):
        raise InvalidParameter(verb=verb, reason="a raw volume has neither clusters nor compression")
    if form.compress and form.allocation is Allocation.PREALLOCATED:
        raise InvalidParameter(verb=verb, reason="what is compressed takes less space, and none is taken at once")


def lay_out(
    selection: Selection,
    form: Form,
    place: tuple[DomainId, ImageId],
    ids: list[VolumeId],
    *,
    name: str | None,
    moved: bool = False,
) -> list[Layer]:
    """The volumes to be made, the base first.  ``moved``: they stay who they are."""
    layers: list[Layer] = []
    below, below_format = None, None
    if selection.template is not None:
        below, below_format = selection.template.id, selection.template.metadata.format
    for source, id_ in zip(selection.volumes, ids, strict=True):
        metadata = _metadata(selection, source, form, place, below, name=name)
        if moved:
            metadata = msgspec.structs.replace(source.metadata, domain=place[0])
        secret = encrypted_with(selection, form)
        same = (
            not (selection.collapsed and len(selection.chain) > 1)
            and secret == selection.secret
            and _unchanged(source, metadata, form, below, below_format)
        )
        template = None
        if not layers and selection.template is not None:
            template = (ImageId(selection.template.metadata.image), selection.template.id)
        length, content = _beginning(source, metadata, below, below_format, same=same)
        new = NewVolume(place[1], id_, length, metadata.format, metadata.allocation, not layers, template)
        layers.append(Layer(source, Plan(new, metadata, content), same, form, below_format, secret))
        below, below_format = id_, metadata.format
    return layers


def _metadata(
    selection: Selection,
    source: VolumeRecord,
    form: Form,
    place: tuple[DomainId, ImageId],
    parent: VolumeId | None,
    *,
    name: str | None,
) -> VolumeMetadata:
    was, is_top = source.metadata, source is selection.top
    single = len(selection.chain) == 1
    role = VolumeRole.LEAF if is_top else VolumeRole.INTERNAL
    if was.role is VolumeRole.TEMPLATE and not selection.collapsed:
        role = VolumeRole.TEMPLATE
    allocation = form.allocation if form.allocation and (single or selection.collapsed) else was.allocation
    if form.compress:
        allocation = Allocation.SPARSE
    # Of a chain only the base may be raw.
    format_ = form.format or was.format
    return VolumeMetadata(
        domain=place[0],
        image=place[1],
        parent=parent,
        capacity=was.capacity,
        format=format_,
        allocation=allocation,
        role=role,
        legality=Legality.LEGAL,
        created=int(time.time()),
        description=description.write(was.description, name=name, snapshot="" if is_top else None),
        disk_type=was.disk_type,
        sequence=1 if selection.collapsed else was.sequence,
    )


def _unchanged(
    source: VolumeRecord,
    metadata: VolumeMetadata,
    form: Form,
    below: VolumeId | None,
    below_format: VolumeFormat | None,
) -> bool:
    header = source.header
    if form.compress or metadata.format is not source.metadata.format:
        return False
    if metadata.allocation is not source.metadata.allocation:
        return False
    if header is None:
        return True
    if form.cluster_size not in (None, header.cluster_size):
        return False
    if below is None or below_format is None:
        return True
    # The name is written over the old one, which is the same id or a longer path to it; the format stays.
    known = header.backing_format in (None, below_format.value)
    return known and len(header.backing_file or "") >= len(str(below))


def _beginning(
    source: VolumeRecord,
    metadata: VolumeMetadata,
    below: VolumeId | None,
    below_format: VolumeFormat | None,
    *,
    same: bool,
) -> tuple[int, list[tuple[int, bytes]]]:
    """The length of a new volume's file, and what is in it before it is filled."""
    if same:
        return source.length, []
    if metadata.format is VolumeFormat.RAW:
        return metadata.capacity, []
    if metadata.capacity > qcow2.max_capacity():
        raise NotSupported(reason=f"a qcow2 volume of more than {qcow2.max_capacity()} bytes")
    if below is None or below_format is None:
        return qcow2.new(metadata.capacity)
    return qcow2.new(metadata.capacity, str(below), below_format.value)


def attributes_of(selection: Selection, ids: list[VolumeId], secret: UUID | None) -> Attributes:
    """What is kept of the copy beside its metadata: tags, and the secret that it is encrypted with."""
    was = selection.record.attributes
    if selection.collapsed:
        return Attributes(tags=was.tags, secret=secret)
    pairs = zip(selection.volumes, ids, strict=True)
    volumes = {id_: VolumeAttributes(tags=kept.tags) for old, id_ in pairs if (kept := was.volumes.get(old.id))}
    tagged: dict[UUID, VolumeAttributes] = {id_: kept for id_, kept in volumes.items() if kept.tags}
    return Attributes(tags=was.tags, volumes=tagged, secret=secret)
