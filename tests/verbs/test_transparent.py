# SPDX-License-Identifier: Apache-2.0
"""The transparent mode: tasks that a client owns, through the service as a whole."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hsm import services
from hsm.app import App
from hsm.operations.base import lock_domain
from libvdsm.api import VERBS
from libvdsm.api.errors import (
    InvalidParameter,
    NoSuchTask,
    OwnerAbsent,
    TaskExists,
    TaskIdRequired,
    TaskNotEnded,
    TaskPastStopping,
)
from libvdsm.api.types import DomainId, TaskId, TaskInfo, TaskMode, TaskState
from libvdsm.client import Client
from tests import service
from tests.verbs.samples import Samples
from tests.verbs.scene import MIB, Scene, raised

TRANSPARENT = TaskMode.TRANSPARENT
MAKING = [name for name, verb in VERBS.items() if verb.makes_task]


def new() -> TaskId:
    return TaskId(uuid.uuid4())


def owner(app: App, name: str = "me") -> Client:
    client = app.client()
    client.session.open(task_mode=TRANSPARENT, owner=name)
    return client


@contextmanager
def held(app: App, domain: DomainId) -> Iterator[None]:
    """Tasks on the domain wait until the block ends."""
    with app.tasks.hold((lock_domain(domain, shared=False),), 1.0):
        yield


def create(client: Client, task: TaskId, domain: DomainId, **params: Any) -> TaskInfo[Any]:
    return client.with_task(task).image.create(domain=domain, **{"capacity": MIB, **params})


# ---- sessions


def test_a_session_says_who_owns_its_tasks(app: App) -> None:
    client = app.client()
    assert client.session.get_info().task_mode is TaskMode.NON_TRANSPARENT
    opened = client.session.open(task_mode=TRANSPARENT, owner="me", name="a test")
    assert (opened.task_mode, opened.owner, opened.name) == (TRANSPARENT, "me", "a test")
    assert client.session.get_info() == opened
    assert client.session.open().owner is None


def test_the_transparent_mode_wants_an_owner_and_the_other_none(app: App) -> None:
    client = app.client()
    assert "owner" in raised(InvalidParameter, lambda: client.session.open(task_mode=TRANSPARENT)).reason
    raised(InvalidParameter, lambda: client.session.open(owner="me"))
    raised(InvalidParameter, lambda: client.session.open(task_mode=TRANSPARENT, owner="two words"))


@pytest.mark.parametrize("configured", ["transparent", "nonTransparent"])
def test_who_leaves_it_open_gets_what_is_configured(tmp_path: Path, configured: str) -> None:
    with service.in_process(tmp_path / "other", tasks__mode=configured) as app:
        client = app.client()
        domain = client.domain.list().items[0].id
        assert client.session.get_info().task_mode.value == configured
        if configured == "transparent":
            raised(TaskIdRequired, lambda: client.image.create(domain=domain, capacity=MIB))
            raised(InvalidParameter, lambda: client.session.open(task_mode=TaskMode.DEFAULT))
        opened = client.session.open(task_mode=TaskMode.DEFAULT, owner="me")
        assert opened.task_mode.value == configured
        assert opened.owner == ("me" if configured == "transparent" else None)
        # What the API promises to those who say nothing of it.
        assert client.session.open().task_mode is TaskMode.NON_TRANSPARENT
        client.wait(client.image.create(domain=domain, capacity=MIB), timeout=20)


# ---- ids


@pytest.mark.parametrize("verb", MAKING)
def test_every_verb_that_makes_a_task_wants_its_id(app: App, verb: str, tmp_path: Path) -> None:
    plain = app.client()
    domain = plain.domain.list().items[0].id
    samples = Samples(Scene(app, plain, domain, []), tmp_path)
    client, record = owner(app), VERBS[verb]
    params = {record_parameter(verb, name): value for name, value in samples.params(verb).items()}
    call = getattr(getattr(client, record.cls.lower()), record.method)
    assert raised(TaskIdRequired, lambda: call(**params)).verb == verb


def record_parameter(verb: str, name: str) -> str:
    """Samples are written as Python names are."""
    assert name in {parameter.name for parameter in VERBS[verb].parameters}
    return name


def test_where_the_service_owns_tasks_an_id_is_refused(client: Client, domain: DomainId) -> None:
    error = raised(InvalidParameter, lambda: create(client, new(), domain))
    assert error.verb == "Image.create"
    assert client.image.list().items == []


def test_the_same_call_with_the_same_id_is_the_same_task(app: App, client: Client, domain: DomainId) -> None:
    mine, task = owner(app), new()
    with held(app, domain):
        first = create(mine, task, domain, name="a")
        assert (first.id, first.state, first.mode) == (task, TaskState.QUEUED, TRANSPARENT)
        # Defaults that are said are no difference; another session of the same owner is the same owner.
        assert create(owner(app), task, domain, name="a", id=None).created == first.created
    image = mine.wait(first, timeout=20)
    assert mine.wait(create(mine, task, domain, name="a")) == image
    assert [found.id for found in client.image.list().items] == [image.id]


def test_the_same_id_for_something_else_says_what_it_is(app: App, domain: DomainId) -> None:
    mine, task = owner(app), new()
    mine.wait(create(mine, task, domain), timeout=20)
    error = raised(TaskExists, lambda: create(mine, task, domain, name="other"))
    assert (error.task, error.verb) == (task, "Image.create")
    raised(TaskExists, lambda: mine.with_task(task).domain.check(domain=domain))


def test_open_files_are_no_difference_and_what_is_gone_does_not_matter(
    app: App, client: Client, domain: DomainId, tmp_path: Path
) -> None:
    mine, task = owner(app), new()
    (tmp_path / "source").write_bytes(b"x" * MIB)
    results = []
    for flags in (os.O_RDONLY, os.O_RDWR):
        descriptor = os.open(tmp_path / "source", flags)
        os.lseek(descriptor, flags, os.SEEK_SET)
        results.append(mine.wait(mine.with_task(task).image.import_(domain=domain, source=descriptor), timeout=20))
        os.close(descriptor)
    assert results[0] == results[1]
    # By now a repeated deletion finds no such volume; its task is known all the same.
    deletion, leaf = new(), results[0].leaf
    for _ in range(2):
        mine.wait(mine.with_task(deletion).volume.delete(domain=domain, volume=leaf), timeout=20)
    assert client.image.list().items == []


def test_what_a_forgotten_task_has_made_is_not_made_again(app: App, client: Client, domain: DomainId) -> None:
    """The ids that the service chooses come from the task's, so that the same call means the same thing."""
    mine = owner(app)
    task, volume, template = new(), new(), new()
    made, volumes, templates = set(), set(), set()
    for _ in range(3):
        made.add(mine.wait(create(mine, task, domain), timeout=20).id)
        volumes.add(mine.wait(mine.with_task(volume).volume.create(domain=domain, capacity=MIB), timeout=20).id)
        image = next(iter(made))
        copied = mine.with_task(template).image.make_template(domain=domain, image=image, name="t")
        templates.add(mine.wait(copied, timeout=20).id)
        for each in (task, volume, template):
            mine.task.clear(task=each)
    assert (len(made), len(volumes), len(templates)) == (1, 1, 1)
    assert len(client.image.list().items) == 3
    other = owner(app, "another")
    assert other.wait(create(other, task, domain), timeout=20).id not in made


