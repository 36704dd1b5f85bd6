# SPDX-License-Identifier: Apache-2.0
"""Volume.resize."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from hsm.domains.local import LocalDomain
from libvdsm.api.errors import (
    CannotShrink,
    GenerationMismatch,
    ImageDamaged,
    ImageInUse,
    InvalidParameter,
    IsTemplate,
    NoSpace,
    NoSuchImage,
    NoSuchVolume,
    ToolFailed,
    VolumeDamaged,
    VolumeHasChildren,
    VolumeIllegal,
)
from libvdsm.api.types import (
    Allocation,
    ImageId,
    VolumeFormat,
)
from tests.domains.tree import fingerprint
from tests.formats import qemu
from tests.verbs.provoked import provokes
from tests.verbs.scene import GIB, MIB, Scene, raised
from tests.verbs.test_volume import UNKNOWN, OpenedByQemu, resize


@pytest.mark.parametrize("format_", [VolumeFormat.RAW, VolumeFormat.QCOW2])
@pytest.mark.parametrize("allocation", [Allocation.SPARSE, Allocation.PREALLOCATED])
def test_resize_makes_a_leaf_larger_and_keeps_its_data(
    scene: Scene, format_: VolumeFormat, allocation: Allocation
) -> None:
    image = scene.image(MIB, format=format_, allocation=allocation)
    qemu.write(scene.data(image), format_.value, 0x11, 0, MIB)
    grown = resize(scene, image, 3 * MIB - 1)
    assert (grown.capacity, grown.generation) == (3 * MIB, 1)
    assert scene.metadata(image).capacity == 3 * MIB
    assert qemu.content(scene.data(image), format_.value) == (b"\x11" * MIB).ljust(3 * MIB, b"\0")
    assert scene.look(image).capacity == 3 * MIB
    if format_ is VolumeFormat.RAW and allocation is Allocation.PREALLOCATED:
        assert grown.actual_size >= 3 * MIB
    before = fingerprint(scene.root)
    assert resize(scene, image, 3 * MIB) == grown, "it is so already"
    assert fingerprint(scene.root) == before


def test_a_grown_overlay_reads_zeros_beyond_its_parent(scene: Scene) -> None:
    image = scene.raw(MIB)
    qemu.write(scene.data(image), "raw", 0x11, 0, MIB)
    image = scene.snapshot(image)
    resize(scene, image, 2 * MIB)
    assert qemu.content(scene.data(image), "qcow2") == (b"\x11" * MIB).ljust(2 * MIB, b"\0")
    qemu.check(scene.data(image))


@pytest.mark.parametrize("format_", [VolumeFormat.RAW, VolumeFormat.QCOW2])
def test_resize_makes_a_leaf_smaller_when_asked_in_so_many_words(scene: Scene, format_: VolumeFormat) -> None:
    image = scene.image(3 * MIB, format=format_)
    qemu.write(scene.data(image), format_.value, 0x11, 0, 3 * MIB)
    raised(CannotShrink, lambda: resize(scene, image, MIB))
    cut = resize(scene, image, MIB, shrink=True)
    assert (cut.capacity, cut.generation) == (MIB, 1)
    assert qemu.content(scene.data(image), format_.value) == b"\x11" * MIB
    assert scene.look(image).pending is None
    before = fingerprint(scene.root)
    assert resize(scene, image, MIB, shrink=True) == cut, "it is so already"
    assert fingerprint(scene.root) == before
    assert resize(scene, image, 2 * MIB, shrink=True).capacity == 2 * MIB, "it may grow all the same"
    assert qemu.content(scene.data(image), format_.value) == (b"\x11" * MIB).ljust(2 * MIB, b"\0")


def test_an_overlay_becomes_smaller_than_what_it_stands_on(scene: Scene) -> None:
    image = scene.raw(2 * MIB)
    qemu.write(scene.data(image), "raw", 0x11, 0, 2 * MIB)
    image = scene.snapshot(image)
    resize(scene, image, MIB, shrink=True)
    assert qemu.content(scene.data(image), "qcow2") == b"\x11" * MIB
    resize(scene, image, 2 * MIB)
    assert qemu.content(scene.data(image), "qcow2") == (b"\x11" * MIB).ljust(2 * MIB, b"\0"), "what was cut is gone"


def test_shrinking_refuses_what_growing_refuses(scene: Scene) -> None:
    image, template = scene.image(2 * MIB), scene.template(2 * MIB)
    raised(IsTemplate, lambda: resize(scene, template, MIB, shrink=True))
    raised(GenerationMismatch, lambda: resize(scene, image, MIB, shrink=True, generation=5))
    scene.client.image.prepare(domain=scene.domain, image=image.id)
    raised(ImageInUse, lambda: resize(scene, image, MIB, shrink=True))
    scene.client.image.teardown(domain=scene.domain, image=image.id)
    upper = scene.snapshot(image)
    before = fingerprint(scene.root)
    raised(VolumeHasChildren, lambda: resize(scene, image, MIB, shrink=True))
    assert fingerprint(scene.root) == before
    assert scene.look(upper).pending is None


VERB = "Volume.resize"


@provokes(VERB, "CannotShrink", "VolumeHasChildren", "IsTemplate", "ImageInUse", "VolumeIllegal", "NoSuchVolume")
@provokes(VERB, "GenerationMismatch", "NoSuchImage", "ImageDamaged", "VolumeDamaged", "ToolFailed", "InvalidParameter")
def test_resize_refuses(scene: Scene) -> None:
    image, template = scene.image(MIB), scene.template(MIB)
    clone = scene.clone(template)
    error = raised(CannotShrink, lambda: resize(scene, image, MIB - 512))
    assert (error.volume, error.capacity) == (image.leaf, MIB)
    raised(InvalidParameter, lambda: resize(scene, image, 0))
    raised(NoSuchVolume, lambda: resize(scene, image, GIB, volume=UNKNOWN))
    raised(NoSuchImage, lambda: resize(scene, image, GIB, image=ImageId(UNKNOWN)))
    assert raised(IsTemplate, lambda: resize(scene, template, GIB)).image == template.id
    assert raised(IsTemplate, lambda: resize(scene, template, GIB, image=clone.id)).image == template.id
    scene.client.image.prepare(domain=scene.domain, image=clone.id)
    assert raised(IsTemplate, lambda: resize(scene, template, GIB)).image == template.id
    scene.client.image.teardown(domain=scene.domain, image=clone.id)
    error = raised(GenerationMismatch, lambda: resize(scene, image, GIB, generation=5))
    assert (error.volume, error.expected, error.found) == (image.leaf, 5, 0)
    scene.client.image.prepare(domain=scene.domain, image=image.id)
    raised(ImageInUse, lambda: resize(scene, image, GIB))
    scene.client.image.teardown(domain=scene.domain, image=image.id)
    upper = scene.snapshot(image)
    raised(VolumeHasChildren, lambda: resize(scene, image, GIB))
    scene.edit(upper, image.leaf, LEGALITY="ILLEGAL")
    raised(VolumeIllegal, lambda: resize(scene, upper, GIB))
    scene.edit(upper, image.leaf, LEGALITY="LEGAL", PUUID=str(UNKNOWN))
    raised(VolumeDamaged, lambda: resize(scene, upper, GIB))
    scene.meta(upper, image.leaf).write_bytes(b"")
    raised(ImageDamaged, lambda: resize(scene, upper, GIB))
    used = scene.image(MIB)
    with OpenedByQemu(scene, used):
        error = raised(ToolFailed, lambda: resize(scene, used, GIB))
    assert "lock" in error.reason
    assert resize(scene, used, GIB, generation=0).capacity == GIB
    assert resize(scene, used, GIB, generation=0).generation == 1, "it is so already"


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[None]]:
    """Room for the data, and none for the metadata."""

    @contextmanager
    def while_it_lasts() -> Iterator[None]:
        def rewrite(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(LocalDomain, "rewrite", rewrite)
            yield

    return while_it_lasts


@pytest.mark.parametrize("is_snapshot", [False, True])
def test_a_resize_for_which_there_is_no_room_changes_nothing(
    scene: Scene, full: Callable[[], AbstractContextManager[None]], is_snapshot: bool
) -> None:
    image = scene.image(MIB + 512)
    qemu.write(scene.data(image), "qcow2", 0x11, 0, MIB)
    image = scene.snapshot(image) if is_snapshot else image
    with full():
        raised(NoSpace, lambda: resize(scene, image, 64 * MIB))
    assert scene.look(image).damage is None
    assert scene.look(image).capacity == MIB + 512
    assert qemu.content(scene.data(image), "qcow2") == (b"\x11" * MIB).ljust(MIB + 512, b"\0")
    qemu.check(scene.data(image))
    scene.client.image.prepare(domain=scene.domain, image=image.id)
    scene.client.image.teardown(domain=scene.domain, image=image.id)
    assert resize(scene, image, 64 * MIB).capacity == 64 * MIB


@pytest.mark.parametrize(("capacity", "generation"), [(MIB, 1), (2 * MIB, 1), (4 * MIB, 1), (8 * MIB, 1)])
def test_a_growth_that_did_not_end_can_be_ended_anywhere(scene: Scene, capacity: int, generation: int) -> None:
    image = scene.image(MIB)
    qemu.write(scene.data(image), "qcow2", 0x11, 0, MIB)
    qemu.image_tool("resize", "-q", "-f", "qcow2", scene.data(image), str(4 * MIB))
    assert scene.look(image).damage
    done = resize(scene, image, capacity)
    assert (done.capacity, done.generation) == (capacity, generation)
    assert scene.look(image).damage is None
    assert qemu.content(scene.data(image), "qcow2") == (b"\x11" * MIB).ljust(capacity, b"\0")
    qemu.check(scene.data(image))


def test_data_that_is_there_is_never_cut_off_with_a_growth_that_did_not_end(scene: Scene) -> None:
    image = scene.image(MIB)
    qemu.image_tool("resize", "-q", "-f", "qcow2", scene.data(image), str(4 * MIB))
    qemu.write(scene.data(image), "qcow2", 0x11, 3 * MIB, 64 * 1024)
    before = fingerprint(scene.root)
    assert "there is data" in raised(VolumeDamaged, lambda: resize(scene, image, MIB)).reason
    assert fingerprint(scene.root) == before
    assert resize(scene, image, 4 * MIB).capacity == 4 * MIB
    assert qemu.holds(scene.data(image), "qcow2", 0x11, 3 * MIB)
