# SPDX-License-Identifier: Apache-2.0
"""The file of the audit log: what is in it outlives the service, and whatever happens to it stops nobody."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hsm.audit import store as module
from hsm.audit.store import AuditError, AuditStore, Wanted
from libvdsm.api.audit import AuditOutcome, AuditRecord
from libvdsm.api.types import DomainId, ImageId, TaskId, VolumeId
from tests.audit.conftest import COUNT, KEEP
from tests.audit.made_up import DOMAIN, record

FULL = record(
    time=1234.5,
    user="größer",
    verb="Image.create",
    params={"name": "web01", "capacity": 2**62, "nested": {"a": [1, None, True]}},
    outcome=AuditOutcome.RUNNING,
    wire="unix",
    peer="pid 7",
    uid=0,
    pid=7,
    session="backup",
    domain=DOMAIN,
    image=ImageId(uuid.uuid4()),
    volume=VolumeId(uuid.uuid4()),
    task=TaskId(uuid.uuid4()),
    ended=1235.25,
    error="NoSpace",
    message="no room\nat all",
)


def everything(store: AuditStore) -> list[AuditRecord]:
    return store.find(Wanted(), 1_000_000, None)[0]


def set_aside(path: Path) -> list[Path]:
    return sorted(
        found for found in path.parent.glob("audit.db.set-aside-*") if found.suffix[-4:] not in ("-wal", "-shm")
    )


# ---- what is written


def test_every_member_of_a_record_is_kept(store: AuditStore) -> None:
    assert all(getattr(FULL, name) is not None for name in FULL.__struct_fields__)
    store.put(FULL)
    small = store.put(record())
    assert everything(store) == [small, msgspec.structs.replace(FULL, number=1)]


def test_numbers_grow_and_a_record_that_ends_keeps_its_own(store: AuditStore) -> None:
    first, second = store.put(record(outcome=AuditOutcome.RUNNING)), store.put(record(user="bob"))
    assert (first.number, second.number) == (1, 2)
    end = {"outcome": AuditOutcome.FAILED, "ended": 9.0, "error": "NoSpace", "message": "no room"}
    ended = store.put(msgspec.structs.replace(first, **end))
    assert everything(store) == [second, ended]
    assert ended.number == 1


def test_what_was_written_is_there_after_the_service_was_killed(path: Path, store: AuditStore) -> None:
    """Another process writes, and is gone in the next moment."""
    program = (
        "import os, sys; from pathlib import Path; from hsm.audit.store import AuditStore\n"
        "from tests.audit.made_up import record\n"
        "store = AuditStore(Path(sys.argv[1]), 1e12, 1000)\n"
        "store.put(record(user='killed'))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    store.close()
    ended = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert ended.returncode == -9
    with closing(AuditStore(path, KEEP, COUNT)) as again:
        assert [found.user for found in everything(again)] == ["killed"]
        assert again.put(record()).number == 2


def test_only_its_owner_may_look_into_the_file(path: Path, store: AuditStore) -> None:
    store.put(record())
    for suffix in ("", "-wal", "-shm"):
        assert stat.S_IMODE(os.stat(f"{path}{suffix}").st_mode) == 0o600


def test_many_threads_write_at_once(store: AuditStore) -> None:
    def write() -> None:
        for _ in range(25):
            store.put(
                msgspec.structs.replace(store.put(record(outcome=AuditOutcome.RUNNING)), outcome=AuditOutcome.STOPPED)
            )

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = everything(store)
    assert [one.number for one in found] == list(range(200, 0, -1))
    assert {one.outcome for one in found} == {AuditOutcome.STOPPED}


def test_after_its_end_nothing_is_written(path: Path) -> None:
    store = AuditStore(path, KEEP, COUNT)
    store.close()
    store.close()
    with pytest.raises(AuditError, match="closed"):
        store.put(record())
    with pytest.raises(AuditError, match="closed"):
        store.unfinished()
    store.maintain()


# ---- what is found


def test_what_has_not_ended_is_found(store: AuditStore) -> None:
    running = [store.put(record(outcome=AuditOutcome.RUNNING)) for _ in range(3)]
    store.put(record())
    store.put(msgspec.structs.replace(running[1], outcome=AuditOutcome.FAILED))
    assert store.unfinished() == [running[0], running[2]]


def test_each_condition_chooses_and_all_have_to_hold(store: AuditStore) -> None:
    image = ImageId(uuid.uuid4())
    other = DomainId(uuid.uuid4())
    variants: list[dict[str, Any]] = [
        {"time": 10.0},
        {"time": 20.0, "user": "bob"},
        {"time": 30.0, "verb": "Box.fill", "domain": DOMAIN},
        {"time": 40.0, "domain": DOMAIN, "image": image},
        {"time": 50.0, "domain": other, "outcome": AuditOutcome.REFUSED},
    ]
    for members in variants:
        store.put(record(**members))

    def found(**wanted: Any) -> list[int]:
        return [one.number for one in store.find(Wanted(**wanted), 10, None)[0]]

    assert found() == [5, 4, 3, 2, 1]
    assert found(since=30.0) == [5, 4, 3], "from this moment on"
    assert found(until=30.0) == [2, 1], "and before it"
    assert found(user="bob") == [2]
    assert found(user="Bob") == []
    assert found(verb="Box.fill") == [3]
    assert found(domain=DOMAIN) == [4, 3]
    assert found(image=image) == [4]
    assert found(outcome=AuditOutcome.REFUSED) == [5]
    assert found(domain=DOMAIN, since=35.0) == [4]
    assert found(domain=DOMAIN, since=35.0, user="bob") == []


def test_pages_put_together_are_the_log_whatever_comes_meanwhile(store: AuditStore) -> None:
    for number in range(10):
        store.put(record(user="even" if number % 2 else "odd"))
    numbers: list[int] = []
    before: int | None = None
    while True:
        items, before = store.find(Wanted(user="even"), 2, before)
        numbers += [one.number for one in items]
        store.put(record(user="even"))
        if before is None:
            break
        assert len(items) == 2
    assert numbers == [10, 8, 6, 4, 2]


def test_a_page_that_is_full_and_the_last_has_no_next(store: AuditStore) -> None:
    for _ in range(3):
        store.put(record())
    assert store.find(Wanted(), 3, None)[1] is None
    assert store.find(Wanted(), 2, None)[1] == 2
    assert store.find(Wanted(), 2, 1) == ([], None)


def test_a_list_keeps_nobody_from_writing(path: Path, store: AuditStore) -> None:
    store.put(record())
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM record").fetchone() == (1,)
        assert store.put(record()).number == 2
        store.maintain()
        assert reader.execute("SELECT count(*) FROM record").fetchone() == (1,)


# ---- what is forgotten


def kept(path: Path, keep: float, count: int) -> list[int]:
    """What is left after the log was tidied up with these bounds."""
    with closing(AuditStore(path, keep, count)) as store:
        store.maintain()
        return [one.number for one in reversed(everything(store))]


def test_records_are_forgotten_by_age(path: Path) -> None:
    now = time.time()
    with closing(AuditStore(path, KEEP, COUNT)) as store:
        for age in (500, 400, 50, 40):
            store.put(record(time=now - age))
    assert kept(path, 100.0, COUNT) == [3, 4]


def test_and_by_number_the_oldest_first(path: Path) -> None:
    with closing(AuditStore(path, KEEP, COUNT)) as store:
        for _ in range(8):
            store.put(record(time=time.time()))
    assert kept(path, KEEP, 5) == [4, 5, 6, 7, 8]


def test_the_newest_stays_always_so_that_numbers_go_on(path: Path) -> None:
    with closing(AuditStore(path, KEEP, COUNT)) as store:
        for _ in range(3):
            store.put(record(time=1.0))
    assert kept(path, 0.0, COUNT) == [3]
    with closing(AuditStore(path, 0.0, 1)) as store:
        assert store.put(record()).number == 4


def test_refused_calls_push_out_nothing_but_refused_calls(path: Path) -> None:
    """Whoever has no right at all can make as many of them as it likes."""
    with closing(AuditStore(path, KEEP, 100)) as store:
        done = [store.put(record(time=time.time())).number for _ in range(50)]
        refused = [store.put(record(time=time.time(), outcome=AuditOutcome.REFUSED)).number for _ in range(500)]
        store.maintain()
        assert [one.number for one in reversed(everything(store))] == done + refused[-10:]


def test_the_log_is_tidied_up_at_each_thousandth_record_also_over_restarts(path: Path) -> None:
    tidied = threading.Event()
    calls: list[int] = []

    class Watched(AuditStore):
        def maintain(self) -> None:
            super().maintain()
            calls.append(len(everything(self)))
            tidied.set()

    for count in (600, 399):
        with closing(Watched(path, KEEP, 500)) as store:
            for _ in range(count):
                store.put(record(time=time.time()))
            assert not calls
    with closing(Watched(path, KEEP, 500)) as store:
        assert store.put(record(time=time.time())).number == 1000
        assert tidied.wait(10)
        assert calls == [500]


def test_tidying_up_gives_the_journal_s_room_back(path: Path, store: AuditStore) -> None:
    for _ in range(500):
        store.put(record())
    size = os.stat(f"{path}-wal").st_size
    store.maintain()
    for _ in range(500):
        store.put(record())
    assert os.stat(f"{path}-wal").st_size < 1.1 * size, "it was written over"


# ---- what can happen to the file


def test_a_file_that_is_no_log_is_kept_and_a_new_one_begun(path: Path) -> None:
    path.write_bytes(b"This is not a database. " * 500)
    with closing(AuditStore(path, KEEP, COUNT)) as store:
        assert store.put(record()).number == 1
        assert len(everything(store)) == 1
    [aside] = set_aside(path)
    assert aside.read_bytes().startswith(b"This is not a database.")


def test_so_is_one_of_somebody_else_s(path: Path) -> None:
    for version in (0, 1):
        with closing(sqlite3.connect(path)) as raw:
            raw.execute("CREATE TABLE record (of INTEGER)" if version == 0 else "CREATE TABLE other (of INTEGER)")
            raw.execute(f"PRAGMA user_version = {version}")
        with closing(AuditStore(path, KEEP, COUNT)) as store:
            store.put(record())
        assert len(set_aside(path)) == version + 1, "each under a name of its own"
        path.unlink()


def test_and_one_of_a_newer_version(path: Path) -> None:
    with closing(AuditStore(path, KEEP, COUNT)) as store:
        store.put(record())
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA user_version = 7")
    with closing(AuditStore(path, KEEP, COUNT)) as store:
        assert everything(store) == []
    [aside] = set_aside(path)
    with closing(sqlite3.connect(aside)) as raw:
        assert raw.execute("PRAGMA user_version").fetchone() == (7,)
        assert raw.execute("SELECT count(*) FROM record").fetchone() == (1,)


def test_a_file_that_turns_out_to_be_damaged_while_it_is_written_is_moved_aside_then(path: Path) -> None:
    with closing(AuditStore(path, KEEP, COUNT)) as store:
        for _ in range(300):
            store.put(record())
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
    with closing(AuditStore(path, KEEP, COUNT)) as store:
        written = store.put(record(user="after"))
        assert everything(store) == [written]
    [aside] = set_aside(path)
    assert aside.stat().st_size == len(data)


def test_a_damaged_record_is_named_and_the_file_left_where_it_is(path: Path, store: AuditStore) -> None:
    store.put(record())
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("UPDATE record SET params = 'nonsense'")
    with pytest.raises(AuditError, match="record 1"):
        everything(store)
    assert set_aside(path) == []


def test_a_full_disk_is_told_and_nothing_is_lost(store: AuditStore) -> None:
    written = store.put(record())
    assert store._db is not None
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(AuditError, match="full"):
        store.put(record(params={"label": "x" * 2**16}))
    assert everything(store) == [written]
    store._db.execute("PRAGMA max_page_count = 100000")
    assert store.put(record()).number == 2


def test_a_place_where_nothing_can_be_written_is_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "missing"
    with closing(AuditStore(folder / "audit.db", KEEP, COUNT)) as store:
        for use in (lambda: store.put(record()), store.unfinished, lambda: everything(store)):
            with pytest.raises(AuditError, match=r"audit\.db|audit log"):
                use()
        folder.mkdir()
        assert store.put(record()).number == 1


def test_a_program_that_holds_the_file_is_not_waited_for_long(path: Path, store: AuditStore) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        with pytest.raises(AuditError, match="locked"):
            store.put(record())
        assert time.monotonic() - began < 5
        other.execute("ROLLBACK")
    store.put(record())


def test_the_table_has_a_column_for_each_member() -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(module._SCHEMA)
        columns = [row[1] for row in db.execute("PRAGMA table_info(record)")]
    assert sorted(columns) == sorted(AuditRecord.__struct_fields__)
