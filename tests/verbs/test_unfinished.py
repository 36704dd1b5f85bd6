# SPDX-License-Identifier: Apache-2.0
"""Images with a change in place that has begun and not ended: nobody uses them, and the collector finishes them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
import pytest

from hsm.formats import attributes
from hsm.formats.attributes import AnyIntent, Attributes, Flatten, Making, Move, Rebase, Shrink
from hsm.operations.base import lock_image
from libvdsm.api import VERBS
from libvdsm.api.errors import ImageUnfinished, NoSuchImage
from libvdsm.api.types import ImageInfo, TaskInfo
from tests.domains.tree import fingerprint
from tests.formats import qemu
from tests.verbs.provoked import provokes
from tests.verbs.samples import Samples, declaring
from tests.verbs.scene import MIB, Scene, raised


@pytest.fixture
def tmp_path(in_memory: Path) -> Path:
    return in_memory


def keep(scene: Scene, image: ImageInfo, kept: Attributes) -> None:
    """Write an image's attributes as a crash would leave them."""
    (scene.folder(image) / f"{image.id}.hsm").write_bytes(attributes.write(kept, image.id))


def begin(scene: Scene, image: ImageInfo, intent: AnyIntent) -> None:
    keep(scene, image, Attributes(tags=("kept",), intent=intent))


@pytest.mark.parametrize(
    "verb", [pytest.param(verb, marks=provokes(verb, "ImageUnfinished")) for verb in declaring("ImageUnfinished")]
)
def test_no_verb_uses_an_unfinished_image(scene: Scene, tmp_path: Path, verb: str) -> None:
    samples = Samples(scene, tmp_path)
    for image in (samples.image, samples.template, samples.single, samples.marked, samples.old):
        begin(scene, image, Move(to=uuid.uuid4()))
    params = samples.params(verb)
    if verb == "Volume.create":
        params = {"domain": scene.domain, "image": samples.image.id, "parent": samples.image.leaf}
    before = fingerprint(scene.root)

    def call() -> object:
        answer = getattr(getattr(scene.client, VERBS[verb].cls.lower()), VERBS[verb].method)(**params)
        return scene.wait(answer) if isinstance(answer, TaskInfo) else answer

    error = raised(ImageUnfinished, call)
    assert error.work == "move"
    assert "collectGarbage" in str(error)
    assert fingerprint(scene.root) == before


def test_an_unfinished_image_says_so(scene: Scene) -> None:
    image = scene.raw(MIB)
    begin(scene, image, Shrink(volume=image.leaf, capacity=512))
    assert scene.look(image).pending == "shrink"
    listed = scene.client.image.list(domain=scene.domain).items
    assert [item.pending for item in listed] == ["shrink"]


def collect(scene: Scene) -> object:
    return scene.wait(scene.client.domain.collect_garbage(domain=scene.domain))


@pytest.mark.parametrize("format_", ["raw", "qcow2"])
def test_the_collector_finishes_what_was_interrupted(scene: Scene, format_: str) -> None:
    image = scene.raw(2 * MIB) if format_ == "raw" else scene.image(2 * MIB)
    qemu.write(scene.data(image), format_, 0x11, 0, 2 * MIB)
    begin(scene, image, Shrink(volume=image.leaf, capacity=MIB))
    report = scene.wait(scene.client.domain.collect_garbage(domain=scene.domain))
    assert (report.finished, report.unfinished) == ([image.id], None)
    now = scene.look(image)
    assert (now.pending, now.capacity, now.damage) == (None, MIB, None)
    assert qemu.content(scene.data(image), format_) == b"\x11" * MIB
    kept = attributes.parse((scene.folder(image) / f"{image.id}.hsm").read_bytes(), image.id)
    assert kept == Attributes(tags=("kept",))


def test_what_somebody_is_at_work_on_is_left_to_them(
    scene: Scene, holder: Callable[[Path], AbstractContextManager[None]]
) -> None:
    image = scene.raw(2 * MIB)
    begin(scene, image, Shrink(volume=image.leaf, capacity=MIB))
    before = fingerprint(scene.root)
    with holder(scene.lease(image)):
        report = scene.wait(scene.client.domain.collect_garbage(domain=scene.domain))
        assert (report.finished, report.unfinished) == (None, [image.id])
    with scene.app.tasks.hold((lock_image(scene.domain, image.id),), 1.0):
        report = scene.wait(scene.client.domain.collect_garbage(domain=scene.domain))
        assert (report.finished, report.unfinished) == (None, [image.id])
    assert fingerprint(scene.root) == before


