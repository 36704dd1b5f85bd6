# SPDX-License-Identifier: Apache-2.0
"""``TaskOwner``: what was asked for is done, whatever breaks, and is done once."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hsm.app import App
from hsm.operations.base import lock_domain
from libvdsm.api.errors import ConnectionFailed, NoSuchDomain, OwnerAbsent, TaskExists, TaskStopped
from libvdsm.api.types import DomainId, ImageInfo, TaskId, TaskInfo, TaskState
from libvdsm.client import Client, OwnedTask, TaskOwner, connect
from libvdsm.server.caller import OwnerKey
from tests import service

MIB = 2**20
PATIENCE = 20.0
ROOT = Path(__file__).parents[2]

Ask = Callable[[Client], TaskInfo[ImageInfo]]


def create(domain: DomainId, name: str = "new", **params: Any) -> Ask:
    return lambda client: client.image.create(domain=domain, capacity=MIB, name=name, **params)


def new() -> TaskId:
    return TaskId(uuid.uuid4())


@contextmanager
def busy(home: Path, domain: DomainId) -> Iterator[None]:
    """The domain's metadata is somebody else's: tasks run, and do not come to an end."""
    with (home / "domains" / str(domain) / "dom_md" / "ids").open("r+b") as ids:
        fcntl.flock(ids, fcntl.LOCK_EX)
        yield


def until(condition: Callable[[], object]) -> bool:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.002)
    return False


def domain_of(client: Client) -> DomainId:
    for task in client.task.list().items:
        client.task.wait(task=task.id, timeout=PATIENCE)
    return client.domain.list().items[0].id


def connections(running: service.Daemon) -> int:
    with running.client() as client:
        return client.host.get_stats().connections


# ---- when nothing breaks


def test_a_task_is_done_and_cleared_over_every_transport(opener: Callable[[], Client]) -> None:
    name, heard = f"owner-{uuid.uuid4()}", list[str]()
    with opener() as client:
        domain = domain_of(client)
    with TaskOwner(opener, name) as owner:
        task = owner.start(create(domain))
        image = task.wait(PATIENCE, lambda info: heard.append(info.state.value))
        assert (image.name, image.capacity) == ("new", MIB)
        assert task.ended
        assert heard[-1] == "succeeded"
        assert owner.pending() == []
        # The same again, by the same id: known here or not, it is the same image.
        assert owner.run(create(domain), task.id, PATIENCE).id == image.id


def test_what_the_verb_answers_is_raised_at_once(local: App) -> None:
    with TaskOwner(local.client, "refused") as owner:
        with pytest.raises(NoSuchDomain):
            owner.start(create(DomainId(uuid.uuid4())))
        assert owner.pending() == []


def test_what_a_task_ends_with_is_raised_by_wait(local: App) -> None:
    client = local.client()
    domain = domain_of(client)
    image = client.wait(client.image.create(domain=domain, capacity=2 * MIB), timeout=PATIENCE)
    with TaskOwner(local.client, "fails") as owner, pytest.raises(Exception, match="exists"):
        owner.start(create(domain, id=image.id, volume=image.leaf)).wait(PATIENCE)


def test_an_id_is_for_one_task(local: App) -> None:
    domain = domain_of(local.client())
    with TaskOwner(local.client, "twice") as owner, local.tasks.hold((lock_domain(domain, shared=False),), 1.0):
        task = owner.start(create(domain))
        with pytest.raises(TaskExists):
            owner.start(create(domain, "other"), task.id)
        # The first one is still waited for.
        assert [each.id for each in owner.pending()] == [task.id]
        task.stop()
        with pytest.raises(TaskStopped):
            task.wait(PATIENCE)


def test_waiting_has_an_end_and_so_has_the_owner(local: App) -> None:
    domain = domain_of(local.client())
    with local.tasks.hold((lock_domain(domain, shared=False),), 1.0):
        owner = TaskOwner(local.client, "closes")
        task = owner.start(create(domain))
        assert task.info is not None
        assert task.info.state is TaskState.QUEUED
        with pytest.raises(TimeoutError):
            task.wait(0.01)
        waiting = threading.Timer(0.05, owner.close)
        waiting.start()
        with pytest.raises(ConnectionFailed):
            task.wait(PATIENCE)
        waiting.join()
        with pytest.raises(ConnectionFailed):
            owner.start(create(domain))
        assert owner.pending() == []


def test_a_mistake_of_who_listens_harms_no_task(local: App) -> None:
    domain, heard = domain_of(local.client()), list[TaskId]()

    def mistaken(task: OwnedTask[Any]) -> None:
        heard.append(task.id)
        raise ZeroDivisionError

    with TaskOwner(local.client, "mistaken", on_change=mistaken) as owner:
        task = owner.start(create(domain))
        task.wait(PATIENCE)
        assert task.id in heard


def test_many_threads_may_ask(reachable: Any) -> None:
    with connect(reachable.addresses["unix"]) as client:
        domain = domain_of(client)
    results = list[ImageInfo]()
    with TaskOwner(lambda: connect(reachable.addresses["unix"]), "many") as owner:
        threads = [
            threading.Thread(target=lambda: results.append(owner.run(create(domain), timeout=PATIENCE)))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    assert len({image.id for image in results}) == 8


# ---- when something does


def test_a_task_that_was_stopped_since_its_owner_was_gone_is_asked_for_again(local: App) -> None:
    domain = domain_of(local.client())
    with TaskOwner(local.client, "back") as owner:
        with local.tasks.hold((lock_domain(domain, shared=False),), 1.0):
            task = owner.start(create(domain))
            (key,) = {found.owner for found in local.tasks._tasks if found.owner and found.owner.name == "back"}
            local.tasks.stop(task.id, key, why=OwnerAbsent(grace=1.0))
        assert task.wait(PATIENCE).name == "new"


def test_a_task_that_the_service_has_forgotten_is_asked_for_again(local: App) -> None:
    """Here by another session of the owner, before this one has heard of the end."""
    client = local.client()
    domain = domain_of(client)
    asked = list[TaskInfo[Any]]()

    def ask(client: Client) -> TaskInfo[ImageInfo]:
        asked.append(client.image.create(domain=domain, capacity=MIB, name="forgotten"))
        if len(asked) == 1:
            local.tasks.wait(asked[0].id, PATIENCE, key())
            local.tasks.clear(asked[0].id, key())
        return asked[-1]

    def key() -> OwnerKey:
        return next(found.owner for found in local.tasks._tasks if found.owner and found.owner.name == "forgets")

    with TaskOwner(local.client, "forgets") as owner:
        owner.run(ask, timeout=PATIENCE)
    assert len(asked) >= 2
    assert [image.name for image in client.image.list().items].count("forgotten") == 1


@pytest.mark.parametrize("orderly", [True, False])
def test_a_restart_of_the_service_is_not_noticed(tmp_path: Path, orderly: bool) -> None:
    home = tmp_path / "home"
    running = service.Daemon(home).wait()
    try:
        with running.client() as client:
            domain = domain_of(client)
        with TaskOwner(lambda: connect(f"unix:{home}/run/hsm.sock"), "stays") as owner:
            with busy(home, domain):
                tasks = [owner.start(create(domain, f"image {number}")) for number in range(3)]
                assert until(lambda: tasks[0].info is not None and tasks[0].info.state is TaskState.RUNNING)
                if orderly:
                    # The first one has the lease then, and sees that it should stop.
                    running.process.send_signal(signal.SIGTERM)
                else:
                    running.kill()
            running.process.wait(PATIENCE)
            # Asked for while nobody is there.
            tasks.append(owner.start(create(domain, "image 3")))
            assert tasks[-1].info is None
            running = service.Daemon(home).wait()
            images = [task.wait(PATIENCE) for task in tasks]
        with running.client() as client:
            assert sorted(found.id for found in client.image.list().items) == sorted(image.id for image in images)
            assert not [found for found in client.task.list().items if found.verb == "Image.create"]
    finally:
        running.stop()


def test_a_connection_that_breaks_is_made_anew(tmp_path: Path) -> None:
    """One that is silent for too long is closed by the service."""
    with service.daemon(tmp_path / "home", "limits.idle=0.2") as running:
        with running.client() as client:
            domain = domain_of(client)
        with TaskOwner(running.client, "silent") as owner:
            first = owner.run(create(domain), timeout=PATIENCE)
            # Left are the one that listens, and the one that asks here.
            assert until(lambda: connections(running) == 2)
            assert owner.run(create(domain), timeout=PATIENCE).id != first.id


def test_over_http_a_session_that_ended_is_opened_anew(tmp_path: Path) -> None:
    with service.daemon(tmp_path / "home", "limits.session_idle=0.1") as running:
        with running.client() as client:
            domain = domain_of(client)
        with TaskOwner(lambda: connect(f"http+unix:{running.http_socket}"), "http") as owner:
            first = owner.run(create(domain), timeout=PATIENCE)
            # No event tells of the end of a session; it is over after this time.
            time.sleep(0.3)
            assert owner.run(create(domain), timeout=PATIENCE).id != first.id


def test_patience_has_an_end(tmp_path: Path) -> None:
    with TaskOwner(lambda: connect(f"unix:{tmp_path}/nobody"), "gives up", patience=0.05) as owner:
        task = owner.start(create(DomainId(uuid.uuid4())))
        assert task.info is None
        with pytest.raises(ConnectionFailed):
            task.wait(PATIENCE)
        assert owner.pending() == []


# ---- threads


_TOGETHER = """
import sys, threading
sys.setswitchinterval(1e-6)
from libvdsm.client.prepared import decoder, read
barrier = threading.Barrier(4)
def use(kind, name):
    barrier.wait()
    decoder(kind, name)
    read("event", "TaskChanged", {"task": "6f9619ff-8b86-d011-b42d-00cf4fc964ff", "verb": "x", "state": "queued",
         "progress": {"done": 1, "total": 1, "percent": 1, "step": "x"}})
threads = [threading.Thread(target=use, args=what) for what in
           (("result", "Task.getInfo"), ("result", "Image.create"), ("task", "Image.create"), ("result", "Task.list"))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_threads_that_read_answers_for_the_first_time_do_not_harm_each_other() -> None:
    for _ in range(10):
        ended = subprocess.run([sys.executable, "-c", _TOGETHER], cwd=ROOT, timeout=60, check=False)
        assert ended.returncode == 0
