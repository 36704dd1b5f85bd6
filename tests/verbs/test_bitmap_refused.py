# SPDX-License-Identifier: Apache-2.0
"""Bitmaps: what is refused, and what is damaged."""

from __future__ import annotations

import os
import struct
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from hsm.domains import durable
from hsm.formats import bitmaps as bitmaps_format
from hsm.formats import qcow2
from libvdsm.api.errors import (
    BitmapExists,
    BitmapsNotSupported,
    ImageDamaged,
    ImageInUse,
    InvalidParameter,
    IsTemplate,
    NoSuchBitmap,
    NoSuchImage,
    ToolFailed,
    TooManyBitmaps,
    VolumeDamaged,
    VolumeIllegal,
)
from libvdsm.api.types import ImageId, Legality, VolumeId
from tests.domains.tree import fingerprint
from tests.formats import qemu
from tests.verbs.provoked import provokes
from tests.verbs.scene import MIB, Scene, raised
from tests.verbs.test_bitmap import CHANGES, STEP, add, call, extents, listed, of_each, write


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
    qemu.create(
        scene.data(top), "qcow2", MIB, "-o", f"compat=0.10,backing_file={image.leaf},backing_fmt=qcow2", "-u"
    )
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
