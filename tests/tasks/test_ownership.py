# SPDX-License-Identifier: Apache-2.0
"""Tasks that clients own: each by its id, seen by its owner alone, in memory alone."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from hsm.events import EventLog
from hsm.tasks.locks import Lock
from hsm.tasks.manager import Job, TaskManager
from hsm.tasks.modes import Claim, NonTransparent, Transparent
from hsm.tasks.owners import Owners
from hsm.tasks.store import TaskStore
from libvdsm.api.errors import NoSuchTask, OwnerAbsent, TaskExists, TaskPastStopping, TaskStopped
from libvdsm.api.types import TaskId, TaskMode, TaskState
from libvdsm.server.caller import OwnerKey
from libvdsm.wire.messages import Notification
from tests.tasks.scripted import PATIENCE, Params, Scripted, never, submit
from tests.tasks.test_manager import fail, go_on_until_stopped

ME, OTHER = OwnerKey("1000", "me"), OwnerKey("1000", "other")
A = Lock("a")
FIRST = TaskId(uuid.UUID(int=1))

Begin = Callable[..., TaskManager]


@pytest.fixture
def begin(store: TaskStore, events: EventLog) -> Iterator[Begin]:
    with ExitStack() as stack:

        def make(keep: float = 1e6, keep_count: int = 1000) -> TaskManager:
            made = TaskManager(events, [NonTransparent(store, 1e6, 1000), Transparent(keep, keep_count)], 2)
            stack.callback(made.close, PATIENCE)
            made.recover(never)
            return made

        yield make


@pytest.fixture
def manager(begin: Begin) -> TaskManager:
    return begin()


def claim(owner: OwnerKey = ME, task: TaskId = FIRST, asked: bytes = b"{}") -> Claim:
    return Claim(owner, task, asked)


def ask(manager: TaskManager, operation: Scripted, given: Claim, verb: str = "Test.verb") -> TaskId:
    """As a service does: answered by a task that is there, else started."""
    known = manager.known(verb, given)
    info = known or manager.submit(verb, Params(), operation, owner="a test", request="r-1", claim=given)
    return info.id


def end(manager: TaskManager, owner: OwnerKey = ME, task: TaskId = FIRST) -> TaskState:
    return manager.wait(task, PATIENCE, owner).state


# ---- ids


def test_the_id_is_the_clients(manager: TaskManager) -> None:
    assert ask(manager, Scripted(), claim()) == FIRST
    assert manager.get(FIRST, ME).mode is TaskMode.TRANSPARENT
    assert end(manager) is TaskState.SUCCEEDED


def test_the_same_call_is_the_same_task_while_it_runs_and_after_it(manager: TaskManager) -> None:
    first, second = Scripted(gate=True), Scripted()
    ask(manager, first, claim())
    assert first.has_begun()
    ask(manager, second, claim())
    first.gate.set()
    assert end(manager) is TaskState.SUCCEEDED
    ask(manager, second, claim())
    assert not second.began.is_set()


def test_of_two_who_ask_at_once_one_starts_it(manager: TaskManager) -> None:
    """Both found nothing; the second is answered with the first one's, and what it was given is let go of."""
    first, second = Scripted(gate=True), Scripted()
    for operation in (first, second):
        manager.submit("Test.verb", Params(), operation, owner="a test", request="r-1", claim=claim())
    assert second.closed == 1
    first.gate.set()
    assert end(manager) is TaskState.SUCCEEDED
    assert not second.began.is_set()


@pytest.mark.parametrize(("verb", "asked"), [("Other.verb", b"{}"), ("Test.verb", b'{"number":1}')])
def test_the_same_id_for_something_else_is_refused(manager: TaskManager, verb: str, asked: bytes) -> None:
    ask(manager, Scripted(), claim())
    with pytest.raises(TaskExists) as caught:
        ask(manager, Scripted(), claim(asked=asked), verb)
    assert (caught.value.task, caught.value.verb) == (FIRST, "Test.verb")
    late = Scripted()
    with pytest.raises(TaskExists):
        manager.submit(verb, Params(), late, owner="a test", request="r-1", claim=claim(asked=asked))
    assert late.closed == 1


