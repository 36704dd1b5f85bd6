# SPDX-License-Identifier: Apache-2.0
"""The file of the audit log: SQLite on local disk.

A record is in the kernel's hands when ``put`` returns: a killed service loses none, a power cut those of the last
moments at most.  It is not on stable storage, since that would cost each change as much as the record of its task
does; nothing of what is on storage depends on it.

A file that cannot be used is moved aside, and a new one begun: the log is no reason for a service not to start.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

import msgspec

from libvdsm.api.audit import AuditOutcome, AuditRecord
from libvdsm.log import Log
from libvdsm.threads import Thread

log = Log("hsm.audit")

_COLUMNS = AuditRecord.__struct_fields__
_SCHEMA = """
CREATE TABLE record (
    number INTEGER PRIMARY KEY,
    time REAL NOT NULL,
    user TEXT NOT NULL,
    verb TEXT NOT NULL,
    outcome TEXT NOT NULL,
    domain TEXT,
    image TEXT,
    volume TEXT,
    task TEXT,
    ended REAL,
    error TEXT,
    message TEXT,
    request TEXT NOT NULL,
    wire TEXT,
    peer TEXT,
    uid INTEGER,
    pid INTEGER,
    session TEXT,
    params TEXT NOT NULL
);
CREATE INDEX record_outcome ON record (outcome);
PRAGMA user_version = 1;
"""
_VERSION = 1
_INSERT = f"INSERT INTO record ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_END = "UPDATE record SET outcome = ?, ended = ?, error = ?, message = ? WHERE number = ?"
_CONDITIONS = {
    "since": "time >= ?",
    "until": "time < ?",
    "user": "user = ?",
    "verb": "verb = ?",
    "domain": "domain = ?",
    "image": "image = ?",
    "outcome": "outcome = ?",
}
_MAINTAIN_EVERY = 1000
"""Records: at each number that it divides, however often the service starts."""
_PRUNED_AT_ONCE = 5000
_REFUSED_SHARE = 10
"""One part in so many is for refused calls, which anybody can make."""
_BUSY = 1.0
"""Seconds to wait for a program of somebody else's that looks into the file."""
_UNUSABLE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class AuditError(Exception):
    """The audit log cannot be read or written now."""


class _NewerError(Exception):
    """Written by a version of the service that knows more."""


@dataclass(frozen=True)
class Wanted:
    """Which records to list; None: whichever."""

    since: float | None = None
    until: float | None = None
    user: str | None = None
    verb: str | None = None
    domain: UUID | None = None
    image: UUID | None = None
    outcome: AuditOutcome | None = None


def _flat(value: Any) -> Any:
    """A member of a record as SQLite has it."""
    if isinstance(value, dict):
        return msgspec.json.encode(value).decode()
    if isinstance(value, AuditOutcome):
        return value.value
    return str(value) if isinstance(value, UUID) else value


def _record(row: tuple[Any, ...]) -> AuditRecord:
    members = {name: value for name, value in zip(_COLUMNS, row, strict=True) if value is not None}
    try:
        # The columns have Python's names, and no member has two words.
        return msgspec.convert({**members, "params": msgspec.json.decode(members["params"])}, AuditRecord)
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        msg = f"record {row[0]} of the audit log is damaged: {error}"
        raise AuditError(msg) from None


def _is_unusable(error: sqlite3.Error, *more: int) -> bool:
    # Of an extended code the lowest byte is the code.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {*_UNUSABLE, *more}


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        msg = f"the audit log cannot be written or read: {error}"
        raise AuditError(msg) from None


