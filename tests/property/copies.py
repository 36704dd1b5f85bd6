# SPDX-License-Identifier: Apache-2.0
"""Copies and moves, within the domain and to another one, on which nothing else happens."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from libvdsm.api.errors import (
    ImageExists,
    ImageInUse,
    InvalidParameter,
    NoSuchImage,
    TemplateInUse,
    TemplateMissing,
    VolumeExists,
    VolumeIllegal,
)
from libvdsm.api.types import DomainId, FileFormat, ImageId, Legality, VolumeFormat, VolumeId
from libvdsm.client import Client
from tests.formats import qemu
from tests.property.choices import images, names
from tests.property.judge import PATIENCE, Judge
from tests.property.machine import described, shown
from tests.property.model import Model
from tests.property.parts import BLOCK, Blocks, Image, Layer, Refused, refuse

forms = st.sampled_from([None, None, VolumeFormat.RAW, VolumeFormat.QCOW2])


class Copies(Judge):
    """Two domains."""

    @functools.cached_property
    def other(self) -> DomainId:
        return self._new_domain()

    @rule(which=images, collapse=st.booleans(), there=st.booleans(), format_=forms, name=names)
    def copy_image(
        self, which: int, collapse: bool, there: bool, format_: VolumeFormat | None, name: str | None
    ) -> None:
        source, new = self.pick(which), ImageId(self.new_id())
        known = self.model.images.get(source)
        count = 1 if collapse or known is None else len(known.layers)
        ids = [VolumeId(self.new_id()) for _ in range(count)]
        # A chain keeps its form; of one that is kept, whatever becomes of it, only what is said is asked for.
        wanted = format_ if collapse else None

        def call(client: Client, domain: DomainId) -> Any:
            to = self.other if there else domain
            return client.image.copy(
                domain=domain,
                image=source,
                to=to,
                collapse=collapse,
                format=wanted,
                name=name,
                id=new,
                volumes=ids,
                checksum=collapse,
            )

        def expected(model: Model) -> None:
            copied(model, source, new, ids, collapse=collapse, there=there, format_=wanted, name=name)

        self.create(call, expected)

    @rule(which=images)
    def move_away(self, which: int) -> None:
        image = self.pick(which)
        self.do(
            lambda client, domain: client.image.move(domain=domain, image=image, to=self.other),
            lambda model: moved_away(model, image),
        )

    @rule(which=st.integers(0, 3))
    def move_back(self, which: int) -> None:
        away = list(self.model.elsewhere)
        image = away[-1 - which % len(away)] if away else ImageId(self.new_id())
        self.do(
            lambda client, domain: client.image.move(domain=self.other, image=image, to=domain),
            lambda model: moved_back(model, image),
        )

    @invariant()
    def the_list_of_the_other_domain_is_the_models(self) -> None:
        with self.judged():
            listed = self.service.client.image.list(domain=self.other).items
            assert {info.id: shown(info) for info in listed} == {
                image.id: described(image) for image in self.model.elsewhere.values()
            }
            assert self.service.client.domain.get_stats(domain=self.other).garbage == 0

    def teardown(self) -> None:
        if self.sound:
            self.cut_after = None
            self._look_elsewhere()
        super().teardown()

    def _look_elsewhere(self) -> None:
        client = self.service.client
        target = self.folder / "exported-elsewhere"
        with self.judged():
            for image in self.model.elsewhere.values():
                if image.leaf.legality is Legality.LEGAL:
                    client.wait(
                        client.image.export(domain=self.other, image=image.id, path=str(target), format=FileFormat.RAW),
                        timeout=PATIENCE,
                    )
                    assert qemu.content(Path(target), "raw") == content_of(image)
            report = client.wait(client.domain.check(domain=self.other, deep=True), timeout=PATIENCE)
            assert [found for found in report.problems if found.kind != "illegal"] == []
            client.wait(client.domain.format(domain=self.other, force=True), timeout=PATIENCE)


def content_of(image: Image) -> bytes:
    """What a guest reads of an image that stands on no template."""
    blocks = merged(image.layers)
    content = bytearray(image.leaf.capacity)
    for block, pattern in blocks.items():
        content[block * BLOCK : (block + 1) * BLOCK] = bytes([pattern]) * BLOCK
    return bytes(content[: image.leaf.capacity])


def merged(chain: list[Layer]) -> Blocks:
    blocks: Blocks = {}
    for layer in chain:
        blocks |= layer.blocks
    return {block: pattern for block, pattern in blocks.items() if block * BLOCK < chain[-1].capacity}


def copied(
    model: Model,
    source: ImageId,
    image: ImageId,
    ids: list[VolumeId],
    *,
    collapse: bool,
    there: bool,
    format_: VolumeFormat | None,
    name: str | None,
) -> None:
    """Image.copy"""
    place = model.elsewhere if there else model.images
    if image in place:
        _same(model, place[image], source, ids, format_)
        return
    refuse({VolumeExists: not there and any(model.find(id_) for id_ in ids)})
    found = model.existing(source)
    chain = model.chain(found)
    refuse(
        {
            VolumeIllegal: model.illegal(chain),
            ImageInUse: model.in_use(chain, exclusively=False),
            InvalidParameter: len(ids) != (1 if collapse else len(found.layers)),
            TemplateMissing: there and found.template is not None and not collapse,
        }
    )
    if collapse:
        was = found.leaf
        form = format_ or was.format
        layer = Layer(ids[0], was.capacity, form, was.allocation, merged(chain), was.text)
        if len(chain) == 1 and form is was.format:
            layer.bitmaps = copy.deepcopy(was.bitmaps)
        place[image] = Image(image, [layer], name or found.name, tags=list(found.tags))
        return
    layers = []
    for id_, was in zip(ids, found.layers, strict=True):
        new = copy.deepcopy(was)
        new.id, new.generation = id_, 0
        layers.append(new)
    layers[-1].snapshot = None
    place[image] = Image(image, layers, name or found.name, found.template, found.is_template, tags=list(found.tags))


def _same(model: Model, there: Image, source: ImageId, ids: list[VolumeId], format_: VolumeFormat | None) -> None:
    """A copy that was made before, and whether it still is what is asked for."""
    refuse({ImageExists: {layer.id for layer in there.layers} != set(ids)})
    now = model.images.get(source)
    refuse(
        {
            VolumeExists: (format_ not in (None, there.leaf.format))
            or (now is not None and now.leaf.capacity != there.leaf.capacity)
        }
    )


def moved_away(model: Model, image: ImageId) -> None:
    """Image.move to the other domain; what is there already, and not here, counts as moved."""
    if image not in model.images and image in model.elsewhere:
        return
    found = model.existing(image)
    refuse(
        {
            VolumeIllegal: model.illegal(model.chain(found)),
            ImageInUse: model.in_use(found.layers, exclusively=True),
            TemplateInUse: bool(model.clones(found)),
            TemplateMissing: found.template is not None,
        }
    )
    model.elsewhere[image] = model.images.pop(image)


def moved_back(model: Model, image: ImageId) -> None:
    """Image.move from there."""
    if image not in model.elsewhere:
        if image not in model.images:
            raise Refused(NoSuchImage)
        return
    refuse({VolumeIllegal: model.illegal(model.elsewhere[image].layers)})
    model.images[image] = model.elsewhere.pop(image)
