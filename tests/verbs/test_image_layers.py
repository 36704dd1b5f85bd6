# SPDX-License-Identifier: Apache-2.0
"""Image.merge, deleteSnapshot, revert, flatten and rebase: which layers are left, and that what they show stays."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from hsm.formats import attributes
from hsm.formats.attributes import Attributes
from libvdsm.api.errors import (
    CannotChange,
    ImageDamaged,
    ImageInUse,
    InvalidParameter,
    IsTemplate,
    NoSuchImage,
    NoSuchVolume,
    NotBelow,
    NotSnapshot,
    NotSupported,
    NotTemplate,
    TemplateInUse,
    VolumeDamaged,
    VolumeExists,
    VolumeIllegal,
    WouldLoseSnapshots,
)
from libvdsm.api.image_layers import MergeDirection
from libvdsm.api.types import ImageId, ImageInfo, Legality, VolumeFormat, VolumeId
from libvdsm.declare import ApiError
from tests.domains.tree import fingerprint
from tests.formats import qemu
from tests.verbs.provoked import provokes
from tests.verbs.scene import MIB, Scene, raised

KIB = 2**10
DOWN, UP, AUTO = MergeDirection.DOWN, MergeDirection.UP, MergeDirection.AUTO


@pytest.fixture
def tmp_path(in_memory: Path) -> Path:
    return in_memory


def guest(path: Path, *commands: str) -> None:
    """What a guest does to a qcow2 volume."""
    for command in commands:
        qemu.image_io(path, "qcow2", command)


def contents(scene: Scene, image: ImageInfo) -> dict[VolumeId, bytes]:
    """What each own layer shows."""
    found = {}
    for volume in scene.look(image).chain or []:
        if volume.image == image.id:
            found[volume.id] = qemu.content(scene.data(image, volume.id), volume.format.value)
            if volume.format is VolumeFormat.QCOW2:
                qemu.check(scene.data(image, volume.id))
    return found


class Chain:
    """Four layers: data, other data over it, zeros over data and discarded ranges, and a leaf with little in it."""

    def __init__(self, scene: Scene, made: ImageInfo, sizes: tuple[int, int, int] = (4, 4, 4)) -> None:
        self.scene = scene
        self.image = made
        format_ = made.chain[-1].format.value if made.chain else "qcow2"
        qemu.write(scene.data(made), format_, 0x11, 0, 2 * MIB)
        self.volumes = [made.leaf]
        self._layer(sizes[0], "first", "write -q -P 0x22 1M 1M")
        self._layer(sizes[1], "second", "write -q -P 0x33 1280k 640k", "write -q -z 0 256k", "discard -q 1920k 64k")
        self._layer(sizes[2], "third", "write -q -P 0x44 100k 4k")
        self.before = contents(scene, self.image)

    def _layer(self, size: int, name: str, *commands: str) -> None:
        scene = self.scene
        self.image = scene.snapshot(self.image, name=name)
        if size * MIB != self.image.capacity:
            resize = scene.client.volume.resize
            scene.wait(resize(domain=scene.domain, volume=self.image.leaf, capacity=size * MIB, shrink=True))
        self.volumes.append(self.image.leaf)
        guest(scene.data(self.image), *commands)
        self.image = scene.look(self.image)

    def merge(self, base: int, top: int, direction: MergeDirection = AUTO, **params: Any) -> ImageInfo:
        ends = {"base": self.volumes[base], "top": self.volumes[top]}
        verb = self.scene.client.image.merge
        return self.scene.wait(
            verb(domain=self.scene.domain, image=self.image.id, direction=direction, **ends, **params)
        )


def sound(scene: Scene, image: ImageInfo) -> ImageInfo:
    """The image, which can be used, and in whose folder nothing is left."""
    now = scene.look(image)
    assert (now.pending, now.damage) == (None, None)
    report = scene.wait(scene.client.domain.check(domain=scene.domain, deep=True))
    assert report.problems == []
    names = {path.name.partition(".")[0] for path in scene.folder(image).iterdir()}
    assert names == {str(volume.id) for volume in now.chain or []}
    scene.client.image.prepare(domain=scene.domain, image=image.id)
    scene.client.image.teardown(domain=scene.domain, image=image.id)
    return now


@pytest.mark.parametrize("format_", [VolumeFormat.RAW, VolumeFormat.QCOW2])
@pytest.mark.parametrize("direction", [DOWN, UP])
@pytest.mark.parametrize("run", [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)])
def test_a_run_becomes_one_volume_that_shows_what_its_uppermost_showed(
    scene: Scene, format_: VolumeFormat, direction: MergeDirection, run: tuple[int, int]
) -> None:
    chain = Chain(scene, scene.look(scene.image(4 * MIB, format=format_, name="disk")))
    base, top = run
    result = chain.merge(base, top, direction)
    left = chain.volumes[base if direction is DOWN else top]
    expected = [left if n == base else volume for n, volume in enumerate(chain.volumes) if n <= base or n > top]
    now = sound(scene, chain.image)
    assert result == now
    assert [volume.id for volume in now.chain or []] == expected
    after = contents(scene, chain.image)
    assert after.pop(left) == chain.before[chain.volumes[top]]
    assert after == {volume: chain.before[volume] for volume in expected if volume != left}
    assert now.name == "disk"
    names = [None, "first", "second", "third", "disk"]
    shown = [volume.name for volume in now.chain or []]
    assert shown == [names[n + 1] for n, volume in enumerate(chain.volumes) if n < base or n >= top]


@pytest.mark.parametrize("format_", [VolumeFormat.RAW, VolumeFormat.QCOW2])
@pytest.mark.parametrize("direction", [DOWN, UP])
@pytest.mark.parametrize("sizes", [(8, 8, 8), (2, 8, 8), (4, 2, 8), (8, 2, 4), (8, 4, 2), (2, 2, 1)])
@pytest.mark.parametrize("run", [(0, 2), (1, 2), (0, 3)])
def test_layers_of_different_sizes_are_merged(
    scene: Scene, format_: VolumeFormat, direction: MergeDirection, sizes: tuple[int, int, int], run: tuple[int, int]
) -> None:
    chain = Chain(scene, scene.look(scene.image(4 * MIB, format=format_)), sizes)
    chain.merge(*run, direction)
    after = contents(scene, chain.image)
    assert list(after.values()) == [chain.before[chain.volumes[n]] for n in range(4) if n < run[0] or n >= run[1]]
    sound(scene, chain.image)


def test_the_direction_that_moves_less_is_taken(scene: Scene) -> None:
    image = scene.image(4 * MIB)
    low = image.leaf
    qemu.write(scene.data(image), "qcow2", 0x11, 0, MIB)
    image = scene.snapshot(image)
    middle = image.leaf
    qemu.write(scene.data(image), "qcow2", 0x22, 0, 3 * MIB)
    image = scene.snapshot(image)
    qemu.write(scene.data(image), "qcow2", 0x33, 0, 64 * KIB)
    merge = scene.client.image.merge
    result = scene.wait(merge(domain=scene.domain, image=image.id, base=low, top=middle))
    assert [volume.id for volume in result.chain or []] == [middle, image.leaf]
    result = scene.wait(merge(domain=scene.domain, image=image.id, base=middle, top=image.leaf))
    assert (result.leaf, result.snapshots) == (middle, 0)


@pytest.mark.parametrize("format_", ["raw", "qcow2"])
def test_a_lowest_volume_that_is_raw_or_preallocated_stays_so(scene: Scene, format_: str) -> None:
    image = scene.image(4 * MIB, format=format_, allocation="preallocated")
    base = image.leaf
    image = scene.snapshot(image)
    qemu.write(scene.data(image), "qcow2", 0x22, 0, 2 * MIB)
    guest(scene.data(image), "write -q -z 2M 1M")
    merge = scene.client.image.merge
    result = scene.wait(merge(domain=scene.domain, image=image.id, base=base, top=image.leaf))
    assert result.leaf == base
    assert result.chain is not None
    assert (result.chain[0].format.value, result.chain[0].allocation.value) == (format_, "preallocated")
    assert scene.data(result).stat().st_blocks * 512 >= 4 * MIB
    sound(scene, image)


def test_merging_again_answers_the_same(scene: Scene) -> None:
    chain = Chain(scene, scene.look(scene.image(4 * MIB)))
    for direction in (DOWN, UP):
        result = chain.merge(1, 2, direction)
        before = fingerprint(scene.images)
        assert chain.merge(1, 2, direction) == chain.merge(1, 2) == result
        assert fingerprint(scene.images) == before


def test_what_goes_is_wiped_when_asked(scene: Scene) -> None:
    for direction, gone in ((DOWN, 3), (UP, 2)):
        chain = Chain(scene, scene.look(scene.image(4 * MIB)))
        with scene.data(chain.image, chain.volumes[gone]).open("rb") as file:
            chain.merge(2, 3, direction, wipe=True)
            assert file.read().count(0) == file.tell()


def test_tags_of_volumes_that_go_are_dropped(scene: Scene) -> None:
    chain = Chain(scene, scene.look(scene.image(4 * MIB)))
    kept = {volume: attributes.VolumeAttributes(tags=("kept",)) for volume in chain.volumes}
    path = scene.folder(chain.image) / f"{chain.image.id}.hsm"
    path.write_bytes(attributes.write(Attributes(tags=("image",), volumes=dict(kept)), chain.image.id))
    chain.merge(0, 2, DOWN)
    found = attributes.parse(path.read_bytes(), chain.image.id)
    assert (found.tags, list(found.volumes)) == (("image",), [chain.volumes[0], chain.volumes[3]])


def test_an_image_s_age_stays_when_its_oldest_volume_goes(scene: Scene) -> None:
    chain = Chain(scene, scene.look(scene.image(4 * MIB)))
    scene.edit(chain.image, chain.volumes[0], CTIME="1000")
    assert chain.merge(0, 3, UP).created == 1000


def test_a_clone_s_layers_are_merged_and_stay_on_the_template(scene: Scene) -> None:
    for direction in (DOWN, UP):
        template = written_template(scene, 0x77)
        chain = Chain(scene, scene.look(scene.clone(template)))
        result = chain.merge(0, 3, direction)
        assert result.template == template.id
        assert list(contents(scene, chain.image).values()) == [chain.before[chain.volumes[3]]]
        sound(scene, chain.image)


def written_template(scene: Scene, pattern: int, capacity: int = 4 * MIB) -> ImageInfo:
    made = scene.image(capacity)
    qemu.write(scene.data(made), "qcow2", pattern, 0, capacity)
    return scene.wait(scene.client.image.make_template(domain=scene.domain, image=made.id))


# ---- deleting snapshots


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_deleted_snapshot_leaves_all_other_states(scene: Scene, position: int) -> None:
    chain = Chain(scene, scene.look(scene.image(4 * MIB, name="disk")))
    names = [volume.name for volume in scene.look(chain.image).chain or []]
    delete = scene.client.image.delete_snapshot
    params = {"domain": scene.domain, "image": chain.image.id, "volume": chain.volumes[position]}
    result = scene.wait(delete(**params))
    shown = list(chain.before.values())
    assert list(contents(scene, chain.image).values()) == shown[:position] + shown[position + 1 :]
    assert [volume.name for volume in result.chain or []] == names[:position] + names[position + 1 :]
    sound(scene, chain.image)
    again = scene.wait(delete(**params, child=chain.volumes[position + 1]))
    assert again == result


def test_a_snapshot_that_never_was_counts_as_deleted(scene: Scene) -> None:
    image = scene.snapshot(scene.image(MIB))
    before = fingerprint(scene.images)
    delete = scene.client.image.delete_snapshot
    scene.wait(delete(domain=scene.domain, image=image.id, volume=VolumeId(uuid.uuid4())))
    assert fingerprint(scene.images) == before


@provokes("Image.deleteSnapshot", "NotBelow")
def test_a_snapshot_is_not_deleted_when_another_stands_on_it_than_the_caller_saw(scene: Scene) -> None:
    chain = Chain(scene, scene.look(scene.image(4 * MIB)))
    delete = scene.client.image.delete_snapshot
    first, _, third, _ = chain.volumes
    before = fingerprint(scene.images)
    call = lambda: scene.wait(delete(domain=scene.domain, image=chain.image.id, volume=first, child=third))  # noqa: E731
    assert raised(NotBelow, call).top == third
    assert fingerprint(scene.images) == before


# ---- reverting


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_reverted_image_shows_the_snapshot_s_state_and_keeps_it(scene: Scene, position: int) -> None:
    chain = Chain(scene, scene.look(scene.image(4 * MIB, name="disk")), (8, 8, 8))
    leaf = VolumeId(uuid.uuid4())
    params = {"domain": scene.domain, "image": chain.image.id, "volume": chain.volumes[position], "leaf": leaf}
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


@pytest.mark.parametrize("verb", ["revert", "delete_snapshot"])
@provokes("Image.revert", "NotSnapshot")
@provokes("Image.deleteSnapshot", "NotSnapshot")
def test_the_present_state_is_no_snapshot(scene: Scene, verb: str) -> None:
    image = scene.snapshot(scene.image(MIB))
    for name in ("revert", "delete_snapshot"):
        call = getattr(scene.client.image, name)
        error = raised(
            NotSnapshot,
            lambda call=call: scene.wait(call(domain=scene.domain, image=image.id, volume=image.leaf)),  # type: ignore[misc]
        )
        assert error.volume == image.leaf


@provokes("Image.revert", "VolumeExists")
def test_the_new_layer_s_id_is_nobody_else_s(scene: Scene) -> None:
    other = scene.image(MIB)
    image = scene.snapshot(scene.snapshot(scene.image(MIB)))
    lowest, middle, top = (volume.id for volume in scene.look(image).chain or [])
    for taken in (other.leaf, top, lowest):
        revert = scene.client.image.revert
        params = {"domain": scene.domain, "image": image.id, "volume": lowest if taken != lowest else middle}
        raised(VolumeExists, lambda taken=taken, params=params: scene.wait(revert(**params, leaf=taken)))  # type: ignore[misc]
    assert scene.look(image) == scene.look(image.id)


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


# ---- what is refused


class Calls:
    """One call of each verb, on an image of three layers that stands on a template."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.template = scene.template(MIB)
        self.other = scene.template(MIB)
        self.image = scene.snapshot(scene.snapshot(scene.clone(self.template)))
        self.volumes = [volume.id for volume in scene.look(self.image).chain or [] if volume.image == self.image.id]

    def params(self, verb: str, **changed: Any) -> dict[str, Any]:
        low, middle, top = self.volumes
        known: dict[str, dict[str, Any]] = {
            "merge": {"base": low, "top": top},
            "delete_snapshot": {"volume": middle},
            "revert": {"volume": low},
            "flatten": {"discard_snapshots": True},
            "rebase": {"template": self.other.id},
        }
        return {"domain": self.scene.domain, "image": self.image.id, **known[verb], **changed}

    def call(self, verb: str, **changed: Any) -> ImageInfo:
        return self.scene.wait(getattr(self.scene.client.image, verb)(**self.params(verb, **changed)))

    def refused(self, error: type[ApiError], verb: str, **changed: Any) -> Any:
        """The error; nothing was changed."""
        before = fingerprint(self.scene.images)
        found = raised(error, lambda: self.call(verb, **changed))
        assert fingerprint(self.scene.images) == before
        return found