class AuditStore:
    """Records on disk.  Every method may raise ``AuditError``, but ``close``."""

    def __init__(self, path: Path, keep: float, keep_count: int) -> None:
        """Never fails: what cannot be opened now is tried again with each record.  ``keep`` in seconds."""
        self._path = path
        self._keep = keep
        self._keep_count = keep_count
        self._lock = threading.Lock()
        self._maintaining = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._closed = False
        self._next = 1
        try:
            with self._lock:
                self._opened()
        except AuditError as error:
            log.error("nothing is recorded for now", reason=error)

    def put(self, record: AuditRecord) -> AuditRecord:
        """Write a record, which gets its number if it has none yet, or how one that is there ended."""
        with self._lock, _told():
            try:
                written = self._write(self._opened(), record)
            except sqlite3.Error as error:
                if not _is_unusable(error):
                    raise
                self._set_aside(str(error))
                written = self._write(self._opened(), record)
        if not record.number and written.number % _MAINTAIN_EVERY == 0:
            Thread("audit", self.maintain).start()
        return written

    def unfinished(self) -> list[AuditRecord]:
        """The records of what has not ended, the oldest first."""
        with self._lock, _told():
            rows = self._opened().execute(
                f"SELECT {', '.join(_COLUMNS)} FROM record WHERE outcome = 'running' ORDER BY number"
            )
            return [_record(row) for row in rows.fetchall()]

    def find(self, wanted: Wanted, limit: int, before: int | None) -> tuple[list[AuditRecord], int | None]:
        """Records, the newest first, beginning below a number; and below which number the next page begins.

        On a connection of its own: a long list keeps no change waiting.
        """
        given = {name: _flat(getattr(wanted, name)) for name in _CONDITIONS}
        chosen = {name: value for name, value in given.items() if value is not None}
        conditions = [_CONDITIONS[name] for name in chosen]
        if before is not None:
            conditions.insert(0, "number < ?")
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        query = f"SELECT {', '.join(_COLUMNS)} FROM record {where} ORDER BY number DESC LIMIT ?"
        values = [*([] if before is None else [before]), *chosen.values(), limit + 1]
        with _told(), closing(self._other("ro")) as db:
            rows = db.execute(query, values).fetchall()
        items = [_record(row) for row in rows[:limit]]
        return items, items[-1].number if len(rows) > limit else None

    def maintain(self) -> None:
        """Forget what is too old or too much, and give the journal's room back.

        In a thread of its own: a checkpoint synchronises, and nobody is to wait for that.
        """
        if not self._maintaining.acquire(blocking=False):
            return
        try:
            with self._lock:
                if self._db is not None:
                    self._prune(self._db)
            with closing(self._other("rw")) as db:
                db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            with self._lock:
                if self._db is not None:
                    self._touch(self._db)
        except sqlite3.Error as error:
            log.error("old records could not be forgotten", reason=error)
        finally:
            self._maintaining.release()

    def close(self) -> None:
        """What comes after is not recorded."""
        with self._lock:
            self._closed = True
            self._let_go()

    def _other(self, mode: str) -> sqlite3.Connection:
        """A connection beside the one that writes."""
        return sqlite3.connect(f"file:{quote(str(self._path))}?mode={mode}", _BUSY, uri=True)

    # ---- under the lock

    def _opened(self) -> sqlite3.Connection:
        if self._closed:
            msg = "the audit log is closed"
            raise AuditError(msg)
        if self._db is None:
            try:
                self._db = self._open()
            except _NewerError as error:
                self._set_aside(str(error))
            except sqlite3.Error as error:
                # Tables that are not ours make an error in our own words: then the file is not ours either.
                if not _is_unusable(error, sqlite3.SQLITE_ERROR):
                    msg = f"{self._path}: {error}"
                    raise AuditError(msg) from None
                self._set_aside(str(error))
            except OSError as error:
                msg = f"{self._path}: {error.strerror}"
                raise AuditError(msg) from None
            if self._db is None:
                with _told():
                    self._db = self._open()
        return self._db

    def _open(self) -> sqlite3.Connection:
        with suppress(FileExistsError):
            # It tells of everybody's doings; the state folder may be one that others can look into.
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with ExitStack() as undo:
            db = undo.enter_context(
                closing(sqlite3.connect(self._path, _BUSY, check_same_thread=False, isolation_level=None))
            )
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            # Checkpoints synchronise: they are made in ``maintain``, and not in the middle of some call.
            db.execute("PRAGMA wal_autocheckpoint = 0")
            found = db.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, _VERSION):
                msg = f"it was written by a newer version of this service (layout {found})"
                raise _NewerError(msg)
            if found == 0:
                db.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
            newest = db.execute("SELECT max(number) FROM record").fetchone()[0] or 0
            self._next = max(self._next, newest + 1)
            # What SQLite could not open for writing it opens for reading, without a word: so something is written.
            self._touch(db)
            undo.pop_all()
        return db

    def _touch(self, db: sqlite3.Connection) -> None:
        """The first write into a new or emptied journal synchronises its head; let it be this one, and no call's."""
        db.execute(f"PRAGMA user_version = {_VERSION}")

    def _write(self, db: sqlite3.Connection, record: AuditRecord) -> AuditRecord:
        if record.number:
            end = (record.outcome.value, record.ended, record.error, record.message, record.number)
            if db.execute(_END, end).rowcount:
                return record
        else:
            record = msgspec.structs.replace(record, number=self._next)
        db.execute(_INSERT, [_flat(getattr(record, name)) for name in _COLUMNS])
        self._next = max(self._next, record.number + 1)
        return record

    def _let_go(self) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _set_aside(self, reason: str) -> None:
        """Keep a file that cannot be used under another name, with its journal."""
        self._let_go()
        stem = f"{self._path}.set-aside-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        name, more = stem, 1
        while os.path.lexists(name):
            more += 1
            name = f"{stem}-{more}"
        try:
            os.rename(self._path, name)
            for suffix in ("-wal", "-shm"):
                with suppress(FileNotFoundError):
                    os.rename(f"{self._path}{suffix}", f"{name}{suffix}")
        except OSError as error:
            msg = f"{self._path}: {reason}; and it cannot be moved aside: {error.strerror}"
            raise AuditError(msg) from None
        log.error("the audit log could not be used, and was moved aside", reason=reason, kept=name)

    def _prune(self, db: sqlite3.Connection) -> None:
        """A part at a time, so that nobody waits long.  The newest stays always: numbers go on from it."""
        refused = db.execute("SELECT count(*) FROM record WHERE outcome = 'refused'").fetchone()[0]
        self._forget(db, "outcome = 'refused'", refused - self._keep_count // _REFUSED_SHARE)
        self._forget(db, "true", db.execute("SELECT count(*) FROM record").fetchone()[0] - self._keep_count)
        young = db.execute(
            "SELECT number FROM record WHERE time >= ? ORDER BY number LIMIT 1", (time.time() - self._keep,)
        ).fetchone()
        # The clock may have been set: what is older than something young by its number goes by its number.
        self._forget(db, f"number < {young[0] if young else self._next}", _PRUNED_AT_ONCE)

    def _forget(self, db: sqlite3.Connection, which: str, count: int) -> None:
        """The oldest of some records, so many."""
        if count > 0:
            db.execute(
                f"DELETE FROM record WHERE number IN (SELECT number FROM record WHERE {which} "
                "AND number < (SELECT max(number) FROM record) ORDER BY number LIMIT ?)",
                (min(count, _PRUNED_AT_ONCE),),
            )
