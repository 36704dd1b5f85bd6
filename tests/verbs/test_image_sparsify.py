# SPDX-License-Identifier: Apache-2.0
"""Image.sparsify: what reads as zeros takes no space any more, and everything shows what it showed."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libvdsm.api.errors import (
    CannotChange,
    ImageDamaged,
    ImageInUse,
    ImageUnfinished,
    IsTemplate,
    NoSuchImage,
    NoSuchVolume,
    NotSupported,
    TaskStopped,
    ToolFailed,
    VolumeDamaged,
    VolumeIllegal,
)
from libvdsm.api.image_space import SparsifyInfo
from libvdsm.api.transfer import Direction
from libvdsm.api.types import Allocation, ImageId, ImageInfo, Legality, TaskInfo, VolumeFormat, VolumeId
from libvdsm.declare import ApiError
from tests.domains.tree import fingerprint
from tests.formats import qemu
from tests.verbs.layers import KIB, contents, sound
from tests.verbs.provoked import provokes
from tests.verbs.scene import MIB, Scene, raised

NOTES = 64 * KIB
"""Bytes at most that a file system takes for its notes of the holes."""


def start(scene: Scene, of: ImageInfo, **params: Any) -> TaskInfo[SparsifyInfo]:
    task: TaskInfo[SparsifyInfo] = scene.client.image.sparsify(**{"domain": scene.domain, "image": of.id, **params})
    return task


def sparsify(scene: Scene, of: ImageInfo, **params: Any) -> SparsifyInfo:
    return scene.wait(start(scene, of, **params))


def write_zeros(path: Path, format_: str, offset: int, length: int) -> None:
    """As a guest that overwrites its data, without saying that they are zeros."""
    qemu.write(path, format_, 0, offset, length)


def zeros_told(path: Path) -> int:
    """How many bytes of a volume alone its tables say to be zeros."""
    node = f'json:{{"driver":"qcow2","backing":null,"file":{{"driver":"file","filename":"{path}"}}}}'
    parts = json.loads(qemu.image_tool("map", "-U", "--output=json", node))
    return sum(part["length"] for part in parts if part["present"] and part["zero"] and not part["data"])


@pytest.mark.parametrize("format_", [VolumeFormat.RAW, VolumeFormat.QCOW2])
def test_space_comes_back_and_what_a_guest_sees_stays(scene: Scene, format_: VolumeFormat) -> None:
    image = scene.image(16 * MIB, format=format_)
    path = scene.data(image)
    qemu.write(path, format_.value, 0x11, 0, 16 * MIB)
    write_zeros(path, format_.value, 4 * MIB, 8 * MIB)
    before, metadata, length = contents(scene, image), scene.meta(image).read_bytes(), path.stat().st_size
    took = scene.look(image).actual_size
    done = sparsify(scene, image)
    assert done.freed == took - done.image.actual_size >= 8 * MIB - NOTES
    assert done.image == sound(scene, image)
    assert contents(scene, image) == before
    assert (scene.meta(image).read_bytes(), path.stat().st_size) == (metadata, length)
    assert sparsify(scene, image).freed == 0
    # It can be written again, in part too.
    qemu.write(path, format_.value, 0x22, 5 * MIB + 4 * KIB, 4 * KIB)
    (now,) = contents(scene, image).values()
    (old,) = before.values()
    assert now == old[: 5 * MIB + 4 * KIB] + b"\x22" * 4 * KIB + old[5 * MIB + 8 * KIB :]


@pytest.mark.parametrize("compat", ["0.10", "1.1"])
@pytest.mark.parametrize("size", [4 * KIB, 64 * KIB, 2 * MIB])
def test_zeros_hide_what_lies_below(scene: Scene, compat: str, size: int) -> None:
    base = scene.image(16 * MIB)
    qemu.write(scene.data(base), "qcow2", 0x11, 0, 16 * MIB)
    image = scene.snapshot(base)
    path, options = scene.data(image), ("-o", f"compat={compat},cluster_size={size}")
    qemu.create(path, "qcow2", 16 * MIB, *options, "-u", "-b", str(base.leaf), "-F", "qcow2")
    write_zeros(path, "qcow2", 2 * MIB, 8 * MIB)
    qemu.write(path, "qcow2", 0x22, 12 * MIB, MIB)
    before = contents(scene, image)
    assert before[image.leaf][2 * MIB : 10 * MIB] == bytes(8 * MIB)
    done = sparsify(scene, image, volume=image.leaf)
    assert done.freed >= 8 * MIB - 512 * KIB
    assert contents(scene, image) == before
    sound(scene, image)
    # What copies this need not read it to know, where the format has words for that.
    assert zeros_told(path) == (8 * MIB if compat == "1.1" else 0)


def test_all_layers_of_its_own_are_made_sparse_or_the_one_that_is_named(scene: Scene) -> None:
    template = scene.image(4 * MIB)
    write_zeros(scene.data(template), "qcow2", 0, 4 * MIB)
    template = scene.wait(scene.client.image.make_template(domain=scene.domain, image=template.id))
    image = scene.clone(template)
    write_zeros(scene.data(image), "qcow2", 0, 4 * MIB)
    upper = scene.snapshot(image)
    write_zeros(scene.data(upper), "qcow2", 0, 4 * MIB)

    def sizes() -> list[int]:
        return [volume.actual_size for volume in scene.look(image).chain or []]

    below, low, high = sizes()
    assert sparsify(scene, image, volume=image.leaf).freed >= 4 * MIB - NOTES
    assert sizes()[1] < low
    assert (sizes()[0], sizes()[2]) == (below, high)
    assert sparsify(scene, image).freed >= 4 * MIB - NOTES
    assert sizes()[2] < high
    assert sizes()[0] == below
    assert sparsify(scene, template).freed >= 4 * MIB - NOTES
    assert sizes()[0] < below
    sound(scene, image)


def test_data_behind_what_the_tables_say_to_be_zeros_comes_back(scene: Scene) -> None:
    """A guest said that these are zeros, and the file kept the space."""
    image = scene.image(4 * MIB)
    path = scene.data(image)
    qemu.write(path, "qcow2", 0x11, 0, 4 * MIB)
    qemu.zero(path, "qcow2", MIB, 2 * MIB)
    before = contents(scene, image)
    assert 2 * MIB - NOTES <= sparsify(scene, image).freed <= 2 * MIB
    assert contents(scene, image) == before
    sound(scene, image)


def test_of_a_volume_with_internal_snapshots_only_zeros_go(scene: Scene) -> None:
    image = scene.image(4 * MIB)
    path = scene.data(image)
    qemu.write(path, "qcow2", 0x11, 0, 2 * MIB)
    write_zeros(path, "qcow2", 2 * MIB, MIB)
    qemu.image_tool("snapshot", "-c", "mine", path)
    qemu.zero(path, "qcow2", 0, MIB)
    before = path.read_bytes()
    assert sparsify(scene, image).freed >= MIB - NOTES
    assert path.read_bytes() == before, "not a byte of the file has changed"


def test_compressed_data_stays(scene: Scene, tmp_path: Path) -> None:
    image = scene.image(4 * MIB)
    plain = tmp_path / "plain"
    plain.write_bytes(b"\x11" * MIB + bytes(MIB) + bytes(range(256)) * 8 * KIB)
    qemu.image_tool("convert", "-c", "-f", "raw", "-O", "qcow2", plain, scene.data(image))
    before = contents(scene, image)
    sparsify(scene, image)
    assert contents(scene, image) == before


def test_bitmaps_stay_as_they_are(scene: Scene) -> None:
    image, bitmap = scene.image(4 * MIB), scene.client.bitmap
    path = scene.data(image)
    write_zeros(path, "qcow2", 0, 2 * MIB)
    scene.wait(bitmap.add(domain=scene.domain, image=image.id, bitmap="backup"))
    write_zeros(path, "qcow2", 2 * MIB, MIB)

    def told() -> Any:
        listed = bitmap.list(domain=scene.domain, image=image.id).items
        return listed, bitmap.get_extents(domain=scene.domain, image=image.id, bitmap="backup").items

    before = told()
    assert [(part.offset, part.length) for part in before[1]] == [(2 * MIB, MIB)]
    assert sparsify(scene, image).freed >= 3 * MIB
    assert told() == before
    qemu.write(path, "qcow2", 0x11, 0, 64 * KIB)
    assert [part.offset for part in told()[1]] == [0, 2 * MIB]


def test_what_is_measured_and_copied_is_smaller(scene: Scene) -> None:
    image = scene.image(16 * MIB)
    write_zeros(scene.data(image), "qcow2", 0, 16 * MIB)
    measure = scene.client.volume.measure
    before = measure(domain=scene.domain, volume=image.leaf).required
    sparsify(scene, image)
    assert measure(domain=scene.domain, volume=image.leaf).required <= before - 16 * MIB


def test_it_says_how_far_it_is_and_can_be_stopped_at_any_time(scene: Scene) -> None:
    image = scene.raw(16 * MIB)
    path = scene.data(image)
    write_zeros(path, "raw", 0, 16 * MIB)
    qemu.write(path, "raw", 0x11, 2 * MIB, MIB)
    before = path.read_bytes()
    task = start(scene, image, rate=MIB)
    until, last = time.monotonic() + 60, 0
    while scene.client.task.get_info(task=task.id).progress.done < 4 * MIB:
        assert time.monotonic() < until
        last = scene.client.event.poll(after=last, timeout=1).next
    progress = scene.client.task.get_info(task=task.id).progress
    assert (progress.total, progress.step) == (16 * MIB, "looking for zeros")
    scene.client.task.stop(task=task.id)
    raised(TaskStopped, lambda: scene.wait(task))
    assert path.read_bytes() == before
    assert scene.look(image).actual_size < 15 * MIB, "what has come back has come back"
    assert sparsify(scene, image).image.actual_size <= MIB


# ---- refused


def refused(scene: Scene, error: type[ApiError], of: ImageInfo, **params: Any) -> Any:
    """The error; nothing was changed."""
    before = fingerprint(scene.images)
    found = raised(error, lambda: sparsify(scene, of, **params))
    assert fingerprint(scene.images) == before
    return found


@provokes("Image.sparsify", "CannotChange")
def test_preallocated_layers_keep_their_space(scene: Scene) -> None:
    for format_ in (VolumeFormat.RAW, VolumeFormat.QCOW2):
        image = scene.image(4 * MIB, format=format_, allocation=Allocation.PREALLOCATED)
        took = scene.look(image).actual_size
        error = refused(scene, CannotChange, image)
        assert error.volume == image.leaf
        assert "preallocated" in error.reason
        upper = scene.snapshot(image)
        write_zeros(scene.data(upper), "qcow2", 0, 2 * MIB)
        assert sparsify(scene, upper).freed >= 2 * MIB
        (base, _) = scene.look(image).chain or []
        assert base.actual_size == took
        refused(scene, CannotChange, image, volume=image.leaf)


@provokes("Image.sparsify", "NoSuchImage", "NoSuchVolume", "IsTemplate")
def test_what_is_not_there_or_not_its_own(scene: Scene) -> None:
    template = scene.template(MIB)
    image = scene.clone(template)
    raised(NoSuchImage, lambda: sparsify(scene, image, image=ImageId(uuid.uuid4())))
    stranger = VolumeId(uuid.uuid4())
    assert refused(scene, NoSuchVolume, image, volume=stranger).volume == stranger
    assert refused(scene, IsTemplate, image, volume=template.leaf).image == template.id


@provokes("Image.sparsify", "ImageInUse")
def test_what_somebody_uses(scene: Scene) -> None:
    template = scene.template(MIB)
    image = scene.clone(template)
    for read_only in (True, False):
        scene.client.image.prepare(domain=scene.domain, image=image.id, read_only=read_only)
        assert "prepared on this host" in refused(scene, ImageInUse, image).holder
        refused(scene, ImageInUse, template)
        scene.client.image.teardown(domain=scene.domain, image=image.id)


@provokes("Image.sparsify", "ImageUnfinished")
def test_what_is_still_arriving(scene: Scene) -> None:
    begun = scene.client.transfer.start(domain=scene.domain, direction=Direction.UPLOAD, size=MIB)
    assert begun.image is not None
    image = scene.look(begun.image)
    raised(ImageUnfinished, lambda: sparsify(scene, image))
    scene.client.transfer.cancel(transfer=begun.id)


@provokes("Image.sparsify", "ImageDamaged", "VolumeIllegal", "VolumeDamaged")
def test_what_is_damaged(scene: Scene) -> None:
    image = scene.image(MIB)
    qemu.write(scene.data(image), "qcow2", 0x11)
    mark = scene.client.volume.set_legality
    scene.wait(mark(domain=scene.domain, volume=image.leaf, legality=Legality.ILLEGAL))
    refused(scene, VolumeIllegal, image)
    scene.wait(mark(domain=scene.domain, volume=image.leaf, legality=Legality.LEGAL))
    with scene.data(image).open("r+b") as file:
        file.seek(3 * 64 * KIB)
        entry = file.read(8)
        file.seek(3 * 64 * KIB)
        file.write((int.from_bytes(entry, "big") ^ 3 << 20).to_bytes(8, "big"))
    assert refused(scene, VolumeDamaged, image).volume == image.leaf
    scene.meta(image).write_bytes(b"")
    refused(scene, ImageDamaged, image)


@provokes("Image.sparsify", "ToolFailed")
def test_a_program_that_comes_to_no_verdict(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = scene.image(MIB)
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin" / "qemu-img"
    tool.write_text("#!/bin/sh\nkill -KILL $$\n")
    tool.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tool.parent), prepend=":")
        assert refused(scene, ToolFailed, image).tool == "qemu-img"
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/nonexistent")
        assert "cannot be started" in refused(scene, ToolFailed, image).reason


@pytest.fixture
def without_holes(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "memory"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "ramfs", "none", folder], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("no right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@provokes("Image.sparsify", "NotSupported")
def test_a_file_system_that_makes_no_holes(scene: Scene, without_holes: Path) -> None:
    domain = scene.wait(scene.client.domain.create(name="memory", path=str(without_holes))).id
    place = Scene(scene.app, scene.client, domain, scene.heard)
    image = place.raw(MIB)
    place.data(image).write_bytes(bytes(MIB))
    assert "makes no holes" in refused(place, NotSupported, image).reason
    scene.wait(scene.client.domain.detach(domain=domain))


def test_a_full_storage_does_not_matter(scene: Scene, tmp_path: Path, small: Any) -> None:
    with small(tmp_path / "small", 16 * MIB) as folder:
        domain = scene.wait(scene.client.domain.create(name="small", path=str(folder))).id
        place = Scene(scene.app, scene.client, domain, scene.heard)
        image = place.image(8 * MIB)
        write_zeros(place.data(image), "qcow2", 0, 4 * MIB)
        with (folder / "filler").open("wb", buffering=0) as filler:
            while True:
                try:
                    filler.write(bytes(4096))
                except OSError:
                    break
        before = contents(place, image)
        assert sparsify(place, image).freed >= 4 * MIB - NOTES
        assert contents(place, image) == before
        scene.wait(scene.client.domain.detach(domain=domain))
