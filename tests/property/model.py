# SPDX-License-Identifier: Apache-2.0
"""What a domain should be: plain Python, without files, leases or tasks.

Each method is a verb.  It changes the model, or raises ``Refused`` with every error that would be right; which of
them the service names first is its own choice.
"""

from __future__ import annotations

from collections.abc import Callable

from libvdsm.api.errors import (
    AlreadyPrepared,
    CannotShrink,
    GenerationMismatch,
    HasSnapshots,
    ImageExists,
    ImageInUse,
    IsTemplate,
    NoSuchImage,
    NoSuchVolume,
    NotTemplate,
    TemplateInUse,
    VolumeExists,
    VolumeHasChildren,
    VolumeIllegal,
)
from libvdsm.api.types import Allocation, ImageId, Legality, TagChange, VolumeFormat, VolumeId
from libvdsm.declare import ApiError
from tests.property.parts import BLOCK, Blocks, Image, Layer, Refused, changed_tags, refuse, rounded


class Model:
    """A domain."""

    def __init__(self) -> None:
        self.images: dict[ImageId, Image] = {}
        self.forgotten: dict[ImageId, Image] = {}
        """those that were deleted, for questions about what is gone"""
        self.elsewhere: dict[ImageId, Image] = {}
        """those on another domain"""

    # ---- looking

    def existing(self, image: ImageId) -> Image:
        if image not in self.images:
            raise Refused(NoSuchImage)
        return self.images[image]

    def known(self, image: ImageId) -> Image | None:
        """An image that there is, or was."""
        return self.images.get(image) or self.forgotten.get(image)

    def find(self, volume: VolumeId) -> tuple[Image, Layer] | None:
        for image in self.images.values():
            for layer in image.layers:
                if layer.id == volume:
                    return image, layer
        return None

    def chain(self, image: Image, top: Layer | None = None) -> list[Layer]:
        """What a guest sees through a layer, the oldest first; a template's layer included."""
        own = image.layers[: image.layers.index(top or image.leaf) + 1]
        return [*self.images[image.template].layers, *own] if image.template else own

    def content(self, image: Image, top: Layer | None = None) -> bytes:
        """All that a guest reads."""
        chain = self.chain(image, top)
        blocks: Blocks = {}
        for layer in chain:
            blocks |= layer.blocks
        content = bytearray(chain[-1].capacity)
        for block, pattern in blocks.items():
            content[block * BLOCK : (block + 1) * BLOCK] = bytes([pattern]) * BLOCK
        return bytes(content[: chain[-1].capacity])

    def clones(self, image: Image) -> list[Image]:
        return [other for other in self.images.values() if other.template == image.id]

    def illegal(self, chain: list[Layer]) -> bool:
        return any(layer.legality is not Legality.LEGAL for layer in chain)

    def in_use(self, layers: list[Layer], *, exclusively: bool) -> bool:
        """Whether somebody uses one of them, or, not ``exclusively``, uses it for writing."""
        for image in self.images.values():
            for held in self.chain(image) if image.prepared else []:
                writes = image.prepared == "write" and held is image.leaf
                if held in layers and (exclusively or writes):
                    return True
        return False

    # ---- making

    def _is_there(self, image: ImageId, volume: VolumeId, differs: Callable[[Layer], bool]) -> bool:
        """Whether a creation was done before; one that was, and differs, is refused."""
        home = self.find(volume)
        refuse({VolumeExists: home is not None and home[0].id != image})
        if image not in self.images:
            return False
        refuse({ImageExists: home is None})
        assert home is not None
        refuse({VolumeExists: differs(home[1])})
        return True

    def _add(self, image: Image) -> None:
        self.images[image.id] = image

    def create(
        self,
        image: ImageId,
        volume: VolumeId,
        capacity: int,
        format_: VolumeFormat,
        allocation: Allocation,
        name: str | None,
        blocks: Blocks | None = None,
    ) -> None:
        """Image.create, and with ``blocks`` Image.import"""

        def differs(layer: Layer) -> bool:
            same_kind = layer.format is format_ and (blocks is not None or layer.allocation is allocation)
            return not same_kind or layer.capacity != rounded(capacity)

        if not self._is_there(image, volume, differs):
            layer = Layer(volume, rounded(capacity), format_, allocation, dict(blocks or {}))
            self._add(Image(image, [layer], name))

    def create_encrypted(self, image: ImageId, volume: VolumeId, capacity: int, name: str | None) -> None:
        """Image.create with the service's secret"""
        self.create(image, volume, capacity, VolumeFormat.QCOW2, Allocation.SPARSE, name)
        self.images[image].encrypted = True

    def import_(
        self,
        image: ImageId,
        volume: VolumeId,
        length: int,
        capacity: int | None,
        format_: VolumeFormat,
        name: str | None,
        blocks: Blocks,
    ) -> None:
        """Of a file whose capacity is ``length``."""

        def differs(layer: Layer) -> bool:
            return layer.format is not format_ or (capacity is not None and rounded(capacity) != layer.capacity)

        if self._is_there(image, volume, differs):
            return
        refuse({CannotShrink: capacity is not None and rounded(capacity) < length})
        self._add(Image(image, [Layer(volume, rounded(capacity or length), format_, blocks=dict(blocks))], name))

    def snapshot(self, image: ImageId, volume: VolumeId, name: str | None) -> None:
        home = self.find(volume)
        if home is not None:
            refuse({VolumeExists: home[0].id != image})
            # A clone's first layer stands on its template, and counts as the same.
            refuse({VolumeExists: home[1] is home[0].layers[0] and home[0].template is None})
            return
        found = self.existing(image)
        self._put_on_top(found, Layer(volume, found.leaf.capacity, text=found.leaf.text), name)

    def _put_on_top(
        self, image: Image, layer: Layer, name: str | None, errors: tuple[type[ApiError], ...] = ()
    ) -> None:
        refuse(
            {
                **dict.fromkeys(errors, True),
                IsTemplate: image.is_template,
                VolumeIllegal: self.illegal(self.chain(image)),
                ImageInUse: self.in_use([image.leaf], exclusively=True),
            }
        )
        image.leaf.snapshot = name
        layer.bitmaps = image.leaf.passed_on()
        image.layers.append(layer)

    def add_layer(self, parent: VolumeId, volume: VolumeId, capacity: int | None) -> None:
        """Volume.create in the image of the parent."""
        found = self.find(parent)
        if found is None:
            raise Refused(NoSuchVolume)
        image, below = found
        if home := self.find(volume):
            stands_on = home[0].layers[home[0].layers.index(home[1]) - 1] if home[1] is not home[0].layers[0] else None
            differs = capacity is not None and home[1].capacity != rounded(capacity)
            refuse({VolumeExists: stands_on is not below or differs})
            return
        wanted = rounded(capacity or below.capacity)
        errors: list[type[ApiError]] = []
        if below is not image.leaf:
            errors.append(VolumeHasChildren)
        if wanted < below.capacity:
            errors.append(CannotShrink)
        self._put_on_top(image, Layer(volume, wanted, text=image.leaf.text), None, tuple(errors))

    def clone(
        self, template: ImageId, image: ImageId, volume: VolumeId, capacity: int | None, name: str | None
    ) -> None:
        def differs(layer: Layer) -> bool:
            stands = self.images[image].template == template and layer is self.images[image].layers[0]
            return not stands or (capacity is not None and layer.capacity != rounded(capacity))

        if self._is_there(image, volume, differs):
            return
        found = self.existing(template)
        wanted = rounded(capacity or found.leaf.capacity)
        refuse(
            {
                NotTemplate: not found.is_template,
                VolumeIllegal: self.illegal(self.chain(found)),
                CannotShrink: wanted < found.leaf.capacity,
                ImageInUse: self.in_use([found.leaf], exclusively=False),
            }
        )
        self._add(Image(image, [Layer(volume, wanted)], name, template=template, encrypted=found.encrypted))

    def make_template(self, image: ImageId) -> None:
        found = self.existing(image)
        if found.is_template:
            return
        refuse(
            {
                HasSnapshots: len(self.chain(found)) > 1,
                VolumeIllegal: self.illegal(self.chain(found)),
                ImageInUse: self.in_use([found.leaf], exclusively=True),
            }
        )
        found.is_template = True
        found.leaf.changed()

    def copy_template(self, source: ImageId, image: ImageId, volume: VolumeId, name: str) -> None:
        """Image.makeTemplate with a name"""
        if self._is_there(image, volume, lambda _: not self.images[image].is_template):
            return
        found = self.existing(source)
        chain = self.chain(found)
        refuse(
            {VolumeIllegal: self.illegal(chain), ImageInUse: self.in_use(chain, exclusively=False)},
        )
        blocks: Blocks = {}
        for layer in chain:
            blocks |= layer.blocks
        blocks = {block: pattern for block, pattern in blocks.items() if block * BLOCK < found.leaf.capacity}
        # Made anew, so it has no bitmaps; nobody writes it either.
        copied = Layer(volume, found.leaf.capacity, blocks=blocks, text=found.leaf.text)
        self._add(Image(image, [copied], name, is_template=True, encrypted=found.encrypted))

    # ---- changing

    def _volume(self, volume: VolumeId) -> tuple[Image, Layer]:
        found = self.find(volume)
        if found is None:
            raise Refused(NoSuchVolume)
        return found

    def resize(self, volume: VolumeId, capacity: int, generation: int | None) -> None:
        image, layer = self._volume(volume)
        if layer.capacity == rounded(capacity):
            return
        refuse(
            {
                IsTemplate: image.is_template,
                VolumeHasChildren: layer is not image.leaf,
                CannotShrink: rounded(capacity) < layer.capacity,
                VolumeIllegal: self.illegal(self.chain(image)),
                ImageInUse: self.in_use([layer], exclusively=True),
                GenerationMismatch: generation not in (None, layer.generation),
            }
        )
        layer.capacity = rounded(capacity)
        layer.changed()

    def set_description(self, volume: VolumeId, text: str, generation: int | None) -> None:
        _, layer = self._volume(volume)
        if layer.text == (text or None):
            return
        refuse({GenerationMismatch: generation not in (None, layer.generation)})
        layer.text = text or None

    def set_legality(self, volume: VolumeId, legality: Legality, generation: int | None) -> None:
        _, layer = self._volume(volume)
        if layer.legality is legality:
            return
        refuse(
            {
                GenerationMismatch: generation not in (None, layer.generation),
                ImageInUse: self.in_use([layer], exclusively=True),
            }
        )
        layer.legality = legality
        layer.changed()

    def set_tags(self, image: ImageId, tags: list[str], change: TagChange) -> None:
        found = self.existing(image)
        found.tags = changed_tags(found.tags, tags, change)

    def set_volume_tags(self, volume: VolumeId, tags: list[str], change: TagChange) -> None:
        _, layer = self._volume(volume)
        layer.tags = changed_tags(layer.tags, tags, change)

    # ---- using

    def prepare(self, image: ImageId, *, read_only: bool) -> None:
        found = self.existing(image)
        mode = "read" if read_only else "write"
        if found.prepared:
            refuse({AlreadyPrepared: found.prepared != mode})
            return
        refuse(
            {
                IsTemplate: found.is_template and not read_only,
                VolumeIllegal: self.illegal(self.chain(found)),
            }
        )
        found.prepared = mode

    def teardown(self, image: ImageId) -> None:
        self.existing(image).prepared = None

    def write(self, image: ImageId, blocks: Blocks) -> None:
        """What a guest does."""
        leaf = self.images[image].leaf
        leaf.blocks |= blocks
        for marks in leaf.bitmaps.values():
            marks.blocks |= blocks.keys()

    def export(self, image: ImageId, volume: VolumeId | None) -> None:
        """Image.export, which changes nothing."""
        found = self.existing(image)
        tops = [layer for layer in self.chain(found) if layer.id == volume]
        refuse({NoSuchVolume: volume is not None and not tops})
        whole = self.chain(found)
        chain = whole[: whole.index(tops[0]) + 1] if tops else whole
        refuse({VolumeIllegal: self.illegal(chain), ImageInUse: self.in_use(chain, exclusively=False)})

    # ---- deleting

    def delete(self, image: ImageId) -> None:
        if image not in self.images:
            return
        found = self.images[image]
        refuse(
            {
                TemplateInUse: bool(self.clones(found)),
                ImageInUse: self.in_use(found.layers, exclusively=True),
            }
        )
        self.forgotten[image] = self.images.pop(image)

    def delete_volume(self, volume: VolumeId, generation: int | None) -> None:
        found = self.find(volume)
        if found is None:
            return
        image, layer = found
        refuse(
            {
                GenerationMismatch: generation not in (None, layer.generation),
                VolumeHasChildren: layer is not image.leaf,
                TemplateInUse: bool(self.clones(image)),
                ImageInUse: self.in_use([layer], exclusively=True),
            }
        )
        if len(image.layers) == 1:
            self.forgotten[image.id] = self.images.pop(image.id)
        else:
            image.layers.remove(layer)
