# SPDX-License-Identifier: Apache-2.0
"""Image.import: files of every format become images; what is dangerous, wrong or unreadable does not."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from libvdsm.api.errors import (
    CannotShrink,
    DamagedImage,
    FileNotUsable,
    FormatMismatch,
    ImageExists,
    ImageInUse,
    InvalidParameter,
    NotSupported,
    TaskStopped,
    ToolFailed,
    UnsafeImage,
    UnsupportedImage,
    VolumeExists,
)
from libvdsm.api.types import Allocation, FileFormat, ImageId, ImageInfo, TaskState, VolumeFormat, VolumeId
from libvdsm.declare import Right
from tests.domains.tree import fingerprint
from tests.formats import qemu
from tests.verbs.provoked import provokes
from tests.verbs.scene import MIB, Scene, raised

VERB = "Image.import"
NOBODY = 65534


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Files to import: 4 MiB with a pattern in the second."""

    def made(format_: str, *options: str, pattern: int = 0x5A) -> Path:
        raw = tmp_path / f"{uuid.uuid4()}.raw"
        qemu.create(raw, "raw", 4 * MIB)
        qemu.write(raw, "raw", pattern, MIB, MIB)
        if format_ == "raw":
            return raw
        path = raw.with_suffix(f".{format_}")
        qemu.image_tool("convert", "-f", "raw", "-O", format_, *options, raw, path)
        return path

    return made


def take(scene: Scene, path: Path, **params: Any) -> ImageInfo:
    return scene.wait(scene.client.image.import_(domain=scene.domain, path=str(path), **params))


def shows(scene: Scene, image: ImageInfo, pattern: int = 0x5A) -> bool:
    """Whether an image has what ``make`` wrote, and zeros around it."""
    data = qemu.content(scene.data(image), (image.chain or [])[0].format.value)
    return data == (bytes(MIB) + bytes([pattern]) * MIB).ljust(image.capacity, b"\0")


FORMATS = [
    ("raw",),
    ("qcow2",),
    ("qcow2", "-o", "compat=0.10"),
    ("qcow2", "-c", "-o", "compression_type=zstd"),
    ("qcow2", "-o", "cluster_size=512"),
    ("qcow2", "-o", "cluster_size=2M,extended_l2=on"),
    ("vmdk",),
    ("vmdk", "-o", "subformat=streamOptimized"),
    ("vdi",),
    ("vhdx",),
    ("vpc",),
    ("vpc", "-o", "subformat=fixed,force_size=on"),
]


TARGETS = [(options, VolumeFormat.QCOW2) for options in FORMATS] + [
    (options, VolumeFormat.RAW) for options in FORMATS if len(options) == 1
]


@pytest.mark.parametrize(("options", "target"), TARGETS, ids=lambda value: getattr(value, "value", str(value)))
def test_every_format_becomes_an_image(
    scene: Scene, make: Callable[..., Path], options: tuple[str, ...], target: VolumeFormat
) -> None:
    source = make(*options)
    before = source.read_bytes()
    image = take(scene, source, name="disk", description="d", format=target)
    assert (image.name, image.description, image.snapshots, image.is_template) == ("disk", "d", 0, False)
    # VPC counts in cylinders, heads and sectors.
    assert image.capacity == (qemu.info(source, options[0])["virtual-size"] if options[0] == "vpc" else 4 * MIB)
    assert image.chain is not None
    assert (image.chain[0].format, image.chain[0].backing_file) == (target, None)
    assert shows(scene, image)
    if target is VolumeFormat.QCOW2:
        qemu.check(scene.data(image))
    assert source.read_bytes() == before
    assert scene.client.domain.get_stats(domain=scene.domain).garbage == 0


def test_the_declared_format_may_be_given_or_found(scene: Scene, make: Callable[..., Path]) -> None:
    source = make("vmdk")
    assert shows(scene, take(scene, source, source_format=FileFormat.VMDK))
    assert shows(scene, take(scene, source))


def test_an_open_file_is_imported_without_its_name(scene: Scene, make: Callable[..., Path]) -> None:
    source = make("qcow2")
    with source.open("rb") as file:
        source.unlink()
        file.seek(100)
        task = scene.client.image.import_(domain=scene.domain, source=file.fileno())
        assert shows(scene, scene.wait(task))
        assert file.tell() == 100


def test_capacity_grows_at_import(scene: Scene, make: Callable[..., Path]) -> None:
    for format_ in (VolumeFormat.QCOW2, VolumeFormat.RAW):
        image = take(scene, make("qcow2"), capacity=10 * MIB - 100, format=format_)
        assert image.capacity == 10 * MIB
        assert qemu.info(scene.data(image), format_.value)["virtual-size"] == 10 * MIB
        assert shows(scene, image)


def test_a_file_that_is_no_whole_number_of_sectors_is_filled_up(scene: Scene, tmp_path: Path) -> None:
    source = tmp_path / "odd"
    source.write_bytes(b"\x11" * 1000)
    for format_ in (VolumeFormat.RAW, VolumeFormat.QCOW2):
        image = take(scene, source, format=format_)
        assert image.capacity == 1024
        assert qemu.content(scene.data(image), format_.value) == b"\x11" * 1000 + bytes(24)


