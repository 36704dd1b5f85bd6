# SPDX-License-Identifier: Apache-2.0
"""The record of transfers: SQLite on local disk, made when the first one begins.

A transfer is written down before its image is published, and with every change of its state, each on stable storage
before anybody is told.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import msgspec

from hsm.tasks.store import StoreError
from libvdsm.api.transfer import Content, Direction, TransferState
from libvdsm.api.types import Allocation, DomainId, ImageId, TransferId, VolumeFormat, VolumeId

_VERSION = 1
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS transfer (id TEXT PRIMARY KEY, ended REAL, record BLOB NOT NULL) WITHOUT ROWID;
PRAGMA user_version = {_VERSION};
"""


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A transfer as it is written down."""

    id: TransferId
    ticket: str
    """what its clients know it by: the key to the data"""
    direction: Direction
    content: Content
    state: TransferState
    domain: DomainId
    image: ImageId
    volume: VolumeId
    format: VolumeFormat
    size: int
    created: float
    touched: float
    """when it last moved, or was asked to"""
    allocation: Allocation = Allocation.SPARSE
    arrived: int = 0
    ended: float | None = None
    port: int | None = None
    name: str | None = None
    note: str | None = None
    checksum: str | None = None
    problem: str | None = None
    secret: UUID | None = None
    """what an upload's volume is encrypted with"""

    @property
    def is_upload(self) -> bool:
        return self.direction is Direction.UPLOAD


class TransferStoreError(StoreError):
    """The record cannot be used."""


class TransferStore:
    """Transfers on disk.  Every method may raise ``TransferStoreError``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        if path.exists():
            with self._open():
                pass

    def put(self, record: Record) -> None:
        """Write a transfer's present state."""
        with self._lock, self._open() as db:
            db.execute(
                "INSERT INTO transfer (id, ended, record) VALUES (?1, ?2, ?3) "
                "ON CONFLICT (id) DO UPDATE SET ended = ?2, record = ?3",
                (str(record.id), record.ended, msgspec.json.encode(record)),
            )

    def forget(self, transfer: TransferId) -> None:
        with self._lock, self._open() as db:
            db.execute("DELETE FROM transfer WHERE id = ?", (str(transfer),))

    def load(self) -> list[Record]:
        """Every transfer."""
        if self._db is None:
            return []
        with self._lock, self._open() as db:
            rows = db.execute("SELECT id, record FROM transfer").fetchall()
        try:
            return [msgspec.json.decode(record, type=Record) for _, record in rows]
        except msgspec.DecodeError as error:
            msg = f"the record of transfers is damaged: {error}; move {self._path} away to begin with an empty one"
            raise TransferStoreError(msg) from None

    def close(self) -> None:
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            if self._db is None:
                self._db = self._connect()
            yield self._db
        except sqlite3.Error as error:
            msg = f"the record of transfers, {self._path}, cannot be written or read: {error}"
            raise TransferStoreError(msg) from None

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        found = db.execute("PRAGMA user_version").fetchone()[0]
        if found not in (0, _VERSION):
            msg = f"{self._path} was written by a newer version of this service (layout {found})"
            raise TransferStoreError(msg)
        if found == 0:
            db.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
        return db
