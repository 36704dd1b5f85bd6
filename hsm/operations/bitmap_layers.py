# SPDX-License-Identifier: Apache-2.0
"""Bitmaps of an image: the same name in several of its volumes, each with what was written while that was the newest.

What was written since a bitmap was added is the union over the volumes that have it, from the newest down.  That is
all only if each of them is sound, and if none between them lacks it: otherwise the bitmap is not usable, and says so.
A template's bitmaps are the template's.

Bitmaps of frozen layers stay as they are: nobody writes those layers, and should one become the newest again, because
what is above it was deleted, it goes on recording where it stopped.
"""

from __future__ import annotations

from dataclasses import dataclass

from hsm.domains.base import ImageRecord, VolumeRecord
from hsm.formats import bitmaps as bitmaps_format
from hsm.formats.bitmaps import Bitmap
from hsm.operations import chains
from libvdsm.api.errors import VolumeDamaged


@dataclass(frozen=True)
class Layer:
    """A bitmap in one volume."""

    volume: VolumeRecord
    bitmap: Bitmap


@dataclass(frozen=True)
class Layers:
    """One bitmap of an image: the volumes that have it, the newest first."""

    name: str
    layers: tuple[Layer, ...]
    problem: str | None
    """why not all that was written is known by it"""


def own_chain(record: ImageRecord) -> list[VolumeRecord]:
    """An image's own volumes, the newest first."""
    return [volume for volume in chains.chain_of(record, chains.leaf_of(record)) if not volume.is_linked]


def found_in(chain: list[VolumeRecord]) -> dict[str, Layers]:
    """Name -> the bitmap, of all that a chain of volumes has."""
    for volume in chain:
        if volume.header is not None and volume.header.bitmaps_damage:
            reason = f"its bitmaps cannot be read: {volume.header.bitmaps_damage}"
            raise VolumeDamaged(volume=volume.id, reason=reason)
    by_name: dict[str, dict[int, Layer]] = {}
    for depth, volume in enumerate(chain):
        for bitmap in volume.header.bitmaps if volume.header else ():
            by_name.setdefault(bitmap.name, {})[depth] = Layer(volume, bitmap)
    return {
        name: Layers(name, tuple(found.values()), _problem(chain, found)) for name, found in sorted(by_name.items())
    }


def _problem(chain: list[VolumeRecord], found: dict[int, Layer]) -> str | None:
    for depth in range(max(found) + 1):
        layer = found.get(depth)
        if layer is None:
            return f"volume {chain[depth].id} does not have it, and is newer than one that has"
        if layer.bitmap.in_use:
            return f"in volume {layer.volume.id} it is in use, or was when QEMU or its host failed"
        if not layer.bitmap.recording:
            return f"in volume {layer.volume.id} it does not record"
    return None


def passed_on(leaf: VolumeRecord, capacity: int) -> tuple[Bitmap, ...]:
    """The bitmaps that a new layer on a leaf has too: those that the leaf records in.

    One that is not sound ends here, and is not usable from then on; so is one that QEMU would not take.
    """
    if leaf.header is None or leaf.is_linked:
        return ()
    return tuple(
        bitmap for bitmap in leaf.header.bitmaps if bitmap.sound and bitmaps_format.fits(capacity, bitmap.granularity)
    )
