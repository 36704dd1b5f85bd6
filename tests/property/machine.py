# SPDX-License-Identifier: Apache-2.0
"""Random verbs over a real socket.

What there is to choose from never depends on what the service did, so that a run can be repeated although a crash ends
differently each time: rules get numbers, and say here which image they mean.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from libvdsm.api.types import Allocation, FileFormat, ImageId, ImageInfo, Legality, TagChange, VolumeFormat, VolumeId
from tests.formats import qemu
from tests.property.choices import (
    block_maps,
    capacities,
    changes,
    fill,
    formats,
    generations,
    growths,
    images,
    positions,
    stays,
    tags,
    templates,
    texts,
    tops,
)
from tests.property.judge import PATIENCE, Call, Expected
from tests.property.making import Making
from tests.property.parts import BLOCK, Blocks, Image, Layer


class Verbs(Making):
    """One domain, and whatever happens to it."""

    @initialize(format_=formats, blocks=block_maps)
    def begin_with_a_template_its_clone_and_an_image(self, format_: VolumeFormat, blocks: Blocks) -> None:
        self._create(2**20, format_, Allocation.SPARSE, "template")
        self.guest_writes(0, blocks, stays=False)
        self.make_template(0)
        self.clone_template(0, None, "clone")
        self._create(2**20, format_, Allocation.SPARSE, "image")

    # ---- changing

    @rule(which=images, position=tops, growth=growths, generation=generations)
    def resize(self, which: int, position: int, growth: int, generation: str) -> None:
        layer = self.layer(self.pick(which), position)
        capacity, expect = max(1, layer.capacity + growth), self.expect(layer, generation)
        if layer.bitmaps:
            # Killed in the middle it may lose them (decision 19).
            self.cut_after = None
        self.do(
            lambda client, domain: client.volume.resize(
                domain=domain, volume=layer.id, capacity=capacity, generation=expect
            ),
            lambda model: model.resize(layer.id, capacity, expect),
        )

    @rule(which=images, growth=growths)
    def resize_image(self, which: int, growth: int) -> None:
        image = self.pick(which)
        layer = self.layer(image, -1)
        capacity = max(1, layer.capacity + growth)
        if layer.bitmaps:
            self.cut_after = None
        self.do(
            lambda client, domain: client.image.resize(domain=domain, image=image, capacity=capacity),
            lambda model: model.resize(model.existing(image).leaf.id, capacity, None),
        )

    @rule(which=images, position=positions, text=texts, generation=generations)
    def set_description(self, which: int, position: int, text: str, generation: str) -> None:
        layer = self.layer(self.pick(which), position)
        expect = self.expect(layer, generation)
        self.do(
            lambda client, domain: client.volume.set_description(
                domain=domain, volume=layer.id, description=text, generation=expect
            ),
            lambda model: model.set_description(layer.id, text, expect),
        )

    @rule(which=images, tags=tags, change=changes)
    def set_tags(self, which: int, tags: list[str], change: TagChange) -> None:
        image = self.pick(which)
        self.do(
            lambda client, domain: client.image.set_tags(domain=domain, image=image, tags=tags, change=change),
            lambda model: model.set_tags(image, tags, change),
        )

    @rule(which=images, position=positions, tags=tags, change=changes)
    def set_volume_tags(self, which: int, position: int, tags: list[str], change: TagChange) -> None:
        volume = self.layer(self.pick(which), position).id
        self.do(
            lambda client, domain: client.volume.set_tags(domain=domain, volume=volume, tags=tags, change=change),
            lambda model: model.set_volume_tags(volume, tags, change),
        )

    @rule(
        which=images,
        position=positions,
        legality=st.sampled_from([Legality.LEGAL, Legality.LEGAL, Legality.ILLEGAL]),
        generation=generations,
    )
    def set_legality(self, which: int, position: int, legality: Legality, generation: str) -> None:
        layer = self.layer(self.pick(which), position)
        expect = self.expect(layer, generation)
        self.do(
            lambda client, domain: client.volume.set_legality(
                domain=domain, volume=layer.id, legality=legality, generation=expect
            ),
            lambda model: model.set_legality(layer.id, legality, expect),
        )

    # ---- using

    @rule(which=images, read_only=st.booleans())
    def prepare(self, which: int, read_only: bool) -> None:
        self._prepare(self.pick(which), read_only=read_only)

    def _prepare(self, image: ImageId, *, read_only: bool) -> None:
        prepared = self.do(
            lambda client, domain: client.image.prepare(domain=domain, image=image, read_only=read_only),
            lambda model: model.prepare(image, read_only=read_only),
        )
        if prepared is not None:
            leaf = self.model.images[image].leaf
            assert (prepared.volume, prepared.format, prepared.read_only) == (leaf.id, leaf.format, read_only)

    @rule(which=images)
    def teardown_image(self, which: int) -> None:
        self._teardown_image(self.pick(which))

    def _teardown_image(self, image: ImageId) -> None:
        self.do(
            lambda client, domain: client.image.teardown(domain=domain, image=image),
            lambda model: model.teardown(image),
        )

    @rule(which=images, blocks=block_maps, stays=stays)
    def guest_writes(self, which: int, blocks: Blocks, stays: bool) -> None:
        """A guest starts, if none is there yet, writes, and goes on running or not."""
        self._guest_writes(self.pick(which), blocks, stays=stays)

    def _guest_writes(self, image: ImageId, blocks: Blocks, *, stays: bool) -> None:
        self._prepare(image, read_only=False)
        known = self.model.images.get(image)
        if known is None or known.prepared != "write":
            return
        inside = {block: pattern for block, pattern in blocks.items() if (block + 1) * BLOCK <= known.leaf.capacity}
        info = self.service.client.image.get_info(domain=self.domain, image=image)
        assert info.prepared is not None
        fill(info.prepared.path, info.prepared.format.value, inside)
        self.model.write(image, inside)
        if not stays:
            self._teardown_image(image)

    @rule(which=images, position=st.none() | positions, format_=st.sampled_from([FileFormat.RAW, FileFormat.QCOW2]))
    def export(self, which: int, position: int | None, format_: FileFormat) -> None:
        self._export(self.pick(which), position, format_)

    def _export(self, image: ImageId, position: int | None, format_: FileFormat) -> None:
        """What is exported, of now or of a snapshot, is what the model says."""
        layer = None if position is None else self.layer(image, position)
        target = self.folder / "export"
        exported = self.do(
            lambda client, domain: client.image.export(
                domain=domain, image=image, path=str(target), format=format_, volume=layer.id if layer else None
            ),
            lambda model: model.export(image, layer.id if layer else None),
        )
        if exported is not None:
            with self.judged():
                known = self.model.images[image]
                top = next((own for own in known.layers if layer and own.id == layer.id), known.leaf)
                assert exported.capacity == top.capacity
                assert qemu.content(target, format_.value) == self.model.content(known, top)

    @rule(
        chosen=st.lists(images, min_size=2, max_size=6),
        kinds=st.lists(st.sampled_from(["snapshot", "resize", "clone", "copy", "export"]), min_size=6, max_size=6),
        capacity=capacities,
    )
    def many_at_once(self, chosen: list[int], kinds: list[str], capacity: int) -> None:
        picked = [self.pick(which) for which in chosen]
        self.do_all([self._one_of_many(kind, image, capacity) for kind, image in zip(kinds, picked, strict=False)])

    def _one_of_many(self, kind: str, image: ImageId, capacity: int) -> tuple[Call, Expected]:
        new, volume, leaf = ImageId(self.new_id()), VolumeId(self.new_id()), self.layer(image, -1).id
        target = self.folder / f"export-{new}"
        made: dict[str, tuple[Call, Expected]] = {
            "snapshot": (
                lambda client, domain: client.image.snapshot(domain=domain, image=image, volume=volume),
                lambda model: model.snapshot(image, volume, None),
            ),
            "resize": (
                lambda client, domain: client.volume.resize(domain=domain, volume=leaf, capacity=capacity),
                lambda model: model.resize(leaf, capacity, None),
            ),
            "clone": (
                lambda client, domain: client.image.clone(domain=domain, template=image, id=new, volume=volume),
                lambda model: model.clone(image, new, volume, None, None),
            ),
            "copy": (
                lambda client, domain: client.image.make_template(
                    domain=domain, image=image, name="copy", id=new, volume=volume
                ),
                lambda model: model.copy_template(image, new, volume, "copy"),
            ),
            "export": (
                lambda client, domain: client.image.export(domain=domain, image=image, path=str(target)),
                lambda model: model.export(image, None),
            ),
        }
        return made[kind]

    # ---- deleting

    @rule(which=images, wipe=st.booleans())
    def delete(self, which: int, wipe: bool) -> None:
        self._delete(self.pick(which), wipe=wipe)

    @rule(which=templates, wipe=st.booleans())
    def delete_template(self, which: int, wipe: bool) -> None:
        self._delete(self.pick_template(which), wipe=wipe)

    def _delete(self, image: ImageId, *, wipe: bool) -> None:
        self.do(
            lambda client, domain: client.image.delete(domain=domain, image=image, wipe=wipe),
            lambda model: model.delete(image),
        )

    @rule(which=images, position=tops, generation=generations, wipe=st.booleans())
    def delete_volume(self, which: int, position: int, generation: str, wipe: bool) -> None:
        layer = self.layer(self.pick(which), position)
        expect = self.expect(layer, generation)
        self.do(
            lambda client, domain: client.volume.delete(domain=domain, volume=layer.id, wipe=wipe, generation=expect),
            lambda model: model.delete_volume(layer.id, expect),
        )

    # ---- accidents

    @rule()
    def kill_and_start(self) -> None:
        with self.judged():
            self.service.restart()

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.002, 0.004, 0.006, 0.01, 0.02, 0.04]))
    def kill_in_the_next_task(self, seconds: float) -> None:
        """So long after the next task was taken, unless it has ended before."""
        self.cut_after = seconds

    # ---- looking

    @rule()
    def collect_garbage(self) -> None:
        report = self.do(
            lambda client, domain: client.domain.collect_garbage(domain=domain),
            lambda model: None,
        )
        if report is not None:
            with self.judged():
                assert (report.removed, report.kept) == ([], []), "nobody left anything"

    @rule(deep=st.booleans())
    def check(self, deep: bool) -> None:
        report = self.do(
            lambda client, domain: client.domain.check(domain=domain, deep=deep),
            lambda model: None,
        )
        if report is not None:
            with self.judged():
                illegal = [layer.id for layer in self._layers() if layer.legality is not Legality.LEGAL]
                assert report.healthy
                assert sorted((found.kind, found.volume) for found in report.problems) == sorted(
                    ("illegal", volume) for volume in illegal
                )
                assert (report.images, report.volumes) == (len(self.model.images), len(self._layers()))

    def _layers(self) -> list[Layer]:
        return [layer for image in self.model.images.values() for layer in image.layers]

    @invariant()
    def the_list_of_images_is_the_models(self) -> None:
        with self.judged():
            listed = self.service.client.image.list(domain=self.domain).items
            assert {info.id: shown(info) for info in listed} == {
                image.id: described(image) for image in self.model.images.values()
            }

    def teardown(self) -> None:
        """The end of a run: every layer of every image is as the model has it, and then all of it can go."""
        if not self.sound:
            return
        self.cut_after = None
        self.collect_garbage()
        for image in list(self.model.images.values()):
            self._look_at_layers(image)
            self._teardown_image(image.id)
        for image in list(self.model.images.values()):
            self._export(image.id, None, FileFormat.RAW)
        self.check(deep=True)
        client = self.service.client
        client.wait(client.domain.format(domain=self.domain, force=True), timeout=PATIENCE)

    def _look_at_layers(self, image: Image) -> None:
        with self.judged():
            info = self.service.client.image.get_info(domain=self.domain, image=image.id)
            assert info.chain is not None
            seen = [
                (volume.id, volume.capacity, volume.format, volume.description, volume.legality, volume.generation)
                for volume in info.chain
            ]
            assert seen == [
                (layer.id, layer.capacity, layer.format, layer.text, layer.legality, layer.generation)
                for layer in self.model.chain(image)
            ]
            own = [volume.tags or [] for volume in info.chain if volume.image == image.id]
            assert own == [layer.tags for layer in image.layers]
            snapshots = [volume.name for volume in info.chain if volume.image == image.id][:-1]
            assert snapshots == [layer.snapshot for layer in image.layers[:-1]]


def shown(info: ImageInfo) -> dict[str, object]:
    """What an image's line in the list says, of what the model knows."""
    prepared = None if info.prepared is None else "read" if info.prepared.read_only else "write"
    return {
        "name": info.name,
        "description": info.description,
        "leaf": info.leaf,
        "capacity": info.capacity,
        "snapshots": info.snapshots,
        "is_template": info.is_template,
        "template": info.template,
        "legality": info.legality,
        "prepared": prepared,
        "damage": info.damage,
        "tags": info.tags or [],
    }


def described(image: Image) -> dict[str, object]:
    """What it should say."""
    return {
        "name": image.name,
        "description": image.leaf.text,
        "leaf": image.leaf.id,
        "capacity": image.leaf.capacity,
        "snapshots": len(image.layers) - 1,
        "is_template": image.is_template,
        "template": image.template,
        "legality": image.leaf.legality,
        "prepared": image.prepared,
        "damage": None,
        "tags": image.tags,
    }