def test_services_choose_ids_in_one_place() -> None:
    """``Service.new_id``, which derives them from the task's: chosen at random, a repeated call would make another."""
    folder = Path(services.__file__).parent
    assert {file.name for file in folder.glob("*.py") if "uuid4" in file.read_text()} == {"base.py", "session.py"}


# ---- who sees them


def test_they_are_for_their_owner_alone(app: App, client: Client, domain: DomainId) -> None:
    """The client has all rights."""
    mine, other, task = owner(app), owner(app, "another"), new()
    known = [found.id for found in client.task.list().items]
    after = client.event.poll().next
    with held(app, domain):
        create(mine, task, domain)
        raised(TaskNotEnded, lambda: mine.task.clear(task=task))
        for viewer in (client, other, app.client()):
            assert [found.id for found in viewer.task.list().items] == known
            for touch in (viewer.task.get_info, viewer.task.wait, viewer.task.stop, viewer.task.clear):
                raised(NoSuchTask, lambda touch=touch: touch(task=task))  # type: ignore[misc]
        assert [found.id for found in mine.task.list().items] == [task, *known]
    mine.wait(mine.task.get_info(task=task), timeout=20)
    raised(TaskPastStopping, lambda: mine.task.stop(task=task))
    told = {
        name: [event.name for event in seen.event.poll(after=after).items]
        for name, seen in {"mine": mine, "other": other, "client": client}.items()
    }
    assert told["other"] == told["client"] == ["VolumeCreated"]
    assert set(told["mine"]) == {"VolumeCreated", "TaskChanged"}
    mine.task.clear(task=task)
    raised(NoSuchTask, lambda: mine.task.get_info(task=task))


