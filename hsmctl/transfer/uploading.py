# SPDX-License-Identifier: Apache-2.0
"""``hsmctl image upload``: a local file becomes an image, in as many runs as it takes.

Nothing is kept on this side.  The service knows how much has arrived, and a note with the transfer tells which file,
of which size and time, it came from; so the same command again goes on, and a file that was changed begins anew.  A
qcow2 file travels as it is, all else, and what is to be encrypted, as what a guest sees; holes do not travel.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsmctl import outside
from hsmctl.failure import Refusal
from hsmctl.progress import Bar
from hsmctl.progress import wait as wait_for
from hsmctl.transfer.checksum import checksum
from hsmctl.transfer.data import DataConnection
from hsmctl.transfer.local import Local, RawFile, looks_like, open_source
from hsmctl.transfer.nbd import NbdFile
from hsmctl.transfer.patience import Checkpoints, Persistence, Service, show
from hsmctl.transfer.work import Work
from hsmctl.values import show_size
from libvdsm.api.transfer import Content, Direction, TransferInfo, TransferState
from libvdsm.api.types import DomainId, ImageInfo, SecretId, TransferId, VolumeFormat
from libvdsm.threads import Thread

_GOING_ON = (TransferState.RUNNING, TransferState.PAUSED, TransferState.INTERRUPTED, TransferState.FINISHING)
_STEP = "uploading"
_LITTLE = 2**20
"""Bytes that are no room for anything."""


@dataclass(frozen=True)
class Wanted:
    """What is to be uploaded, and as what."""

    path: Path
    domain: DomainId
    name: str
    format: VolumeFormat
    description: str | None
    secret: SecretId | None = None
    """what the image is to be encrypted with"""


class Source:
    """The file, open and locked, and what is said of it."""

    def __init__(self, wanted: Wanted, opened: contextlib.ExitStack) -> None:
        descriptor = open_source(str(wanted.path))
        opened.callback(os.close, descriptor)
        outside.refuse_no_disk(descriptor, str(wanted.path), otherwise="")
        outside.refuse_what_needs_import(descriptor, str(wanted.path))
        kind, stands_on_another = looks_like(descriptor)
        whole = wanted.format is VolumeFormat.QCOW2 and not stands_on_another and wanted.secret is None
        as_it_is = kind == "raw" or whole
        self.content = Content.FILE if as_it_is and kind == "qcow2" else Content.DATA
        self.local: Local = RawFile(os.dup(descriptor)) if as_it_is else NbdFile(wanted.path, "qcow2", write=False)
        opened.callback(self.local.close)
        status = os.fstat(descriptor)
        file = (wanted.path.resolve(), status.st_ino, self.local.size, status.st_mtime_ns)
        facts = (*file, wanted.name, wanted.format, *([wanted.secret] if wanted.secret else []))
        digest = hashlib.blake2b(repr(facts).encode(errors="surrogateescape"), digest_size=16).hexdigest()
        self.note = f"hsmctl {digest} of {os.uname().nodename[:64]}"


class _Checksum:
    """Made beside the sending, from what the system has just read."""

    def __init__(self, local: Local) -> None:
        self._result: str | Exception = ""
        self._stopped = threading.Event()
        self._local = local
        self._thread = Thread("checksum", self._make)
        self._thread.start()

    def _make(self) -> None:
        try:
            self._result = checksum(self._local.size, self._local.data(), self._local.read, self._stopped.is_set)
        except Exception as error:  # noqa: BLE001  the boundary of this thread: who waits is told
            self._result = error

    def result(self) -> str:
        self._thread.join()
        if isinstance(self._result, Exception):
            raise self._result
        return self._result

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()


def upload(service: Service, wanted: Wanted, before: Callable[[], None]) -> ImageInfo:
    """Upload a file, or the rest of it: the image.  ``before`` may refuse to begin; it is not asked to go on."""
    with contextlib.ExitStack() as opened:
        source = Source(wanted, opened)
        bar = opened.enter_context(Bar())
        whole = _Checksum(source.local)
        opened.callback(whole.stop)
        persistence = Persistence(service, bar)
        transfer = _find(service, wanted, source)
        if transfer is None:
            before()
            transfer = _start(service, wanted, source)
        service.transfer = transfer.id
        while True:
            done: TransferInfo | None = None
            with persistence.attempt():
                done = _go_on(persistence, transfer.id, source, whole)
            if done is not None:
                return service.client.image.get_info(domain=done.domain, image=done.image)
            _refuse_if_full(service, transfer.id)


def _find(service: Service, wanted: Wanted, source: Source) -> TransferInfo | None:
    """The upload of this very file that has begun and not ended."""
    items = service.client.transfer.list(domain=wanted.domain).items
    return next((item for item in items if item.note == source.note and item.state in _GOING_ON), None)


def _start(service: Service, wanted: Wanted, source: Source) -> TransferInfo:
    return service.client.transfer.start(
        domain=wanted.domain,
        direction=Direction.UPLOAD,
        size=source.local.size,
        name=wanted.name,
        format=wanted.format,
        content=source.content,
        description=wanted.description,
        note=source.note,
        secret=wanted.secret,
    )


def _go_on(persistence: Persistence, id_: TransferId, source: Source, whole: _Checksum) -> TransferInfo:
    """From where it is to its end."""
    client = persistence.service.client
    transfer = client.transfer.get_info(transfer=id_)
    if transfer.state not in (TransferState.FINISHED, TransferState.FINISHING):
        transfer = persistence.resumed(id_)
        _send(persistence, transfer, source)
    show(persistence.bar, "comparing", source.local.size, source.local.size)
    given = whole.result()
    persistence.bar.close()
    finished: Any = wait_for(client, lambda: client.transfer.finish(transfer=id_, checksum=given)).result
    info: TransferInfo = finished
    return info


def _refuse_if_full(service: Service, id_: TransferId) -> None:
    """The data mover tells of no reason why it cannot write; a full domain is one that waiting does not mend."""
    transfer = service.client.transfer.get_info(transfer=id_)
    if service.client.domain.get_stats(domain=transfer.domain).free < _LITTLE:
        arrived = f"{show_size(transfer.arrived)} of {show_size(transfer.size)} have arrived"
        raise Refusal(
            "NoSpace",
            f"The domain is full, and {arrived}. Make room there and give the same command again, or give the upload up "
            f"with `hsmctl transfer cancel {id_}`.",
        )


def _send(persistence: Persistence, transfer: TransferInfo, source: Source) -> None:
    client, size = persistence.service.client, source.local.size
    work = Work(source.local.data(transfer.arrived), size)

    def keep(reached: int) -> None:
        if reached > transfer.arrived:
            client.transfer.checkpoint(transfer=transfer.id, arrived=reached)
            persistence.moved_on()

    def carry(connection: DataConnection, offset: int, length: int) -> None:
        connection.upload(source.local, offset, length)

    checkpoints = Checkpoints(persistence.bar, _STEP, size, lambda: work.reached, keep)
    with checkpoints.kept_on_interrupt():
        work.run(transfer, carry, checkpoints)
    keep(size)
