# SPDX-License-Identifier: Apache-2.0
"""The task manager: who runs when, what becomes of it, and who hears of it."""

from __future__ import annotations

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from hsm.events import EventLog
from hsm.tasks import manager as manager_module
from hsm.tasks.locks import Lock
from hsm.tasks.manager import Job, TaskManager
from hsm.tasks.states import Event, move
from hsm.tasks.store import TaskStore
from libvdsm.api.errors import ImageInUse, NoSuchDomain, NoSuchTask, TaskNotEnded, TaskPastStopping, Unavailable
from libvdsm.api.types import DomainId, TaskId, TaskState
from tests.tasks.conftest import Start
from tests.tasks.scripted import PATIENCE, Params, Scripted, ended, noting, state, submit

A, B = Lock("a"), Lock("b")
SHARED = Lock("a", shared=True)
NOBODY = uuid.UUID(int=0)


def fail(error: Exception) -> Any:
    """A work that ends so."""

    def work(job: Job) -> None:
        raise error

    return work


def give_in(job: Job) -> None:
    """A work that stops when it is asked to."""
    job.check()


def go_on_until_stopped(job: Job) -> None:
    """A work that looks again and again, as those that copy do."""
    while True:
        job.check()
        threading.Event().wait(0.001)


def changes(events: EventLog, after: int, task: TaskId) -> list[tuple[str, str]]:
    """(state, step) of each event of a task."""
    page = events.poll(after, 0.0, 10_000)
    assert not page.missed
    return [
        (event.data["state"], event.data["progress"]["step"])
        for event in page.items
        if event.name == "TaskChanged" and event.data["task"] == str(task)
    ]


# ---- a task's way


def test_a_task_is_queued_runs_and_has_a_result(manager: TaskManager, events: EventLog) -> None:
    after = events.poll(None, 0.0, 1).next
    operation = Scripted(work=lambda job: {"answer": 42})
    task = manager.submit("Test.verb", Params(), operation, owner="somebody", request="r-7")
    assert (task.state, task.owner, task.request, task.verb) == (TaskState.QUEUED, "somebody", "r-7", "Test.verb")
    info = ended(manager, task.id)
    assert (info.state, info.result, info.error) == (TaskState.SUCCEEDED, {"answer": 42}, None)
    assert (info.progress.percent, info.progress.step) == (100.0, "done")
    assert info.started is not None
    assert info.ended is not None
    assert info.created <= info.started <= info.ended
    assert [seen for seen, _ in changes(events, after, task.id)] == ["queued", "running", "succeeded"]
    assert operation.closed == 1


def test_what_is_so_already_is_answered_without_work(manager: TaskManager) -> None:
    operation = Scripted(outcome=lambda: "as it was")
    assert ended(manager, submit(manager, operation)).result == "as it was"
    assert not operation.began.is_set()


def test_a_declared_error_is_told_as_it_is(manager: TaskManager) -> None:
    domain = DomainId(NOBODY)
    info = ended(manager, submit(manager, Scripted(work=fail(NoSuchDomain(domain=domain)))))
    assert info.state is TaskState.FAILED
    assert info.error is not None
    assert (info.error.name, info.error.data) == ("NoSuchDomain", {"domain": str(domain)})


def test_an_undeclared_error_is_an_internal_one_and_the_worker_lives_on(start: Start) -> None:
    manager = start(workers=1)
    broken = Scripted(A, work=fail(ZeroDivisionError()))
    info = ended(manager, submit(manager, broken))
    assert info.error is not None
    assert (info.state, info.error.name, info.error.data) == (TaskState.FAILED, "InternalError", {"request": "r-1"})
    assert broken.closed == 1
    assert ended(manager, submit(manager, Scripted(A))).state is TaskState.SUCCEEDED, "and its locks are free"


def test_an_undeclared_error_of_looking_is_an_internal_one_too(start: Start) -> None:
    manager = start(workers=1)
    info = ended(manager, submit(manager, Scripted(outcome=lambda: 1 / 0)))
    assert info.error is not None
    assert info.error.name == "InternalError"
    assert ended(manager, submit(manager, Scripted())).state is TaskState.SUCCEEDED


# ---- locks


def test_a_task_that_waits_for_locks_does_not_hold_up_others(start: Start) -> None:
    manager = start(workers=2)
    first, second, other = Scripted(A, gate=True), Scripted(A), Scripted(B)
    holding = submit(manager, first)
    assert first.has_begun()
    waiting = submit(manager, second)
    assert ended(manager, submit(manager, other)).state is TaskState.SUCCEEDED
    assert state(manager, waiting) is TaskState.QUEUED
    assert manager.counts() == (1, 1)
    first.gate.set()
    assert ended(manager, waiting).state is TaskState.SUCCEEDED
    assert ended(manager, holding).state is TaskState.SUCCEEDED


