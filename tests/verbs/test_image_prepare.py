# SPDX-License-Identifier: Apache-2.0
"""Image.prepare and Image.teardown."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import Any

from libvdsm.api.errors import (
    AlreadyPrepared,
    ImageInUse,
    IsTemplate,
    NoSuchImage,
    VolumeIllegal,
)
from libvdsm.api.types import (
    Legality,
    VolumeFormat,
)
from tests.domains.tree import fingerprint
from tests.verbs.provoked import provokes
from tests.verbs.scene import MIB, Scene, raised
from tests.verbs.test_image import UNKNOWN


def test_a_prepared_image_is_held_until_it_is_torn_down(scene: Scene) -> None:
    image = scene.image()
    before = time.time()
    prepared = scene.client.image.prepare(domain=scene.domain, image=image.id)
    assert before - 0.01 <= prepared.since <= time.time()
    assert (prepared.domain, prepared.image, prepared.volume) == (scene.domain, image.id, image.leaf)
    assert (prepared.path, prepared.format, prepared.read_only) == (str(scene.data(image)), VolumeFormat.QCOW2, False)
    assert os.path.exists(f"/proc/{prepared.keeper}")
    assert scene.look(image).prepared == prepared
    assert scene.client.image.list(domain=scene.domain).items[0].prepared == prepared
    assert scene.client.image.prepare(domain=scene.domain, image=image.id) == prepared, "again answers the same"
    delete = scene.client.image.delete
    error = raised(ImageInUse, lambda: scene.wait(delete(domain=scene.domain, image=image.id)))
    assert str(prepared.keeper) in error.holder
    scene.client.image.teardown(domain=scene.domain, image=image.id)
    assert not os.path.exists(f"/proc/{prepared.keeper}")
    assert scene.look(image).prepared is None
    scene.wait(delete(domain=scene.domain, image=image.id))


def test_an_image_prepared_for_reading_may_be_read_by_others_and_written_by_none(scene: Scene, tmp_path: Any) -> None:
    image = scene.snapshot(scene.image(MIB))
    prepared = scene.client.image.prepare(domain=scene.domain, image=image.id, read_only=True)
    assert prepared.read_only
    target = str(tmp_path / "copy")
    scene.wait(scene.client.image.export(domain=scene.domain, image=image.id, path=target))
    raised(ImageInUse, lambda: scene.snapshot(image))
    scene.client.image.teardown(domain=scene.domain, image=image.id)
    assert scene.snapshot(image).snapshots == 2


def test_a_template_is_prepared_for_reading_and_its_clones_for_writing(scene: Scene) -> None:
    template = scene.template()
    clones = [scene.clone(template), scene.clone(template)]
    scene.client.image.prepare(domain=scene.domain, image=template.id, read_only=True)
    for clone in clones:
        prepared = scene.client.image.prepare(domain=scene.domain, image=clone.id)
        assert (prepared.volume, prepared.read_only) == (clone.leaf, False)
    stats = scene.client.domain.get_stats(domain=scene.domain)
    assert stats.prepared == 3


def test_the_whole_chain_of_a_prepared_image_is_held(scene: Scene) -> None:
    base = scene.image()
    image = scene.snapshot(base)
    scene.client.image.prepare(domain=scene.domain, image=image.id)
    mark = partial(scene.client.volume.set_legality, domain=scene.domain, legality=Legality.ILLEGAL)
    assert raised(ImageInUse, lambda: scene.wait(mark(volume=base.leaf))).volume == base.leaf
    assert raised(ImageInUse, lambda: scene.wait(mark(volume=image.leaf))).volume == image.leaf


@provokes("Image.prepare", "AlreadyPrepared", "IsTemplate", "VolumeIllegal", "NoSuchImage", "ImageInUse")
@provokes("Image.teardown", "NoSuchImage")
def test_prepare_refuses(scene: Scene, holder: Any) -> None:
    image, template = scene.image(), scene.template()
    prepare, teardown = scene.client.image.prepare, scene.client.image.teardown
    prepare(domain=scene.domain, image=image.id)
    error = raised(AlreadyPrepared, lambda: prepare(domain=scene.domain, image=image.id, read_only=True))
    assert (error.image, error.mode) == (image.id, "for writing")
    raised(IsTemplate, lambda: prepare(domain=scene.domain, image=template.id))
    raised(NoSuchImage, lambda: prepare(domain=scene.domain, image=UNKNOWN))
    raised(NoSuchImage, lambda: teardown(domain=scene.domain, image=UNKNOWN))
    other = scene.image()
    with holder(scene.lease(other)):
        error = raised(ImageInUse, lambda: prepare(domain=scene.domain, image=other.id))
    assert error.volume == other.leaf
    deep = scene.snapshot(other)
    scene.edit(deep, other.leaf, LEGALITY="ILLEGAL")
    assert raised(VolumeIllegal, lambda: prepare(domain=scene.domain, image=deep.id)).volume == other.leaf


def test_tearing_down_what_is_not_prepared_changes_nothing(scene: Scene) -> None:
    image = scene.image()
    before = fingerprint(scene.root)
    scene.client.image.teardown(domain=scene.domain, image=image.id)
    assert fingerprint(scene.root) == before
