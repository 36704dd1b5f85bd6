# SPDX-License-Identifier: Apache-2.0
"""What the verbs that change an image's layers refuse, and that they have changed nothing then."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from libvdsm.api.errors import (
    ImageDamaged,
    ImageInUse,
    ImageUnfinished,
    InvalidParameter,
    IsTemplate,
    NoSpace,
    NoSuchImage,
    NoSuchVolume,
    NotBelow,
    NotSnapshot,
    NotSupported,
    ToolFailed,
    VolumeDamaged,
    VolumeIllegal,
)
from libvdsm.api.types import ImageId, ImageInfo, Legality, TaskInfo, VolumeId
from libvdsm.declare import ApiError
from tests.domains.tree import fingerprint
from tests.formats import qemu
from tests.verbs.layers import DOWN, KIB, UP, contents, sound
from tests.verbs.provoked import provokes
from tests.verbs.scene import MIB, Scene, raised


@pytest.fixture
def tmp_path(in_memory: Path) -> Path:
    return in_memory


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
        task: TaskInfo[ImageInfo] = getattr(self.scene.client.image, verb)(**self.params(verb, **changed))
        return self.scene.wait(task)

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


@pytest.mark.parametrize("verb", ["merge", "delete_snapshot", "flatten", "rebase"])
def test_tables_that_contradict_themselves_are_found_before_anything_is_changed(scene: Scene, verb: str) -> None:
    calls = Calls(scene)
    low, middle, top = calls.volumes
    bad = {"merge": middle, "delete_snapshot": middle, "flatten": top, "rebase": low}[verb]
    with scene.data(calls.image, bad).open("r+b") as file:
        file.seek(3 * 65536)
        file.write(((1 << 63) | (3 << 9)).to_bytes(8, "big"))
    assert calls.refused(VolumeDamaged, verb).volume == bad


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[None]]:
    """A qemu-img that fails where it would move data."""
    script = tmp_path / "broken" / "qemu-img"
    script.parent.mkdir()
    real = shutil.which("qemu-img")
    moves = "*rebase*-p*|*commit*"
    script.write_text(f'#!/bin/sh\ncase "$*" in {moves}) echo broken >&2; exit 1;; esac\nexec {real} "$@"\n')
    script.chmod(0o755)

    @contextmanager
    def while_it_lasts() -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
            yield

    return while_it_lasts


@pytest.mark.parametrize(
    "verb",
    [pytest.param(verb, marks=provokes(full, "ToolFailed")) for verb, full in NAMES.items() if verb != "revert"],
)
@pytest.mark.parametrize("by", ["the collector", "the same call"])
def test_what_a_tool_did_not_do_is_done_later(
    scene: Scene, verb: str, by: str, broken: Callable[[], AbstractContextManager[None]]
) -> None:
    calls = Calls(scene)
    for volume in calls.volumes:
        qemu.write(scene.data(calls.image, volume), "qcow2", 0x11, 0, 64 * KIB)
    before = contents(scene, calls.image)
    with broken():
        assert "broken" in raised(ToolFailed, lambda: calls.call(verb)).reason
        assert scene.look(calls.image).pending is not None
        assert scene.look(calls.image).damage is None
        report = scene.wait(scene.client.domain.collect_garbage(domain=scene.domain))
        assert report.unfinished == [calls.image.id]
        raised(ImageUnfinished, lambda: scene.snapshot(calls.image))
    if by == "the collector":
        report = scene.wait(scene.client.domain.collect_garbage(domain=scene.domain))
        assert report.finished == [calls.image.id]
    else:
        calls.call(verb)
    done = sound(scene, calls.image)
    assert contents(scene, calls.image)[done.leaf] == before[calls.volumes[-1]]


@pytest.mark.parametrize("verb", ["merge", "merge up", "flatten", "rebase"])
def test_a_domain_without_room_for_what_moves_is_left_as_it_is(
    scene: Scene, tmp_path: Path, small: Callable[[Path, int], AbstractContextManager[Path]], verb: str
) -> None:
    """And what only seems to need room, since it falls where there is data already, is done."""
    with small(tmp_path / "small", 24 * MIB) as folder:
        domain = scene.wait(scene.client.domain.create(name="small", path=str(folder))).id
        place = Scene(scene.app, scene.client, domain, scene.heard)
        made = place.image(16 * MIB)
        qemu.write(place.data(made), "qcow2", 0x11, 0, 8 * MIB)
        template = place.wait(place.client.image.make_template(domain=domain, image=made.id))
        low = place.clone(template)
        qemu.write(place.data(low), "qcow2", 0x22, 8 * MIB, 2 * MIB)
        image = place.snapshot(low)
        qemu.write(place.data(image), "qcow2", 0x33, 8 * MIB, 2 * MIB)
        (folder / "filler").write_bytes(bytes(shutil.disk_usage(folder).free - MIB))
        before = fingerprint(place.images)
        call: dict[str, Callable[[], TaskInfo[ImageInfo]]] = {
            "merge": lambda: place.client.image.merge(domain=domain, image=image.id, base=low.leaf, top=image.leaf),
            "merge up": lambda: place.client.image.merge(
                domain=domain, image=image.id, base=low.leaf, top=image.leaf, direction=UP
            ),
            "flatten": lambda: place.client.image.flatten(domain=domain, image=image.id, discard_snapshots=True),
            "rebase": lambda: place.client.image.rebase(domain=domain, image=image.id),
        }
        if verb in ("flatten", "rebase"):
            assert "have to be moved" in raised(NoSpace, lambda: place.wait(call[verb]())).reason
            assert fingerprint(place.images) == before
        else:
            assert place.wait(call[verb]()).snapshots == 0
        scene.wait(scene.client.domain.detach(domain=domain))


TOLD = ("VolumeCreated", "VolumeChanged", "VolumeDeleted")


def test_it_tells_what_becomes_of_volumes(scene: Scene) -> None:
    calls = Calls(scene)
    low, middle, top = calls.volumes

    def events(verb: str, **changed: Any) -> list[tuple[str, VolumeId]]:
        last = scene.client.event.poll(after=0).next
        calls.call(verb, **changed)
        found = scene.client.event.poll(after=last).items
        return [(event.name, VolumeId(uuid.UUID(event.data["volume"]))) for event in found if event.name in TOLD]

    leaf = VolumeId(uuid.uuid4())
    assert events("revert", volume=middle, leaf=leaf) == [("VolumeCreated", leaf), ("VolumeDeleted", top)]
    assert events("merge", base=low, top=middle, direction=DOWN) == [
        ("VolumeChanged", low),
        ("VolumeChanged", leaf),
        ("VolumeDeleted", middle),
    ]
    assert events("merge", base=low, top=leaf, direction=UP) == [("VolumeChanged", leaf), ("VolumeDeleted", low)]
    assert events("rebase") == [("VolumeChanged", leaf)]