def test_an_empty_file_becomes_the_smallest_image(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert take(scene, tmp_path / "empty").capacity == 512


def test_preallocation_at_import(scene: Scene, make: Callable[..., Path]) -> None:
    for format_ in (VolumeFormat.RAW, VolumeFormat.QCOW2):
        image = take(scene, make("raw"), format=format_, allocation=Allocation.PREALLOCATED)
        assert image.actual_size >= 4 * MIB
        assert shows(scene, image)


def test_the_same_import_again_answers_the_same(scene: Scene, make: Callable[..., Path]) -> None:
    ids: dict[str, Any] = {"id": ImageId(uuid.uuid4()), "volume": VolumeId(uuid.uuid4())}
    first = take(scene, make("raw"), **ids)
    before = fingerprint(scene.root)
    assert take(scene, make("raw", pattern=1), **ids) == first
    assert fingerprint(scene.root) == before


@provokes(VERB, "ImageExists", "VolumeExists")
def test_another_import_with_the_same_ids_is_refused(scene: Scene, make: Callable[..., Path]) -> None:
    source = make("raw")
    first = take(scene, source)
    ids: dict[str, Any] = {"id": first.id, "volume": first.leaf}
    raised(ImageExists, lambda: take(scene, source, id=first.id))
    raised(VolumeExists, lambda: take(scene, source, volume=first.leaf))
    raised(VolumeExists, lambda: take(scene, source, format=VolumeFormat.RAW, **ids))
    raised(VolumeExists, lambda: take(scene, source, capacity=8 * MIB, **ids))


@provokes(VERB, "ImageInUse")
def test_an_image_that_somebody_else_is_making_is_in_use(scene: Scene, make: Callable[..., Path], maker: Any) -> None:
    ids: dict[str, Any] = {"id": ImageId(uuid.uuid4()), "volume": VolumeId(uuid.uuid4())}
    with maker(*ids.values()):
        assert raised(ImageInUse, lambda: take(scene, make("raw"), **ids)).volume == ids["volume"]


# ---- what is refused


@contextmanager
def nothing_changes(scene: Scene) -> Iterator[None]:
    before = fingerprint(scene.root)
    yield
    assert fingerprint(scene.root) == before


@provokes(VERB, "FormatMismatch", "CannotShrink", "InvalidParameter")
def test_a_file_that_is_not_what_was_said(scene: Scene, make: Callable[..., Path]) -> None:
    qcow2 = make("qcow2")
    with nothing_changes(scene):
        error = raised(FormatMismatch, lambda: take(scene, qcow2, source_format=FileFormat.RAW))
        assert (error.declared, error.found) == ("raw", "qcow2")
        raised(FormatMismatch, lambda: take(scene, make("raw"), source_format=FileFormat.QCOW2))
        error = raised(CannotShrink, lambda: take(scene, qcow2, capacity=MIB))
        assert error.capacity == 4 * MIB
        raised(InvalidParameter, lambda: take(scene, qcow2, name="ä" * 64, description="ö" * 64))
        raised(InvalidParameter, lambda: scene.client.image.import_(domain=scene.domain))
        with qcow2.open("rb") as file:
            raised(InvalidParameter, lambda: take(scene, qcow2, source=file.fileno()))


@provokes(VERB, "UnsafeImage")
def test_a_file_that_opens_others_is_refused(scene: Scene, tmp_path: Path) -> None:
    overlay = qemu.create(tmp_path / "overlay", "qcow2", MIB, "-u", "-b", "/etc/passwd", "-F", "raw")
    outside = qemu.create(tmp_path / "outside", "qcow2", MIB, "-o", f"data_file={tmp_path}/data")
    with nothing_changes(scene):
        error = raised(UnsafeImage, lambda: take(scene, overlay))
        assert error.kind == "backing-file"
        assert "/etc/passwd" in error.reason
        assert raised(UnsafeImage, lambda: take(scene, outside)).kind == "data-file"


@provokes(VERB, "DamagedImage", "UnsupportedImage")
def test_a_file_that_is_broken_or_of_no_known_kind_is_refused(
    scene: Scene, make: Callable[..., Path], tmp_path: Path
) -> None:
    cut = make("qcow2")
    os.truncate(cut, 70)
    luks = tmp_path / "luks"
    luks.write_bytes(b"LUKS\xba\xbe\0\1".ljust(MIB, b"\0"))
    with nothing_changes(scene):
        assert raised(DamagedImage, lambda: take(scene, cut)).reason
        assert "luks" in raised(UnsupportedImage, lambda: take(scene, luks)).reason


@provokes(VERB, "ToolFailed")
def test_a_tool_that_fails_leaves_nothing(
    scene: Scene, make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make("qcow2")
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin" / "qemu-img"
    real = shutil.which("qemu-img")
    tool.write_text(f'#!/bin/sh\ncase "$*" in *convert*) echo no mood >&2; exit 1;; esac\nexec {real} "$@"\n')
    tool.chmod(0o755)
    with monkeypatch.context() as patch, nothing_changes(scene):
        patch.setenv("PATH", str(tool.parent), prepend=":")
        error = raised(ToolFailed, lambda: take(scene, source))
    assert (error.tool, error.reason) == ("qemu-img", "no mood")


def test_a_file_whose_tables_contradict_themselves_is_damaged(scene: Scene, make: Callable[..., Path]) -> None:
    source = make("qcow2")
    with source.open("r+b") as file:  # the second-level table begins in the middle of a cluster
        file.seek(40)
        first_level = int.from_bytes(file.read(8), "big")
        file.seek(first_level)
        file.write(((1 << 63) | (3 << 9)).to_bytes(8, "big"))
    with nothing_changes(scene):
        assert "qemu-img check" in raised(DamagedImage, lambda: take(scene, source)).reason


@provokes(VERB, "FileNotUsable", "NotSupported")
def test_a_file_that_cannot_be_opened(scene: Scene, tmp_path: Path) -> None:
    import_ = scene.client.image.import_
    error = raised(FileNotUsable, lambda: take(scene, tmp_path / "none"))
    assert "No such file" in error.reason
    raised(FileNotUsable, lambda: take(scene, tmp_path))
    raised(FileNotUsable, lambda: take(scene, Path("/dev/null")))
    with (tmp_path / "written").open("wb") as file:
        error = raised(FileNotUsable, lambda: import_(domain=scene.domain, source=file.fileno()))
        assert "not open for reading" in error.reason
    over_tcp = scene.as_caller(uid=None, wire="tcp")
    (tmp_path / "there").touch()
    raised(NotSupported, lambda: over_tcp.image.import_(domain=scene.domain, path=str(tmp_path / "there")))
    raised(NotSupported, lambda: over_tcp.image.import_(domain=scene.domain, source=0))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for others")
def test_a_path_is_opened_with_the_callers_own_rights(
    scene: Scene, make: Callable[..., Path], common_place: Path
) -> None:
    source = Path(shutil.copy(make("qcow2"), common_place / "source"))
    caller = scene.as_caller(uid=NOBODY, right=Right.OPERATE)
    source.chmod(0o600)
    error = raised(FileNotUsable, lambda: caller.image.import_(domain=scene.domain, path=str(source)))
    assert "Permission denied" in error.reason
    source.chmod(0o644)
    assert shows(scene, caller.wait(caller.image.import_(domain=scene.domain, path=str(source))))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
def test_an_open_file_of_another_user_is_imported_though_he_may_write_it(
    scene: Scene, make: Callable[..., Path]
) -> None:
    source = make("qcow2")
    os.chown(source, NOBODY, NOBODY)
    source.chmod(0o666)
    caller = scene.as_caller(uid=NOBODY, right=Right.OPERATE)
    with source.open("rb") as file:
        task = caller.image.import_(domain=scene.domain, source=file.fileno())
        assert shows(scene, caller.wait(task))
    assert [path.name for path in (scene.root.parent.parent / "state").iterdir() if "tmp" in path.name] == []


# ---- stopping


@provokes(VERB, "TaskStopped")
def test_a_long_import_that_is_stopped_leaves_nothing(scene: Scene, tmp_path: Path) -> None:
    source = tmp_path / "long"
    with source.open("wb") as file:
        noise = os.urandom(16 * MIB)
        for _ in range(24):
            file.write(noise)
    events = scene.client.event.poll()
    with nothing_changes(scene):
        task = scene.client.image.import_(domain=scene.domain, path=str(source))
        copying_begins(scene, task.id, events.next)
        stopped = scene.client.task.stop(task=task.id)
        assert stopped.state in (TaskState.STOPPING, TaskState.STOPPED)
        raised(TaskStopped, lambda: scene.wait(task))
        assert scene.client.task.get_info(task=task.id).state is TaskState.STOPPED
    assert scene.client.host.get_stats().children == []
    assert scene.client.image.list(domain=scene.domain).items == []


def copying_begins(scene: Scene, task: object, after: int) -> None:
    while True:
        page = scene.client.event.poll(after=after, timeout=30)
        assert page.items, "the import does not begin to copy"
        after = page.next
        if any(event.data.get("progress", {}).get("step") == "copying" for event in page.items):
            return


@pytest.mark.parametrize("format_", ["qcow2", "vmdk", "vdi", "vhdx", "vpc"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_a_file_that_is_cut_off_is_no_image(scene: Scene, make: Callable[..., Path], format_: str, part: float) -> None:
    """An interrupted copy, say.  Programs that convert it read what is missing as zeros.

    Of the last cluster of qcow2 and VMDK a part may be missing in sound files, too: that cannot be told.
    """
    path = make(format_)
    os.truncate(path, int(path.stat().st_size * part))
    before = fingerprint(scene.root)
    assert raised(DamagedImage, lambda: take(scene, path)).reason
    assert fingerprint(scene.root) == before
