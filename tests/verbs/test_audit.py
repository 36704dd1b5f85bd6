# SPDX-License-Identifier: Apache-2.0
"""Audit: what was done, and tried, by whom and from where, as a caller finds it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from hsm.operations.base import lock_domain
from hsm.tasks.store import StoreError
from libvdsm.api.audit import AuditOutcome, AuditRecord
from libvdsm.api.errors import (
    AccessDenied,
    ConnectionFailed,
    ImageInUse,
    InvalidParameter,
    NoSuchDomain,
    NotSupported,
    TaskStopped,
    Unavailable,
)
from libvdsm.api.types import DomainId, ImageId, TaskInfo, TaskState
from libvdsm.client import Client, connect
from libvdsm.declare import Right
from libvdsm.log import request_id
from tests import service
from tests.service import Daemon
from tests.verbs.conftest import Restart
from tests.verbs.provoked import provokes
from tests.verbs.scene import MIB, Scene, raised

NOWHERE = DomainId(uuid.UUID("00000000-0000-4000-8000-00000000dead"))


def records(scene: Scene, **wanted: Any) -> list[AuditRecord]:
    """The oldest first."""
    return list(reversed(scene.client.audit.list(**wanted).items))


def last(scene: Scene, **wanted: Any) -> AuditRecord:
    return scene.client.audit.list(limit=1, **wanted).items[0]


@contextmanager
def waiting(scene: Scene) -> Iterator[TaskInfo[Any]]:
    """A task that cannot begin, until the block ends."""
    with scene.app.tasks.hold((lock_domain(scene.domain, shared=False),), 1.0):
        yield scene.client.image.create(domain=scene.domain, capacity=MIB, name="waiting")


# ---- outcomes


def test_a_change_is_told_with_all_that_is_known_of_it(scene: Scene) -> None:
    task = scene.client.image.create(domain=scene.domain, capacity=MIB, name="web01", description="größer")
    image = scene.wait(task)
    told = last(scene)
    ended = scene.client.task.get_info(task=task.id)
    assert (told.verb, told.outcome, told.task) == ("Image.create", AuditOutcome.SUCCEEDED, task.id)
    assert (told.domain, told.image, told.volume) == (scene.domain, image.id, image.leaf)
    assert (told.user, told.uid, told.wire, told.peer) == ("root", 0, "local", "a test")
    assert (told.request, told.ended) == (task.request, ended.ended)
    assert told.params == {
        "domain": str(scene.domain),
        "capacity": MIB,
        "name": "web01",
        "description": "größer",
    }
    assert (told.error, told.message) == (None, None)


def test_a_task_that_goes_on_is_told_as_running_and_one_that_is_stopped_as_stopped(scene: Scene) -> None:
    with waiting(scene) as task:
        running = last(scene)
        assert (running.verb, running.outcome, running.task, running.ended) == (
            "Image.create",
            AuditOutcome.RUNNING,
            task.id,
            None,
        )
        scene.client.task.stop(task=task.id)
    raised(TaskStopped, lambda: scene.wait(task))
    stop, create = last(scene, verb="Task.stop"), last(scene, verb="Image.create")
    assert (stop.outcome, stop.params, stop.task) == (AuditOutcome.SUCCEEDED, {"task": str(task.id)}, None)
    assert (create.outcome, create.error, create.number) == (AuditOutcome.STOPPED, "TaskStopped", running.number)


def test_a_task_that_fails_is_told_with_its_error(scene: Scene) -> None:
    image = scene.image()
    scene.client.image.prepare(domain=scene.domain, image=image.id)
    error = raised(
        ImageInUse, lambda: scene.wait(scene.client.image.delete(domain=scene.domain, image=image.id, wipe=True))
    )
    told = last(scene)
    assert (told.verb, told.outcome, told.error) == ("Image.delete", AuditOutcome.FAILED, "ImageInUse")
    assert (told.message, told.image, told.params["wipe"]) == (error.message, image.id, True)


def test_what_fails_before_it_is_a_task_is_told_too(scene: Scene) -> None:
    image = ImageId(uuid.uuid4())
    raised(NoSuchDomain, lambda: scene.client.image.delete(domain=NOWHERE, image=image))
    told = last(scene)
    assert (told.outcome, told.error, told.task) == (AuditOutcome.FAILED, "NoSuchDomain", None)
    assert (told.domain, told.image) == (NOWHERE, image)


def test_a_change_that_is_no_task_is_told(scene: Scene) -> None:
    image = scene.image()
    scene.client.image.prepare(domain=scene.domain, image=image.id, read_only=True)
    scene.client.image.teardown(domain=scene.domain, image=image.id)
    prepare, teardown = records(scene, image=image.id)[-2:]
    assert [(one.verb, one.outcome, one.task) for one in (prepare, teardown)] == [
        ("Image.prepare", AuditOutcome.SUCCEEDED, None),
        ("Image.teardown", AuditOutcome.SUCCEEDED, None),
    ]
    assert prepare.params["readOnly"] is True
    assert prepare.ended is not None


def test_a_refused_call_is_told_with_what_was_tried(scene: Scene) -> None:
    stranger = scene.as_caller(uid=None, right=Right.READ, wire="http")
    image = scene.image()
    raised(AccessDenied, lambda: stranger.image.delete(domain=scene.domain, image=image.id))
    told = last(scene)
    assert (told.outcome, told.error, told.user) == (AuditOutcome.REFUSED, "AccessDenied", "anonymous@a test")
    assert (told.wire, told.uid, told.image) == ("http", None, image.id)
    assert scene.client.image.get_info(domain=scene.domain, image=image.id)


def test_what_only_looks_is_not_told(scene: Scene) -> None:
    before = last(scene)
    scene.client.image.list()
    scene.client.task.list()
    scene.client.session.open(name="curious")
    scene.client.host.ping()
    scene.client.audit.list()
    assert last(scene) == before


def test_a_change_that_finds_everything_done_is_told_like_any_other(scene: Scene) -> None:
    image = ImageId(uuid.uuid4())
    for _ in range(2):
        scene.wait(scene.client.image.delete(domain=scene.domain, image=image))
    assert [one.outcome for one in records(scene, image=image)] == [AuditOutcome.SUCCEEDED] * 2


def test_what_the_service_begins_itself_is_told_without_a_caller(scene: Scene) -> None:
    first = records(scene)[0]
    assert (first.verb, first.user, first.outcome) == ("Domain.create", "the service", AuditOutcome.SUCCEEDED)
    assert (first.domain, first.params["name"], first.task is not None) == (scene.domain, "default", True)
    assert (first.wire, first.peer, first.uid, first.pid, first.session) == (None, None, None, None, None)


# ---- list


@provokes("Audit.list", "NotSupported")
def test_a_service_without_the_log_says_so_and_works(scene: Scene, restart: Restart) -> None:
    after = restart(scene.domain, audit__enabled="no")
    after.image()
    assert "enabled" in raised(NotSupported, lambda: after.client.audit.list()).reason


def test_list_takes_conditions_and_comes_in_pages(scene: Scene) -> None:
    stranger = scene.as_caller(uid=65534, right=Right.READ)
    images = [scene.image(name=f"web{number}") for number in range(3)]
    raised(AccessDenied, lambda: stranger.image.delete(domain=scene.domain, image=images[1].id))
    middle = last(scene, image=images[1].id, verb="Image.create").time
    assert [one.verb for one in records(scene, image=images[1].id)] == ["Image.create", "Image.delete"]
    assert [one.image for one in records(scene, verb="Image.create", since=middle)] == [i.id for i in images[1:]]
    assert [one.image for one in records(scene, verb="Image.create", until=middle)] == [images[0].id]
    assert [one.verb for one in records(scene, outcome=AuditOutcome.REFUSED)] == ["Image.delete"]
    assert {one.user for one in records(scene, user="the service")} == {"the service"}
    assert records(scene, domain=NOWHERE) == []
    everything, found, start = scene.client.audit.list().items, [], None
    while True:
        page = scene.client.audit.list(limit=2, start=start)
        found += page.items
        if (start := page.next) is None:
            break
    assert found == everything
    assert [one.number for one in everything] == list(range(len(everything), 0, -1))


@pytest.mark.parametrize("start", ["x", "", "-1", "1.5", "٣", "9" * 19])
def test_a_start_that_is_the_next_of_no_page_is_refused(start: str, scene: Scene) -> None:
    assert "start" in raised(InvalidParameter, lambda: scene.client.audit.list(start=start)).reason


def test_a_log_that_cannot_be_read_says_why(scene: Scene) -> None:
    path = Path(scene.app.config.service.state_dir, "audit.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE record SET params = 'nonsense'")
    assert "damaged" in raised(Unavailable, lambda: scene.client.audit.list()).reason


# ---- who and from where, over the real wires


def test_callers_are_told_by_what_the_kernel_and_the_connection_know(daemon: Daemon) -> None:
    with daemon.client() as client, connect(f"http+unix:{daemon.http_socket}") as other:
        domain = client.domain.list().items[0].id
        client.session.open(name="nightly backup")
        client.wait(client.image.create(domain=domain, capacity=MIB, name="framed"))
        other.session.open(name="a script")
        token = request_id.set("from-me")
        other.wait(other.image.create(domain=domain, capacity=MIB, name="xml"))
        request_id.reset(token)
        found = {one.params["name"]: one for one in client.audit.list(verb="Image.create").items}
    framed, xml = found["framed"], found["xml"]
    here = (os.getuid(), os.getpid(), f"pid {os.getpid()}")
    assert (framed.wire, framed.session) == ("unix", "nightly backup")
    assert (framed.uid, framed.pid, framed.peer) == here
    assert (xml.wire, xml.session, xml.request) == ("http+unix", "a script", "from-me")
    assert (xml.uid, xml.pid, xml.peer) == here
    assert xml.params == {"domain": str(domain), "capacity": MIB, "name": "xml"}


def test_who_comes_over_tcp_is_told_by_its_address(tmp_path: Path) -> None:
    with service.daemon(tmp_path / "home", "listen.tcp=yes", "listen.http_port=0", "listen.jsonrpc_port=0") as running:
        with running.client() as client:
            domain = client.domain.list().items[0].id
            address = next(wire for wire in client.host.get_capabilities().wires if wire.startswith("tcp:"))
            with connect(address) as stranger:
                raised(AccessDenied, lambda: stranger.domain.format(domain=domain, force=True))
            told = client.audit.list(limit=1).items[0]
    assert (told.outcome, told.verb, told.domain) == (AuditOutcome.REFUSED, "Domain.format", domain)
    assert (told.wire, told.peer, told.user) == ("tcp", "127.0.0.1", "anonymous@127.0.0.1")
    assert (told.uid, told.pid, told.params["force"]) == (None, None, True)


def test_the_log_travels_over_every_wire_whatever_was_tried(daemon: Daemon) -> None:
    """What a refused call has sent is nothing that XML could not carry."""
    with daemon.client() as client, connect(f"http+unix:{daemon.http_socket}") as other:
        domain = client.domain.list().items[0].id
        for name in ("a\x00b", "a\x1bb"):
            with pytest.raises(InvalidParameter):
                client.image.create(domain=domain, capacity=MIB, name=name)
        assert other.audit.list() == client.audit.list()
        assert client.audit.list(limit=1).items[0].params["name"] == "(not valid)"


# ---- restarts, and a log that cannot be written


@contextmanager
def lease(home: Path, domain: DomainId) -> Iterator[None]:
    """Keep every change of a domain waiting, as another service would."""
    with (home / "domains" / str(domain) / "dom_md" / "ids").open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def running(client: Client, count: int) -> list[AuditRecord]:
    """What has begun and not ended, as soon as it is so much."""
    until = time.monotonic() + 10
    while len(found := client.audit.list(outcome=AuditOutcome.RUNNING).items) < count:
        assert time.monotonic() < until, found
        client.event.poll(timeout=0.02)
    return found


def test_what_a_kill_cuts_off_is_settled_by_the_next_start(tmp_path: Path) -> None:
    """A task is at work, and a call that is no task waits for it."""
    home = tmp_path / "home"
    with service.daemon(home) as first, first.client() as client, first.client() as other:
        domain = client.domain.list().items[0].id
        image = client.wait(client.image.create(domain=domain, capacity=MIB, name="web01")).id
        with lease(home, domain):
            task = client.image.snapshot(domain=domain, image=image, name="cut off")
            preparing = threading.Thread(
                target=lambda: raised(ConnectionFailed, lambda: other.image.prepare(domain=domain, image=image))
            )
            preparing.start()
            assert {one.verb for one in running(client, 2)} == {"Image.snapshot", "Image.prepare"}
            first.kill()
            preparing.join(10)
    with service.daemon(home) as second, second.client() as client:
        prepare, snapshot, create = client.audit.list(image=image).items
        ended = client.task.get_info(task=task.id)
        assert running(client, 0) == []
    assert (prepare.verb, prepare.outcome, prepare.ended) == ("Image.prepare", AuditOutcome.INTERRUPTED, None)
    assert (snapshot.task, snapshot.outcome, snapshot.error) == (task.id, AuditOutcome.FAILED, "Interrupted")
    assert (snapshot.ended, ended.state) == (ended.ended, TaskState.FAILED)
    assert (create.verb, create.outcome) == ("Image.create", AuditOutcome.SUCCEEDED)


def test_a_task_that_could_not_be_recorded_never_was_and_its_call_has_failed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        msg = "the record of tasks cannot be written or read: the disk is full"
        raise StoreError(msg)

    ownership = scene.app.tasks._default
    monkeypatch.setattr(ownership, "begun", full)
    raised(Unavailable, lambda: scene.client.image.create(domain=scene.domain, capacity=MIB))
    told = last(scene)
    assert (told.outcome, told.error) == (AuditOutcome.FAILED, "Unavailable")
    assert "disk is full" in (told.message or "")


def test_a_log_that_cannot_be_written_keeps_no_change_from_being_made(scene: Scene) -> None:
    audit = scene.app.audit
    assert audit is not None
    assert audit._db is not None
    pages = audit._db.execute("PRAGMA page_count").fetchone()[0]
    before = last(scene)
    audit._db.execute(f"PRAGMA max_page_count = {pages}")
    images = [scene.image(description="x" * 200) for _ in range(30)]
    assert scene.client.image.get_info(domain=scene.domain, image=images[-1].id)
    audit._db.execute("PRAGMA max_page_count = 100000")
    scene.image(name="room again")
    told = records(scene)
    assert told[-1].params["name"] == "room again"
    assert len([one for one in told if one.number > before.number]) < len(images)


def test_a_damaged_log_is_kept_and_the_service_starts(scene: Scene, restart: Restart) -> None:
    path = Path(scene.app.config.service.state_dir, "audit.db")
    scene.app.stop()
    path.write_bytes(b"nonsense" * 1000)
    after = restart(scene.domain)
    assert [one.verb for one in records(after)] == ["Domain.collectGarbage"]
    [aside] = path.parent.glob("audit.db.set-aside-*")
    assert aside.read_bytes() == b"nonsense" * 1000
