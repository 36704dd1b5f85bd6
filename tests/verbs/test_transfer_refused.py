# SPDX-License-Identifier: Apache-2.0
"""Transfers that are refused when they are to start."""

from __future__ import annotations

import errno
import fcntl
import os
import uuid
from typing import Any

import pytest

from hsm.tools import imageio
from libvdsm.api.errors import (
    DomainBusy,
    DomainDamaged,
    DomainReadOnly,
    ImageDamaged,
    ImageInUse,
    ImageUnfinished,
    InvalidParameter,
    NoSpace,
    NoSuchDomain,
    NoSuchImage,
    NoSuchVolume,
    NotSupported,
    StorageFailed,
    ToolFailed,
    VolumeDamaged,
    VolumeIllegal,
)
from libvdsm.api.transfer import Content, Direction, TransferState
from libvdsm.api.types import (
    ImageId,
    VolumeFormat,
    VolumeId,
)
from tests.domains.tree import fingerprint
from tests.verbs.conftest import Restart
from tests.verbs.provoked import provokes
from tests.verbs.scene import MIB, Scene, raised
from tests.verbs.test_failing_storage import failing, make_v4
from tests.verbs.test_transfer import GONE, NOBODY, download, finish, look, upload


@provokes("Transfer.start", "InvalidParameter", "NotSupported", "NoSuchDomain")
def test_what_cannot_be_meant(scene: Scene) -> None:
    start = scene.client.transfer.start
    raised(NoSuchDomain, lambda: start(domain=GONE, direction=Direction.UPLOAD, size=MIB))
    raised(InvalidParameter, lambda: start(domain=scene.domain, direction=Direction.UPLOAD))
    raised(InvalidParameter, lambda: start(domain=scene.domain, direction=Direction.DOWNLOAD))
    image = scene.image(MIB)
    raised(InvalidParameter, lambda: download(scene, image, size=MIB))
    raised(InvalidParameter, lambda: upload(scene, name="ä" * 64, description="ö" * 64))
    raised(NotSupported, lambda: upload(scene, content=Content.FILE, format=VolumeFormat.RAW))
    assert scene.client.transfer.list().items == []


@provokes("Transfer.start", "NoSuchImage", "NoSuchVolume", "ImageInUse", "ImageUnfinished", "VolumeIllegal")
def test_an_image_that_cannot_be_read(scene: Scene, maker: Any) -> None:
    raised(NoSuchImage, lambda: download(scene, ImageId(NOBODY)))
    image = scene.image(MIB)
    raised(NoSuchVolume, lambda: download(scene, image, volume=VolumeId(NOBODY)))
    scene.client.image.prepare(domain=scene.domain, image=image.id)
    assert "its keeper" in raised(ImageInUse, lambda: download(scene, image)).holder
    scene.client.image.teardown(domain=scene.domain, image=image.id)
    scene.edit(image, LEGALITY="ILLEGAL")
    raised(VolumeIllegal, lambda: download(scene, image))
    coming = upload(scene)
    raised(ImageUnfinished, lambda: download(scene, coming.image))
    ids = ImageId(uuid.uuid4()), VolumeId(uuid.uuid4())
    with maker(*ids):
        raised(ImageInUse, lambda: upload(scene, image=ids[0], volume=ids[1]))


@provokes("Transfer.start", "ImageDamaged", "VolumeDamaged")
def test_an_image_that_is_damaged(scene: Scene) -> None:
    short = scene.raw(MIB)
    os.truncate(scene.data(short), 4096)
    raised(VolumeDamaged, lambda: download(scene, short))
    base = scene.image(MIB)
    upper = scene.snapshot(base)
    scene.meta(base).unlink()
    raised(ImageDamaged, lambda: download(scene, upper))


@provokes("Transfer.start", "StorageFailed", "NoSpace")
def test_a_start_on_storage_that_fails_leaves_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(scene.root)
    for number, error in ((errno.EIO, StorageFailed), (errno.ENOSPC, NoSpace)):
        with failing(monkeypatch, number, str(scene.root)):
            raised(error, lambda: upload(scene))
        assert fingerprint(scene.root) == before
        assert scene.client.transfer.list().items == []


@provokes("Transfer.start", "DomainDamaged")
@provokes("Transfer.resume", "DomainDamaged")
@provokes("Transfer.cancel", "DomainDamaged")
@provokes("Transfer.finish", "DomainDamaged")
def test_a_domain_that_is_damaged(scene: Scene, restart: Restart) -> None:
    kept = upload(scene)
    path = scene.root / "dom_md" / "metadata"
    sound = path.read_bytes()
    path.write_bytes(sound.replace(b"default", b"edited!"))
    raised(DomainDamaged, lambda: upload(scene))
    raised(DomainDamaged, lambda: finish(scene, kept))
    after = restart(scene.domain)
    assert "checksum" in (look(after, kept).problem or "")
    raised(DomainDamaged, lambda: after.client.transfer.resume(transfer=kept.id))
    raised(DomainDamaged, lambda: after.client.transfer.cancel(transfer=kept.id))
    path.write_bytes(sound)
    assert after.client.transfer.resume(transfer=kept.id).state is TransferState.RUNNING


@provokes("Transfer.start", "DomainReadOnly")
@provokes("Transfer.cancel", "DomainReadOnly")
@provokes("Transfer.finish", "DomainReadOnly")
def test_a_domain_of_an_older_layout(scene: Scene) -> None:
    kept = upload(scene)
    make_v4(scene.root)
    raised(DomainReadOnly, lambda: upload(scene))
    raised(DomainReadOnly, lambda: finish(scene, kept))
    assert look(scene, kept).state is TransferState.PAUSED
    raised(DomainReadOnly, lambda: scene.client.transfer.cancel(transfer=kept.id))


@provokes("Transfer.start", "DomainBusy")
@provokes("Transfer.cancel", "DomainBusy")
@provokes("Transfer.finish", "DomainBusy")
def test_a_domain_that_somebody_else_changes(scene: Scene, restart: Restart) -> None:
    scene = restart(scene.domain, storage__lease_wait="0.1")
    kept = upload(scene)
    with (scene.root / "dom_md" / "ids").open("r+b") as ids:
        fcntl.flock(ids, fcntl.LOCK_EX)
        raised(DomainBusy, lambda: upload(scene))
        raised(DomainBusy, lambda: finish(scene, kept))
        raised(DomainBusy, lambda: scene.client.transfer.cancel(transfer=kept.id))
    assert scene.client.transfer.cancel(transfer=kept.id).state is TransferState.CANCELLED


@provokes("Transfer.start", "ToolFailed")
def test_without_its_programs_nothing_is_begun(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(scene.root)
    monkeypatch.setattr(imageio, "program", lambda: "/nonexistent/ovirt-imageio")
    error = raised(ToolFailed, lambda: upload(scene))
    assert error.tool == "ovirt-imageio"
    assert fingerprint(scene.root) == before
    assert scene.client.transfer.list().items == []
    assert scene.client.host.get_stats().children == []
