# SPDX-License-Identifier: Apache-2.0
"""Transfers that meet trouble after they have started."""

from __future__ import annotations

import errno
import os
import signal
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from libvdsm.api.errors import (
    ImageDamaged,
    ImageInUse,
    ImageUnfinished,
    InvalidParameter,
    NoSpace,
    NoSuchDomain,
    NoSuchImage,
    NoSuchTransfer,
    NoSuchVolume,
    StorageFailed,
    ToolFailed,
    TransferStateWrong,
    VolumeDamaged,
    VolumeIllegal,
)
from libvdsm.api.transfer import TransferState
from libvdsm.api.types import (
    VolumeFormat,
)
from tests.transfers import http
from tests.verbs.provoked import provokes
from tests.verbs.scene import MIB, Scene, raised
from tests.verbs.test_failing_storage import failing
from tests.verbs.test_transfer import NOBODY, closed, data_of, download, finish, live, look, upload


@provokes("Transfer.getInfo", "NoSuchTransfer")
@provokes("Transfer.checkpoint", "NoSuchTransfer")
@provokes("Transfer.pause", "NoSuchTransfer")
@provokes("Transfer.resume", "NoSuchTransfer")
@provokes("Transfer.cancel", "NoSuchTransfer")
@provokes("Transfer.finish", "NoSuchTransfer")
def test_a_transfer_that_nobody_knows(scene: Scene) -> None:
    call = scene.client.transfer
    for verb in (call.get_info, call.pause, call.resume, call.cancel, call.finish):
        assert raised(NoSuchTransfer, lambda verb=verb: verb(transfer=NOBODY)).transfer == NOBODY  # type: ignore[misc]
    raised(NoSuchTransfer, lambda: call.checkpoint(transfer=NOBODY, arrived=0))


@provokes("Transfer.checkpoint", "TransferStateWrong", "InvalidParameter")
@provokes("Transfer.pause", "TransferStateWrong")
@provokes("Transfer.resume", "TransferStateWrong")
@provokes("Transfer.cancel", "TransferStateWrong")
@provokes("Transfer.finish", "TransferStateWrong")
def test_what_a_state_does_not_allow(scene: Scene) -> None:
    call = scene.client.transfer
    transfer = upload(scene)
    raised(InvalidParameter, lambda: call.checkpoint(transfer=transfer.id, arrived=MIB + 1))
    reading = download(scene, scene.image(MIB))
    raised(TransferStateWrong, lambda: call.checkpoint(transfer=reading.id, arrived=0))
    call.pause(transfer=transfer.id)
    raised(TransferStateWrong, lambda: call.checkpoint(transfer=transfer.id, arrived=0))
    finish(scene, transfer)
    finish(scene, transfer)
    assert raised(TransferStateWrong, lambda: call.cancel(transfer=transfer.id)).state == "finished"
    raised(TransferStateWrong, lambda: call.pause(transfer=transfer.id))
    raised(TransferStateWrong, lambda: call.resume(transfer=transfer.id))
    call.cancel(transfer=reading.id)
    raised(TransferStateWrong, lambda: finish(scene, reading))