NAMES = {
    "merge": "Image.merge",
    "delete_snapshot": "Image.deleteSnapshot",
    "revert": "Image.revert",
    "flatten": "Image.flatten",
    "rebase": "Image.rebase",
}


def shows(*errors: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "verb", [pytest.param(verb, marks=provokes(full, *errors)) for verb, full in NAMES.items()]
    )


@shows("NoSuchImage")
def test_an_image_that_is_not_there(scene: Scene, verb: str) -> None:
    Calls(scene).refused(NoSuchImage, verb, image=ImageId(uuid.uuid4()))


@shows("ImageInUse")
def test_an_image_in_use(scene: Scene, verb: str) -> None:
    calls = Calls(scene)
    scene.client.image.prepare(domain=scene.domain, image=calls.image.id, read_only=True)
    assert "prepared on this host" in calls.refused(ImageInUse, verb).holder
    scene.client.image.teardown(domain=scene.domain, image=calls.image.id)
    calls.call(verb)


@shows("IsTemplate")
def test_a_template(scene: Scene, verb: str) -> None:
    calls = Calls(scene)
    volumes = {
        "merge": {"base": calls.template.leaf, "top": calls.volumes[0]},
        "delete_snapshot": {"volume": calls.template.leaf},
        "revert": {"volume": calls.template.leaf},
    }
    if verb in volumes:
        calls.refused(IsTemplate, verb, **volumes[verb])
    clone = scene.clone(calls.template)
    other = {"volume": clone.leaf} if verb in ("delete_snapshot", "revert") else {}
    if verb in ("merge", "rebase"):
        calls.refused(IsTemplate, verb, image=calls.template.id)
    elif verb == "flatten":
        calls.scene.edit(clone, VOLTYPE="SHARED")
        calls.refused(IsTemplate, verb, image=clone.id)
    else:
        calls.refused(NotSnapshot, verb, image=clone.id, **other)


