# SPDX-License-Identifier: Apache-2.0
"""Task: changes that go on, or have ended."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from hsm.operations.base import lock_domain
from libvdsm.api.errors import NoSuchTask, TaskNotEnded, TaskPastStopping, TaskStopped
from libvdsm.api.types import ImageInfo, TaskId, TaskInfo, TaskState
from tests.verbs.conftest import Restart
from tests.verbs.provoked import provokes
from tests.verbs.scene import MIB, Scene, raised

UNKNOWN = TaskId(uuid.UUID("00000000-0000-4000-8000-00000000dead"))


@contextmanager
def queued(scene: Scene) -> Iterator[TaskInfo[Any]]:
    """A task that waits, until the block ends."""
    with scene.app.tasks.hold((lock_domain(scene.domain, shared=False),), 1.0):
        yield scene.client.image.create(domain=scene.domain, capacity=MIB, name="queued")


# ---- list, getInfo


def test_list_tells_the_newest_first_and_page_by_page(scene: Scene) -> None:
    made = [scene.client.image.create(domain=scene.domain, capacity=MIB) for _ in range(3)]
    for task in made:
        scene.wait(task)
    listed = scene.client.task.list()
    assert [task.id for task in listed.items][:3] == [task.id for task in reversed(made)]
    assert listed.items[-1].verb == "Domain.create"
    assert listed.next is None
    found, start = [], None
    while True:
        page = scene.client.task.list(limit=2, start=start)
        found += [task.id for task in page.items]
        if (start := page.next) is None:
            break
    assert found == [task.id for task in listed.items]


def test_list_tells_those_in_one_state(scene: Scene) -> None:
    with queued(scene) as task:
        waiting = scene.client.task.list(state=TaskState.QUEUED)
        assert [found.id for found in waiting.items] == [task.id]
    scene.wait(task)
    assert scene.client.task.list(state=TaskState.QUEUED).items == []
    assert task.id in [found.id for found in scene.client.task.list(state=TaskState.SUCCEEDED).items]
    assert scene.client.task.list(state=TaskState.FAILED).items == []


@provokes("Task.getInfo", "NoSuchTask")
@provokes("Image.create", "ImageExists")
def test_get_info_tells_result_and_error(scene: Scene) -> None:
    task = scene.client.image.create(domain=scene.domain, capacity=MIB, name="a")
    image = scene.wait(task)
    ended = scene.client.task.get_info(task=task.id)
    assert ended.state is TaskState.SUCCEEDED
    assert ended.error is None
    assert ended.result is not None
    assert ended.result["id"] == str(image.id)
    assert (ended.owner, ended.request) == ("root", task.request)
    failed = scene.client.image.create(domain=scene.domain, capacity=MIB, id=image.id)
    scene.client.task.wait(task=failed.id)
    ended = scene.client.task.get_info(task=failed.id)
    assert (ended.state, ended.result) == (TaskState.FAILED, None)
    assert ended.error is not None
    assert (ended.error.name, ended.error.code) == ("ImageExists", 302)
    assert ended.error.data == {"image": str(image.id), "reason": "it has other volumes"}
    assert str(image.id) in ended.error.message
    assert raised(NoSuchTask, lambda: scene.client.task.get_info(task=UNKNOWN)).task == UNKNOWN


# ---- wait


@provokes("Task.wait", "NoSuchTask")
def test_wait_answers_at_the_end_or_after_the_timeout(scene: Scene) -> None:
    with queued(scene) as task:
        began = time.monotonic()
        assert scene.client.task.wait(task=task.id, timeout=0.05).state is TaskState.QUEUED
        assert 0.05 <= time.monotonic() - began < 5
        ends: list[TaskInfo[Any]] = []
        waiting = threading.Thread(target=lambda: ends.append(scene.client.task.wait(task=task.id)))
        waiting.start()
    waiting.join(10)
    assert [end.state for end in ends] == [TaskState.SUCCEEDED]
    assert scene.client.task.wait(task=task.id, timeout=0).state is TaskState.SUCCEEDED
    raised(NoSuchTask, lambda: scene.client.task.wait(task=UNKNOWN))


# ---- stop


@provokes("Task.stop", "NoSuchTask", "TaskPastStopping")
@provokes("Image.create", "TaskStopped")
def test_a_task_that_waits_is_stopped_at_once(scene: Scene) -> None:
    with queued(scene) as task:
        stopped = scene.client.task.stop(task=task.id)
        assert stopped.state is TaskState.STOPPED
        assert stopped.error is not None
        assert stopped.error.name == "TaskStopped"
    raised(TaskStopped, lambda: scene.wait(task))
    assert scene.client.image.list(domain=scene.domain).items == []
    error = raised(TaskPastStopping, lambda: scene.client.task.stop(task=task.id))
    assert (error.task, error.reason) == (task.id, "it has stopped")
    raised(NoSuchTask, lambda: scene.client.task.stop(task=UNKNOWN))


@provokes("Task.stop", "TaskPastStopping")
def test_a_task_that_has_ended_is_past_stopping(scene: Scene) -> None:
    task = scene.client.image.create(domain=scene.domain, capacity=MIB)
    scene.wait(task)
    assert "succeeded" in raised(TaskPastStopping, lambda: scene.client.task.stop(task=task.id)).reason


# ---- clear


@provokes("Task.clear", "NoSuchTask", "TaskNotEnded")
def test_clear_forgets_a_task_that_has_ended(scene: Scene, restart: Restart) -> None:
    with queued(scene) as task:
        assert raised(TaskNotEnded, lambda: scene.client.task.clear(task=task.id)).task == task.id
    scene.wait(task)
    scene.client.task.clear(task=task.id)
    raised(NoSuchTask, lambda: scene.client.task.get_info(task=task.id))
    raised(NoSuchTask, lambda: scene.client.task.clear(task=task.id))
    after = restart(scene.domain)
    assert task.id not in [found.id for found in after.client.task.list().items]


def test_tasks_that_ended_are_still_there_after_a_restart(scene: Scene, restart: Restart) -> None:
    task = scene.client.image.create(domain=scene.domain, capacity=MIB)
    scene.wait(task)
    before = scene.client.task.get_info(task=task.id)
    after = restart(scene.domain)
    assert after.client.task.get_info(task=task.id) == before
    assert after.wait(before) == scene.wait(task)


# ---- waiting for the domain's lease


def _waiting(scene: Scene, verb: str, image: ImageInfo) -> TaskInfo[Any]:
    verbs, domain, id_ = scene.client.image, scene.domain, image.id
    match verb:
        case "Image.create":
            return verbs.create(domain=domain, capacity=MIB)
        case "Image.snapshot":
            return verbs.snapshot(domain=domain, image=id_)
        case "Image.setTags":
            return verbs.set_tags(domain=domain, image=id_, tags=["a"])
        case "Image.merge":
            assert image.chain is not None
            return verbs.merge(domain=domain, image=id_, base=image.chain[0].id, top=image.leaf)
    return verbs.delete(domain=domain, image=id_)


@pytest.mark.parametrize("verb", ["Image.create", "Image.snapshot", "Image.setTags", "Image.merge", "Image.delete"])
def test_a_task_that_waits_for_the_domain_s_lease_hears_a_stop_at_once(
    scene: Scene, restart: Restart, holder: Callable[[Path], AbstractContextManager[None]], verb: str
) -> None:
    image = scene.snapshot(scene.image(MIB))
    scene = restart(scene.domain, storage__lease_wait="60")
    client = scene.client
    before = scene.look(image)
    with holder(scene.root / "dom_md" / "ids"):
        task = _waiting(scene, verb, image)
        until = time.monotonic() + 10
        while client.task.get_info(task=task.id).state is TaskState.QUEUED:
            assert time.monotonic() < until
        client.task.stop(task=task.id)
        ended = client.task.wait(task=task.id, timeout=20)
        assert ended.state is TaskState.STOPPED
        assert (ended.ended or 0) - ended.created < 10
    assert scene.look(image) == before