def test_two_owners_may_choose_the_same_id(manager: TaskManager) -> None:
    mine, others = Scripted(work=lambda job: "mine"), Scripted(work=lambda job: "others'")
    ask(manager, mine, claim(ME))
    ask(manager, others, claim(OTHER, asked=b"1"), "Other.verb")
    end(manager, ME)
    end(manager, OTHER)
    assert (manager.get(FIRST, ME).result, manager.get(FIRST, OTHER).result) == ("mine", "others'")


def test_a_failure_is_a_result_too(manager: TaskManager) -> None:
    again = Scripted()
    ask(manager, Scripted(work=fail(TaskExists(task=FIRST, verb="x"))), claim())
    assert end(manager) is TaskState.FAILED
    ask(manager, again, claim())
    assert not again.began.is_set()
    manager.clear(FIRST, ME)
    ask(manager, again, claim())
    assert end(manager) is TaskState.SUCCEEDED


# ---- who sees them


@pytest.mark.parametrize("viewer", [None, OTHER])
def test_nobody_else_sees_or_touches_them(manager: TaskManager, viewer: OwnerKey | None) -> None:
    operation = Scripted(gate=True)
    ask(manager, operation, claim())
    assert operation.has_begun()
    assert manager.list(viewer=viewer) == []
    for touch in (
        lambda: manager.get(FIRST, viewer),
        lambda: manager.wait(FIRST, 0.0, viewer),
        lambda: manager.stop(FIRST, viewer),
        lambda: manager.clear(FIRST, viewer),
    ):
        with pytest.raises(NoSuchTask):
            touch()
    operation.gate.set()
    assert end(manager) is TaskState.SUCCEEDED


def test_an_owner_sees_its_own_and_the_services(manager: TaskManager) -> None:
    ask(manager, Scripted(), claim())
    theirs = submit(manager, Scripted())
    assert {info.id for info in manager.list(viewer=ME)} == {FIRST, theirs}
    assert [info.id for info in manager.list()] == [theirs]
    assert [info.id for info in manager.owned(ME)] == [FIRST]


def test_events_are_for_the_owner_alone(manager: TaskManager, events: EventLog) -> None:
    after = events.poll(None, 0.0, 1).next
    heard: dict[str, list[Notification]] = {"me": [], "other": [], "nobody": []}
    events.listen(heard["me"].append, None, lambda: ME)
    events.listen(heard["other"].append, None, lambda: OTHER)
    events.listen(heard["nobody"].append, None)
    ask(manager, Scripted(), claim())
    end(manager)
    # The last event is emitted before those who wait are woken.
    assert {item.event.data["task"] for item in heard["me"]} == {str(FIRST)}
    assert heard["other"] == heard["nobody"] == []
    mine = events.poll(after, 0.0, 100, ME)
    assert [item.data["state"] for item in mine.items][-1] == "succeeded"
    for viewer in (OTHER, None):
        page = events.poll(after, 0.0, 100, viewer)
        assert (page.items, page.missed, page.next) == ([], False, mine.next)
        assert events.poll(page.next, 0.01, 100, viewer).items == []


def test_a_poll_is_not_woken_by_what_it_must_not_see(manager: TaskManager, events: EventLog) -> None:
    after = events.poll(None, 0.0, 1).next
    ask(manager, Scripted(), claim())
    end(manager)
    seen = submit(manager, Scripted())
    page = events.poll(after, PATIENCE, 1)
    assert page.items[0].data["task"] == str(seen)


# ---- what is kept


def test_nothing_of_them_is_written_down(manager: TaskManager, store: TaskStore) -> None:
    ask(manager, Scripted(), claim())
    end(manager)
    manager.clear(FIRST, ME)
    ask(manager, Scripted(), claim())
    end(manager)
    assert store.load() == []