@shows("VolumeIllegal")
def test_a_volume_that_is_marked_illegal(scene: Scene, verb: str) -> None:
    calls = Calls(scene)
    scene.wait(
        scene.client.volume.set_legality(domain=scene.domain, volume=calls.volumes[1], legality=Legality.ILLEGAL)
    )
    assert calls.refused(VolumeIllegal, verb).volume == calls.volumes[1]


@shows("VolumeDamaged")
def test_a_volume_that_is_damaged(scene: Scene, verb: str) -> None:
    calls = Calls(scene)
    scene.edit(calls.image, calls.volumes[1], CAP=str(2 * MIB))
    assert calls.refused(VolumeDamaged, verb).volume == calls.volumes[1]


@shows("ImageDamaged")
def test_an_image_that_is_damaged(scene: Scene, verb: str) -> None:
    calls = Calls(scene)
    scene.meta(calls.image).write_bytes(b"")
    calls.refused(ImageDamaged, verb)


@provokes("Image.merge", "NoSuchVolume", "NotBelow")
@provokes("Image.revert", "NoSuchVolume")
def test_volumes_that_are_no_run(scene: Scene) -> None:
    calls = Calls(scene)
    low, middle, top = calls.volumes
    calls.refused(NotBelow, "merge", base=top, top=low)
    stranger, other = VolumeId(uuid.uuid4()), VolumeId(uuid.uuid4())
    assert calls.refused(NoSuchVolume, "merge", base=stranger, top=other).volume == stranger
    calls.refused(NoSuchVolume, "revert", volume=stranger)
    calls.refused(InvalidParameter, "merge", base=middle, top=middle)


@provokes("Image.merge", "NotSupported")
@provokes("Image.flatten", "NotSupported")
@provokes("Image.rebase", "NotSupported")
def test_volumes_with_bitmaps_or_internal_snapshots_of_others_take_nothing_into_them(scene: Scene) -> None:
    calls = Calls(scene)
    low, _, top = calls.volumes
    for path in (scene.data(calls.image, top), scene.data(calls.image, low)):
        qemu.image_tool("snapshot", "-c", "mine", path)
    for verb, changed in (("merge", {"direction": UP}), ("flatten", {}), ("rebase", {})):
        assert "internal snapshots" in calls.refused(NotSupported, verb, **changed).reason
    for path in (scene.data(calls.image, top), scene.data(calls.image, low)):
        qemu.image_tool("snapshot", "-d", "mine", path)
        qemu.image_tool("bitmap", "--add", "-f", "qcow2", path, "dirty")
    for verb, changed in (("merge", {"direction": UP}), ("flatten", {}), ("rebase", {})):
        assert "bitmaps" in calls.refused(NotSupported, verb, **changed).reason
    assert calls.call("merge").leaf == low