def test_an_unfinished_image_can_be_deleted_unless_others_depend_on_it(scene: Scene) -> None:
    image = scene.raw(2 * MIB)
    begin(scene, image, Shrink(volume=image.leaf, capacity=MIB))
    scene.wait(scene.client.image.delete(domain=scene.domain, image=image.id))
    raised(NoSuchImage, lambda: scene.look(image))
    assert list(scene.images.iterdir()) == []


def test_an_image_in_the_making_is_not_there_and_can_be_made(scene: Scene) -> None:
    image = scene.raw(MIB)
    keep(scene, image, Attributes(making=Making(leaf=uuid.uuid4())))
    raised(NoSuchImage, lambda: scene.look(image))
    assert scene.client.image.list(domain=scene.domain).items == []
    made = scene.image(MIB, id=image.id)
    assert scene.look(image) == made
    assert not (scene.folder(image) / f"{image.leaf}.meta").exists()


def test_an_image_that_was_made_is_there_whatever_is_deleted_of_it(scene: Scene) -> None:
    image = scene.image(MIB)
    upper = scene.snapshot(image)
    keep(scene, upper, Attributes(making=Making(leaf=upper.leaf), tags=("kept",)))
    assert scene.look(image) == msgspec.structs.replace(upper, tags=["kept"])
    scene.wait(scene.client.volume.delete(domain=scene.domain, volume=upper.leaf))
    assert scene.look(image).leaf == image.leaf


def test_the_collector_forgets_that_an_image_was_made(scene: Scene) -> None:
    image = scene.image(MIB)
    keep(scene, image, Attributes(making=Making(leaf=image.leaf)))
    collect(scene)
    assert not (scene.folder(image) / f"{image.id}.hsm").exists()
    assert scene.look(image) == image


PULLED = ("not begun", "marked", "the header written, the tables lost", "all but the mark's end", "pulled")


@pytest.mark.parametrize("state", PULLED)
def test_what_was_pulled_is_known_wherever_it_ended(scene: Scene, state: str) -> None:
    """The third is what a kill of qemu-img between its header and its tables leaves, and a power cut."""
    template = scene.image(MIB)
    qemu.write(scene.data(template), "qcow2", 0x11, 0, MIB)
    scene.wait(scene.client.image.make_template(domain=scene.domain, image=template.id))
    clone = scene.clone(template)
    qemu.write(scene.data(clone), "qcow2", 0x22, 0, 64 * 1024)
    shown, path = qemu.content(scene.data(clone), "qcow2"), scene.data(clone)
    begin(scene, clone, Flatten(top=clone.leaf, unlink=template.leaf, generation=1))
    if state != "not begun":
        qemu.image_tool("snapshot", "-c", "hsm", path)
    if state == "the header written, the tables lost":
        qemu.image_tool("rebase", "-u", "-f", "qcow2", "-b", "", path)
    if state in ("all but the mark's end", "pulled"):
        qemu.image_tool("rebase", "-f", "qcow2", "-b", "", path)
    if state == "pulled":
        qemu.image_tool("snapshot", "-d", "hsm", path)
    collect(scene)
    now = scene.look(clone)
    assert (now.pending, now.damage, now.template) == (None, None, None)
    assert qemu.content(path, "qcow2") == shown
    assert qemu.info(path, "qcow2").get("snapshots") is None
    qemu.check(path)


def test_a_rebase_is_dropped_whose_template_went_before_it_began(scene: Scene) -> None:
    clone = scene.clone(scene.template(MIB))
    before = scene.look(clone)
    begin(scene, clone, Rebase(top=clone.leaf, parent=uuid.uuid4(), template=uuid.uuid4(), generation=1))
    collect(scene)
    assert scene.look(clone) == msgspec.structs.replace(before, tags=["kept"])
