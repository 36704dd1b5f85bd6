# SPDX-License-Identifier: Apache-2.0
"""``hsmctl image download``: an image becomes a local file, in as many runs as it takes.

The data goes into ``FILE.part``; beside it, ``FILE.part.json`` says how much of it is on stable storage and of which
transfer.  While that transfer lives nobody writes the image, so the same command again goes on with it; when it does
no longer, all begins anew.  Only what agrees with the service's checksum gets the file's own name.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hsmctl.failure import Refusal
from hsmctl.progress import Bar
from hsmctl.transfer.checksum import checksum
from hsmctl.transfer.data import DataConnection
from hsmctl.transfer.local import Local, RawFile, open_part
from hsmctl.transfer.nbd import NbdFile, make_qcow2
from hsmctl.transfer.patience import BROKEN, Checkpoints, Persistence, Service, show
from hsmctl.transfer.work import Work
from libvdsm.api.errors import ChecksumMismatch, NoSuchTransfer
from libvdsm.api.transfer import Direction, TransferInfo, TransferState
from libvdsm.api.types import DomainId, ImageId, TransferId, VolumeId
from libvdsm.declare import ApiError

_GOING_ON = (TransferState.RUNNING, TransferState.PAUSED, TransferState.INTERRUPTED)
_STEP = "downloading"


@dataclass(frozen=True)
class Wanted:
    """What is to be downloaded, and as what: ``format`` raw or qcow2."""

    path: Path
    domain: DomainId
    image: ImageId
    volume: VolumeId | None
    format: str


class _Kept(msgspec.Struct):
    """What is known of a file that is only half there."""

    transfer: TransferId
    format: str
    done: int


class _Part:
    """The file while it is not whole, locked, and what is kept of it."""

    def __init__(self, wanted: Wanted, opened: contextlib.ExitStack) -> None:
        self._wanted = wanted
        self.path = wanted.path.with_name(f"{wanted.path.name}.part")
        self._beside = wanted.path.with_name(f"{wanted.path.name}.part.json")
        self.file = open_part(self.path)
        opened.callback(os.close, self.file)
        opened.callback(self._forget_nothing)
        self.kept: _Kept | None = None
        self.left: TransferId | None = None
        """the transfer that a part from before came from, whatever that was of"""
        with contextlib.suppress(OSError, msgspec.DecodeError, msgspec.ValidationError):
            found = msgspec.json.decode(self._beside.read_bytes(), type=_Kept)
            self.left = found.transfer
            self.kept = found if found.format == wanted.format else None

    def _forget_nothing(self) -> None:
        """Where nothing came nothing stays."""
        if self.kept is None and not os.fstat(self.file).st_size:
            self.path.unlink(missing_ok=True)

    def begin(self, transfer: TransferInfo) -> None:
        """Nothing of it is there yet."""
        self._beside.unlink(missing_ok=True)
        os.ftruncate(self.file, 0)
        if self._wanted.format == "raw":
            os.ftruncate(self.file, transfer.size)
        else:
            # In place: the lock is this very file's.
            make_qcow2(self.path, transfer.size)
        os.fsync(self.file)
        self.keep(transfer, 0)

    def keep(self, transfer: TransferInfo, done: int) -> None:
        """So much of it is on stable storage."""
        self.kept = _Kept(transfer.id, self._wanted.format, done)
        new = self._beside.with_suffix(".new")
        with new.open("wb") as file:
            file.write(msgspec.json.encode(self.kept))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._beside)

    def open(self) -> Local:
        return RawFile(os.dup(self.file)) if self._wanted.format == "raw" else NbdFile(self.path, "qcow2", write=True)

    def whole(self) -> None:
        """It gets its own name."""
        os.fsync(self.file)
        self.path.replace(self._wanted.path)
        self._beside.unlink(missing_ok=True)
        folder = os.open(self._wanted.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def download(service: Service, wanted: Wanted) -> TransferInfo:
    """Download an image, or the rest of it."""
    with contextlib.ExitStack() as opened:
        part = _Part(wanted, opened)
        bar = opened.enter_context(Bar())
        persistence = Persistence(service, bar)
        transfer = _found(service, wanted, part)
        if transfer is None:
            _give_up(service, part.left)
            transfer = _start(service, wanted, part)
        service.transfer = transfer.id
        finished: TransferInfo | None = None
        while finished is None:
            with persistence.attempt():
                finished = _go_on(persistence, persistence.resumed(transfer.id), part)
        return finished


def _give_up(service: Service, left: TransferId | None) -> None:
    """What nobody can go on with, since the file begins anew, holds its image no longer."""
    if left is not None:
        with contextlib.suppress(ApiError):
            service.client.transfer.cancel(transfer=left)


def _start(service: Service, wanted: Wanted, part: _Part) -> TransferInfo:
    """A new transfer.  Where nothing is kept of it nobody could go on with it, so then it is given up."""
    id_ = TransferId(uuid.uuid4())
    try:
        transfer = service.client.transfer.start(
            id=id_, domain=wanted.domain, direction=Direction.DOWNLOAD, image=wanted.image, volume=wanted.volume
        )
        part.begin(transfer)
    except BaseException:
        # The connection may be waiting for an answer still.
        with contextlib.suppress(*BROKEN, ApiError):
            service.again()
            service.client.transfer.cancel(transfer=id_)
        raise
    return transfer


def _found(service: Service, wanted: Wanted, part: _Part) -> TransferInfo | None:
    """The transfer that a part came from, if it goes on and is of what is wanted now."""
    if part.kept is None:
        return None
    try:
        found = service.client.transfer.get_info(transfer=part.kept.transfer)
    except NoSuchTransfer:
        return None
    same = found.image == wanted.image and wanted.volume in (None, found.volume)
    return found if same and found.state in _GOING_ON else None


def _go_on(persistence: Persistence, transfer: TransferInfo, part: _Part) -> TransferInfo:
    """From where it is to its end."""
    with contextlib.closing(DataConnection(transfer)) as connection:
        data = list(connection.extents())
    with contextlib.closing(part.open()) as local:
        _get(persistence, transfer, part, local, data)
    show(persistence.bar, "comparing", transfer.size, transfer.size)
    with contextlib.closing(DataConnection(transfer)) as connection:
        theirs = connection.checksum()
    with contextlib.closing(part.open()) as local:
        ours = checksum(transfer.size, local.data(), local.read)
    client = persistence.service.client
    if ours != theirs:
        part.begin(transfer)
        raise ChecksumMismatch(expected=theirs, found=ours)
    part.whole()
    return client.wait(client.transfer.finish(transfer=transfer.id, checksum=theirs))


def _get(
    persistence: Persistence, transfer: TransferInfo, part: _Part, local: Local, data: list[tuple[int, int]]
) -> None:
    begin = part.kept.done if part.kept else 0
    rest = [(max(offset, begin), offset + length - max(offset, begin)) for offset, length in data]
    work = Work((piece for piece in rest if piece[1] > 0), transfer.size)

    def keep(reached: int) -> None:
        local.flush()
        part.keep(transfer, reached)
        persistence.moved_on()

    def carry(connection: DataConnection, offset: int, length: int) -> None:
        connection.download(local, offset, length)

    checkpoints = Checkpoints(persistence.bar, _STEP, transfer.size, lambda: work.reached, keep)
    with checkpoints.kept_on_interrupt():
        work.run(transfer, carry, checkpoints)
    keep(transfer.size)


def refuse_existing(path: Path, *, force: bool) -> None:
    """Nothing is overwritten unasked."""
    if path.is_dir():
        raise Refusal("FileNotUsable", f"{path} is a folder; give the name of a file")
    if path.exists() and not (force and path.is_file()):
        raise Refusal("FileExists", f"{path} exists already; take another name, or add --force to replace it")
