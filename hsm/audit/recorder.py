# SPDX-License-Identifier: Apache-2.0
"""From what happens to records: sees the calls that come, and the tasks that they start.

What is recorded when, so that a killed service has it:

- a call that changes something and answers at once: before the service is called, and how it ended;
- a call that starts a task: before the task is taken, and when the task has ended;
- a call that is refused or fails before anything began: once.

A record that cannot be written is told in the service's log, and what it is about goes on: a full disk of the host is
no reason to leave a guest without its disk.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

import msgspec

from hsm.audit.params import About, Form, Given, text
from hsm.audit.store import AuditError, AuditStore
from libvdsm.api import VERBS
from libvdsm.api.audit import AuditOutcome, AuditRecord
from libvdsm.api.errors import AccessDenied
from libvdsm.api.types import TaskId, TaskInfo, TaskState
from libvdsm.declare import ApiError, Verb
from libvdsm.log import Log
from libvdsm.server.caller import Connection, SessionRecord

log = Log("hsm.audit")

_OUTCOMES = {TaskState.SUCCEEDED: AuditOutcome.SUCCEEDED, TaskState.STOPPED: AuditOutcome.STOPPED}
"""Of a task that has ended; any other end is a failure."""


class Recorder:
    """Witness of the dispatcher and of the task manager."""

    def __init__(self, store: AuditStore) -> None:
        self._store = store
        self._here = threading.local()
        self._lock = threading.Lock()
        self._running: dict[TaskId, AuditRecord] = {}
        self._forms: dict[str, Form] = {}

    # ---- calls

    def called(self, verb: Verb, params: Given, connection: Connection, request: str) -> CallSight:
        return CallSight(self, verb, params, connection, request)

    def form(self, verb: Verb) -> Form:
        """How a verb's parameters are written down."""
        found = self._forms.get(verb.full)
        if found is None:
            found = self._forms[verb.full] = Form(verb)
        return found

    def enter(self, call: CallSight | None) -> CallSight | None:
        """The call that this thread answers from now on, and the one before."""
        before: CallSight | None = getattr(self._here, "call", None)
        self._here.call = call
        return before

    def write(self, record: AuditRecord) -> AuditRecord:
        """Have a record written, or told in the log."""
        try:
            return self._store.put(record)
        except AuditError as error:
            log.error(
                "not recorded in the audit log",
                verb=record.verb,
                user=record.user,
                outcome=record.outcome.value,
                task=record.task,
                reason=error,
            )
            return record

    # ---- tasks

    def taken(self, info: TaskInfo[Any], params: msgspec.Struct) -> None:
        call: CallSight | None = getattr(self._here, "call", None)
        record = self._own(info, params) if call is None else call.of_task(info)
        record = self.write(record)
        with self._lock:
            self._running[info.id] = record

    def ended(self, info: TaskInfo[Any]) -> None:
        with self._lock:
            record = self._running.pop(info.id, None)
        if record is None:
            return
        error = info.error
        self.write(
            msgspec.structs.replace(
                record,
                outcome=_OUTCOMES.get(info.state, AuditOutcome.FAILED),
                ended=info.ended or time.time(),
                error=error.name if error else None,
                message=text(error.message) if error else None,
            )
        )

    def _own(self, info: TaskInfo[Any], params: msgspec.Struct) -> AuditRecord:
        """The record of a task that the service begins on its own account."""
        return AuditRecord(
            number=0,
            time=info.created,
            user=info.owner,
            verb=info.verb,
            params=self.form(VERBS[info.verb]).shown(msgspec.to_builtins(params)),
            request=info.request,
            outcome=AuditOutcome.RUNNING,
            domain=info.domain,
            image=info.image,
            volume=info.volume,
            task=info.id,
        )

    # ---- after a restart

    def recover(self) -> None:
        """Take up what the service before has left unfinished; called before tasks are settled."""
        try:
            left = self._store.unfinished()
        except AuditError as error:
            log.error("records of the service before stay as they are", reason=error)
            return
        for record in left:
            if record.task is None:
                self._interrupted(record)
            else:
                self._running[record.task] = record

    def settle(self, tasks: Iterable[TaskInfo[Any]]) -> None:
        """Tasks are settled; what nobody has told of was told before, or never became a task."""
        known = {info.id: info for info in tasks}
        with self._lock:
            left = list(self._running)
        for task in left:
            info = known.get(task)
            if info is not None and info.ended is not None:
                self.ended(info)
            elif info is None:
                with self._lock:
                    record = self._running.pop(task, None)
                if record is not None:
                    self._interrupted(record)

    def _interrupted(self, record: AuditRecord) -> None:
        self.write(msgspec.structs.replace(record, outcome=AuditOutcome.INTERRUPTED))


class CallSight:
    """One call, from when it came until it is answered."""

    def __init__(self, recorder: Recorder, verb: Verb, params: Given, connection: Connection, request: str) -> None:
        self._recorder = recorder
        self._verb = verb
        self._params = params
        self._connection = connection
        self._request = request
        self._time = time.time()
        self._session = connection.session
        self._record: AuditRecord | None = None
        self._inside = False
        self._has_task = False
        self._before: CallSight | None = None

    def begins(self, session: SessionRecord | None) -> None:
        self._session = session
        self._inside = True
        self._before = self._recorder.enter(self)
        if not self._verb.makes_task:
            self._record = self._recorder.write(self._made(AuditOutcome.RUNNING))

    def answered(self, error: ApiError | None) -> None:
        if self._inside:
            self._recorder.enter(self._before)
        if self._has_task:
            # Its end is the record's, also if it was not taken after all.
            return
        outcome = AuditOutcome.SUCCEEDED
        if error is not None:
            outcome = AuditOutcome.REFUSED if isinstance(error, AccessDenied) else AuditOutcome.FAILED
        self._recorder.write(
            msgspec.structs.replace(
                self._record or self._made(outcome),
                outcome=outcome,
                ended=time.time(),
                error=type(error).__name__ if error else None,
                message=text(error.message) if error else None,
            )
        )

    def of_task(self, info: TaskInfo[Any]) -> AuditRecord:
        """The record of a task that is taken while this call is answered."""
        self._has_task = True
        # A task knows more of what it is about than the parameters; if it does not say, they may.
        about = About(info.domain, info.image, info.volume) if info.domain else None
        return self._made(AuditOutcome.RUNNING, verb=info.verb, about=about, task=info.id)

    def _made(
        self,
        outcome: AuditOutcome,
        *,
        verb: str | None = None,
        about: About | None = None,
        task: TaskId | None = None,
    ) -> AuditRecord:
        connection, session = self._connection, self._session
        form = self._recorder.form(self._verb)
        shown = form.shown(self._params)
        about = about or form.about(shown)
        return AuditRecord(
            number=0,
            time=self._time,
            user=text(connection.user),
            verb=verb or self._verb.full,
            params=shown,
            request=self._request,
            outcome=outcome,
            wire=connection.wire,
            peer=connection.peer,
            uid=connection.uid,
            pid=connection.pid,
            session=session.name if session else None,
            domain=about.domain,
            image=about.image,
            volume=about.volume,
            task=task,
        )