def test_tasks_with_the_same_lock_run_in_the_order_in_which_they_were_asked_for(start: Start) -> None:
    manager = start(workers=4)
    ran: list[int] = []
    first = Scripted(A, gate=True)
    submit(manager, first)
    tasks = [submit(manager, Scripted(A, work=noting(ran, number))) for number in range(20)]
    first.gate.set()
    for task in tasks:
        ended(manager, task)
    assert ran == list(range(20))


def test_readers_work_together(start: Start) -> None:
    manager = start(workers=3)
    readers = [Scripted(SHARED, gate=True) for _ in range(3)]
    tasks = [submit(manager, reader) for reader in readers]
    assert all(reader.has_begun() for reader in readers), "all at once"
    for reader in readers:
        reader.gate.set()
    assert {ended(manager, task).state for task in tasks} == {TaskState.SUCCEEDED}


def test_a_stream_of_readers_does_not_starve_a_writer(start: Start) -> None:
    manager = start(workers=3)
    order: list[str] = []
    reader = Scripted(SHARED, gate=True)
    submit(manager, reader)
    assert reader.has_begun()
    writer = submit(manager, Scripted(A, work=noting(order, "writer")))
    late = [submit(manager, Scripted(SHARED, work=noting(order, "reader"))) for _ in range(5)]
    ended(manager, submit(manager, Scripted(B)))
    assert order == [], "later readers wait behind the writer"
    reader.gate.set()
    for task in (writer, *late):
        ended(manager, task)
    assert order == ["writer"] + ["reader"] * 5


def test_more_tasks_than_workers_wait_for_a_worker(start: Start) -> None:
    manager = start(workers=1)
    first, second = Scripted(gate=True), Scripted()
    submit(manager, first)
    assert first.has_begun()
    task = submit(manager, second)
    assert state(manager, task) is TaskState.QUEUED
    first.gate.set()
    assert ended(manager, task).state is TaskState.SUCCEEDED


# ---- stopping


def test_a_queued_task_has_stopped_when_stop_returns(manager: TaskManager) -> None:
    first, second = Scripted(A, gate=True), Scripted(A)
    submit(manager, first)
    assert first.has_begun()
    task = submit(manager, second)
    info = manager.stop(task)
    assert info.state is TaskState.STOPPED
    assert info.error is not None
    assert (info.error.name, info.ended is not None, second.closed) == ("TaskStopped", True, 1)
    first.gate.set()
    ended(manager, submit(manager, Scripted(A)))
    assert not second.began.is_set()


def test_a_task_that_stops_in_the_queue_lets_those_behind_it_go_on(manager: TaskManager) -> None:
    reader = Scripted(SHARED, gate=True)
    submit(manager, reader)
    assert reader.has_begun()
    writer = submit(manager, Scripted(A))
    late = submit(manager, Scripted(SHARED))
    manager.stop(writer)
    assert ended(manager, late).state is TaskState.SUCCEEDED
    reader.gate.set()


def test_a_running_task_is_stopping_until_it_gives_in(manager: TaskManager) -> None:
    operation = Scripted(gate=True, work=give_in)
    task = submit(manager, operation)
    assert operation.has_begun()
    assert manager.stop(task).state is TaskState.STOPPING
    assert manager.wait(task, 0.0).state is TaskState.STOPPING
    operation.gate.set()
    info = ended(manager, task)
    assert info.error is not None
    assert (info.state, info.error.name) == (TaskState.STOPPED, "TaskStopped")


def test_a_task_that_does_not_give_in_is_finished(manager: TaskManager) -> None:
    operation = Scripted(gate=True)
    task = submit(manager, operation)
    assert operation.has_begun()
    manager.stop(task)
    operation.gate.set()
    assert ended(manager, task).state is TaskState.SUCCEEDED


def test_a_task_that_was_asked_to_stop_does_not_get_to_its_commit_point(manager: TaskManager) -> None:
    operation = Scripted(gate=True, work=lambda job: job.commit())
    task = submit(manager, operation)
    assert operation.has_begun()
    manager.stop(task)
    operation.gate.set()
    assert ended(manager, task).state is TaskState.STOPPED


def test_after_its_commit_point_a_task_cannot_be_stopped(manager: TaskManager) -> None:
    committed, go_on = threading.Event(), threading.Event()

    def work(job: Job) -> str:
        job.commit()
        committed.set()
        assert go_on.wait(PATIENCE)
        job.check()
        return "finished"

    task = submit(manager, Scripted(work=work))
    assert committed.wait(PATIENCE)
    with pytest.raises(TaskPastStopping, match="published"):
        manager.stop(task)
    go_on.set()
    assert ended(manager, task).result == "finished"
    with pytest.raises(TaskPastStopping, match="succeeded"):
        manager.stop(task)


