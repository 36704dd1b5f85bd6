# SPDX-License-Identifier: Apache-2.0
"""Bitmaps of files whose program was killed: ours loses none of them, others are not believed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from hsm.formats import qcow2
from hsm.formats.attributes import ChangeBitmaps, Guarded, MergeDown
from hsm.operations.bitmap_guard import digest
from libvdsm.api.errors import BitmapUnusable
from libvdsm.api.types import ImageInfo, VolumeId
from tests.formats import qemu
from tests.verbs.scene import MIB, Scene, raised
from tests.verbs.test_bitmap import STEP, add, crash, extents, in_use, listed, write
from tests.verbs.test_unfinished import begin, collect


@pytest.fixture
def tmp_path(in_memory: Path) -> Path:
    return in_memory


def interrupted(path: Path, *, dropped: bool = False) -> None:
    """A program opens a volume to write it, and is killed: its bitmaps are in use.

    ``dropped``: in the moment in which the header says that there are none.
    """
    process = subprocess.Popen(["qemu-io", "-f", "qcow2", "-c", "sleep 60000", str(path)], stdout=subprocess.DEVNULL)
    until = time.monotonic() + 20
    while not in_use(path):
        assert time.monotonic() < until
    process.send_signal(signal.SIGKILL)
    process.wait()
    if dropped:
        with path.open("r+b") as file:
            for offset, data in qcow2.without_bitmaps(file.read(qcow2.READ)):
                os.pwrite(file.fileno(), data, offset)


def marked(scene: Scene) -> ImageInfo:
    """An image with two bitmaps, which know different things."""
    image = scene.image(8 * MIB)
    add(scene, image)
    write(scene, image, MIB)
    add(scene, image, "late")
    write(scene, image, 3 * MIB)
    return image


KNOWN = {"b": [(MIB, STEP), (3 * MIB, STEP)], "late": [(3 * MIB, STEP)]}


def known(scene: Scene, image: ImageInfo) -> dict[str, list[tuple[int, int]]]:
    return {name: extents(scene, image, name) for name in listed(scene, image)}


@pytest.mark.parametrize("dropped", [False, True])
def test_what_our_own_program_left_is_mended(scene: Scene, dropped: bool) -> None:
    image = marked(scene)
    interrupted(scene.data(image), dropped=dropped)
    begin(scene, image, ChangeBitmaps(guarded=Guarded(volumes=(image.leaf,))))
    assert scene.look(image).pending == "bitmaps"
    collect(scene)
    assert scene.look(image).pending is None
    assert known(scene, image) == KNOWN
    qemu.check(scene.data(image))
    write(scene, image, 5 * MIB)
    assert known(scene, image) == {name: [*parts, (5 * MIB, STEP)] for name, parts in KNOWN.items()}


@pytest.mark.parametrize("dropped", [False, True])
def test_a_change_begins_with_what_the_last_one_left(scene: Scene, dropped: bool) -> None:
    image = marked(scene)
    interrupted(scene.data(image), dropped=dropped)
    begin(scene, image, ChangeBitmaps(guarded=Guarded(volumes=(image.leaf,))))
    scene.wait(scene.client.bitmap.remove(domain=scene.domain, image=image.id, bitmap="late"))
    assert known(scene, image) == {"b": KNOWN["b"]}
    assert scene.look(image).pending is None


def test_what_was_of_no_use_before_is_not_believed(scene: Scene) -> None:
    image = marked(scene)
    crash(scene.data(image))
    scene.wait(scene.client.bitmap.clear(domain=scene.domain, image=image.id, bitmap="late"))
    interrupted(scene.data(image))
    begin(scene, image, ChangeBitmaps(guarded=Guarded(volumes=(image.leaf,), in_use=(digest("b"),))))
    collect(scene)
    raised(BitmapUnusable, lambda: extents(scene, image, "b"))
    assert extents(scene, image, "late") == []


def test_what_a_killed_guest_left_is_not_believed_after_a_change(scene: Scene) -> None:
    image = marked(scene)
    crash(scene.data(image))
    scene.wait(scene.client.bitmap.clear(domain=scene.domain, image=image.id, bitmap="late"))
    raised(BitmapUnusable, lambda: extents(scene, image, "b"))
    assert extents(scene, image, "late") == []


def test_bits_for_another_size_are_not_believed(scene: Scene) -> None:
    """As where a merge makes the base larger, or smaller, and is killed before the bitmaps are stored."""
    image = scene.image(64 * MIB)
    add(scene, image, granularity=512)
    interrupted(scene.data(image))
    with scene.data(image).open("r+b") as file:
        os.pwrite(file.fileno(), (2**33).to_bytes(8, "big"), 24)
    begin(scene, image, ChangeBitmaps(guarded=Guarded(volumes=(image.leaf,))))
    collect(scene)
    assert in_use(scene.data(image))


@pytest.mark.parametrize("dropped", [False, True])
def test_a_merge_that_was_interrupted_knows_what_the_base_had(scene: Scene, dropped: bool) -> None:
    """What is left of the base's must not be made anew from the upper ones alone."""
    image = marked(scene)
    base = image.leaf
    image = scene.snapshot(image)
    write(scene, image, 5 * MIB)
    shown = qemu.content(scene.data(image), "qcow2")
    begin(scene, image, _merging(image, base))
    interrupted(scene.data(image, base), dropped=dropped)
    collect(scene)
    image = scene.look(image)
    assert (image.leaf, image.pending) == (base, None)
    assert known(scene, image) == {name: [*parts, (5 * MIB, STEP)] for name, parts in KNOWN.items()}
    assert qemu.content(scene.data(image), "qcow2") == shown
    qemu.check(scene.data(image))


def test_what_is_lost_of_a_base_all_the_same_is_told(scene: Scene) -> None:
    """The intent guards nothing, as where there was no room for it."""
    image = marked(scene)
    base = image.leaf
    image = scene.snapshot(image)
    write(scene, image, 5 * MIB)
    begin(scene, image, MergeDown(base=base, gone=(image.leaf,), generation=1, known=(digest("b"), digest("late"))))
    interrupted(scene.data(image, base))
    collect(scene)
    assert {name: info.usable for name, info in listed(scene, image).items()} == {"b": False, "late": False}


def _merging(image: ImageInfo, base: VolumeId) -> MergeDown:
    guarded = Guarded(volumes=(base, image.leaf))
    return MergeDown(base=base, gone=(image.leaf,), generation=1, guarded=guarded, known=(digest("b"), digest("late")))
