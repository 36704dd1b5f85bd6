# SPDX-License-Identifier: Apache-2.0
"""Image.revert, flatten and rebase: what an image shows, and what it stands on."""

from __future__ import annotations

import functools
import uuid
from pathlib import Path
from typing import Any

import pytest

from libvdsm.api.errors import (
    CannotChange,
    NotSnapshot,
    NotTemplate,
    TemplateInUse,
    VolumeExists,
    WouldLoseSnapshots,
)
from libvdsm.api.types import VolumeId
from tests.domains.tree import fingerprint
from tests.formats import qemu
from tests.verbs.layers import Chain, contents, sound, written_template
from tests.verbs.provoked import provokes
from tests.verbs.scene import MIB, Scene, raised


@pytest.fixture
def tmp_path(in_memory: Path) -> Path:
    return in_memory


# ---- reverting


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_reverted_image_shows_the_snapshot_s_state_and_keeps_it(scene: Scene, position: int) -> None:
    chain = Chain(scene, scene.look(scene.image(4 * MIB, name="disk")), (8, 8, 8))
    leaf = VolumeId(uuid.uuid4())
    params: dict[str, Any] = {
        "domain": scene.domain,
        "image": chain.image.id,
        "volume": chain.volumes[position],
        "leaf": leaf,
    }
    result = scene.wait(scene.client.image.revert(**params))
    kept = chain.volumes[: position + 1]
    assert [volume.id for volume in result.chain or []] == [*kept, leaf]
    assert (result.leaf, result.name, result.capacity) == (leaf, "disk", (8 if position else 4) * MIB)
    shown = contents(scene, chain.image)
    assert shown.pop(leaf) == chain.before[kept[-1]]
    assert shown == {volume: chain.before[volume] for volume in kept}
    sound(scene, chain.image)
    before = fingerprint(scene.images)
    assert scene.wait(scene.client.image.revert(**params)) == result
    assert fingerprint(scene.images) == before
    qemu.write(scene.data(result), "qcow2", 0x55, 0, MIB)
    again = scene.wait(scene.client.image.revert(domain=scene.domain, image=chain.image.id, volume=kept[-1]))
    assert contents(scene, chain.image)[again.leaf] == chain.before[kept[-1]]


@pytest.mark.parametrize(
    "verb",
    [
        pytest.param("revert", marks=provokes("Image.revert", "NotSnapshot")),
        pytest.param("delete_snapshot", marks=provokes("Image.deleteSnapshot", "NotSnapshot")),
    ],
)
def test_the_present_state_is_no_snapshot(scene: Scene, verb: str) -> None:
    image = scene.snapshot(scene.image(MIB))
    call = getattr(scene.client.image, verb)
    params: dict[str, Any] = {"domain": scene.domain, "image": image.id, "volume": image.leaf}
    assert raised(NotSnapshot, lambda: scene.wait(call(**params))).volume == image.leaf


@provokes("Image.revert", "VolumeExists")
def test_the_new_layer_s_id_is_nobody_else_s(scene: Scene) -> None:
    other = scene.image(MIB)
    image = scene.snapshot(scene.snapshot(scene.image(MIB)))
    before = fingerprint(scene.images)
    lowest, middle, top = (volume.id for volume in scene.look(image).chain or [])
    for taken in (other.leaf, top, lowest):
        call = functools.partial(
            scene.client.image.revert,
            domain=scene.domain,
            image=image.id,
            volume=lowest if taken != lowest else middle,
            leaf=taken,
        )
        raised(VolumeExists, functools.partial(lambda call: scene.wait(call()), call))
    assert fingerprint(scene.images) == before


# ---- flattening, rebasing


def test_a_flattened_clone_stands_alone(scene: Scene) -> None:
    template = written_template(scene, 0x77)
    chain = Chain(scene, scene.look(scene.clone(template, name="disk")))
    flatten = scene.client.image.flatten
    result = scene.wait(flatten(domain=scene.domain, image=chain.image.id, discard_snapshots=True))
    assert (result.leaf, result.template, result.snapshots) == (chain.volumes[3], None, 0)
    assert contents(scene, chain.image) == {chain.volumes[3]: chain.before[chain.volumes[3]]}
    now = sound(scene, chain.image)
    before = fingerprint(scene.images)
    assert scene.wait(flatten(domain=scene.domain, image=chain.image.id)) == now
    assert fingerprint(scene.images) == before
    scene.wait(scene.client.image.delete(domain=scene.domain, image=template.id))
    assert contents(scene, chain.image) == {chain.volumes[3]: chain.before[chain.volumes[3]]}


@provokes("Image.flatten", "WouldLoseSnapshots")
def test_snapshots_are_not_lost_by_flattening_unless_that_was_said(scene: Scene) -> None:
    chain = Chain(scene, scene.look(scene.image(4 * MIB, format="raw")))
    flatten = scene.client.image.flatten
    before = fingerprint(scene.images)
    error = raised(WouldLoseSnapshots, lambda: scene.wait(flatten(domain=scene.domain, image=chain.image.id)))
    assert error.snapshots == 3
    assert fingerprint(scene.images) == before
    scene.wait(flatten(domain=scene.domain, image=chain.image.id, discard_snapshots=True))
    assert contents(scene, chain.image) == {chain.volumes[3]: chain.before[chain.volumes[3]]}


@pytest.mark.parametrize("capacity", [2, 4, 8])
def test_a_clone_goes_onto_other_templates_and_onto_none(scene: Scene, capacity: int) -> None:
    first, second = written_template(scene, 0x77), written_template(scene, 0x66, capacity * MIB)
    chain = Chain(scene, scene.look(scene.clone(first)))
    rebase = scene.client.image.rebase
    for template in (second, None, first, second):
        wanted = template.id if template else None
        result = scene.wait(rebase(domain=scene.domain, image=chain.image.id, template=wanted))
        assert (result.template, result.snapshots) == (wanted, 3)
        assert contents(scene, chain.image) == chain.before
        sound(scene, chain.image)
        before = fingerprint(scene.images)
        assert scene.wait(rebase(domain=scene.domain, image=chain.image.id, template=wanted)) == result
        assert fingerprint(scene.images) == before
    scene.wait(scene.client.image.delete(domain=scene.domain, image=first.id))
    raised(TemplateInUse, lambda: scene.wait(scene.client.image.delete(domain=scene.domain, image=second.id)))


@provokes("Image.rebase", "NotTemplate", "CannotChange")
def test_what_is_no_template_and_what_is_raw_is_not_rebased(scene: Scene) -> None:
    image, raw, template = scene.image(MIB), scene.raw(), written_template(scene, 0x77)
    rebase = scene.client.image.rebase
    raised(NotTemplate, lambda: scene.wait(rebase(domain=scene.domain, image=image.id, template=raw.id)))
    raised(CannotChange, lambda: scene.wait(rebase(domain=scene.domain, image=raw.id, template=template.id)))
