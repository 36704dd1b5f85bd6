# SPDX-License-Identifier: Apache-2.0
"""What is remembered of images in folders: not read again while nothing was done to it, and nothing else."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hsm.contract.base import make, make_overlay, make_template, metadata_of, new_raw
from hsm.domains import remembered
from hsm.domains.base import ImageRecord, NewVolume
from hsm.domains.local import LocalDomain
from hsm.domains.remembered import Remembered
from hsm.formats.attributes import NONE
from libvdsm.api.types import ImageId


class Eye:
    """Looks at the images of a domain, and counts how often it has to read one."""

    def __init__(self, domain: LocalDomain) -> None:
        self.domain = domain
        self.reads = 0
        self.remembered = Remembered(domain.images)

    def _read(self, image: ImageId) -> ImageRecord | None:
        self.reads += 1
        return self.domain.image(image)

    def sees(self, new: NewVolume) -> ImageRecord | None:
        record = self.remembered.image(new.image, self._read)
        assert record == self.domain.image(new.image)
        return record


@pytest.fixture
def eye(domain: LocalDomain) -> Eye:
    return Eye(domain)


@pytest.fixture
def volume(domain: LocalDomain) -> NewVolume:
    return make(domain, new_raw())


@pytest.fixture
def settle(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets time pass, for who reads the clock."""
    passed = 0
    now = time.time_ns

    def settle() -> None:
        nonlocal passed
        passed += 2 * 10**9

    monkeypatch.setattr("hsm.domains.remembered.time.time_ns", lambda: now() + passed)
    return settle


def test_what_has_not_changed_is_read_once(eye: Eye, volume: NewVolume, settle: Callable[[], None]) -> None:
    settle()
    for _ in range(5):
        assert eye.sees(volume) is not None
    assert eye.reads == 1


def test_what_changed_just_now_is_not_relied_on(eye: Eye, volume: NewVolume, settle: Callable[[], None]) -> None:
    for _ in range(3):
        eye.sees(volume)
    assert eye.reads == 3
    settle()
    for _ in range(3):
        eye.sees(volume)
    assert eye.reads == 4


def test_clones_and_chains_and_attributes_are_remembered(
    eye: Eye, domain: LocalDomain, settle: Callable[[], None]
) -> None:
    template = make_template(domain)
    layers = [make_overlay(domain, template, clone=True)]
    layers.append(make_overlay(domain, layers[0], sequence=2))
    with domain.lease(1):
        domain.set_attributes(layers[0].image, NONE.with_tags(("gold",)))
        domain.set_attributes(template.image, NONE.with_tags(("silver",), template.volume))
    settle()
    for _ in range(3):
        record = eye.sees(layers[0])
        assert record is not None
        assert len(record.volumes) == 3
    assert eye.reads == 1


def test_a_status_that_only_looks_older_is_a_change(
    eye: Eye, domain: LocalDomain, volume: NewVolume, settle: Callable[[], None]
) -> None:
    """Times of modification can be set at will, and a file can be put in another's place."""
    meta = Path(domain.data_path(volume.image, volume.volume) + ".meta")
    before = meta.stat()
    settle()
    eye.sees(volume)
    meta.write_bytes(meta.read_bytes().replace(b"LEGALITY=LEGAL", b"LEGALITY=FAKED"))
    os.utime(meta, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert meta.stat().st_size == before.st_size
    eye.sees(volume)
    assert eye.reads == 2


def test_damage_is_looked_at_each_time(
    eye: Eye, domain: LocalDomain, volume: NewVolume, settle: Callable[[], None]
) -> None:
    settle()
    eye.sees(volume)
    os.unlink(domain.data_path(volume.image, volume.volume))
    settle()
    for reads in (2, 3):
        record = eye.sees(volume)
        assert record is not None
        assert record.damaged
        assert eye.reads == reads


def test_what_cannot_be_looked_at_is_read_so_that_the_error_is_told(
    eye: Eye, domain: LocalDomain, volume: NewVolume, settle: Callable[[], None]
) -> None:
    settle()
    eye.sees(volume)
    images = Path(domain.images)
    images.rename(images.with_name("away"))
    images.symlink_to("images")
    with pytest.raises(OSError, match="symbolic links"):
        eye.sees(volume)


def test_what_is_deleted_is_forgotten(
    eye: Eye, domain: LocalDomain, volume: NewVolume, settle: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for one image only, a deleted one makes room for the next."""
    monkeypatch.setattr(remembered, "_MOST", 1)
    other = make(domain, new_raw())
    settle()
    for new in (volume, other, volume, other):
        eye.sees(new)
    assert eye.reads == 3
    with domain.lease(1):
        domain.reclaim(domain.unpublish_image(volume.image, wipe=False))
    eye.remembered.keep(domain.image_ids())
    for _ in range(2):
        eye.sees(other)
    assert eye.reads == 4


def test_metadata_of_a_template_are_watched_where_they_are(
    eye: Eye, domain: LocalDomain, settle: Callable[[], None]
) -> None:
    template = make_template(domain)
    clone = make_overlay(domain, template, clone=True)
    settle()
    eye.sees(clone)
    changed = metadata_of(domain, template, generation=5)
    with domain.lease(1):
        domain.rewrite(template.image, template.volume, changed)
    record = eye.sees(clone)
    assert record is not None
    assert record.volumes[template.volume].metadata == changed
