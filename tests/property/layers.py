# SPDX-License-Identifier: Apache-2.0
"""Verbs that change which layers an image consists of: as calls, and as what they should do to the model."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from libvdsm.api.errors import (
    ImageInUse,
    InvalidParameter,
    IsTemplate,
    NoSuchVolume,
    NotBelow,
    NotSnapshot,
    NotSupported,
    VolumeIllegal,
    WouldLoseSnapshots,
)
from libvdsm.api.image_layers import MergeDirection
from libvdsm.api.types import ImageId, ImageInfo, VolumeId
from libvdsm.declare import ApiError
from tests.property.bitmaps import merged_bitmaps
from tests.property.choices import images, positions
from tests.property.machine import Verbs
from tests.property.model import Model
from tests.property.parts import BLOCK, Blocks, Image, Layer, Refused, refuse

_EARLIER = (IsTemplate, VolumeIllegal, ImageInUse)
"""What may be said before, or instead of, what is wrong with the volumes that are named."""


def _changeable(model: Model, image: ImageId) -> Image:
    found = model.existing(image)
    refuse(
        {
            IsTemplate: found.is_template,
            VolumeIllegal: model.illegal(model.chain(found)),
            ImageInUse: model.in_use(found.layers, exclusively=True),
        }
    )
    return found


def _places(model: Model, image: ImageId) -> list[VolumeId]:
    return [layer.id for layer in model.existing(image).layers]


def _wrong(*errors: type[ApiError]) -> Refused:
    return Refused(*errors, *_EARLIER)


def _blocks(layers: list[Layer]) -> Blocks:
    blocks: Blocks = {}
    for layer in layers:
        blocks |= layer.blocks
    return blocks


def merge(model: Model, image: ImageId, base: VolumeId, top: VolumeId, direction: MergeDirection) -> None:
    """Image.merge, one way or the other"""
    if base == top:
        raise Refused(InvalidParameter)
    places = _places(model, image)
    if (base in places) != (top in places):
        return
    if base not in places:
        raise _wrong(NoSuchVolume)
    low, high = places.index(base), places.index(top)
    if low > high:
        raise _wrong(NotBelow)
    found = _changeable(model, image)
    run = found.layers[low : high + 1]
    left, state = (run[0] if direction is MergeDirection.DOWN else run[-1]), run[-1]
    if direction is MergeDirection.UP and left.bitmaps:
        raise _wrong(NotSupported)
    left.bitmaps = merged_bitmaps(run)
    left.blocks, left.capacity = _blocks(run), state.capacity
    left.snapshot, left.text = state.snapshot, state.text
    left.changed()
    found.layers[low : high + 1] = [left]


def revert(model: Model, image: ImageId, volume: VolumeId, leaf: VolumeId) -> None:
    """Image.revert"""
    places = _places(model, image)
    if leaf in places:
        return
    if volume not in places:
        raise _wrong(NoSuchVolume)
    if volume == places[-1]:
        raise _wrong(NotSnapshot)
    found = _changeable(model, image)
    kept, text = found.layers[: places.index(volume) + 1], found.leaf.text
    found.layers[:] = [*kept, Layer(leaf, kept[-1].capacity, text=text, bitmaps=kept[-1].passed_on())]


def flatten(model: Model, image: ImageId, *, discard: bool) -> None:
    """Image.flatten"""
    found = model.existing(image)
    if len(model.chain(found)) == 1:
        return
    if len(found.layers) > 1 and not discard:
        raise _wrong(WouldLoseSnapshots)
    if found.leaf.bitmaps:
        raise _wrong(NotSupported)
    found = _changeable(model, image)
    found.leaf.blocks = {b: p for b, p in _blocks(model.chain(found)).items() if b * BLOCK < found.leaf.capacity}
    found.leaf.changed()
    found.layers[:], found.template = [found.leaf], None


def rebase(model: Model, image: ImageId) -> None:
    """Image.rebase onto nothing"""
    found = model.existing(image)
    if found.template is None:
        return
    if found.layers[0].bitmaps:
        raise _wrong(NotSupported)
    found = _changeable(model, image)
    below = _blocks(model.images[found.template].layers if found.template else [])
    base = found.layers[0]
    base.blocks = {b: p for b, p in below.items() if b * BLOCK < base.capacity} | base.blocks
    base.changed()
    found.template = None


class LayerVerbs(Verbs):
    """These and all others."""

    @rule(
        which=images,
        base=positions,
        top=st.sampled_from([-1, -1, -2, 1]),
        direction=st.sampled_from([MergeDirection.DOWN, MergeDirection.UP]),
    )
    def merge(self, which: int, base: int, top: int, direction: MergeDirection) -> None:
        image = self.pick(which)
        lowest, uppermost = self.layer(image, base).id, self.layer(image, top).id
        self.create(
            lambda client, domain: client.image.merge(
                domain=domain, image=image, base=lowest, top=uppermost, direction=direction
            ),
            lambda model: merge(model, image, lowest, uppermost, direction),
        )

    @rule(which=images, position=positions)
    def delete_snapshot(self, which: int, position: int) -> None:
        """Which of the two is left is the service's choice, so the model hears of it afterwards."""
        image = self.pick(which)
        known = self.model.images.get(image)
        places = [layer.id for layer in known.layers] if known else [VolumeId(image)]
        place = position % len(places)
        volume, child = places[place], places[place + 1] if place + 1 < len(places) else None

        def expected(model: Model) -> None:
            _places(model, image)
            if child is None:
                raise _wrong(NotSnapshot)
            _changeable(model, image)

        result: ImageInfo | None = self.do(
            lambda client, domain: client.image.delete_snapshot(domain=domain, image=image, volume=volume, child=child),
            expected,
        )
        if result is not None and child is not None:
            down = any(layer.id == volume for layer in result.chain or [])
            merge(self.model, image, volume, child, MergeDirection.DOWN if down else MergeDirection.UP)

    @rule(which=images, position=positions)
    def revert(self, which: int, position: int) -> None:
        image = self.pick(which)
        volume, leaf = self.layer(image, position).id, VolumeId(self.new_id())
        self.create(
            lambda client, domain: client.image.revert(domain=domain, image=image, volume=volume, leaf=leaf),
            lambda model: revert(model, image, volume, leaf),
        )

    @rule(which=images, discard=st.booleans())
    def flatten(self, which: int, discard: bool) -> None:
        image = self.pick(which)
        self.do(
            lambda client, domain: client.image.flatten(domain=domain, image=image, discard_snapshots=discard),
            lambda model: flatten(model, image, discard=discard),
        )

    @rule(which=images)
    def rebase(self, which: int) -> None:
        image = self.pick(which)
        self.do(
            lambda client, domain: client.image.rebase(domain=domain, image=image),
            lambda model: rebase(model, image),
        )
