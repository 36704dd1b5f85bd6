# SPDX-License-Identifier: Apache-2.0
"""Adding, removing and clearing bitmaps.

``qemu-img`` changes a volume in place.  The commit point is its own: the header that names the new directory of
bitmaps.  Each change can be done again, and a restart does; so an interrupted one is finished.  Before the program
begins, an intent says which bitmaps are to outlast it (``hsm.operations.bitmap_guard``).

Whoever changes holds the leases of the volumes that have the bitmap, exclusively, and the newest volume's always: so
nothing is written to the image meanwhile.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import msgspec

from hsm.domains.base import Domain, Held, ImageRecord, VolumeRecord, Wanted
from hsm.formats import bitmaps as bitmaps_format
from hsm.formats.attributes import ChangeBitmaps
from hsm.operations import bitmap_guard, chains
from hsm.operations.base import BaseOperation, domain_lease, lock_domain, lock_image, storage_errors
from hsm.operations.bitmap_layers import Layers, found_in, own_chain
from hsm.operations.bitmap_reading import bitmap_info, extents
from hsm.operations.encryption import itself
from hsm.operations.making import qemu_img
from hsm.tasks.locks import Locks
from hsm.tasks.manager import Job, Objects
from libvdsm.api.bitmap import BitmapInfo
from libvdsm.api.errors import (
    BitmapExists,
    BitmapsNotSupported,
    ImageInUse,
    IsTemplate,
    NoSuchBitmap,
    TooManyBitmaps,
)
from libvdsm.api.event import VolumeChanged
from libvdsm.api.types import Nothing, VolumeId, VolumeRole

MOST = 64
"""Bitmaps that are added to a volume; others may have added more."""
_NEEDED = "bitmaps need qcow2 of version 3. Make a snapshot: the new layer is that, and can have bitmaps"


class _BitmapChange(BaseOperation):
    """What all of them share."""

    @property
    def locks(self) -> Locks:
        return lock_domain(self.params.domain), lock_image(self.params.domain, self.params.image)

    @property
    def objects(self) -> Objects:
        return Objects(self.params.domain, self.params.image)

    @property
    def resumes(self) -> bool:
        return True

    def domain(self) -> Domain:
        return self.context.registry.get(self.params.domain)

    def find(self, domain: Domain) -> tuple[ImageRecord, list[VolumeRecord], Layers | None]:
        """The image, its own volumes from the newest down, and the bitmap."""
        record = chains.image_of(domain, self.params.image)
        chain = own_chain(record)
        return record, chain, found_in(chain).get(self.params.bitmap)

    def told(self, domain: Domain) -> Any:
        """The result, from what is on storage."""
        layers = self.find(domain)[2]
        if layers is None:
            raise NoSuchBitmap(image=self.params.image, bitmap=self.params.bitmap)
        return bitmap_info(layers)

    def decide(self, chain: list[VolumeRecord], layers: Layers | None) -> None:
        """What is asked for can be done, or the declared error that says why not."""

    def work(self, domain: Domain, chain: list[VolumeRecord], layers: Layers | None, held: Held) -> None:
        raise NotImplementedError

    def run(self, job: Job) -> Any:
        job.progress("changing the bitmap")
        domain = self.domain()
        with storage_errors(self.context, domain.id, self.params.image), ExitStack() as leases:
            self._mend(domain)
            leased = self._checked(domain)[0]
            held = domain.acquire([Wanted(volume, self.params.image) for volume in leased])
            leases.callback(held.release)
            # Nothing of the domain's own is changed; whoever may not change it changes no data of it either.
            with domain_lease(self.context, domain, job):
                again, chain, layers = self._checked(domain)
                if late := [volume for volume in again if volume not in leased]:
                    raise ImageInUse(image=self.params.image, volume=late[0], holder="whoever just changed it")
                job.commit()
                self._guard(domain, [volume for volume in chain if volume.id in leased])
            try:
                self.work(domain, chain, layers, held)
            finally:
                bitmap_guard.settle(self.context, domain, self.params.image)
            self.context.events.emit(VolumeChanged(domain=domain.id, image=self.params.image, volume=chain[0].id))
            return self.told(domain)

    def _mend(self, domain: Domain) -> None:
        """What an interrupted change of bitmaps left, this one or another, is what this one begins with."""
        intent = chains.image_of(domain, self.params.image).attributes.intent
        if isinstance(intent, ChangeBitmaps):
            with ExitStack() as leases:
                held = domain.acquire([Wanted(VolumeId(id_), self.params.image) for id_ in intent.guarded.volumes])
                leases.callback(held.release)
                bitmap_guard.settle(self.context, domain, self.params.image)

    def _guard(self, domain: Domain, volumes: list[VolumeRecord]) -> None:
        if (guarded := bitmap_guard.guard(volumes)).volumes:
            attributes = chains.image_of(domain, self.params.image).attributes
            intent = ChangeBitmaps(guarded=guarded)
            domain.set_attributes(self.params.image, msgspec.structs.replace(attributes, intent=intent))

    def present(self) -> tuple[list[VolumeRecord], Layers | None] | None:
        """The image's volumes and the bitmap, as they are; None while something is unfinished."""
        domain = self.domain()
        with storage_errors(self.context, domain.id, self.params.image):
            record, chain, layers = self.find(domain)
            return None if record.attributes.intent is not None else (chain, layers)

    def _checked(self, domain: Domain) -> tuple[list[VolumeId], list[VolumeRecord], Layers | None]:
        """The volumes whose leases are needed, with what the decision rests on."""
        record, chain, layers = self.find(domain)
        if chain[0].metadata.role is VolumeRole.TEMPLATE:
            raise IsTemplate(image=record.id)
        chains.usable(domain, record, chains.chain_of(record, chain[0]))
        self.decide(chain, layers)
        having = [layer.volume.id for layer in layers.layers] if layers else []
        return list(dict.fromkeys([chain[0].id, *having])), chain, layers

    def change(
        self, domain: Domain, volume: VolumeRecord, held: Held, *actions: str, granularity: int | None = None
    ) -> None:
        """Have the bitmap changed in one volume, durably."""
        source = itself(self.context, domain, chains.image_of(domain, self.params.image), volume)
        qemu_img(self.context).bitmap(
            source, self.params.bitmap, *actions, descriptors=held.descriptors, granularity=granularity
        )
        domain.sync_data(volume.folder, volume.id)