def test_those_that_ended_longest_ago_are_forgotten_beyond_a_number(begin: Begin) -> None:
    manager = begin(keep_count=3)
    ids = [TaskId(uuid.UUID(int=number)) for number in range(1, 8)]
    for task in ids:
        ask(manager, Scripted(), claim(task=task))
        end(manager, ME, task)
    running = Scripted(gate=True)
    ask(manager, running, claim(task=TaskId(uuid.UUID(int=99))))
    manager.prune()
    assert [info.id for info in manager.owned(ME)] == [*ids[-3:], TaskId(uuid.UUID(int=99))]
    running.gate.set()


def test_those_that_ended_too_long_ago_are_forgotten(begin: Begin) -> None:
    manager = begin(keep=0.0)
    ask(manager, Scripted(), claim())
    end(manager)
    manager.prune()
    assert not manager.owns(ME)


# ---- an owner that is gone


def absent(manager: TaskManager, owner: OwnerKey = ME) -> Owners:
    """One whose times are over at once, told of an owner that is not there."""
    owners = Owners(manager, 0.0, 0.0)
    owners.presence.note(owner)
    return owners


def test_its_tasks_stop_and_say_why(manager: TaskManager) -> None:
    running, waiting = Scripted(A, work=go_on_until_stopped), Scripted(A)
    second = TaskId(uuid.UUID(int=2))
    ask(manager, running, claim())
    ask(manager, waiting, claim(task=second))
    assert running.has_begun()
    for task in (second, FIRST):
        manager.stop(task, ME, why=OwnerAbsent(grace=1.0))
        assert end(manager, ME, task) is TaskState.STOPPED
        error = manager.get(task, ME).error
        assert error is not None
        assert (error.name, error.data) == ("OwnerAbsent", {"grace": 1.0})


def test_who_stops_a_task_itself_is_told_so_whatever_else_wants_it_to_stop(manager: TaskManager) -> None:
    operation = Scripted(gate=True, work=go_on_until_stopped)
    ask(manager, operation, claim())
    assert operation.has_begun()
    manager.stop(FIRST, ME, why=OwnerAbsent(grace=1.0))
    manager.stop(FIRST, ME)
    manager.stop(FIRST, ME, why=OwnerAbsent(grace=1.0))
    operation.gate.set()
    assert end(manager) is TaskState.STOPPED
    error = manager.get(FIRST, ME).error
    assert error is not None
    assert error.name == TaskStopped.__name__


def test_when_it_is_back_the_same_call_begins_anew(manager: TaskManager) -> None:
    ask(manager, Scripted(work=go_on_until_stopped), claim())
    manager.stop(FIRST, ME, why=OwnerAbsent(grace=1.0))
    end(manager)
    again = Scripted(gate=True)
    ask(manager, again, claim())
    assert again.has_begun()
    # What the first one ended with is no reason to forget the second.
    manager.prune()
    assert manager.get(FIRST, ME).state is TaskState.RUNNING
    again.gate.set()
    assert end(manager) is TaskState.SUCCEEDED


def test_what_is_past_its_commit_point_is_finished(manager: TaskManager) -> None:
    operation = Scripted(gate=True)

    def publish(job: Job) -> str:
        job.commit()
        return str(operation.run(job))

    committed = Scripted(work=publish)
    ask(manager, committed, claim())
    assert operation.has_begun()
    with pytest.raises(TaskPastStopping):
        manager.stop(FIRST, ME, why=OwnerAbsent(grace=1.0))
    owners = absent(manager)
    operation.gate.set()
    assert end_or_forgotten(manager)
    owners.presence.close()
    assert committed.closed == 1


def end_or_forgotten(manager: TaskManager) -> bool:
    try:
        return end(manager) is TaskState.SUCCEEDED
    except NoSuchTask:
        return True


def test_what_it_left_is_stopped_and_then_forgotten_and_nobody_elses(manager: TaskManager) -> None:
    others = Scripted(gate=True)
    ask(manager, Scripted(work=go_on_until_stopped), claim())
    ask(manager, others, claim(OTHER))
    theirs = submit(manager, Scripted())
    owners = absent(manager)
    while manager.owns(ME):
        end_or_forgotten(manager)
    owners.presence.close()
    assert manager.get(FIRST, OTHER).state is TaskState.RUNNING
    assert manager.get(theirs).id == theirs
    others.gate.set()
