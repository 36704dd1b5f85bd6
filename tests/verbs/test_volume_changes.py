# SPDX-License-Identifier: Apache-2.0
"""Volume.setDescription and Volume.setLegality."""

from __future__ import annotations

import json

from libvdsm.api.errors import (
    GenerationMismatch,
    ImageInUse,
    InvalidParameter,
    IsTemplate,
    NoSuchImage,
    NoSuchVolume,
    VolumeDamaged,
)
from libvdsm.api.types import (
    ImageId,
    Legality,
    VolumeId,
    VolumeRole,
)
from tests.verbs.provoked import provokes
from tests.verbs.scene import MIB, Scene, raised
from tests.verbs.test_volume import UNKNOWN, describe, look, mark

# ---- setDescription


def test_set_description_changes_the_text_and_leaves_name_and_generation(scene: Scene) -> None:
    image = scene.image(MIB, name="web", description="old")
    changed = describe(scene, image.leaf, "näu")
    assert (changed.name, changed.description, changed.generation) == ("web", "näu", 0)
    assert scene.look(image).description == "näu"
    assert json.loads(scene.metadata(image).description) == {"DiskAlias": "web", "DiskDescription": "näu"}
    assert describe(scene, image.leaf, "").description is None
    assert json.loads(scene.metadata(image).description) == {"DiskAlias": "web"}


def test_set_description_keeps_what_others_wrote_beside_it(scene: Scene) -> None:
    image = scene.image(MIB)
    scene.edit(image, DESCRIPTION='{"DiskAlias":"a","Custom":[1,2]}')
    describe(scene, image.leaf, "new")
    assert json.loads(scene.metadata(image).description) == {
        "DiskAlias": "a",
        "Custom": [1, 2],
        "DiskDescription": "new",
    }


def test_set_description_works_while_the_image_is_in_use_and_on_frozen_volumes(scene: Scene) -> None:
    image = scene.snapshot(scene.image(MIB), name="kept")
    scene.client.image.prepare(domain=scene.domain, image=image.id)
    assert image.chain is not None
    base = describe(scene, image.chain[0].id, "of the snapshot")
    assert (base.name, base.description, base.role) == ("kept", "of the snapshot", VolumeRole.INTERNAL)
    assert describe(scene, image.leaf, "of the image").description == "of the image"


VERB = "Volume.setDescription"


@provokes(VERB, "NoSuchVolume", "NoSuchImage", "GenerationMismatch", "IsTemplate", "InvalidParameter", "VolumeDamaged")
def test_set_description_refuses(scene: Scene) -> None:
    image, template = scene.image(MIB, name="n" * 64), scene.template(MIB)
    clone = scene.clone(template)
    raised(NoSuchVolume, lambda: describe(scene, VolumeId(UNKNOWN), "x"))
    raised(NoSuchImage, lambda: describe(scene, image.leaf, "x", image=ImageId(UNKNOWN)))
    raised(GenerationMismatch, lambda: describe(scene, image.leaf, "x", generation=1))
    raised(IsTemplate, lambda: describe(scene, template.leaf, "x", image=clone.id))
    raised(InvalidParameter, lambda: describe(scene, image.leaf, "a\nb"))
    raised(InvalidParameter, lambda: describe(scene, image.leaf, "d" * 180))
    assert look(scene, image.leaf).description is None
    assert describe(scene, template.leaf, "of the template").description == "of the template"
    scene.meta(image).write_bytes(b"")
    raised(VolumeDamaged, lambda: describe(scene, image.leaf, "x"))


# ---- setLegality


def test_set_legality_marks_a_volume_and_raises_its_generation(scene: Scene) -> None:
    image = scene.image(MIB)
    marked = mark(scene, image.leaf, Legality.ILLEGAL)
    assert (marked.legality, marked.generation) == (Legality.ILLEGAL, 1)
    assert "LEGALITY=ILLEGAL\n" in scene.meta(image).read_text()
    assert scene.look(image).legality is Legality.ILLEGAL
    assert mark(scene, image.leaf, Legality.ILLEGAL).generation == 1, "it is so already"
    assert mark(scene, image.leaf, Legality.LEGAL, generation=1).generation == 2
    scene.edit(image, GEN="999")
    assert mark(scene, image.leaf, Legality.ILLEGAL).generation == 0, "the generation wraps"


VERB = "Volume.setLegality"


@provokes(VERB, "NoSuchVolume", "NoSuchImage", "GenerationMismatch", "IsTemplate", "InvalidParameter")
@provokes(VERB, "ImageInUse", "VolumeDamaged")
def test_set_legality_refuses(scene: Scene) -> None:
    image, template = scene.image(MIB), scene.template(MIB)
    clone = scene.clone(template)
    illegal = Legality.ILLEGAL
    raised(NoSuchVolume, lambda: mark(scene, VolumeId(UNKNOWN), illegal))
    raised(NoSuchImage, lambda: mark(scene, image.leaf, illegal, image=ImageId(UNKNOWN)))
    raised(GenerationMismatch, lambda: mark(scene, image.leaf, illegal, generation=1))
    raised(IsTemplate, lambda: mark(scene, template.leaf, illegal, image=clone.id))
    raised(InvalidParameter, lambda: mark(scene, image.leaf, Legality.FAKE))
    scene.client.image.prepare(domain=scene.domain, image=clone.id)
    raised(ImageInUse, lambda: mark(scene, clone.leaf, illegal))
    raised(ImageInUse, lambda: mark(scene, template.leaf, illegal))
    scene.meta(image).write_bytes(b"")
    raised(VolumeDamaged, lambda: mark(scene, image.leaf, illegal))
