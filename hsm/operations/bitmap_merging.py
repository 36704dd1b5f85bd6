# SPDX-License-Identifier: Apache-2.0
"""Bitmaps of layers that are merged down: the base gets what all of them have marked.

Part of a change in place (``hsm.operations.merging``), under its intent: each step can be done again.  A bitmap that is
sound in the uppermost volume and in all that have it below, without a gap, is sound in the base afterwards.  Any other
must not become so: it is left in the base as one that does not record, and so is not usable before it is cleared.
Which are sound is decided once, and lies in the intent: later the base may have some that were only begun.
"""

from __future__ import annotations

from dataclasses import dataclass

from hsm.domains.base import Domain, Held, ImageRecord, VolumeRecord
from hsm.formats.bitmaps import Bitmap
from hsm.formats.qcow2 import Header
from hsm.operations.base import Context
from hsm.operations.bitmap_guard import MOST, digest
from hsm.operations.encryption import itself
from hsm.operations.making import qemu_img
from hsm.tools.nodes import Source


@dataclass(frozen=True)
class _Names:
    """The bitmaps of a run of neighbours, the uppermost first, the base last."""

    run: list[VolumeRecord]

    def names(self) -> list[str]:
        return sorted({bitmap.name for volume in self.run for bitmap in _of(volume)})

    def depths(self, name: str) -> dict[int, Bitmap]:
        return {depth: found for depth, volume in enumerate(self.run) if (found := _named(volume, name))}


@dataclass(frozen=True)
class _Bitmaps(_Names):
    """The same, to be merged."""

    context: Context
    domain: Domain
    record: ImageRecord
    held: Held
    sound: tuple[str, ...]
    """digests of the names of those that said all when it began"""

    def known(self, name: str) -> bool:
        """All that was written is known by it."""
        return digest(name) in self.sound and all(bitmap.sound for bitmap in self.depths(name).values())

    def source(self, volume: VolumeRecord) -> Source:
        return itself(self.context, self.domain, self.record, volume)

    def change(self, volume: VolumeRecord, name: str, *actions: str) -> None:
        granularity = next(iter(self.depths(name).values())).granularity if "add" in actions else None
        qemu_img(self.context).bitmap(
            self.source(volume), name, *actions, descriptors=self.held.descriptors, granularity=granularity
        )
        self.domain.sync_data(volume.folder, volume.id)


def known(run: list[VolumeRecord]) -> tuple[str, ...]:
    """Digests of the names of the bitmaps of a run by which all that was written is known, before it is merged.

    Of those that others added beyond all measure the rest counts as not known.
    """
    found = _Names(run)
    # The tool merges bitmaps of one size; the base's has the uppermost's by then.
    sizes = [volume.header is not None and volume.header.capacity == run[0].metadata.capacity for volume in run[:-1]]

    def is_known(name: str) -> bool:
        depths = found.depths(name)
        same_size = all(sizes[depth] for depth in depths if depth < len(sizes))
        return same_size and sorted(depths) == list(range(len(depths))) and all(b.sound for b in depths.values())

    return tuple(digest(name) for name in found.names() if is_known(name))[:MOST]


def _of(volume: VolumeRecord) -> tuple[Bitmap, ...]:
    return volume.header.bitmaps if volume.header else ()


def _named(volume: VolumeRecord, name: str) -> Bitmap | None:
    return next((bitmap for bitmap in _of(volume) if bitmap.name == name), None)


def _as_now(record: ImageRecord, run: list[VolumeRecord]) -> list[VolumeRecord]:
    return [record.volumes[volume.id] for volume in run]


def _can_have(header: Header | None) -> bool:
    return header is not None and header.version >= 3 and header.bitmaps_damage is None


def prepare(
    context: Context, domain: Domain, record: ImageRecord, run: list[VolumeRecord], sound: tuple[str, ...], held: Held
) -> None:
    """Before the data is moved: what is not known is said so, and nothing keeps the base from growing.

    QEMU does not resize a file with a bitmap that is in use.
    """
    found = _Bitmaps(_as_now(record, run), context, domain, record, held, sound)
    top, base = found.run[0], found.run[-1]
    if not _can_have(base.header):
        return
    for name in found.names():
        if found.known(name):
            # Where the base has it not yet, it gets it when the data is there.
            continue
        below = _named(base, name)
        if below is None:
            found.change(base, name, "add", "disable")
        elif below.in_use:
            if (above := _named(top, name)) and above.sound:
                # Should this be killed between the two, that is what tells that not all is known.
                found.change(top, name, "disable")
            found.change(base, name, "remove", "add", "disable")
        elif below.recording:
            found.change(base, name, "disable")


def merge(
    context: Context, domain: Domain, record: ImageRecord, run: list[VolumeRecord], sound: tuple[str, ...], held: Held
) -> None:
    """After the data was moved: the base has marked what any of them has."""
    found = _Bitmaps(_as_now(record, run), context, domain, record, held, sound)
    base = found.run[-1]
    if not _can_have(base.header):
        return
    for name in found.names():
        if not found.known(name):
            continue
        if _named(base, name) is None:
            found.change(base, name, "add")
        for depth in found.depths(name):
            upper = found.run[depth]
            if upper is not base:
                qemu_img(context).merge_bitmap(
                    found.source(base), name, found.source(upper), descriptors=held.descriptors
                )
        domain.sync_data(base.folder, base.id)
