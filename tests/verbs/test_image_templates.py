# SPDX-License-Identifier: Apache-2.0
"""Image.makeTemplate and Image.clone."""

from __future__ import annotations

import os
from typing import Any

from libvdsm.api.errors import (
    CannotShrink,
    HasSnapshots,
    ImageExists,
    ImageInUse,
    InvalidParameter,
    NoSuchImage,
    NotSupported,
    NotTemplate,
    TemplateInUse,
    VolumeExists,
    VolumeIllegal,
)
from libvdsm.api.types import (
    Legality,
    VolumeRole,
)
from tests.domains.tree import fingerprint
from tests.formats import qemu
from tests.verbs.provoked import provokes
from tests.verbs.scene import GIB, MIB, Scene, raised
from tests.verbs.test_image import UNKNOWN, image_id, volume_id

# ---- clone


def test_clone_stands_on_the_template_and_takes_no_space_for_it(scene: Scene) -> None:
    base = scene.image(GIB, name="golden")
    qemu.write(scene.data(base), "qcow2", 0x11, 0, 8 * MIB)
    template = scene.wait(scene.client.image.make_template(domain=scene.domain, image=base.id))
    image, volume = image_id(), volume_id()
    clone = scene.clone(template, name="web", description="d", id=image, volume=volume)
    assert (clone.id, clone.leaf, clone.template) == (image, volume, template.id)
    assert (clone.name, clone.description, clone.capacity, clone.snapshots) == ("web", "d", GIB, 0)
    assert (clone.is_template, clone.legality) == (False, Legality.LEGAL)
    assert clone.actual_size < MIB
    assert clone.chain is not None
    below, leaf = clone.chain
    assert (below.id, below.image, below.role) == (template.leaf, template.id, VolumeRole.TEMPLATE)
    assert (leaf.id, leaf.parent, leaf.sequence, leaf.role) == (volume, template.leaf, 1, VolumeRole.LEAF)
    assert qemu.holds(scene.data(clone), "qcow2", 0x11, 0, 8 * MIB)
    qemu.write(scene.data(clone), "qcow2", 0x22)
    assert qemu.holds(scene.data(template), "qcow2", 0x11), "the template was not touched"


def test_a_clone_links_its_template_as_ovirt_does(scene: Scene) -> None:
    template = scene.template()
    clone = scene.clone(template)
    for suffix in ("", ".lease", ".meta"):
        link, source = (f"{scene.data(image, template.leaf)}{suffix}" for image in (clone, template))
        assert os.path.samefile(link, source), suffix
    assert scene.metadata(clone).parent == template.leaf
    assert scene.metadata(clone).image == clone.id


def test_a_clone_may_be_larger(scene: Scene) -> None:
    template = scene.template(MIB)
    clone = scene.clone(template, capacity=2 * MIB - 100)
    assert clone.capacity == 2 * MIB
    assert qemu.holds(scene.data(clone), "qcow2", 0, MIB, MIB)
    assert scene.look(template).capacity == MIB


def test_the_same_clone_again_answers_the_same(scene: Scene) -> None:
    template = scene.template(MIB)
    given: dict[str, Any] = {"id": image_id(), "volume": volume_id(), "capacity": 2 * MIB}
    first = scene.clone(template, **given)
    before = fingerprint(scene.root)
    assert scene.clone(template, **given) == first
    error = raised(VolumeExists, lambda: scene.clone(template, **{**given, "capacity": 3 * MIB}))
    assert error.volume == first.leaf
    assert fingerprint(scene.root) == before


@provokes("Image.clone", "NotTemplate", "CannotShrink", "NoSuchImage", "VolumeIllegal")
@provokes("Image.clone", "ImageExists", "VolumeExists", "NotSupported", "InvalidParameter")
def test_clone_refuses(scene: Scene) -> None:
    image, template = scene.image(MIB), scene.template(MIB)
    clone = scene.client.image.clone
    error = raised(NotTemplate, lambda: scene.clone(image))
    assert error.image == image.id
    assert "Image.makeTemplate" in error.message
    raised(NoSuchImage, lambda: scene.wait(clone(domain=scene.domain, template=UNKNOWN)))
    error = raised(CannotShrink, lambda: scene.clone(template, capacity=512))
    assert (error.volume, error.capacity) == (template.leaf, MIB)
    raised(ImageExists, lambda: scene.clone(template, id=image.id))
    raised(ImageExists, lambda: scene.clone(template, id=template.id))
    raised(VolumeExists, lambda: scene.clone(template, id=image.id, volume=image.leaf))
    raised(NotSupported, lambda: scene.clone(template, capacity=2**52))
    raised(InvalidParameter, lambda: scene.clone(template, name="ä" * 64, description="ö" * 64))
    marked = scene.template(MIB)
    scene.edit(marked, LEGALITY="ILLEGAL")
    raised(VolumeIllegal, lambda: scene.clone(marked))


