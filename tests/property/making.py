# SPDX-License-Identifier: Apache-2.0
"""The verbs that make images and layers."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from libvdsm.api.types import Allocation, FileFormat, ImageId, ImageInfo, VolumeFormat, VolumeId
from tests.formats import qemu
from tests.property.choices import (
    allocations,
    block_maps,
    capacities,
    fill,
    formats,
    images,
    names,
    positions,
    templates,
)
from tests.property.judge import Judge
from tests.property.parts import BLOCK, Blocks


class Making(Judge):
    """Images, snapshots, clones, templates, imports."""

    @rule(capacity=capacities, format_=formats, allocation=allocations, name=names)
    def create_image(self, capacity: int, format_: VolumeFormat, allocation: Allocation, name: str | None) -> None:
        self._create(capacity, format_, allocation, name)

    def _create(self, capacity: int, format_: VolumeFormat, allocation: Allocation, name: str | None) -> None:
        image, volume = ImageId(self.new_id()), VolumeId(self.new_id())
        self.create(
            lambda client, domain: client.image.create(
                domain=domain,
                capacity=capacity,
                name=name,
                format=format_,
                allocation=allocation,
                id=image,
                volume=volume,
            ),
            lambda model: model.create(image, volume, capacity, format_, allocation, name),
        )

    @rule(capacity=capacities, format_=formats)
    def create_image_without_ids(self, capacity: int, format_: VolumeFormat) -> None:
        """The ids are the service's choice, so the model hears of them afterwards."""
        before = self.model
        result: ImageInfo | None = self.do(
            lambda client, domain: client.image.create(domain=domain, capacity=capacity, format=format_),
            lambda model: None,
        )
        if result is None:
            return
        assert result.id not in before.images
        self.model.create(result.id, result.leaf, capacity, format_, Allocation.SPARSE, None)

    @rule(which=images, name=names)
    def snapshot(self, which: int, name: str | None) -> None:
        image = self.pick(which)
        volume = VolumeId(self.new_id())
        self.create(
            lambda client, domain: client.image.snapshot(domain=domain, image=image, name=name, volume=volume),
            lambda model: model.snapshot(image, volume, name),
        )

    @rule(which=images, position=positions, capacity=st.none() | capacities)
    def add_layer(self, which: int, position: int, capacity: int | None) -> None:
        image = self.pick(which)
        volume, parent = VolumeId(self.new_id()), self.layer(image, position).id
        self.create(
            lambda client, domain: client.volume.create(
                domain=domain, image=image, parent=parent, capacity=capacity, id=volume
            ),
            lambda model: model.add_layer(parent, volume, capacity),
        )

    @rule(which=images, capacity=st.none() | capacities, name=names)
    def clone(self, which: int, capacity: int | None, name: str | None) -> None:
        self._clone(self.pick(which), capacity, name)

    @rule(which=templates, capacity=st.none() | capacities, name=names)
    def clone_template(self, which: int, capacity: int | None, name: str | None) -> None:
        self._clone(self.pick_template(which), capacity, name)

    def _clone(self, template: ImageId, capacity: int | None, name: str | None) -> None:
        image, volume = ImageId(self.new_id()), VolumeId(self.new_id())
        self.create(
            lambda client, domain: client.image.clone(
                domain=domain, template=template, name=name, capacity=capacity, id=image, volume=volume
            ),
            lambda model: model.clone(template, image, volume, capacity, name),
        )

    @rule(which=images)
    def make_template(self, which: int) -> None:
        image = self.pick(which)
        self.do(
            lambda client, domain: client.image.make_template(domain=domain, image=image),
            lambda model: model.make_template(image),
        )

    @rule(which=images)
    def make_template_from_copy(self, which: int) -> None:
        source = self.pick(which)
        image, volume = ImageId(self.new_id()), VolumeId(self.new_id())
        self.create(
            lambda client, domain: client.image.make_template(
                domain=domain, image=source, name="copy", id=image, volume=volume
            ),
            lambda model: model.copy_template(source, image, volume, "copy"),
        )

    @rule(
        length=st.sampled_from([2**20, 3 * BLOCK]),
        blocks=block_maps,
        source_format=st.sampled_from([FileFormat.RAW, FileFormat.QCOW2]),
        capacity=st.none() | capacities,
        format_=formats,
        name=names,
    )
    def import_image(
        self,
        length: int,
        blocks: Blocks,
        source_format: FileFormat,
        capacity: int | None,
        format_: VolumeFormat,
        name: str | None,
    ) -> None:
        image, volume = ImageId(self.new_id()), VolumeId(self.new_id())
        inside = {block: pattern for block, pattern in blocks.items() if (block + 1) * BLOCK <= length}
        file = qemu.create(self.folder / f"import-{image}", source_format.value, length)
        fill(str(file), source_format.value, inside)
        self.create(
            lambda client, domain: client.image.import_(
                domain=domain,
                path=str(file),
                source_format=source_format,
                name=name,
                format=format_,
                capacity=capacity,
                id=image,
                volume=volume,
            ),
            lambda model: model.import_(image, volume, length, capacity, format_, name, inside),
        )

    @rule(which=st.integers(0, 30))
    def repeat_a_creation(self, which: int) -> None:
        """The same call again answers the same, or why it cannot."""
        if self.creations:
            call, expected = self.creations[-1 - which % len(self.creations)]
            self.do(call, expected)