@provokes("Transfer.pause", "ToolFailed")
@provokes("Transfer.checkpoint", "ToolFailed")
@provokes("Transfer.finish", "ToolFailed")
@provokes("Transfer.resume", "ToolFailed")
def test_a_program_that_is_gone_interrupts_an_upload(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    # So that it is not the first to see it.
    scene.app._attendant.stop()
    call = scene.client.transfer
    transfer = upload(scene)
    for verb in (call.pause, lambda transfer: scene.wait(call.finish(transfer=transfer))):
        server = live(scene, transfer).server
        assert server is not None
        os.kill(server.pid, signal.SIGKILL)
        raised(ToolFailed, lambda: call.checkpoint(transfer=transfer.id, arrived=1))
        raised(ToolFailed, lambda verb=verb: verb(transfer=transfer.id))  # type: ignore[misc]
        assert look(scene, transfer).state is TransferState.INTERRUPTED
        with monkeypatch.context() as patch:
            patch.setenv("PATH", "/nonexistent")
            raised(ToolFailed, lambda: call.resume(transfer=transfer.id))
        assert call.resume(transfer=transfer.id).state is TransferState.RUNNING


@provokes("Transfer.resume", "NoSuchDomain")
@provokes("Transfer.cancel", "NoSuchDomain")
@provokes("Transfer.finish", "NoSuchDomain")
def test_a_domain_that_is_not_served_any_more(scene: Scene) -> None:
    transfer = upload(scene)
    scene.client.transfer.pause(transfer=transfer.id)
    item = scene.app.context.registry.find(scene.domain)
    opened = scene.app.context.registry.get(scene.domain)
    scene.app.context.registry.detach(scene.domain)
    call = scene.client.transfer
    raised(NoSuchDomain, lambda: call.resume(transfer=transfer.id))
    raised(NoSuchDomain, lambda: finish(scene, transfer))
    raised(NoSuchDomain, lambda: call.cancel(transfer=transfer.id))
    scene.app.context.registry.attach(item, opened)
    assert call.cancel(transfer=transfer.id).state is TransferState.CANCELLED


@provokes("Transfer.resume", "StorageFailed")
@provokes("Transfer.cancel", "StorageFailed", "NoSpace")
@provokes("Transfer.finish", "StorageFailed", "NoSpace")
def test_storage_that_fails_later(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    transfer = upload(scene, format=VolumeFormat.RAW)
    http.put(transfer, 0, b"x" * MIB)
    call = scene.client.transfer
    call.pause(transfer=transfer.id)
    with failing(monkeypatch, errno.EIO, str(scene.root)):
        raised(StorageFailed, lambda: call.resume(transfer=transfer.id))
        raised(StorageFailed, lambda: finish(scene, transfer))
        raised(StorageFailed, lambda: call.cancel(transfer=transfer.id))
    fail = monkeypatch.context()
    with fail as patch:
        real = os.rename
        patch.setattr(os, "rename", lambda old, new: _full(old) if str(old).endswith(".new") else real(old, new))
        raised(NoSpace, lambda: finish(scene, transfer))
        patch.setattr(os, "rename", lambda old, new: _full(old))
        raised(NoSpace, lambda: call.cancel(transfer=transfer.id))
    state = look(scene, transfer)
    assert (state.state, state.problem is None) == (TransferState.PAUSED, False)
    finish(scene, transfer, checksum=http.checksum(b"x" * MIB))


def _full(path: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


@provokes("Transfer.resume", "ImageInUse", "NoSuchImage", "NoSuchVolume", "VolumeDamaged")
@provokes("Transfer.cancel", "ImageInUse")
def test_an_upload_that_others_have_touched(
    scene: Scene, holder: Callable[[Path], AbstractContextManager[None]]
) -> None:
    call = scene.client.transfer
    first, second, third, fourth = (upload(scene, format=VolumeFormat.RAW) for _ in range(4))
    closed(scene, first)
    with holder(data_of(scene, first).with_suffix(".lease")):
        raised(ImageInUse, lambda: call.resume(transfer=first.id))
        raised(ImageInUse, lambda: call.cancel(transfer=first.id))
    assert call.resume(transfer=first.id).state is TransferState.RUNNING
    closed(scene, second)
    scene.wait(scene.client.image.delete(domain=scene.domain, image=second.image))
    raised(NoSuchImage, lambda: call.resume(transfer=second.id))
    assert look(scene, second).state is TransferState.FAILED
    raised(TransferStateWrong, lambda: call.resume(transfer=second.id))
    closed(scene, third)
    other = uuid.uuid4()
    for suffix in ("", ".lease", ".meta"):
        path = data_of(scene, third).with_name(f"{third.volume}{suffix}")
        path.rename(path.with_name(f"{other}{suffix}"))
    raised(NoSuchVolume, lambda: call.resume(transfer=third.id))
    closed(scene, fourth)
    os.truncate(data_of(scene, fourth), 4096)
    raised(VolumeDamaged, lambda: call.resume(transfer=fourth.id))
    assert call.cancel(transfer=fourth.id).state is TransferState.CANCELLED


@provokes("Transfer.resume", "ImageUnfinished", "ImageDamaged", "VolumeIllegal")
def test_a_download_whose_image_changed_while_its_lease_was_lost(scene: Scene) -> None:
    call = scene.client.transfer
    base = scene.image(MIB)
    image = scene.snapshot(base)
    transfer = download(scene, image)
    closed(scene, transfer)
    scene.edit(image, LEGALITY="ILLEGAL")
    raised(VolumeIllegal, lambda: call.resume(transfer=transfer.id))
    scene.edit(image, LEGALITY="LEGAL")
    attributes = scene.folder(image) / f"{image.id}.hsm"
    intent = f'{{"kind":"shrink","volume":"{image.leaf}","capacity":512}}'
    attributes.write_text(f'{{"version":1,"image":"{image.id}","intent":{intent}}}')
    raised(ImageUnfinished, lambda: call.resume(transfer=transfer.id))
    attributes.unlink()
    away = scene.meta(base).read_bytes()
    scene.meta(base).unlink()
    raised(ImageDamaged, lambda: call.resume(transfer=transfer.id))
    scene.meta(base).write_bytes(away)
    assert call.resume(transfer=transfer.id).state is TransferState.RUNNING