# ---- what is on disk


def files(*folders: Path) -> dict[str, tuple[int, int, int]]:
    """Every file below: where it lies, how long it is, when it was changed."""
    found = {}
    for folder in folders:
        for path in folder.rglob("*"):
            status = path.lstat()
            if not path.is_dir():
                found[str(path.relative_to(folder.parent))] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found


def test_nothing_of_a_task_is_on_the_services_disk(app: App, client: Client, domain: DomainId, tmp_path: Path) -> None:
    """What changes on disk are the files of what was asked for: of one image its data, its metadata and its lease."""
    home, mine = tmp_path / "home", owner(app)
    places = [home / name for name in ("state", "run", "domains")]
    image = client.wait(client.image.create(domain=domain, capacity=MIB), timeout=20)

    def changed_by(call: Any) -> set[str]:
        before = files(*places)
        task = new()
        mine.wait(call(mine.with_task(task)), timeout=20)
        mine.task.clear(task=task)
        after = files(*places)
        changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        # The record of what was changed by whom is kept in both modes, where it is kept.
        return {name for name in changed if not name.startswith("state/audit.db")}

    below = f"domains/{domain}/images"
    new_image = client.image.list
    made = changed_by(lambda c: c.image.create(domain=domain, capacity=MIB))
    other = next(found for found in new_image().items if found.id != image.id)
    place = f"{below}/{other.id}/{other.leaf}"
    assert made == {place, f"{place}.meta", f"{place}.lease"}
    place = f"{below}/{image.id}/{image.leaf}"
    resized = changed_by(lambda c: c.volume.resize(domain=domain, volume=image.leaf, capacity=2 * MIB))
    assert resized == {place, f"{place}.meta"}
    deleted = changed_by(lambda c: c.image.delete(domain=domain, image=image.id))
    assert deleted == {place, f"{place}.meta", f"{place}.lease"}
    assert changed_by(lambda c: c.domain.check(domain=domain)) == set()
    # The other mode does write: the test would see it.
    before = files(*places)
    client.wait(client.domain.check(domain=domain), timeout=20)
    assert before != files(*places)


# ---- owners that are gone


def test_an_owner_that_is_gone_has_its_tasks_stopped_and_may_come_back(tmp_path: Path) -> None:
    with service.in_process(tmp_path / "other", tasks__owner_grace="0.02") as app:
        client = app.client()
        domain = client.domain.list().items[0].id
        mine, task = owner(app), new()
        with held(app, domain):
            create(mine, task, domain)
            mine.close()
            (key,) = {found.owner for found in app.tasks._tasks if found.owner}
            ended = app.tasks.wait(task, 20, key)
            assert ended.state is TaskState.STOPPED
            assert ended.error is not None
            assert (ended.error.name, ended.error.data) == (OwnerAbsent.__name__, {"grace": 0.02})
            again = owner(app)
            assert create(again, task, domain).state is TaskState.QUEUED
        again.wait(again.task.get_info(task=task), timeout=20)
        assert len(client.image.list().items) == 1