def test_a_task_that_gives_in_at_the_very_moment_of_the_stop_has_stopped(
    manager: TaskManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    gave_in = threading.Event()

    def work(job: Job) -> None:
        while not job.stop_asked():
            threading.Event().wait(0.001)
        gave_in.set()
        job.check()

    def slowly(before: TaskState, event: Event) -> TaskState:
        if event is Event.STOP:
            assert gave_in.wait(PATIENCE)
            # Long enough for a worker that does not wait for the stop to be written down.
            threading.Event().wait(0.05)
        return move(before, event)

    operation = Scripted(work=work)
    task = submit(manager, operation)
    assert operation.has_begun()
    monkeypatch.setattr(manager_module, "move", slowly)
    manager.stop(task)
    assert ended(manager, task).state is TaskState.STOPPED


# ---- waiting, looking, clearing


def test_a_wait_answers_after_its_time_with_the_state_then(manager: TaskManager) -> None:
    operation = Scripted(gate=True)
    task = submit(manager, operation)
    assert operation.has_begun()
    assert manager.wait(task, 0.01).state is TaskState.RUNNING
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(manager.wait, task, PATIENCE) for _ in range(3)]
        operation.gate.set()
        assert {found.result(PATIENCE).state for found in waiting} == {TaskState.SUCCEEDED}


def test_tasks_are_listed_the_newest_first_and_by_state(manager: TaskManager) -> None:
    operation = Scripted(gate=True)
    tasks = [submit(manager, Scripted()), submit(manager, Scripted()), submit(manager, operation)]
    ended(manager, tasks[0])
    ended(manager, tasks[1])
    assert operation.has_begun()
    assert [info.id for info in manager.list()] == tasks[::-1]
    assert [info.id for info in manager.list(TaskState.RUNNING)] == [tasks[2]]
    operation.gate.set()


def test_only_what_has_ended_can_be_cleared_and_then_it_is_unknown(manager: TaskManager, store: TaskStore) -> None:
    operation = Scripted(gate=True)
    task = submit(manager, operation)
    assert operation.has_begun()
    with pytest.raises(TaskNotEnded):
        manager.clear(task)
    operation.gate.set()
    ended(manager, task)
    manager.clear(task)
    for use in (manager.get, manager.clear, manager.stop):
        with pytest.raises(NoSuchTask):
            use(task)
    with pytest.raises(NoSuchTask):
        manager.wait(task, 0.0)
    assert store.load() == []


# ---- limits


def test_a_full_queue_is_refused_and_what_was_given_is_let_go_of(start: Start) -> None:
    manager = start(workers=1, queue=2)
    first = Scripted(gate=True)
    submit(manager, first)
    assert first.has_begun()
    waiting = [submit(manager, Scripted()) for _ in range(2)]
    late = Scripted()
    with pytest.raises(Unavailable, match="2 tasks are waiting"):
        submit(manager, late)
    assert late.closed == 1
    first.gate.set()
    for task in waiting:
        ended(manager, task)
    assert ended(manager, submit(manager, Scripted())).state is TaskState.SUCCEEDED


def test_what_cannot_be_written_down_is_not_begun(manager: TaskManager, store: TaskStore) -> None:
    store.close()
    operation = Scripted()
    with pytest.raises(Unavailable, match="record of tasks"):
        submit(manager, operation)
    assert (operation.closed, operation.began.is_set(), manager.list()) == (1, False, [])


def test_a_task_whose_end_cannot_be_written_down_has_ended_all_the_same(manager: TaskManager, store: TaskStore) -> None:
    operation = Scripted(A, gate=True)
    task = submit(manager, operation)
    assert operation.has_begun()
    store.close()
    operation.gate.set()
    assert ended(manager, task).state is TaskState.SUCCEEDED
    with manager.hold((A,), PATIENCE):
        pass


# ---- locks without a task


def test_hold_waits_for_a_task_and_keeps_later_ones_waiting(manager: TaskManager) -> None:
    first, late = Scripted(A, gate=True), Scripted(A)
    submit(manager, first)
    assert first.has_begun()
    held, let_go = threading.Event(), threading.Event()

    def verb() -> None:
        with manager.hold((A,), PATIENCE):
            held.set()
            assert let_go.wait(PATIENCE)

    with ThreadPoolExecutor() as pool:
        holding = pool.submit(verb)
        first.gate.set()
        assert held.wait(PATIENCE)
        task = submit(manager, late)
        ended(manager, submit(manager, Scripted(B)))
        assert state(manager, task) is TaskState.QUEUED
        assert manager.counts() == (1, 0)
        let_go.set()
        holding.result(PATIENCE)
    assert ended(manager, task).state is TaskState.SUCCEEDED


