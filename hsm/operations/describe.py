# SPDX-License-Identifier: Apache-2.0
"""What is on storage, as the API tells it."""

from __future__ import annotations

from types import MappingProxyType
from uuid import UUID

from hsm.domains.base import Domain, ImageRecord, VolumeRecord
from hsm.domains.registry import Attached
from hsm.formats import description
from hsm.formats.domain import DomainMetadata
from hsm.formats.qcow2 import Header
from hsm.keeper import Keeper
from hsm.operations import chains
from hsm.transfers.states import ENDED
from hsm.transfers.transfers import Live, Transfers
from libvdsm.api.domain import DomainInfo, DomainState
from libvdsm.api.errors import ImageDamaged, VolumeDamaged
from libvdsm.api.transfer import TransferInfo
from libvdsm.api.types import (
    Compat,
    DomainId,
    Encryption,
    ImageId,
    ImageInfo,
    Legality,
    PreparedInfo,
    SecretId,
    VolumeFormat,
    VolumeId,
    VolumeInfo,
    VolumeRole,
)

_NOBODY = UUID(int=0)
_COMPAT = MappingProxyType({2: Compat.V2, 3: Compat.V3})


def volume_info(domain: DomainId, volume: VolumeRecord, role: VolumeRole) -> VolumeInfo:
    """One volume."""
    metadata = volume.metadata
    name, text = description.read(metadata.description, leaf=role is not VolumeRole.INTERNAL)
    header = volume.header
    return VolumeInfo(
        id=volume.id,
        domain=domain,
        image=ImageId(metadata.image),
        format=metadata.format,
        allocation=metadata.allocation,
        role=role,
        legality=metadata.legality,
        capacity=metadata.capacity,
        actual_size=volume.actual_size,
        length=volume.length,
        created=float(metadata.created),
        generation=metadata.generation,
        sequence=metadata.sequence,
        parent=None if metadata.parent is None else VolumeId(metadata.parent),
        name=name,
        description=text,
        backing_file=header.backing_file if header else None,
        cluster_size=header.cluster_size if header else None,
        damage=volume.damage,
        tags=list(volume.tags) or None,
        compat=_COMPAT.get(header.version) if header else None,
        encryption=_encryption(header),
    )


def _encryption(header: Header | None) -> Encryption | None:
    return Encryption.LUKS if header is not None and header.encrypted and not header.old_encryption else None


def volume_infos(domain: DomainId, record: ImageRecord, *, linked: bool = False) -> list[VolumeInfo]:
    """An image's own volumes, the oldest first; with ``linked`` also the template's below them."""
    parents = record.children()
    found = [
        volume_info(domain, volume, _role(volume, parents))
        for volume in record.volumes.values()
        if linked or not volume.is_linked
    ]
    if len(found) == 1:
        return found
    order = _order(record)
    return sorted(found, key=lambda info: (order.get(info.id, 0), info.sequence, info.created))


def _role(volume: VolumeRecord, parents: dict[VolumeId, list[VolumeId]]) -> VolumeRole:
    if volume.metadata.role is VolumeRole.TEMPLATE:
        return VolumeRole.TEMPLATE
    return VolumeRole.INTERNAL if volume.id in parents else VolumeRole.LEAF


def _order(record: ImageRecord) -> dict[VolumeId, int]:
    """How many volumes lie below each; bounded, as damaged chains may be circles."""
    depths: dict[VolumeId, int] = {}
    for volume in record.volumes.values():
        depth, below = 0, volume.metadata.parent
        while below is not None and depth <= len(record.volumes):
            depth += 1
            under = record.volumes.get(VolumeId(below))
            below = under.metadata.parent if under else None
        depths[volume.id] = depth
    return depths


