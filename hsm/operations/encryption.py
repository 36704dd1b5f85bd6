# SPDX-License-Identifier: Apache-2.0
"""Encrypted images: which secret opens which volume, and what a new volume is encrypted with.

An image names one secret in its attributes, from before its first volume is published, and all of its own volumes are
encrypted with it.  A template below it is another image, and may have another one.  Here a volume of a domain becomes
what programs are told of it (``hsm.tools.nodes``); of an image that is not encrypted that is its path and format.
"""

from __future__ import annotations

from contextlib import suppress
from uuid import UUID

from hsm.domains.base import Domain, ImageRecord, VolumeRecord
from hsm.formats import luks, qcow2
from hsm.formats.luks import Luks
from hsm.operations import chains
from hsm.operations.base import Context
from hsm.operations.making import qemu_img
from hsm.secrets import SecretsFailed
from hsm.tasks.locks import Lock
from hsm.tools.keys import Key
from hsm.tools.nodes import Source
from libvdsm.api.errors import CannotEncrypt, NoSuchSecret
from libvdsm.api.types import Allocation, ImageId, SecretId, VolumeFormat, VolumeId
from libvdsm.log import Log

log = Log("hsm.encryption")


def lock_secret(secret: UUID, *, shared: bool = False) -> Lock:
    """Shared by whoever makes an image that names it."""
    return Lock(f"secret/{secret}", shared)


def key_of(context: Context, secret: UUID) -> Key:
    """A secret of this host, for programs."""
    try:
        found = context.secrets.key(secret)
    except SecretsFailed as error:
        log.warning("a secret cannot be read", secret=secret, reason=error)
        found = None
    if found is None:
        raise NoSuchSecret(secret=SecretId(secret))
    return found


def secret_of(domain: Domain, record: ImageRecord, volume: VolumeRecord) -> UUID | None:
    """What a volume of an image is encrypted with; a template's as the template's own attributes say."""
    if volume.header is None or not volume.header.encrypted:
        return None
    if not volume.is_linked:
        return record.attributes.secret
    home = domain.image(ImageId(volume.metadata.image))
    return home.attributes.secret if home is not None else None


def is_encrypted(record: ImageRecord) -> bool:
    """Whether anything that an image consists of is."""
    return any(volume.header is not None and volume.header.encrypted for volume in record.volumes.values())


def source_of(
    context: Context, domain: Domain, record: ImageRecord, volume: VolumeRecord, *, alone: bool = False
) -> Source:
    """A volume of an image, for programs; with the keys of all that it stands on, unless it is wanted ``alone``."""
    path, format_ = domain.data_path(volume.folder, volume.id), volume.metadata.format.value
    if not is_encrypted(record):
        return Source(path, format_, alone=alone)
    secret = secret_of(domain, record, volume)
    source = Source(path, format_, alone=alone, key=key_of(context, secret) if secret else None)
    parent = volume.metadata.parent
    if alone or parent is None:
        return source
    return source.on(source_of(context, domain, record, record.volumes[VolumeId(parent)]))


def itself(context: Context, domain: Domain, record: ImageRecord, volume: VolumeRecord) -> Source:
    """A volume for programs that look at nothing below it.  A plain one is found to stand on what its header says."""
    if volume.header is None or not volume.header.encrypted:
        return Source(domain.data_path(volume.folder, volume.id), volume.metadata.format.value)
    return source_of(context, domain, record, volume, alone=True)


def prove_keys(context: Context, source: Source) -> None:
    """The secrets of this host open a volume, and what it stands on: each is tried on one layer, so it is known which."""
    proved: set[UUID] = set()
    layer: Source | None = source
    while layer is not None:
        if layer.key is not None and layer.key.secret not in proved:
            qemu_img(context).try_keys(layer.itself)
            proved.add(layer.key.secret)
        layer = None if layer.alone else layer.below


def readable_source(context: Context, domain: Domain, record: ImageRecord, volume: VolumeRecord) -> Source:
    """A volume to be read with all that it stands on.  Where that takes several secrets, none of them is wrong."""
    source = source_of(context, domain, record, volume)
    if len({key.secret for key in source.keys}) > 1:
        prove_keys(context, source)
    return source


def prove_image(context: Context, domain: Domain, record: ImageRecord) -> None:
    """The same of all that an image shows; what is not encrypted costs nothing."""
    if is_encrypted(record):
        prove_keys(context, source_of(context, domain, record, chains.leaf_of(record)))


def new_luks(context: Context, secret: UUID | None) -> Luks | None:
    """What a new volume is encrypted with; it may take a second, so never while a domain's lease is held."""
    if secret is None:
        return None
    key = key_of(context, secret)
    return luks.new(secret, key.value, luks.FEWEST if key.generated else luks.MANY)


def luks_on(context: Context, domain: Domain, record: ImageRecord, below: VolumeRecord) -> Luks | None:
    """The same for a new layer of an image, whose secret opens what it comes to stand on."""
    if record.attributes.secret is None:
        return None
    # What is damaged is told first.
    chains.chain_of(record, below)
    # Were it wrong here, one image would have layers of two keys.
    prove_keys(context, source_of(context, domain, record, below, alone=True))
    return new_luks(context, record.attributes.secret)


def able(
    format_: VolumeFormat, allocation: Allocation, cluster_size: int | None = None, *, compress: bool = False
) -> None:
    """A volume of this kind can be encrypted."""
    reason = None
    if format_ is not VolumeFormat.QCOW2:
        reason = f"only qcow2 volumes can be, and {format_.value} was asked for"
    elif allocation is Allocation.PREALLOCATED:
        reason = "space that is taken at once would read as noise, and not as zeros"
    elif cluster_size not in (None, 1 << qcow2.CLUSTER_BITS):
        reason = f"encrypted volumes have clusters of {1 << qcow2.CLUSTER_BITS} bytes"
    elif compress:
        reason = "QEMU does not compress what it encrypts"
    if reason:
        raise CannotEncrypt(reason=reason)


def user_of(domain: Domain, secret: UUID) -> ImageId | None:
    """An image that is encrypted with a secret."""
    for image in domain.image_ids():
        with suppress(FileNotFoundError):
            record = domain.image(image)
            if record is not None and record.published and record.attributes.secret == secret:
                return image
    return None
