# SPDX-License-Identifier: Apache-2.0
"""Transfers, for the crash tests: uploads and downloads, up to the verb that is struck without any accident."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from libvdsm.api.errors import TransferStateWrong
from libvdsm.api.transfer import Content, Direction
from libvdsm.api.types import TransferId, VolumeFormat
from tests.crash import proofs
from tests.crash.contents import digest_of, digest_of_zeros
from tests.crash.fixture import CHAIN, MAIN, MIB, NEW, NEW_VOLUME, SOURCE
from tests.crash.invariants import ARRIVING, Facts
from tests.crash.operation import Operation, Task, World
from tests.transfers import http

_EMPTY = digest_of_zeros(8 * MIB)
_PLACE = f"{NEW}/{NEW_VOLUME}"
UPLOAD = TransferId(NEW)
"""the transfer of each of them"""


def _begin(world: World, **params: Any) -> None:
    world.client.transfer.start(
        domain=MAIN, direction=Direction.UPLOAD, name="new", id=UPLOAD, image=NEW, volume=NEW_VOLUME, **params
    )


def _upload(world: World) -> None:
    _begin(world, size=8 * MIB, format=VolumeFormat.RAW)


def _upload_of_qcow2(world: World) -> None:
    _begin(world, size=8 * MIB, format=VolumeFormat.QCOW2)


def _upload_of_a_file(world: World) -> None:
    _begin(world, size=len(_file(world)), content=Content.FILE)


def _file(world: World) -> bytes:
    data = world.source("source.qcow2").read_bytes()
    return data.ljust(-(-len(data) // 4096) * 4096, b"\0")


def _qcow2_sent(world: World) -> None:
    _upload_of_qcow2(world)
    _send(world, SOURCE)


def _file_sent(world: World) -> None:
    _upload_of_a_file(world)
    _send(world, _file(world))


def _send(world: World, data: bytes) -> None:
    """All of it, and that is known."""
    http.put(world.client.transfer.get_info(transfer=UPLOAD), 0, data)
    world.client.transfer.checkpoint(transfer=UPLOAD, arrived=len(data))


def _download(world: World) -> None:
    world.client.transfer.start(domain=MAIN, direction=Direction.DOWNLOAD, image=CHAIN, id=UPLOAD)


def _sent(world: World) -> None:
    """All of it has been sent."""
    _upload(world)
    http.put(world.client.transfer.get_info(transfer=UPLOAD), 0, SOURCE)


def _uploaded(world: World) -> None:
    """All of it has been sent, and that is known."""
    _sent(world)
    world.client.transfer.checkpoint(transfer=UPLOAD, arrived=8 * MIB)


def _paused(world: World) -> None:
    _uploaded(world)
    world.client.transfer.pause(transfer=UPLOAD)


def _finish(world: World) -> Task:
    return world.client.transfer.finish(transfer=UPLOAD)


def _on(verb: str, **params: int) -> Callable[[World], None]:
    def call(world: World) -> None:
        getattr(world.client.transfer, verb)(transfer=UPLOAD, **params)

    return call


def _is_a_file(before: Facts, after: Facts) -> bool:
    """What came as a file is what a guest sees, and has the size that its header says."""
    told = after[f"{_PLACE} told"]
    return (
        isinstance(told, dict)
        and told["capacity"] == 8 * MIB
        and after[f"{_PLACE} data"] == digest_of(SOURCE)
        and all(key.startswith(_PLACE) for key in after if before.get(key) != after[key])
    )


TRANSFERS = [
    Operation("upload started", "Transfer.start", _upload, proofs.data(NEW, NEW_VOLUME, _EMPTY)),
    Operation(
        "upload finished",
        "Transfer.finish",
        _finish,
        proofs.changed(f"{_PLACE} metadata"),
        arrange=_uploaded,
    ),
    Operation("upload cancelled", "Transfer.cancel", _on("cancel"), proofs.lost(NEW), arrange=_uploaded),
    # After a kill there is nothing to be paused, or to be kept: the upload is interrupted.
    Operation("upload paused", "Transfer.pause", _on("pause"), proofs.same, _uploaded, gone=(TransferStateWrong,)),
    Operation("upload resumed", "Transfer.resume", _on("resume"), proofs.same, _paused),
    Operation(
        "upload kept so far",
        "Transfer.checkpoint",
        _on("checkpoint", arrived=8 * MIB),
        proofs.same,
        _sent,
        gone=(TransferStateWrong,),
    ),
    Operation(
        "upload of a volume in qcow2 started", "Transfer.start", _upload_of_qcow2, proofs.data(NEW, NEW_VOLUME, _EMPTY)
    ),
    Operation(
        "upload of a volume in qcow2 finished",
        "Transfer.finish",
        _finish,
        lambda before, after: (
            after[f"{_PLACE} data"] == digest_of(SOURCE) and proofs.changed(f"{_PLACE} metadata")(before, after)
        ),
        arrange=_qcow2_sent,
    ),
    Operation("upload of a file started", "Transfer.start", _upload_of_a_file, proofs.data(NEW, NEW_VOLUME, ARRIVING)),
    Operation("upload of a file finished", "Transfer.finish", _finish, _is_a_file, arrange=_file_sent),
    Operation("upload of a file cancelled", "Transfer.cancel", _on("cancel"), proofs.lost(NEW), arrange=_file_sent),
    # Where it is gone after a kill, nothing was told of it.
    Operation("download started", "Transfer.start", _download, proofs.same),
    Operation("download finished", "Transfer.finish", _finish, proofs.same, arrange=_download),
    Operation("download cancelled", "Transfer.cancel", _on("cancel"), proofs.same, arrange=_download),
]