def image_info(
    domain: DomainId, record: ImageRecord, prepared: PreparedInfo | None, *, chain: bool = False
) -> ImageInfo:
    """One image; a damaged one says so and tells what can be told."""
    damage = None
    leaf: VolumeRecord | None
    pending = chains.UPLOAD if chains.arriving(record) else None
    if record.attributes.intent:
        pending = chains.work_of(record.attributes.intent)
    try:
        leaf = chains.leaf_of(record)
        for volume in [] if pending else chains.chain_of(record, leaf):
            if reason := chains.wrong_size(volume):
                raise VolumeDamaged(volume=volume.id, reason=reason)
    except (ImageDamaged, VolumeDamaged) as error:
        # Between the steps of a change in place there may be two newest volumes.
        damage = error.reason if record.damaged or record.attributes.intent is None else None
        leaf = max(record.leaves() or record.own, key=lambda volume: volume.metadata.sequence, default=None)
    name = text = None
    if leaf is not None:
        name, text = description.read(leaf.metadata.description, leaf=True)
    own = record.own
    linked = [volume for volume in record.volumes.values() if volume.is_linked]
    return ImageInfo(
        id=record.id,
        domain=domain,
        leaf=leaf.id if leaf else VolumeId(_NOBODY),
        capacity=leaf.metadata.capacity if leaf else 0,
        actual_size=sum(volume.actual_size for volume in own),
        created=float(min((volume.metadata.created for volume in own), default=0)),
        is_template=leaf is not None and leaf.metadata.role is VolumeRole.TEMPLATE,
        legality=leaf.metadata.legality if leaf else Legality.ILLEGAL,
        snapshots=max(0, len(own) - 1),
        name=name,
        description=text,
        template=ImageId(linked[0].metadata.image) if linked else None,
        prepared=prepared,
        chain=volume_infos(domain, record, linked=True) if chain else None,
        damage=damage,
        pending=pending,
        tags=list(record.attributes.tags) or None,
        encryption=Encryption.LUKS if record.attributes.secret else None,
        secret=secret_named(record),
    )


def secret_named(record: ImageRecord) -> SecretId | None:
    found = record.attributes.secret
    return None if found is None else SecretId(found)


def prepared_info(domain: Domain, keeper: Keeper, format_: VolumeFormat, secret: SecretId | None) -> PreparedInfo:
    """The use of an image on this host."""
    return PreparedInfo(
        domain=keeper.domain,
        image=keeper.image,
        volume=keeper.volume,
        path=domain.data_path(keeper.image, keeper.volume),
        format=format_,
        read_only=keeper.read_only,
        since=keeper.since,
        keeper=keeper.pid,
        encryption=Encryption.LUKS if secret else None,
        secret=secret,
    )


def prepared_of(domain: Domain, record: ImageRecord, keepers: list[Keeper]) -> PreparedInfo | None:
    """The use of this image on this host, if there is any."""
    for keeper in keepers:
        if (keeper.domain, keeper.image) == (domain.id, record.id):
            leaf = record.volumes.get(keeper.volume)
            format_ = leaf.metadata.format if leaf else VolumeFormat.UNKNOWN
            return prepared_info(domain, keeper, format_, secret_named(record))
    return None


def domain_info(attached: Attached, metadata: DomainMetadata | None, problem: str | None) -> DomainInfo:
    """One domain, also if it cannot be reached."""
    return DomainInfo(
        id=attached.id,
        type=attached.type,
        state=DomainState.OK if metadata else DomainState.UNAVAILABLE,
        path=attached.path,
        name=metadata.description if metadata else None,
        version=metadata.version if metadata else None,
        block_size=metadata.block_size if metadata else None,
        alignment=metadata.alignment if metadata else None,
        problem=problem,
    )


def transfer_info(transfers: Transfers, live: Live, *, key: bool = False) -> TransferInfo:
    """One transfer; with ``key`` where its data goes, which is all that one needs to change it."""
    record = live.record
    ticket, place = transfers.ticket(live), transfers.place(live) if key else None
    return TransferInfo(
        id=record.id,
        direction=record.direction,
        content=record.content,
        state=record.state,
        domain=record.domain,
        image=record.image,
        volume=record.volume,
        format=record.format,
        size=record.size,
        arrived=record.arrived,
        created=record.created,
        expires=None if record.state in ENDED else record.touched + transfers.expiry,
        url=place[0] if place else None,
        socket=place[1] if place else None,
        moved=ticket.transferred if ticket else None,
        checksum=record.checksum,
        name=record.name,
        note=record.note,
        problem=record.problem,
    )
