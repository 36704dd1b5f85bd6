# SPDX-License-Identifier: Apache-2.0
"""Images and chains as they are on storage, or the declared error that says why they are not."""

from __future__ import annotations

import os

from hsm.domains.base import Domain, ImageRecord, VolumeRecord
from hsm.formats.attributes import Intent
from libvdsm.api.errors import (
    GenerationMismatch,
    ImageDamaged,
    ImageUnfinished,
    NoSuchImage,
    NoSuchVolume,
    VolumeDamaged,
    VolumeIllegal,
)
from libvdsm.api.types import ImageId, Legality, VolumeFormat, VolumeId, VolumeRole

UPLOAD = "upload"
"""What is unfinished of an image that has not arrived as a whole."""


def image_of(domain: Domain, image: ImageId) -> ImageRecord:
    """A published image."""
    record = domain.image(image)
    if record is None or not record.published:
        raise NoSuchImage(domain=domain.id, image=image)
    return record


def intact(record: ImageRecord) -> None:
    """Every volume of an image can be read, so that it is known which one stands on which."""
    if record.damaged:
        raise ImageDamaged(image=record.id, reason=f"{record.damaged[0].path}: {record.damaged[0].reason}")


def settled(record: ImageRecord, mine: Intent | None = None) -> None:
    """No change in place has begun, other than the caller's own, and all of it has arrived."""
    intent = record.attributes.intent
    if intent is not None and intent != mine:
        raise ImageUnfinished(image=record.id, work=work_of(intent))
    if arriving(record):
        raise ImageUnfinished(image=record.id, work=UPLOAD)


def work_of(intent: Intent) -> str:
    """What an intent is called."""
    return str(intent.__struct_config__.tag)


def arriving(record: ImageRecord) -> VolumeRecord | None:
    """The volume of an image that is being uploaded, or that nobody went on uploading."""
    kept = record.attributes.volumes
    return next((volume for volume in record.own if gives_up(record, volume)), None) if kept else None


def gives_up(record: ImageRecord, volume: VolumeRecord) -> float | None:
    """When a volume that is only half there is given up; None of all others.

    One that was legal before, or that anything stands on, is none of these any more, whatever is kept of it.
    """
    kept = record.attributes.volumes.get(volume.id)
    metadata = volume.metadata
    fresh = metadata.legality is Legality.ILLEGAL and metadata.generation == 0 and metadata.parent is None
    return kept.expires if kept is not None and fresh and len(record.own) == 1 else None


def leaf_of(record: ImageRecord) -> VolumeRecord:
    """The one leaf that a sound image has."""
    intact(record)
    leaves = record.leaves()
    if len(leaves) != 1:
        raise ImageDamaged(image=record.id, reason=f"it has {len(leaves)} newest volumes, and one is right")
    return leaves[0]


def chain_of(record: ImageRecord, top: VolumeRecord) -> list[VolumeRecord]:
    """The volumes from ``top`` down to its base, each proved to be what the one above it names."""
    chain = [top]
    while True:
        current = chain[-1]
        prove(current)
        if not current.is_linked and (reason := mismatched(record, current)):
            raise VolumeDamaged(volume=current.id, reason=reason)
        parent = current.metadata.parent
        if parent is None:
            return chain
        below = record.volumes.get(VolumeId(parent))
        if below is None:
            raise ImageDamaged(image=record.id, reason=f"volume {current.id} stands on {parent}, which is missing")
        if below in chain:
            raise ImageDamaged(image=record.id, reason=f"volume {current.id} stands on itself by way of others")
        if reason := misread(current, below):
            raise VolumeDamaged(volume=current.id, reason=reason)
        chain.append(below)


def prove(volume: VolumeRecord) -> None:
    """A volume's header says what its metadata says: only then may a program open it."""
    if reason := contradiction(volume):
        raise VolumeDamaged(volume=volume.id, reason=reason)


def contradiction(volume: VolumeRecord) -> str | None:
    """How a volume's data contradicts its metadata, or None."""
    if volume.damage:
        return volume.damage
    parent = volume.metadata.parent
    header = volume.header
    if volume.metadata.format is not VolumeFormat.QCOW2 or header is None:
        if parent is not None:
            return "it is raw, and has a parent"
        return None
    if header.data_file:
        return "its header refers to a data file elsewhere"
    if header.old_encryption:
        return "it is encrypted in QEMU's old way, which is not safe and not supported"
    if parent is None:
        return f"its header refers to {header.backing_file!r}, and it has no parent" if header.backing_file else None
    if header.backing_file is None:
        return f"its header refers to no parent, and its metadata to {parent}"
    # oVirt of different ages wrote the bare id, or a path that ends in it.
    folder, _, name = header.backing_file.rpartition("/")
    place = f"/{volume.metadata.domain}/images/{volume.folder}"
    known = folder in ("", f"../{volume.folder}") or folder.endswith(place)
    if name != str(parent) or not known or ":" in header.backing_file:
        return f"its header refers to {header.backing_file!r}, and its metadata to {parent}"
    return None