def test_a_clone_with_its_templates_own_id_does_not_overwrite_the_template(scene: Scene) -> None:
    base = scene.image(MIB)
    qemu.write(scene.data(base), "qcow2", 0x11)
    template = scene.wait(scene.client.image.make_template(domain=scene.domain, image=base.id))
    before = fingerprint(scene.root)
    raised(VolumeExists, lambda: scene.clone(template, volume=template.leaf))
    create = scene.client.volume.create
    raised(
        VolumeExists,
        lambda: scene.wait(create(domain=scene.domain, image=image_id(), parent=template.leaf, id=template.leaf)),
    )
    assert fingerprint(scene.root) == before
    assert qemu.holds(scene.data(template), "qcow2", 0x11)


@provokes("Image.clone", "ImageInUse")
def test_a_template_that_somebody_changes_cannot_be_cloned_meanwhile(scene: Scene, holder: Any) -> None:
    template = scene.template()
    with holder(scene.lease(template)):
        error = raised(ImageInUse, lambda: scene.clone(template))
    assert error.image == template.id
    assert scene.clone(template).template == template.id


def test_many_clone_one_template_at_once(scene: Scene) -> None:
    template = scene.template()
    tasks = [scene.client.image.clone(domain=scene.domain, template=template.id) for _ in range(10)]
    clones = [scene.wait(task) for task in tasks]
    assert len({clone.id for clone in clones}) == 10
    error = raised(TemplateInUse, lambda: scene.wait(scene.client.image.delete(domain=scene.domain, image=template.id)))
    assert error.clones == 10


# ---- makeTemplate


def test_an_image_becomes_a_template_at_once(scene: Scene) -> None:
    image = scene.image(GIB, name="golden", description="d")
    template = scene.wait(scene.client.image.make_template(domain=scene.domain, image=image.id))
    assert template.is_template
    assert (template.id, template.leaf, template.name, template.description) == (image.id, image.leaf, "golden", "d")
    assert (template.chain or [])[0].role is VolumeRole.TEMPLATE
    assert (template.chain or [])[0].generation == 1
    assert "VOLTYPE=SHARED\n" in scene.meta(image).read_text()
    assert scene.wait(scene.client.image.make_template(domain=scene.domain, image=image.id)) == template


def test_a_template_from_a_copy_leaves_the_image_as_it_is(scene: Scene) -> None:
    image = scene.image(4 * MIB, name="web", description="d")
    qemu.write(scene.data(image), "qcow2", 0x11)
    image = scene.snapshot(image, name="s")
    qemu.write(scene.data(image), "qcow2", 0x22, MIB)
    before = fingerprint(scene.folder(image))
    copy, volume = image_id(), volume_id()
    given: dict[str, Any] = {"domain": scene.domain, "image": image.id, "name": "golden", "id": copy, "volume": volume}
    template = scene.wait(scene.client.image.make_template(**given))
    assert (template.id, template.leaf, template.name, template.description) == (copy, volume, "golden", "d")
    assert (template.is_template, template.snapshots, template.capacity) == (True, 0, 4 * MIB)
    assert qemu.holds(scene.data(template), "qcow2", 0x11)
    assert qemu.holds(scene.data(template), "qcow2", 0x22, MIB)
    qemu.check(scene.data(template))
    assert fingerprint(scene.folder(image)) == before
    assert scene.wait(scene.client.image.make_template(**given)) == template
    assert scene.clone(template).template == copy


@provokes("Image.makeTemplate", "HasSnapshots", "NoSuchImage", "VolumeIllegal", "ImageInUse")
@provokes("Image.makeTemplate", "ImageExists", "VolumeExists", "InvalidParameter")
def test_make_template_refuses(scene: Scene) -> None:
    make = scene.client.image.make_template
    image = scene.image()
    raised(NoSuchImage, lambda: scene.wait(make(domain=scene.domain, image=UNKNOWN)))
    raised(InvalidParameter, lambda: make(domain=scene.domain, image=image.id, id=image_id()))
    raised(ImageExists, lambda: scene.wait(make(domain=scene.domain, image=image.id, name="t", id=image.id)))
    raised(
        VolumeExists,
        lambda: scene.wait(make(domain=scene.domain, image=image.id, name="t", id=image.id, volume=image.leaf)),
    )
    deep = scene.snapshot(scene.image())
    error = raised(HasSnapshots, lambda: scene.wait(make(domain=scene.domain, image=deep.id)))
    assert (error.image, error.snapshots) == (deep.id, 1)
    scene.client.image.prepare(domain=scene.domain, image=image.id)
    raised(ImageInUse, lambda: scene.wait(make(domain=scene.domain, image=image.id)))
    raised(ImageInUse, lambda: scene.wait(make(domain=scene.domain, image=image.id, name="t")))
    marked = scene.image()
    scene.edit(marked, LEGALITY="ILLEGAL")
    raised(VolumeIllegal, lambda: scene.wait(make(domain=scene.domain, image=marked.id)))
