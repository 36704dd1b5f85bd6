# SPDX-License-Identifier: Apache-2.0
"""What becomes of tasks that a service before this one has left."""

from __future__ import annotations

import msgspec
import pytest

from hsm.tasks.locks import Lock
from hsm.tasks.manager import Operation
from hsm.tasks.store import TaskStore
from libvdsm.api.errors import NoSuchDomain
from libvdsm.api.types import DomainId, TaskInfo, TaskState
from tests.tasks.conftest import Start
from tests.tasks.scripted import Params, Rebuild, Scripted, ended, noting, task_info

INTERRUPTED = pytest.mark.parametrize("state", [TaskState.QUEUED, TaskState.RUNNING, TaskState.STOPPING])


def left(store: TaskStore, state: TaskState = TaskState.RUNNING, number: int = 0) -> TaskInfo[object]:
    """A task that a service left in this state."""
    info = task_info(state)
    store.put(info, msgspec.json.encode(Params(number)))
    return info


def always(operation: Operation) -> Rebuild:
    return lambda verb, params: operation


def missing() -> object:
    raise NoSuchDomain(domain=DomainId(task_info().id))


@INTERRUPTED
def test_what_is_done_has_succeeded(start: Start, store: TaskStore, state: TaskState) -> None:
    info = left(store, state)
    operation = Scripted(outcome=lambda: "it is there")
    manager = start(rebuild=always(operation))
    found = manager.get(info.id)
    assert (found.state, found.result, found.progress.percent) == (TaskState.SUCCEEDED, "it is there", 100.0)
    assert (operation.began.is_set(), operation.closed) == (False, 1)
    assert store.load()[0].info.state is TaskState.SUCCEEDED, "and it is written down"


@INTERRUPTED
def test_what_is_not_done_and_cannot_go_on_was_interrupted(start: Start, store: TaskStore, state: TaskState) -> None:
    info = left(store, state)
    operation = Scripted()
    manager = start(rebuild=always(operation))
    found = manager.get(info.id)
    assert found.error is not None
    assert (found.state, found.error.name) == (TaskState.FAILED, "Interrupted")
    assert (operation.began.is_set(), operation.closed) == (False, 1)
    assert store.load()[0].info.state is TaskState.FAILED


@INTERRUPTED
def test_what_is_not_done_and_can_go_on_is_taken_up_again(start: Start, store: TaskStore, state: TaskState) -> None:
    info = left(store, state)
    operation = Scripted(resumes=True)
    manager = start(rebuild=always(operation))
    found = ended(manager, info.id)
    assert (found.state, found.result, operation.began.is_set()) == (TaskState.SUCCEEDED, "done", True)
    assert found.created == info.created


def test_what_cannot_be_looked_at_has_failed_with_the_reason(start: Start, store: TaskStore) -> None:
    info = left(store)
    operation = Scripted(outcome=missing, resumes=True)
    found = start(rebuild=always(operation)).get(info.id)
    assert found.error is not None
    assert (found.state, found.error.name, operation.closed) == (TaskState.FAILED, "NoSuchDomain", 1)


def test_what_cannot_even_be_rebuilt_has_failed_and_keeps_nobody_from_starting(start: Start, store: TaskStore) -> None:
    lost, other = left(store, number=1), left(store, number=2)

    def rebuild(verb: str, params: bytes) -> Operation:
        if msgspec.json.decode(params, type=Params).number == 1:
            raise KeyError(verb)
        return Scripted(outcome=lambda: "it is there")

    manager = start(rebuild=rebuild)
    found = manager.get(lost.id)
    assert found.error is not None
    assert (found.state, found.error.name) == (TaskState.FAILED, "InternalError")
    assert manager.get(other.id).state is TaskState.SUCCEEDED


def test_an_undeclared_error_of_looking_keeps_nobody_from_starting(start: Start, store: TaskStore) -> None:
    info = left(store)
    operation = Scripted(outcome=lambda: 1 / 0)
    found = start(rebuild=always(operation)).get(info.id)
    assert found.error is not None
    assert (found.state, found.error.name, operation.closed) == (TaskState.FAILED, "InternalError", 1)


def test_what_goes_on_does_so_in_the_old_order_and_with_its_locks(start: Start, store: TaskStore) -> None:
    ran: list[int] = []
    infos = [left(store, TaskState.QUEUED, number) for number in range(10)]

    def rebuild(verb: str, params: bytes) -> Operation:
        number = msgspec.json.decode(params, type=Params).number
        return Scripted(Lock("a"), work=noting(ran, number), resumes=True)

    manager = start(workers=4, rebuild=rebuild)
    for info in infos:
        ended(manager, info.id)
    assert ran == list(range(10))


def test_what_had_ended_is_there_as_it_was(start: Start, store: TaskStore) -> None:
    info = task_info(TaskState.STOPPED, at_end=2e9)
    store.put(info, b"{}")
    manager = start()
    assert manager.get(info.id) == info
    assert manager.wait(info.id, 0.0) == info
    manager.clear(info.id)
    assert store.load() == []


def test_a_start_forgets_what_ended_too_long_ago(start: Start, store: TaskStore) -> None:
    old, young = task_info(TaskState.FAILED, at_end=1.0), task_info(TaskState.FAILED, at_end=2e9)
    store.put(old, b"{}")
    store.put(young, b"{}")
    assert [info.id for info in start(keep=3600.0).list()] == [young.id]
