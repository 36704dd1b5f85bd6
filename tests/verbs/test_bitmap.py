# SPDX-License-Identifier: Apache-2.0
"""Bitmaps: what of an image was written since a backup."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import pytest

from hsm.domains import durable
from hsm.formats import bitmaps as bitmaps_format
from hsm.formats import qcow2
from libvdsm.api.bitmap import BitmapInfo
from libvdsm.api.errors import (
    BitmapExists,
    BitmapsNotSupported,
    BitmapUnusable,
    ImageDamaged,
    ImageInUse,
    InvalidCursor,
    InvalidParameter,
    IsTemplate,
    NoSuchBitmap,
    NoSuchImage,
    ToolFailed,
    TooManyBitmaps,
    VolumeDamaged,
    VolumeIllegal,
)
from libvdsm.api.types import ImageId, ImageInfo, Legality, VolumeId
from tests.domains.tree import fingerprint
from tests.formats import qemu
from tests.verbs.provoked import provokes
from tests.verbs.scene import GIB, MIB, Scene, raised

KIB = 2**10
STEP = 64 * KIB
EACH = ("Bitmap.add", "Bitmap.remove", "Bitmap.clear", "Bitmap.list", "Bitmap.getExtents")
CHANGES = EACH[:3]


def of_each(error: str, verbs: tuple[str, ...] = EACH) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("verb", [pytest.param(verb, marks=provokes(verb, error)) for verb in verbs])


def call(scene: Scene, verb: str, image: ImageInfo | ImageId, name: str = "b") -> Any:
    """Any verb on one bitmap; what makes a task is waited for."""
    id_ = image.id if isinstance(image, ImageInfo) else image
    verbs = scene.client.bitmap
    match verb:
        case "Bitmap.add":
            return scene.wait(verbs.add(domain=scene.domain, image=id_, bitmap=name))
        case "Bitmap.remove":
            return scene.wait(verbs.remove(domain=scene.domain, image=id_, bitmap=name))
        case "Bitmap.clear":
            return scene.wait(verbs.clear(domain=scene.domain, image=id_, bitmap=name))
        case "Bitmap.list":
            return verbs.list(domain=scene.domain, image=id_)
    return verbs.get_extents(domain=scene.domain, image=id_, bitmap=name)


def add(scene: Scene, image: ImageInfo, name: str = "b", **given: Any) -> BitmapInfo:
    return scene.wait(scene.client.bitmap.add(domain=scene.domain, image=image.id, bitmap=name, **given))


def listed(scene: Scene, image: ImageInfo) -> dict[str, BitmapInfo]:
    return {item.name: item for item in scene.client.bitmap.list(domain=scene.domain, image=image.id).items}


def extents(scene: Scene, image: ImageInfo, name: str = "b", **given: Any) -> list[tuple[int, int]]:
    page = scene.client.bitmap.get_extents(domain=scene.domain, image=image.id, bitmap=name, **given)
    return [(extent.offset, extent.length) for extent in page.items]


def write(scene: Scene, image: ImageInfo, offset: int, length: int = STEP, pattern: int = 0x11) -> None:
    """As a guest would, into the newest volume."""
    qemu.write(scene.data(scene.look(image)), "qcow2", pattern, offset, length)


def in_use(path: Path) -> bool:
    """Whether QEMU has begun to write; while it does, the header may be seen half written."""
    with path.open("rb") as file, suppress(qcow2.BadHeader):
        header = qcow2.parse(file.read(qcow2.READ), path.stat().st_size)
        return any(b.in_use for b in qcow2.with_bitmaps(header, lambda at, n: os.pread(file.fileno(), n, at)).bitmaps)
    return False


def crash(path: Path) -> None:
    """A guest writes, and its QEMU is killed: what it knew of bitmaps is lost."""
    argv = ["qemu-io", "-f", "qcow2", "-c", "write -q 0 64k", "-c", "sleep 60000", str(path)]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 20
    while not in_use(path):
        assert time.monotonic() < until
    process.send_signal(signal.SIGKILL)
    process.wait()


# ---- what they are for


def test_what_is_written_after_a_backup_is_told(scene: Scene) -> None:
    image = scene.image(name="web01")
    write(scene, image, 0)
    made = add(scene, image)
    assert (made.name, made.granularity, made.usable, made.problem) == ("b", STEP, True, None)
    assert [(layer.volume, layer.recording, layer.in_use) for layer in made.layers] == [(image.leaf, True, False)]
    assert extents(scene, image) == []
    write(scene, image, MIB, 2 * STEP)
    write(scene, image, 5 * MIB, 512)
    assert extents(scene, image) == [(MIB, 2 * STEP), (5 * MIB, STEP)]
    qemu.check(scene.data(image))


def test_a_backup_of_what_changed_makes_an_old_copy_the_same_again(scene: Scene, tmp_path: Path) -> None:
    image = scene.image(16 * MIB)
    write(scene, image, 0, 4 * MIB, 1)
    add(scene, image)
    copy = bytearray(qemu.content(scene.data(image), "qcow2"))
    write(scene, image, MIB, STEP, 2)
    image = scene.snapshot(image)
    write(scene, image, 3 * MIB, 3 * STEP, 3)
    image = scene.snapshot(image)
    write(scene, image, MIB + STEP, STEP, 4)
    write(scene, image, 15 * MIB, MIB, 5)
    now = qemu.content(scene.data(image), "qcow2")
    assert bytes(copy) != now
    changed = extents(scene, image)
    assert changed == [(MIB, 2 * STEP), (3 * MIB, 3 * STEP), (15 * MIB, MIB)]
    for offset, length in changed:
        copy[offset : offset + length] = now[offset : offset + length]
    assert bytes(copy) == now


def test_it_agrees_with_what_qemu_serves(scene: Scene, tmp_path: Path) -> None:
    image = scene.image(64 * MIB)
    add(scene, image, granularity=4096)
    for offset in (0, 4096, 3 * MIB, 64 * MIB - 4096):
        write(scene, image, offset, 4096)
    address = tmp_path / "nbd"
    argv = ["qemu-nbd", "-r", "-f", "qcow2", "-B", "b", "-k", str(address), str(scene.data(image))]
    server = subprocess.Popen(argv)
    until = time.monotonic() + 20
    while not address.exists():
        assert time.monotonic() < until
    uri = f"nbd+unix:///?socket={address}"
    said = subprocess.run(
        ["nbdinfo", "--json", "--map=qemu:dirty-bitmap:b", uri], capture_output=True, check=True, timeout=60
    )
    server.wait(20)
    dirty = [(part["offset"], part["length"]) for part in json.loads(said.stdout) if part["type"] == 1]
    assert extents(scene, image) == dirty == [(0, 8192), (3 * MIB, 4096), (64 * MIB - 4096, 4096)]


def test_parts_come_in_pages(scene: Scene) -> None:
    image = scene.image()
    add(scene, image)
    for number in range(5):
        write(scene, image, number * MIB)
    verb, place = scene.client.bitmap.get_extents, {"domain": scene.domain, "image": image.id}
    found: list[int] = []
    start: str | None = None
    for _ in range(3):
        page = verb(**place, bitmap="b", limit=2, start=start)  # type: ignore[arg-type]
        found += [extent.offset for extent in page.items]
        start = page.next
    assert start is None
    assert found == [number * MIB for number in range(5)]


@provokes("Bitmap.getExtents", "InvalidCursor")
def test_a_cursor_of_no_page(scene: Scene) -> None:
    image = scene.image()
    add(scene, image)
    for start in ("x", "-1", str(2**63)):
        raised(InvalidCursor, lambda start=start: extents(scene, image, start=start))  # type: ignore[misc]


def test_bitmaps_are_listed_in_pages_by_name(scene: Scene) -> None:
    image = scene.image()
    for name in ("c", "a", "größer 2", "-b"):
        add(scene, image, name)
    first = scene.client.bitmap.list(domain=scene.domain, image=image.id, limit=3)
    rest = scene.client.bitmap.list(domain=scene.domain, image=image.id, start=first.next)
    assert [item.name for item in [*first.items, *rest.items]] == ["-b", "a", "c", "größer 2"]
    assert (len(first.items), rest.next) == (3, None)


# ---- through snapshots


def snapshot(scene: Scene, image: ImageInfo) -> ImageInfo:
    return scene.snapshot(image, name="kept")


def snapshot_many(scene: Scene, image: ImageInfo) -> ImageInfo:
    other = scene.image(MIB)
    scene.wait(scene.client.image.snapshot_many(domain=scene.domain, images=[image.id, other.id]))
    return scene.look(image)


def on_leaf(scene: Scene, image: ImageInfo) -> ImageInfo:
    volumes = scene.client.volume
    scene.wait(volumes.create(domain=scene.domain, image=image.id, parent=image.leaf, capacity=2 * GIB))
    return scene.look(image)


@pytest.mark.parametrize("freeze", [snapshot, snapshot_many, on_leaf])
def test_a_new_layer_goes_on_recording(scene: Scene, freeze: Callable[[Scene, ImageInfo], ImageInfo]) -> None:
    image = scene.image()
    add(scene, image, "coarse", granularity=MIB)
    add(scene, image, "fine", granularity=4096)
    write(scene, image, 0, 4096)
    frozen = image.leaf
    image = freeze(scene, image)
    qemu.check(scene.data(image))
    assert image.leaf != frozen
    write(scene, image, 2 * MIB, 4096)
    found = listed(scene, image)
    assert {name: (item.granularity, item.usable) for name, item in found.items()} == {
        "coarse": (MIB, True),
        "fine": (4096, True),
    }
    assert [layer.volume for layer in found["fine"].layers] == [image.leaf, frozen]
    assert extents(scene, image, "fine") == [(0, 4096), (2 * MIB, 4096)]
    assert extents(scene, image, "coarse") == [(0, MIB), (2 * MIB, MIB)]


def test_an_image_that_goes_back_to_its_snapshot_records_where_it_stopped(scene: Scene) -> None:
    image = scene.image()
    add(scene, image)
    write(scene, image, 0)
    frozen = image.leaf
    image = scene.snapshot(image)
    write(scene, image, MIB)
    scene.wait(scene.client.volume.delete(domain=scene.domain, volume=image.leaf))
    assert scene.look(image).leaf == frozen
    write(scene, image, 3 * MIB)
    assert extents(scene, image) == [(0, STEP), (3 * MIB, STEP)]


def test_going_back_to_before_a_backup_leaves_no_bitmap_that_says_too_little(scene: Scene) -> None:
    image = scene.image()
    add(scene, image)
    write(scene, image, 0)
    image = scene.snapshot(image)
    write(scene, image, MIB)
    # The backup is made; it has what the leaf's deletion takes back.
    call(scene, "Bitmap.clear", image)
    assert extents(scene, image) == []
    scene.wait(scene.client.volume.delete(domain=scene.domain, volume=image.leaf))
    assert listed(scene, image) == {}


def test_a_bitmap_of_one_layer_alone_is_that_layers(scene: Scene) -> None:
    image = scene.image()
    write(scene, image, 0)
    image = scene.snapshot(image)
    add(scene, image)
    write(scene, image, MIB)
    assert extents(scene, image) == [(MIB, STEP)]


def test_a_clone_has_none_of_its_template(scene: Scene) -> None:
    image = scene.image()
    add(scene, image)
    template = scene.wait(scene.client.image.make_template(domain=scene.domain, image=image.id))
    clone = scene.clone(template)
    assert listed(scene, clone) == {}
    assert list(listed(scene, template)) == ["b"]
    add(scene, clone)
    write(scene, clone, 0)
    assert extents(scene, clone) == [(0, STEP)]


def test_a_disk_that_grows_keeps_them(scene: Scene) -> None:
    image = scene.image(MIB)
    add(scene, image)
    write(scene, image, 0)
    scene.wait(scene.client.volume.resize(domain=scene.domain, volume=image.leaf, capacity=GIB))
    write(scene, image, GIB - STEP)
    assert extents(scene, image) == [(0, STEP), (GIB - STEP, STEP)]


# ---- the same again


def test_what_is_so_already_changes_nothing(scene: Scene) -> None:
    image = scene.image()
    add(scene, image)
    write(scene, image, 0)
    before = fingerprint(scene.root)
    add(scene, image)
    call(scene, "Bitmap.remove", image, "another")
    assert fingerprint(scene.root) == before
    call(scene, "Bitmap.clear", image)
    before = fingerprint(scene.root)
    call(scene, "Bitmap.clear", image)
    assert fingerprint(scene.root) == before
    call(scene, "Bitmap.remove", image)
    call(scene, "Bitmap.remove", image)
    assert listed(scene, image) == {}


def test_removing_takes_it_from_all_layers_and_leaves_others(scene: Scene) -> None:
    image = scene.image()
    add(scene, image)
    add(scene, image, "other")
    write(scene, image, 0)
    image = scene.snapshot(image)
    scene.wait(scene.client.bitmap.remove(domain=scene.domain, image=image.id, bitmap="b"))
    assert list(listed(scene, image)) == ["other"]
    assert extents(scene, image, "other") == [(0, STEP)]
    for volume in image.chain or []:
        qemu.check(scene.data(image, volume.id))


def test_changes_are_told_as_events(scene: Scene) -> None:
    image = scene.image()
    after = scene.client.event.poll().next
    add(scene, image)
    events = [event for event in scene.client.event.poll(after=after).items if event.name == "VolumeChanged"]
    assert [event.data["volume"] for event in events] == [str(image.leaf)]


# ---- what a crash of QEMU left


@provokes("Bitmap.add", "BitmapExists")
@provokes("Bitmap.getExtents", "BitmapUnusable")
def test_what_a_killed_qemu_left_is_told_and_begun_anew(scene: Scene) -> None:
    image = scene.image()
    add(scene, image)
    crash(scene.data(image))
    found = listed(scene, image)["b"]
    assert (found.usable, found.layers[0].in_use) == (False, True)
    assert "in use" in (found.problem or "")
    raised(BitmapUnusable, lambda: extents(scene, image))
    raised(BitmapExists, lambda: add(scene, image))
    image = scene.snapshot(image)
    found = listed(scene, image)["b"]
    assert (found.usable, len(found.layers)) == (False, 1), "a snapshot is made, and what is not sound ends there"
    raised(BitmapUnusable, lambda: extents(scene, image))
    raised(BitmapExists, lambda: add(scene, image))
    assert call(scene, "Bitmap.clear", image).usable
    write(scene, image, MIB)
    assert extents(scene, image) == [(MIB, STEP)]


def test_one_in_use_is_removed_or_begun_anew_in_place(scene: Scene) -> None:
    image = scene.image()
    add(scene, image, "gone")
    add(scene, image, "anew", granularity=4096)
    crash(scene.data(image))
    call(scene, "Bitmap.remove", image, "gone")
    made = call(scene, "Bitmap.clear", image, "anew")
    assert (made.usable, made.granularity) == (True, 4096)
    assert list(listed(scene, image)) == ["anew"]
    qemu.check(scene.data(image))


def test_one_that_somebody_stopped_is_not_relied_upon(scene: Scene) -> None:
    image = scene.image()
    add(scene, image)
    qemu.image_tool("bitmap", "--disable", "-f", "qcow2", scene.data(image), "b")
    found = listed(scene, image)["b"]
    assert (found.usable, found.layers[0].recording) == (False, False)
    raised(BitmapUnusable, lambda: extents(scene, image))
    assert listed(scene, scene.snapshot(image))["b"].usable is False
    assert call(scene, "Bitmap.clear", image).usable


# ---- refused


def test_another_granularity_is_another_bitmap(scene: Scene) -> None:
    image = scene.image()
    add(scene, image)
    error = raised(BitmapExists, lambda: add(scene, image, granularity=4096))
    assert "65536" in error.reason


@provokes("Bitmap.add", "BitmapsNotSupported")
@provokes("Bitmap.clear", "BitmapsNotSupported")
def test_only_qcow2_of_version_3_has_bitmaps(scene: Scene) -> None:
    raw, old = scene.raw(), scene.image(MIB)
    qemu.create(scene.data(old), "qcow2", MIB, "-o", "compat=0.10")
    for image in (raw, old):
        assert "snapshot" in raised(BitmapsNotSupported, lambda image=image: add(scene, image)).reason  # type: ignore[misc]
        newer = scene.snapshot(image)
        assert listed(scene, newer) == {}
        add(scene, newer)
    huge = scene.image(2**45)
    assert "coarser" in raised(BitmapsNotSupported, lambda: add(scene, huge, granularity=512)).reason
    assert "power of two" in raised(BitmapsNotSupported, lambda: add(scene, huge, granularity=5000)).reason
    raised(InvalidParameter, lambda: add(scene, huge, granularity=256))
    # A leaf that others made, on one that has a bitmap.
    image = scene.image(MIB)
    add(scene, image)
    top = scene.snapshot(image)
    qemu.create(scene.data(top), "qcow2", MIB, "-o", f"compat=0.10,backing_file={image.leaf},backing_fmt=qcow2", "-u")
    raised(BitmapsNotSupported, lambda: call(scene, "Bitmap.clear", image))


@provokes("Bitmap.add", "TooManyBitmaps")
def test_there_are_not_too_many(scene: Scene) -> None:
    image = scene.image(MIB)
    many = tuple(
        bitmaps_format.Bitmap(name=f"b{n}", granularity=STEP, recording=True, in_use=False, table=0, entries=0)
        for n in range(64)
    )
    length, content = qcow2.new(MIB, None, None, many)
    durable.write_new(str(scene.data(image)), content, length=length)
    assert len(listed(scene, image)) == 64
    assert raised(TooManyBitmaps, lambda: add(scene, image)).count == 64
    call(scene, "Bitmap.remove", image, "b7")
    add(scene, image)
    assert len(listed(scene, scene.snapshot(image))) == 64


@provokes("Bitmap.clear", "NoSuchBitmap")
@provokes("Bitmap.getExtents", "NoSuchBitmap")
def test_a_bitmap_that_is_not_there(scene: Scene) -> None:
    image = scene.image(MIB)
    for verb in ("Bitmap.clear", "Bitmap.getExtents"):
        error = raised(NoSuchBitmap, lambda verb=verb: call(scene, verb, image, "none"))  # type: ignore[misc]
        assert (error.image, error.bitmap) == (image.id, "none")


@of_each("NoSuchImage")
def test_an_image_that_is_not_there(scene: Scene, verb: str) -> None:
    raised(NoSuchImage, lambda: call(scene, verb, ImageId(uuid.uuid4())))


@of_each("IsTemplate", CHANGES)
def test_templates_are_not_changed(scene: Scene, verb: str) -> None:
    image = scene.image(MIB)
    if verb != "Bitmap.add":
        add(scene, image)
        write(scene, image, 0)
    scene.wait(scene.client.image.make_template(domain=scene.domain, image=image.id))
    raised(IsTemplate, lambda: call(scene, verb, image))


@of_each("ImageInUse", (*CHANGES, "Bitmap.getExtents"))
def test_an_image_in_use(scene: Scene, verb: str) -> None:
    image = scene.image(MIB)
    if verb != "Bitmap.add":
        add(scene, image)
        write(scene, image, 0)
    scene.client.image.prepare(domain=scene.domain, image=image.id)
    before = fingerprint(scene.root)
    assert raised(ImageInUse, lambda: call(scene, verb, image)).volume == image.leaf
    assert fingerprint(scene.root) == before
    scene.client.image.teardown(domain=scene.domain, image=image.id)
    call(scene, verb, image)


def test_a_backup_reads_what_it_has_prepared_for_reading(scene: Scene) -> None:
    image = scene.image(MIB)
    add(scene, image)
    write(scene, image, 0)
    scene.client.image.prepare(domain=scene.domain, image=image.id, read_only=True)
    assert extents(scene, image) == [(0, STEP)]


def test_a_layer_below_that_somebody_holds(
    scene: Scene, holder: Callable[[Path], AbstractContextManager[None]]
) -> None:
    image = scene.image(MIB)
    add(scene, image)
    below = image.leaf
    image = scene.snapshot(image)
    with holder(scene.lease(image, below)):
        for verb in ("Bitmap.remove", "Bitmap.clear", "Bitmap.getExtents"):
            assert raised(ImageInUse, lambda verb=verb: call(scene, verb, image)).volume == below  # type: ignore[misc]
        add(scene, image, "another")


@of_each("VolumeIllegal", CHANGES)
def test_an_illegal_volume(scene: Scene, verb: str) -> None:
    image = scene.image(MIB)
    if verb != "Bitmap.add":
        add(scene, image)
        write(scene, image, 0)
    volumes = scene.client.volume
    scene.wait(volumes.set_legality(domain=scene.domain, volume=image.leaf, legality=Legality.ILLEGAL))
    raised(VolumeIllegal, lambda: call(scene, verb, image))


@of_each("ImageDamaged")
def test_an_image_whose_volumes_are_not_all_known(scene: Scene, verb: str) -> None:
    image = scene.image(MIB)
    add(scene, image)
    (scene.folder(image) / f"{VolumeId(uuid.uuid4())}.meta").write_text("nonsense")
    raised(ImageDamaged, lambda: call(scene, verb, image))


@of_each("VolumeDamaged")
def test_a_directory_of_bitmaps_that_is_damaged(scene: Scene, verb: str) -> None:
    image = scene.image(MIB)
    add(scene, image)
    write(scene, image, 0)
    with scene.data(image).open("r+b") as file:
        header = file.read(qcow2.READ)
        at = header.index(struct.pack(">I", bitmaps_format.EXTENSION)) + 8
        file.seek(at)
        file.write(struct.pack(">I", 999))
    error = raised(VolumeDamaged, lambda: call(scene, verb, image))
    assert "bitmaps" in error.reason
    assert scene.look(image).damage is None, "its data is what it was"
    assert listed(scene, scene.image(MIB)) == {}


def test_bits_beyond_the_file_are_told(scene: Scene) -> None:
    image = scene.image(MIB)
    add(scene, image)
    write(scene, image, 0)
    with scene.data(image).open("rb") as file:
        start = file.read(qcow2.READ)
        header = qcow2.with_bitmaps(
            qcow2.parse(start, scene.data(image).stat().st_size), lambda at, n: os.pread(file.fileno(), n, at)
        )
    with scene.data(image).open("r+b") as file:
        file.seek(header.bitmaps[0].table)
        file.write(struct.pack(">Q", 2**50))
    raised(VolumeDamaged, lambda: extents(scene, image))


@of_each("ToolFailed", CHANGES)
def test_a_volume_that_qemu_does_not_write(scene: Scene, verb: str) -> None:
    image = scene.image(MIB)
    if verb != "Bitmap.add":
        add(scene, image)
        write(scene, image, 0)
    with scene.data(image).open("r+b") as file:
        file.seek(72)
        (features,) = struct.unpack(">Q", file.read(8))
        file.seek(72)
        file.write(struct.pack(">Q", features | 2))
    assert "orrupt" in raised(ToolFailed, lambda: call(scene, verb, image)).reason
