# SPDX-License-Identifier: Apache-2.0
"""Before anything is published, every byte and every name that it rests on is on stable storage; and after it, too.

The order is read off the system calls that the process makes, so a missing ``fsync`` is seen without a power cut.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hsm.contract.base import MIB, WAIT, make, make_overlay, make_template, metadata_of, new_raw
from hsm.domains.local import LocalDomain
from libvdsm.api.types import Allocation, VolumeRole


class Storage:
    """Which files have bytes, and which folders have names, that a power cut would take."""

    def __init__(self, patch: pytest.MonkeyPatch, root: Path) -> None:
        self._root = str(root)
        self.bytes: set[str] = set()
        self.names: set[str] = set()
        self.published: list[str] = []
        for name, note in (
            ("pwrite", self._wrote),
            ("write", self._wrote),
            ("ftruncate", self._wrote),
            ("posix_fallocate", self._wrote),
            ("fsync", self._synced),
            ("fdatasync", self._synced),
            ("mkdir", self._named),
            ("rmdir", self._named),
            ("unlink", self._named),
            ("link", self._linked),
            ("open", self._opened),
            ("rename", self._renamed),
        ):
            patch.setattr(os, name, self._around(getattr(os, name), note))

    def _around(self, real: Callable[..., Any], note: Callable[..., None]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if note == self._opened and isinstance(args[0], str):
                note(*args)
            if note == self._renamed:
                self._about_to_publish(args[1])
            result = real(*args, **kwargs)
            if note != self._opened:
                note(*args)
            return result

        return call

    def _path(self, descriptor: int) -> str:
        return os.readlink(f"/proc/self/fd/{descriptor}")

    def _ours(self, path: str) -> bool:
        return path.startswith(self._root)

    def _wrote(self, descriptor: int, *_: object) -> None:
        if self._ours(path := self._path(descriptor)):
            self.bytes.add(path)

    def _synced(self, descriptor: int) -> None:
        path = self._path(descriptor)
        kind = self.names if stat.S_ISDIR(os.fstat(descriptor).st_mode) else self.bytes
        kind.discard(path)

    def _named(self, path: str, *_: object) -> None:
        if self._ours(str(path)):
            self.names.add(os.path.dirname(path))

    def _linked(self, _: str, target: str) -> None:
        self._named(target)

    def _opened(self, path: str, flags: int, *_: object) -> None:
        if flags & os.O_CREAT and not os.path.exists(path):
            self._named(path)

    def _renamed(self, source: str, target: str) -> None:
        self._named(source)
        self._named(target)

    def _about_to_publish(self, target: str) -> None:
        if self._ours(target):
            assert not self.bytes, f"{target} is published before the bytes of {self.bytes}"
            assert not self.names, f"{target} is published before the names in {self.names}"
            self.published.append(os.path.basename(target))

    def is_stable(self) -> bool:
        return not self.bytes and not self.names


@pytest.fixture
def storage(domain: LocalDomain, monkeypatch: pytest.MonkeyPatch) -> Storage:
    return Storage(monkeypatch, Path(domain.path))


def test_a_new_domain_is_stable_before_its_metadata_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import uuid

    from libvdsm.api.types import DomainId

    storage = Storage(monkeypatch, tmp_path)
    LocalDomain.create(DomainId(uuid.uuid4()), str(tmp_path), "a test")
    assert storage.published == ["metadata"]
    assert storage.is_stable()


@pytest.mark.parametrize("allocation", [Allocation.SPARSE, Allocation.PREALLOCATED])
def test_a_volume_is_stable_before_it_is_published(
    domain: LocalDomain, storage: Storage, allocation: Allocation
) -> None:
    new = make(domain, new_raw(allocation=allocation), content=[(0, b"data")])
    assert storage.published == [f"{new.volume}.meta"]
    assert storage.is_stable()


def test_a_layer_and_a_clone_are_stable_before_they_are_published(domain: LocalDomain, storage: Storage) -> None:
    base, template = make(domain, new_raw()), make_template(domain)
    top, clone = make_overlay(domain, base), make_overlay(domain, template, clone=True)
    assert storage.published[-2:] == [f"{top.volume}.meta", f"{clone.volume}.meta"]
    assert storage.is_stable()


def test_changed_metadata_are_stable_before_they_replace_the_old(domain: LocalDomain, storage: Storage) -> None:
    new = make(domain, new_raw())
    with domain.lease(WAIT):
        domain.rewrite(new.image, new.volume, metadata_of(domain, new, role=VolumeRole.TEMPLATE))
        assert storage.is_stable()
        domain.set_metadata(domain.metadata().with_description("new"))
    assert storage.published == [f"{new.volume}.meta", f"{new.volume}.meta", "metadata"]
    assert storage.is_stable()


def test_growing_is_stable_when_it_returns(domain: LocalDomain, storage: Storage) -> None:
    new = make(domain, new_raw())
    domain.extend_data(new.image, new.volume, 2 * MIB, Allocation.SPARSE)
    assert storage.is_stable()
    domain.extend_data(new.image, new.volume, 3 * MIB, Allocation.PREALLOCATED)
    assert storage.is_stable()


def test_deletions_are_stable_when_they_return(domain: LocalDomain, storage: Storage) -> None:
    base = make(domain, new_raw())
    top = make_overlay(domain, base)
    with domain.lease(WAIT):
        domain.unpublish_volume(top.image, top.volume, wipe=True)
        assert storage.is_stable()
        domain.unpublish_image(base.image, wipe=True)
        assert storage.is_stable()


def test_what_is_wiped_is_wiped_on_stable_storage_before_its_name_goes(
    domain: LocalDomain, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = make(domain, new_raw(), content=[(0, b"x" * 8192)])
    with domain.lease(WAIT):
        left = domain.unpublish_image(new.image, wipe=True)
    unlink = os.unlink

    def checked(path: str) -> None:
        assert not storage.bytes, "it is taken away before the zeros are stable"
        unlink(path)

    monkeypatch.setattr(os, "unlink", checked)
    assert domain.reclaim(left) is not None


def test_the_recorder_notices_what_it_is_there_for(
    domain: LocalDomain, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    with pytest.raises(AssertionError, match="is published before"):
        make(domain, new_raw(), content=[(0, b"data")])
