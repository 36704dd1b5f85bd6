# SPDX-License-Identifier: Apache-2.0
"""Images and chains as they are on storage, or the declared error that says why they are not."""

from __future__ import annotations

from hsm.domains.base import Domain, ImageRecord, VolumeRecord
from libvdsm.api.errors import (
    GenerationMismatch,
    ImageDamaged,
    NoSuchImage,
    NoSuchVolume,
    VolumeDamaged,
    VolumeIllegal,
)
from libvdsm.api.types import ImageId, Legality, VolumeFormat, VolumeId


def image_of(domain: Domain, image: ImageId) -> ImageRecord:
    """A published image."""
    record = domain.image(image)
    if record is None or not record.published:
        raise NoSuchImage(domain=domain.id, image=image)
    return record


def leaf_of(record: ImageRecord) -> VolumeRecord:
    """The one leaf that a sound image has."""
    if record.damaged:
        raise ImageDamaged(image=record.id, reason=f"{record.damaged[0].path}: {record.damaged[0].reason}")
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
        parent = current.metadata.parent
        if parent is None:
            return chain
        below = record.volumes.get(VolumeId(parent))
        if below is None:
            raise ImageDamaged(image=record.id, reason=f"volume {current.id} stands on {parent}, which is missing")
        if below in chain:
            raise ImageDamaged(image=record.id, reason=f"volume {current.id} stands on itself by way of others")
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
    if parent is None:
        return f"its header refers to {header.backing_file!r}, and it has no parent" if header.backing_file else None
    if header.backing_file is None:
        return f"its header refers to no parent, and its metadata to {parent}"
    # oVirt of different ages wrote the bare id, or a path that ends in it.
    folder, _, name = header.backing_file.rpartition("/")
    known = folder in ("", f"../{volume.folder}") or folder.endswith(f"/{volume.folder}")
    if name != str(parent) or not known or ":" in header.backing_file:
        return f"its header refers to {header.backing_file!r}, and its metadata to {parent}"
    return None


def usable(chain: list[VolumeRecord]) -> None:
    """No volume of a chain is marked illegal."""
    for volume in chain:
        if volume.metadata.legality is not Legality.LEGAL:
            raise VolumeIllegal(volume=volume.id)


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
