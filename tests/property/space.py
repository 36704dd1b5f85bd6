# SPDX-License-Identifier: Apache-2.0
"""Space that is given back, and zeros that take some: nothing of which anybody sees anything."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from libvdsm.api.errors import CannotChange, ImageInUse, NoSuchVolume, VolumeIllegal
from libvdsm.api.types import Allocation, Compat, ImageId, VolumeFormat, VolumeId
from tests.property.choices import images, positions
from tests.property.machine import Verbs
from tests.property.model import Model
from tests.property.parts import Blocks, Refused, refuse


def sparsify(model: Model, image: ImageId, volume: VolumeId | None) -> None:
    """Image.sparsify"""
    found = model.existing(image)
    layers = [layer for layer in found.layers if volume in (None, layer.id)]
    refuse(
        {
            VolumeIllegal: model.illegal(model.chain(found)),
            CannotChange: all(layer.allocation is Allocation.PREALLOCATED for layer in layers),
            ImageInUse: model.in_use(
                [layer for layer in layers if layer.allocation is not Allocation.PREALLOCATED], exclusively=True
            ),
        }
    )


class Space(Verbs):
    """These and all others."""

    @rule(which=images, first=st.integers(0, 20), count=st.integers(1, 20))
    def guest_writes_zeros(self, which: int, first: int, count: int) -> None:
        """Over whatever is there, without saying that they are zeros."""
        zeros: Blocks = dict.fromkeys(range(first, first + count), 0)
        self._guest_writes(self.pick(which), zeros, stays=False)

    @rule(which=images, position=st.none() | positions)
    def sparsify(self, which: int, position: int | None) -> None:
        image = self.pick(which)
        volume = None if position is None else self.layer(image, position).id
        done = self.do(
            lambda client, domain: client.image.sparsify(domain=domain, image=image, volume=volume),
            lambda model: sparsify(model, image, volume),
        )
        if done is not None:
            with self.judged():
                assert done.image.leaf == self.model.images[image].leaf.id

    @rule(which=images, position=positions)
    def amend(self, which: int, position: int) -> None:
        """All volumes that are made here are of version 3 already, or raw."""
        layer = self.layer(self.pick(which), position)

        def expected(model: Model) -> None:
            found = model.find(layer.id)
            if found is None:
                raise Refused(NoSuchVolume)
            illegal = model.illegal(model.chain(*found))
            if layer.format is VolumeFormat.RAW:
                refuse({VolumeIllegal: illegal, CannotChange: True})

        self.do(
            lambda client, domain: client.volume.amend(domain=domain, volume=layer.id, compat=Compat.V3),
            expected,
        )