def mismatched(record: ImageRecord, volume: VolumeRecord) -> str | None:
    """How an own volume's header contradicts what is recorded of its image's encryption, or None."""
    if volume.header is None:
        return None if record.attributes.secret is None else "its image is to be encrypted, and it is raw"
    if volume.header.encrypted and record.attributes.secret is None:
        return "it is encrypted, and its image's attributes name no secret"
    if not volume.header.encrypted and record.attributes.secret is not None:
        return f"it is not encrypted, and its image's attributes name secret {record.attributes.secret}"
    return None


def misread(volume: VolumeRecord, below: VolumeRecord) -> str | None:
    """How QEMU would take the volume below for what it is not, or None.

    A header that names no format has QEMU guess, and what it guesses of a raw volume is what a guest wrote into it.
    """
    said = volume.header.backing_format if volume.header else None
    right = below.metadata.format.value
    if said == right or (said is None and below.metadata.format is VolumeFormat.QCOW2):
        return None
    return f"its header says that {below.id} is {said or 'of a format to be guessed'}, and it is {right}"


def wrong_size(volume: VolumeRecord, growing_to: int = 0) -> str | None:
    """How the size of a volume's data contradicts its metadata, or None.

    Data that is larger, up to ``growing_to`` bytes, is a resize that did not end.
    """
    capacity, header = volume.metadata.capacity, volume.header
    if header is None:
        return None if volume.length >= capacity else f"its data has {volume.length} bytes of {capacity}"
    if header.capacity == capacity or capacity < header.capacity <= growing_to:
        return None
    hint = f"; a resize to {header.capacity} may not have ended: resize it so" if header.capacity > capacity else ""
    return f"its header says {header.capacity} bytes, and its metadata {capacity}{hint}"


def strayed(domain: Domain, volume: VolumeRecord) -> tuple[str, str] | None:
    """How a clone's link to its template leads astray: (kind of damage, in words), or None."""
    home = ImageId(volume.metadata.image)
    original = domain.image(home)
    source = original.volumes.get(volume.id) if original else None
    if source is None or not os.path.samefile(
        domain.data_path(home, volume.id), domain.data_path(volume.folder, volume.id)
    ):
        return (
            "templateMissing",
            f"template {home} has no such volume, or it is another file; this link may be the last: keep it",
        )
    if source.metadata.role is not VolumeRole.TEMPLATE:
        return "notTemplate", f"image {home} is no template, and may be written"
    if original is not None and (reason := mismatched(original, source)):
        return "encryption", reason
    return None


def usable(
    domain: Domain, record: ImageRecord, chain: list[VolumeRecord], growing_to: int = 0, mine: Intent | None = None
) -> None:
    """Nothing of an image is unfinished, and no volume of a chain of it illegal, of the wrong size, or from elsewhere."""
    settled(record, mine)
    for volume in chain:
        if volume.metadata.legality is not Legality.LEGAL:
            raise VolumeIllegal(volume=volume.id)
        reason = wrong_size(volume, growing_to if volume is chain[0] else 0)
        if volume.metadata.domain != domain.id:
            reason = f"its metadata names domain {volume.metadata.domain}"
        elif volume.is_linked and (astray := strayed(domain, volume)):
            reason = astray[1]
        if reason:
            raise VolumeDamaged(volume=volume.id, reason=reason)


def volume_of(domain: Domain, volume: VolumeId, image: ImageId | None) -> tuple[ImageRecord, VolumeRecord]:
    """A published volume, in the image that it belongs to."""
    found = image or domain.find_volume(volume)
    if found is None:
        raise NoSuchVolume(domain=domain.id, volume=volume)
    record = image_of(domain, found)
    for bad in record.damaged:
        if bad.volume == volume:
            raise VolumeDamaged(volume=volume, reason=bad.reason)
    if volume not in record.volumes:
        raise NoSuchVolume(domain=domain.id, volume=volume)
    return record, record.volumes[volume]


def expect_generation(volume: VolumeRecord, expected: int | None) -> None:
    """The caller's view of the volume is not out of date."""
    found = volume.metadata.generation
    if expected is not None and found != expected:
        raise GenerationMismatch(volume=volume.id, expected=expected, found=found)
