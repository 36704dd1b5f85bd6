# SPDX-License-Identifier: Apache-2.0
"""The record of tasks: what is in it outlives the service, and what is wrong with it is said."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from hsm.tasks.store import StoreError, TaskStore
from libvdsm.api.types import TaskInfo, TaskState
from tests.tasks.scripted import task_info


def put(store: TaskStore, **fields: float | None) -> TaskInfo[object]:
    """Write a task that has ended at ``at_end``."""
    ended = fields.get("at_end") is not None
    info = task_info(TaskState.SUCCEEDED if ended else TaskState.RUNNING, **fields)
    store.put(info, b"{}")
    return info


def test_what_was_written_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    store = TaskStore(tmp_path / "tasks.db")
    first, second = task_info(created=1.5), task_info(created=2.5)
    store.put(second, b'{"number": 2}')
    store.put(first, b'{"number": 1}')
    done = msgspec.structs.replace(first, state=TaskState.SUCCEEDED, ended=3.5, result={"name": "größer"})
    store.update(done)
    # No close: as after a power cut of the process.
    with closing(TaskStore(tmp_path / "tasks.db")) as again:
        found = again.load()
    store.close()
    assert [(stored.info, stored.params) for stored in found] == [
        (done, b'{"number": 1}'),
        (second, b'{"number": 2}'),
    ], "the oldest first"


def test_what_is_forgotten_is_gone(store: TaskStore) -> None:
    info = put(store)
    store.forget(info.id)
    store.forget(info.id)
    assert store.load() == []


def test_tasks_are_pruned_by_age(store: TaskStore) -> None:
    old, young, running = put(store, at_end=10.0), put(store, at_end=30.0), put(store)
    assert store.prune(before=20.0, keep=100) == [old.id]
    assert {stored.info.id for stored in store.load()} == {young.id, running.id}


def test_tasks_are_pruned_by_number_and_the_youngest_stay(store: TaskStore) -> None:
    infos = [put(store, at_end=float(number)) for number in (3, 1, 4, 2)]
    running = put(store, created=0.0)
    assert set(store.prune(before=0.0, keep=2)) == {infos[1].id, infos[3].id}
    assert {stored.info.id for stored in store.load()} == {infos[0].id, infos[2].id, running.id}
    assert store.prune(before=0.0, keep=2) == []


def test_a_record_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    TaskStore(path).close()
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA user_version = 7")
    with pytest.raises(StoreError, match=r"tasks\.db was written by a newer version of this service \(layout 7\)"):
        TaskStore(path)
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA user_version").fetchone() == (7,), "it is left as it is"


def test_a_file_that_is_no_record_is_refused_with_its_name_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    path.write_bytes(b"This is not a database. " * 500)
    with pytest.raises(StoreError, match=r"tasks\.db.*move it away"):
        TaskStore(path)


def test_a_record_whose_middle_is_damaged_says_so(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    with closing(TaskStore(path)) as store:
        for _ in range(100):
            put(store)
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
    with closing(TaskStore(path)) as store:
        with pytest.raises(StoreError, match="record of tasks"):
            store.load()


def test_a_task_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    store = TaskStore(path)
    info = put(store)
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("UPDATE task SET info = ?", (b'{"id": 1}',))
    with closing(store), pytest.raises(StoreError, match=str(info.id)):
        store.load()


def test_a_place_where_nothing_can_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="missing"):
        TaskStore(tmp_path / "missing" / "tasks.db")


def test_a_full_disk_is_told_and_nothing_is_lost(store: TaskStore) -> None:
    kept = put(store)
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="full"):
        store.put(task_info(), b"x" * 2**16)
    assert [stored.info.id for stored in store.load()] == [kept.id]
    store._db.execute("PRAGMA max_page_count = 100000")
    put(store)


def test_a_closed_record_tells_so_in_every_method(tmp_path: Path) -> None:
    store = TaskStore(tmp_path / "tasks.db")
    store.close()
    info = task_info()
    for use in (
        lambda: store.put(info, b"{}"),
        lambda: store.update(info),
        lambda: store.forget(info.id),
        lambda: store.prune(0.0, 1),
        store.load,
    ):
        with pytest.raises(StoreError, match="closed"):
            use()


def test_many_threads_write_at_once(store: TaskStore) -> None:
    threads = [threading.Thread(target=lambda: [put(store) for _ in range(10)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({stored.info.id for stored in store.load()}) == 80