class AddBitmap(_BitmapChange):
    """Bitmap.add"""

    def outcome(self) -> BitmapInfo | None:
        layers = present[1] if (present := self.present()) else None
        return bitmap_info(layers) if layers and self._difference(layers) is None else None

    def _difference(self, layers: Layers) -> str | None:
        if layers.problem:
            return layers.problem
        granularity = layers.layers[0].bitmap.granularity
        return None if granularity == self.params.granularity else f"its granularity is {granularity} bytes"

    def decide(self, chain: list[VolumeRecord], layers: Layers | None) -> None:
        able(chain[0], self.params.granularity)
        if layers is not None and (reason := self._difference(layers)):
            # Also if only older volumes have it: what they say would be taken for what was written since now.
            raise BitmapExists(image=self.params.image, bitmap=self.params.bitmap, reason=reason)
        count = len(chain[0].header.bitmaps) if chain[0].header else 0
        if layers is None and count >= MOST:
            raise TooManyBitmaps(image=self.params.image, count=count)

    def work(self, domain: Domain, chain: list[VolumeRecord], layers: Layers | None, held: Held) -> None:
        if layers is None:
            self.change(domain, chain[0], held, "add", granularity=self.params.granularity)


def able(leaf: VolumeRecord, granularity: int) -> None:
    """A volume can have a bitmap of a granularity."""
    reason = None
    if leaf.header is None:
        reason = f"it is raw, and {_NEEDED}"
    elif leaf.header.version < 3:
        reason = f"it is qcow2 of version {leaf.header.version}, and {_NEEDED}"
    elif granularity & (granularity - 1):
        reason = f"a granularity of {granularity} bytes is no power of two"
    elif not bitmaps_format.fits(leaf.metadata.capacity, granularity):
        reason = f"with a granularity of {granularity} bytes it would have too many bits; take a coarser one"
    if reason:
        raise BitmapsNotSupported(volume=leaf.id, reason=reason)


class RemoveBitmap(_BitmapChange):
    """Bitmap.remove: from the newest volume first, so what is left of it meanwhile is not usable."""

    def outcome(self) -> Nothing | None:
        present = self.present()
        return Nothing() if present is not None and present[1] is None else None

    def told(self, domain: Domain) -> Nothing:
        return Nothing()

    def work(self, domain: Domain, chain: list[VolumeRecord], layers: Layers | None, held: Held) -> None:
        for layer in layers.layers if layers else ():
            self.change(domain, layer.volume, held, "remove")


class ClearBitmap(_BitmapChange):
    """Bitmap.clear.

    1. The newest volume's stops recording, if older ones have it too: it is not usable until all is done.
    2. It is removed from the older ones.
    3. The newest volume's is emptied and records again.  One that is in use cannot be emptied: it is made anew.
    """

    def outcome(self) -> BitmapInfo | None:
        domain, present = self.domain(), self.present()
        layers = present[1] if present else None
        if layers is None or layers.problem or len(layers.layers) > 1:
            return None
        with storage_errors(self.context, domain.id, self.params.image):
            volume = layers.layers[0].volume
            # Read once: an accident after the last step is told from one before by what is marked.
            empty = next(extents(domain, layers, volume.metadata.capacity), None) is None
        return bitmap_info(layers) if empty else None

    def decide(self, chain: list[VolumeRecord], layers: Layers | None) -> None:
        if layers is None:
            raise NoSuchBitmap(image=self.params.image, bitmap=self.params.bitmap)
        able(chain[0], layers.layers[0].bitmap.granularity)

    def work(self, domain: Domain, chain: list[VolumeRecord], layers: Layers | None, held: Held) -> None:
        assert layers is not None
        newest, *older = layers.layers
        granularity = newest.bitmap.granularity
        present = newest.volume is chain[0]
        if not present:
            older = [newest, *older]
        elif older and newest.bitmap.sound:
            self.change(domain, chain[0], held, "disable")
        for layer in older:
            self.change(domain, layer.volume, held, "remove")
        if not present:
            self.change(domain, chain[0], held, "add", granularity=granularity)
        elif newest.bitmap.in_use:
            self.change(domain, chain[0], held, "remove", "add", granularity=granularity)
        else:
            self.change(domain, chain[0], held, "clear", "enable")
