# SPDX-License-Identifier: Apache-2.0
"""Bitmaps: what is marked is what was written, whatever becomes of the image's layers."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from libvdsm.api.errors import (
    BitmapExists,
    BitmapsNotSupported,
    ImageInUse,
    IsTemplate,
    NoSuchBitmap,
    VolumeIllegal,
)
from libvdsm.api.types import DomainId, ImageId, VolumeFormat
from tests.property.choices import images
from tests.property.copies import Copies
from tests.property.model import Model
from tests.property.parts import BLOCK, Image, Layer, Marks, refuse

bitmaps = st.sampled_from(["b", "b", "größer"])


def layers_of(image: Image, name: str) -> list[Layer | None]:
    """From the newest down to the last that has it; None for those between that do not."""
    found = [layer if name in layer.bitmaps else None for layer in reversed(image.layers)]
    while found and found[-1] is None:
        found.pop()
    return found


def usable(image: Image, name: str) -> bool:
    return all(layer is not None and layer.bitmaps[name].sound for layer in layers_of(image, name))


def marked(image: Image, name: str) -> set[int]:
    return {block for layer in layers_of(image, name) if layer for block in layer.bitmaps[name].blocks}


def merged_bitmaps(run: list[Layer]) -> dict[str, Marks]:
    """Of a run of layers, the lowest first, what is left has."""
    base, *uppers = run
    if base.format is not VolumeFormat.QCOW2:
        return {}
    found: dict[str, Marks] = {}
    for name in {name for layer in run for name in layer.bitmaps}:
        having = [name in layer.bitmaps for layer in reversed(run)]
        gap = sorted(having, reverse=True) != having
        sizes = {layer.capacity for layer in uppers if name in layer.bitmaps}
        known = not gap and sizes <= {run[-1].capacity}
        known = known and all(layer.bitmaps[name].sound for layer in run if name in layer.bitmaps)
        blocks = {block for layer in run if name in layer.bitmaps for block in layer.bitmaps[name].blocks}
        found[name] = Marks(blocks, known)
    return found


def _changeable(model: Model, image: Image, name: str) -> None:
    having = [layer for layer in image.layers if name in layer.bitmaps]
    refuse(
        {
            IsTemplate: image.is_template,
            VolumeIllegal: model.illegal(model.chain(image)),
            ImageInUse: model.in_use([image.leaf, *having], exclusively=True),
            BitmapsNotSupported: image.leaf.format is not VolumeFormat.QCOW2,
        }
    )


def add(model: Model, image: ImageId, name: str) -> None:
    found = model.existing(image)
    there = bool(layers_of(found, name))
    if there and usable(found, name):
        return
    if there:
        refuse({BitmapExists: True, IsTemplate: True, VolumeIllegal: True, ImageInUse: True})
    _changeable(model, found, name)
    found.leaf.bitmaps[name] = Marks()


def remove(model: Model, image: ImageId, name: str) -> None:
    found = model.existing(image)
    if layers_of(found, name):
        _changeable(model, found, name)
        for layer in found.layers:
            layer.bitmaps.pop(name, None)


def clear(model: Model, image: ImageId, name: str) -> None:
    found = model.existing(image)
    if not layers_of(found, name):
        refuse({NoSuchBitmap: True, IsTemplate: True, VolumeIllegal: True, ImageInUse: True})
    if usable(found, name) and len(layers_of(found, name)) == 1 and not marked(found, name):
        return
    _changeable(model, found, name)
    for layer in found.layers:
        layer.bitmaps.pop(name, None)
    found.leaf.bitmaps[name] = Marks()


class Bitmaps(Copies):
    """These, and all that copies and moves."""

    @rule(which=images, name=bitmaps)
    def add_bitmap(self, which: int, name: str) -> None:
        image = self.pick(which)
        self.do(
            lambda client, domain: client.bitmap.add(domain=domain, image=image, bitmap=name),
            lambda model: add(model, image, name),
        )

    @rule(which=images, name=bitmaps)
    def remove_bitmap(self, which: int, name: str) -> None:
        image = self.pick(which)
        self.do(
            lambda client, domain: client.bitmap.remove(domain=domain, image=image, bitmap=name),
            lambda model: remove(model, image, name),
        )

    @rule(which=images, name=bitmaps)
    def clear_bitmap(self, which: int, name: str) -> None:
        image = self.pick(which)
        self.do(
            lambda client, domain: client.bitmap.clear(domain=domain, image=image, bitmap=name),
            lambda model: clear(model, image, name),
        )

    @invariant()
    def bitmaps_say_what_was_written(self) -> None:
        with self.judged():
            for domain, known in ((self.domain, self.model.images), (self.other, self.model.elsewhere)):
                for image in known.values():
                    self._compare(domain, image)

    def _compare(self, domain: DomainId, image: Image) -> None:
        names = {name for layer in image.layers for name in layer.bitmaps}
        listed = self.service.client.bitmap.list(domain=domain, image=image.id).items
        assert {item.name: (item.usable, [layer.volume for layer in item.layers]) for item in listed} == {
            name: (usable(image, name), [layer.id for layer in layers_of(image, name) if layer]) for name in names
        }
        for name in names:
            if usable(image, name) and image.prepared != "write":
                page = self.service.client.bitmap.get_extents(domain=domain, image=image.id, bitmap=name)
                told = {
                    block
                    for extent in page.items
                    for block in range(extent.offset // BLOCK, -(-(extent.offset + extent.length) // BLOCK))
                }
                assert told == marked(image, name)
