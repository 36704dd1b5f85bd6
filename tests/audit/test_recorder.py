# SPDX-License-Identifier: Apache-2.0
"""When what is written: before something happens, and when it has ended."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hsm.audit.recorder import CallSight, Recorder
from hsm.audit.store import AuditStore, Wanted
from libvdsm.api.audit import AuditOutcome, AuditRecord
from libvdsm.api.errors import AccessDenied, NoSpace, NoSuchTask
from libvdsm.api.session import TaskMode
from libvdsm.api.types import DomainId, ErrorInfo, ImageId, Progress, SessionId, TaskId, TaskInfo, TaskState, VolumeId
from libvdsm.server.caller import SessionRecord
from libvdsm.server.dispatch import error_info
from tests.audit.conftest import COUNT, KEEP
from tests.audit.made_up import DOMAIN, FILL, LOCK, connection, raw

ERROR = NoSpace(domain=DOMAIN, reason="full")


def call(recorder: Recorder, verb: Any = LOCK) -> CallSight:
    return recorder.called(verb, raw(domain=str(DOMAIN)), connection(), "r-7")


def task(state: TaskState = TaskState.QUEUED, error: ErrorInfo | None = None, **members: Any) -> TaskInfo[Any]:
    return TaskInfo(
        id=TaskId(uuid.uuid4()),
        verb="Box.fill",
        state=state,
        created=time.time(),
        progress=Progress(done=0, total=0, percent=0.0, step=""),
        owner="root",
        request="r-7",
        error=error,
        **members,
    )


def taken(recorder: Recorder, info: TaskInfo[Any]) -> CallSight:
    """A call that starts a task."""
    sight = call(recorder, FILL)
    sight.begins(None)
    recorder.taken(info, msgspec.defstruct("Params", [])())
    return sight


def ended(info: TaskInfo[Any], state: TaskState, error: ErrorInfo | None = None) -> TaskInfo[Any]:
    return msgspec.structs.replace(info, state=state, error=error, ended=time.time())


def everything(store: AuditStore) -> list[AuditRecord]:
    return list(reversed(store.find(Wanted(), 1000, None)[0]))


# ---- calls that answer at once


def test_a_call_is_written_before_the_service_is_called_and_when_it_has_ended(
    recorder: Recorder, store: AuditStore
) -> None:
    sight = call(recorder)
    assert everything(store) == []
    sight.begins(None)
    [before] = everything(store)
    assert (before.outcome, before.ended, before.verb) == (AuditOutcome.RUNNING, None, "Box.lock")
    sight.answered(None)
    [after] = everything(store)
    assert after.ended is not None
    assert before.time <= after.ended
    assert after == msgspec.structs.replace(before, outcome=AuditOutcome.SUCCEEDED, ended=after.ended)


def test_it_tells_who_called_from_where(recorder: Recorder, store: AuditStore) -> None:
    session = SessionRecord(SessionId(uuid.uuid4()), TaskMode.NON_TRANSPARENT, 1.0, "backup")
    call(recorder).begins(session)
    [told] = everything(store)
    assert (told.user, told.uid, told.pid) == ("root", 0, 77)
    assert (told.wire, told.peer, told.session, told.request) == ("unix", "pid 77", "backup", "r-7")
    assert (told.params, told.domain) == ({"domain": str(DOMAIN)}, DOMAIN)


def test_a_session_of_the_connection_is_told_also_when_the_call_is_refused(
    recorder: Recorder, store: AuditStore
) -> None:
    session = SessionRecord(SessionId(uuid.uuid4()), TaskMode.NON_TRANSPARENT, 1.0, "backup")
    sight = recorder.called(LOCK, raw(), connection(session), "r-7")
    sight.answered(AccessDenied(user="u", verb="Box.lock", right="operate"))
    assert everything(store)[0].session == "backup"


def test_a_call_that_fails_says_with_what(recorder: Recorder, store: AuditStore) -> None:
    sight = call(recorder)
    sight.begins(None)
    sight.answered(ERROR)
    [told] = everything(store)
    assert (told.outcome, told.error, told.message) == (AuditOutcome.FAILED, "NoSpace", ERROR.message)


@pytest.mark.parametrize("verb", [LOCK, FILL], ids=lambda verb: verb.name)
def test_a_call_that_never_came_to_the_service_is_written_once(
    verb: Any, recorder: Recorder, store: AuditStore
) -> None:
    denied = AccessDenied(user="u", verb=verb.full, right="operate")
    for error, outcome in ((denied, AuditOutcome.REFUSED), (ERROR, AuditOutcome.FAILED)):
        call(recorder, verb).answered(error)
        told = everything(store)[-1]
        assert (told.outcome, told.error, told.ended is not None) == (outcome, type(error).__name__, True)
    assert [told.number for told in everything(store)] == [1, 2]


# ---- calls that start tasks


@pytest.mark.parametrize(
    ("state", "error", "outcome"),
    [
        (TaskState.SUCCEEDED, None, AuditOutcome.SUCCEEDED),
        (TaskState.FAILED, error_info(ERROR), AuditOutcome.FAILED),
        (TaskState.STOPPED, error_info(ERROR), AuditOutcome.STOPPED),
    ],
)
def test_a_task_s_end_is_the_end_of_the_call_that_started_it(
    state: TaskState, error: ErrorInfo | None, outcome: AuditOutcome, recorder: Recorder, store: AuditStore
) -> None:
    info = task()
    sight = taken(recorder, info)
    [before] = everything(store)
    assert (before.outcome, before.task, before.verb) == (AuditOutcome.RUNNING, info.id, "Box.fill")
    sight.answered(None)
    assert everything(store) == [before]
    done = ended(info, state, error)
    recorder.ended(done)
    [after] = everything(store)
    assert (after.outcome, after.ended, after.number) == (outcome, done.ended, before.number)
    assert (after.error, after.message) == ((error.name, error.message) if error else (None, None))


def test_a_record_is_about_what_its_task_is_about_or_else_its_parameters(recorder: Recorder, store: AuditStore) -> None:
    other = DomainId(uuid.uuid4())
    image, volume = ImageId(uuid.uuid4()), VolumeId(uuid.uuid4())
    taken(recorder, task(domain=other, image=image, volume=volume))
    taken(recorder, task())
    first, second = everything(store)
    assert (first.domain, first.image, first.volume) == (other, image, volume)
    assert (second.domain, second.image, second.volume) == (DOMAIN, None, None)


def test_a_task_that_ends_before_the_call_is_answered_has_ended(recorder: Recorder, store: AuditStore) -> None:
    info = task()
    sight = taken(recorder, info)
    recorder.ended(ended(info, TaskState.SUCCEEDED))
    sight.answered(None)
    [told] = everything(store)
    assert told.outcome is AuditOutcome.SUCCEEDED


def test_a_call_whose_task_was_not_taken_after_all_has_failed(recorder: Recorder, store: AuditStore) -> None:
    info = task()
    sight = taken(recorder, info)
    recorder.ended(msgspec.structs.replace(info, state=TaskState.FAILED, error=error_info(ERROR)))
    sight.answered(ERROR)
    [told] = everything(store)
    assert (told.outcome, told.error, told.ended is not None) == (AuditOutcome.FAILED, "NoSpace", True)


def test_each_task_of_a_call_has_its_record(recorder: Recorder, store: AuditStore) -> None:
    first, second = task(), task()
    sight = taken(recorder, first)
    recorder.taken(second, msgspec.defstruct("Params", [])())
    sight.answered(None)
    assert [told.task for told in everything(store)] == [first.id, second.id]


def test_calls_of_one_thread_within_each_other_are_told_apart(recorder: Recorder, store: AuditStore) -> None:
    outer, inner = call(recorder), recorder.called(FILL, raw(), connection(), "inner")
    outer.begins(None)
    inner.begins(None)
    recorder.taken(task(), msgspec.defstruct("Params", [])())
    inner.answered(None)
    recorder.taken(task(), msgspec.defstruct("Params", [])())
    outer.answered(None)
    assert [(told.request, told.task is None) for told in everything(store)] == [
        ("r-7", True),
        ("inner", False),
        ("r-7", False),
    ]


# ---- a log that cannot be written


def test_what_cannot_be_written_goes_on_and_its_end_is_written_if_that_can_be(tmp_path: Path) -> None:
    store = AuditStore(tmp_path / "missing" / "audit.db", KEEP, COUNT)
    recorder = Recorder(store)
    info = task()
    sight = taken(recorder, info)
    sight.answered(None)
    call(recorder).answered(NoSuchTask(task=info.id))
    (tmp_path / "missing").mkdir()
    recorder.ended(ended(info, TaskState.SUCCEEDED))
    [told] = everything(store)
    assert (told.outcome, told.task, told.params) == (AuditOutcome.SUCCEEDED, info.id, {"domain": str(DOMAIN)})
    store.close()


# ---- a restart


def test_what_was_left_is_settled_with_its_tasks(recorder: Recorder, store: AuditStore) -> None:
    infos = {name: task() for name in ("settled", "told before", "never taken", "goes on")}
    for info in infos.values():
        taken(recorder, info)
    at_once = call(recorder)
    at_once.begins(None)
    again = Recorder(store)
    again.recover()
    again.ended(ended(infos["settled"], TaskState.FAILED, error_info(ERROR)))
    again.settle([ended(infos["told before"], TaskState.SUCCEEDED), infos["goes on"]])
    assert [(told.outcome, told.error) for told in everything(store)] == [
        (AuditOutcome.FAILED, "NoSpace"),
        (AuditOutcome.SUCCEEDED, None),
        (AuditOutcome.INTERRUPTED, None),
        (AuditOutcome.RUNNING, None),
        (AuditOutcome.INTERRUPTED, None),
    ]
    again.ended(ended(infos["goes on"], TaskState.SUCCEEDED))
    assert everything(store)[3].outcome is AuditOutcome.SUCCEEDED
    assert store.unfinished() == []


def test_a_log_that_cannot_be_read_keeps_nobody_from_starting(tmp_path: Path) -> None:
    recorder = Recorder(AuditStore(tmp_path / "missing" / "audit.db", KEEP, COUNT))
    recorder.recover()
    recorder.settle([task()])
