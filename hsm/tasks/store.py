# SPDX-License-Identifier: Apache-2.0
"""The record of tasks that the service owns: SQLite on local disk.

A task is written when it is taken and when it has ended, each on stable storage before anybody is told.  What was
asked for is kept as verb and parameters, as the API declares them: no name of a module or a function is on disk.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from libvdsm.api.types import TaskId, TaskInfo

_SCHEMA = """
CREATE TABLE IF NOT EXISTS task (
    id TEXT PRIMARY KEY,
    created REAL NOT NULL,
    ended REAL,
    info BLOB NOT NULL,
    params BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS task_ended ON task (ended);
PRAGMA user_version = 1;
"""
_VERSION = 1
_decode = msgspec.json.Decoder(TaskInfo[Any]).decode


class Stored(msgspec.Struct, frozen=True):
    """A task as it was written down; ``params`` is JSON."""

    info: TaskInfo[Any]
    params: bytes


class StoreError(Exception):
    """The record cannot be used."""


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        msg = f"the record of tasks cannot be written or read: {error}"
        raise StoreError(msg) from None


def _read(task: str, info: bytes) -> TaskInfo[Any]:
    try:
        return _decode(info)
    except (msgspec.DecodeError, TypeError) as error:
        msg = f"the record of task {task} is damaged: {error}; move it away to begin with an empty record"
        raise StoreError(msg) from None


class TaskStore:
    """Tasks on disk.  Every method may raise ``StoreError``."""

    def __init__(self, path: Path) -> None:
        try:
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, _VERSION):
                msg = f"{path} was written by a newer version of this service (layout {found})"
                raise StoreError(msg)
            if found == 0:
                self._db.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
            # What SQLite could not open for writing it opens for reading, without a word: so something is written.
            self._db.execute(f"PRAGMA user_version = {_VERSION}")
        except sqlite3.Error as error:
            msg = f"{path}: {error}; move it away to begin with an empty record"
            raise StoreError(msg) from None
        self._lock = threading.Lock()

    def put(self, info: TaskInfo[Any], params: bytes) -> None:
        """Write a new task."""
        with self._lock, _told():
            self._db.execute(
                "INSERT INTO task (id, created, ended, info, params) VALUES (?, ?, ?, ?, ?)",
                (str(info.id), info.created, info.ended, msgspec.json.encode(info), params),
            )

    def update(self, info: TaskInfo[Any]) -> None:
        """Write a task's present state."""
        with self._lock, _told():
            self._db.execute(
                "UPDATE task SET ended = ?, info = ? WHERE id = ?",
                (info.ended, msgspec.json.encode(info), str(info.id)),
            )

    def forget(self, task: TaskId) -> None:
        """Remove a task."""
        with self._lock, _told():
            self._db.execute("DELETE FROM task WHERE id = ?", (str(task),))

    def prune(self, before: float, keep: int) -> list[TaskId]:
        """Remove tasks that ended before a time, and the oldest beyond a number: which ones."""
        with self._lock, _told():
            rows = self._db.execute(
                "SELECT id FROM task WHERE ended < ? UNION "
                "SELECT id FROM (SELECT id FROM task WHERE ended IS NOT NULL ORDER BY ended DESC LIMIT -1 OFFSET ?)",
                (before, keep),
            ).fetchall()
            self._db.executemany("DELETE FROM task WHERE id = ?", rows)
        return [msgspec.convert(row[0], TaskId) for row in rows]

    def load(self) -> list[Stored]:
        """Every task, the oldest first."""
        with self._lock, _told():
            rows = self._db.execute("SELECT id, info, params FROM task ORDER BY created").fetchall()
        return [Stored(_read(task, info), params) for task, info, params in rows]

    def close(self) -> None:
        with self._lock:
            self._db.close()