def test_hold_gives_up_and_gives_up_its_place(manager: TaskManager) -> None:
    reader = Scripted(SHARED, gate=True)
    submit(manager, reader)
    assert reader.has_begun()
    with pytest.raises(Unavailable, match="other tasks are at work"), manager.hold((A,), 0.01):
        pytest.fail("it is not free")
    assert ended(manager, submit(manager, Scripted(SHARED))).state is TaskState.SUCCEEDED
    reader.gate.set()


def test_hold_lets_go_when_what_it_was_for_fails(manager: TaskManager) -> None:
    error = ImageInUse(image=NOBODY, volume=NOBODY, holder="a test")  # type: ignore[arg-type]
    with pytest.raises(ImageInUse), manager.hold((A,), PATIENCE):
        raise error
    assert ended(manager, submit(manager, Scripted(A))).state is TaskState.SUCCEEDED


def test_holds_of_many_threads_never_overlap(manager: TaskManager) -> None:
    inside: list[int] = []

    def verb(number: int) -> None:
        with manager.hold((A,), PATIENCE):
            inside.append(number)
            assert inside == [number]
            inside.remove(number)

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(verb, number) for number in range(200)]:
            done.result(PATIENCE)


# ---- progress


def test_progress_is_seen_at_once_and_told_a_few_times_a_second(manager: TaskManager, events: EventLog) -> None:
    after = events.poll(None, 0.0, 1).next
    reported, go_on = threading.Event(), threading.Event()
    begin = time.monotonic()

    def work(job: Job) -> None:
        for done in range(2000):
            job.progress("copying", done, 2000)
        reported.set()
        assert go_on.wait(PATIENCE)

    task = submit(manager, Scripted(work=work))
    assert reported.wait(PATIENCE)
    took = time.monotonic() - begin
    progress = manager.get(task).progress
    assert (progress.done, progress.total, progress.percent, progress.step) == (1999, 2000, 100.0, "copying")
    told = [step for _, step in changes(events, after, task)].count("copying")
    assert 1 <= told <= 1 + took / 0.25
    go_on.set()


def test_a_new_step_is_told_at_once(manager: TaskManager, events: EventLog) -> None:
    after = events.poll(None, 0.0, 1).next

    def work(job: Job) -> None:
        for step in ("looking", "copying", "writing"):
            job.progress(step)
            job.progress(step)

    task = submit(manager, Scripted(work=work))
    ended(manager, task)
    assert [step for _, step in changes(events, after, task)] == [
        *("waiting", "waiting"),
        *("looking", "copying", "writing"),
        "done",
    ]


# ---- pruning, and the end


def test_pruning_forgets_what_has_ended_and_nothing_that_goes_on(start: Start, store: TaskStore) -> None:
    manager = start(keep_count=1)
    running = Scripted(A, gate=True)
    first = submit(manager, running)
    assert running.has_begun()
    waiting = submit(manager, Scripted(A))
    done = [submit(manager, Scripted()) for _ in range(5)]
    for task in done:
        ended(manager, task)
    manager.prune()
    left = {info.id for info in manager.list()}
    assert left >= {first, waiting}
    assert len(left) == 3
    assert {stored.info.id for stored in store.load()} == left
    running.gate.set()
    assert ended(manager, waiting).state is TaskState.SUCCEEDED


def test_pruning_goes_on_by_itself(start: Start) -> None:
    manager = start(keep_count=10)
    for task in [submit(manager, Scripted()) for _ in range(250)]:
        with ExitStack() as gone:
            gone.push(lambda cls, error, trace: cls is NoSuchTask)
            manager.wait(task, PATIENCE)
    assert len(manager.list()) < 150


def test_at_the_end_of_the_service_tasks_stop_where_they_can_and_are_finished_where_not(start: Start) -> None:
    manager = start(workers=2)
    committed = threading.Event()

    def unstoppable(job: Job) -> str:
        job.commit()
        committed.set()
        assert finish.wait(PATIENCE)
        return "finished"

    finish = threading.Event()
    going = Scripted(work=go_on_until_stopped)
    tasks = submit(manager, going), submit(manager, Scripted(work=unstoppable))
    assert going.has_begun()
    assert committed.wait(PATIENCE)
    queued = submit(manager, Scripted())
    with ThreadPoolExecutor() as pool:
        closing = pool.submit(manager.close, PATIENCE)
        interrupted = ended(manager, tasks[0])
        finish.set()
        assert ended(manager, tasks[1]).result == "finished"
        closing.result(PATIENCE)
    assert interrupted.error is not None
    assert (interrupted.state, interrupted.error.name) == (TaskState.FAILED, "Interrupted")
    assert state(manager, queued) is TaskState.QUEUED, "a restart settles it"
