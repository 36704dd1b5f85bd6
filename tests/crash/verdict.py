# SPDX-License-Identifier: Apache-2.0
"""Judging a home after an accident: which state it is in, and whether what the tasks say is so."""

from __future__ import annotations

from dataclasses import dataclass

from libvdsm.api.audit import AuditOutcome
from libvdsm.api.types import TaskState
from tests.crash import invariants
from tests.crash.contents import LEAKS, Contents
from tests.crash.hsmd import ENDED, SERVICE
from tests.crash.invariants import Facts
from tests.crash.operation import Operation, World

_HARMLESS = {"role", "illegal", "unfinished"}
"""Problems of a check that the operations themselves leave: a role that the next change mends, a mark by request, an
upload that goes on."""


@dataclass
class Verdict:
    """Writes down what is wrong."""

    operation: Operation | None
    """None where it is about a start"""
    world: World
    contents: Contents
    before: Facts
    after: Facts
    violations: list[str]

    def look(self) -> invariants.Seen:
        """What there is now."""
        seen = invariants.look(self.world.home, self.world.client, self.contents)
        if self.operation is not None and self.operation.leaks:
            seen.problems = [problem for problem in seen.problems if LEAKS not in problem]
        return seen

    def collect(self) -> None:
        """Have garbage collected; after a restart that has happened by itself."""
        client = self.world.client
        for item in client.domain.list().items:
            self.world.service.wait(client.domain.collect_garbage(domain=item.id))

    def of_accident(self, answers: frozenset[str], *, killed: bool, waits: bool = False) -> str:
        """After the accident: as before, or as after, and the task says which.

        ``waits``: what was left between the two waits for somebody to go on.
        """
        state = self._state(killed=killed)
        self._truth(answers, state, waits=waits)
        excused = self._halfway if state == "halfway" or waits else ()
        self.violations += [
            f"left behind: {path}" for path in invariants.remains(self.world.home) if not _within(excused, path)
        ]
        return state

    @property
    def _halfway(self) -> tuple[str, ...]:
        """Where a failure may leave something between the two states."""
        return tuple(map(str, self.operation.halfway)) if self.operation else ()

    def _state(self, *, killed: bool) -> str:
        seen = self.look()
        before = invariants.differences(self.before, seen.facts)
        after = invariants.differences(self.after, seen.facts)
        if before and after:
            return self._between(seen, min(before, after, key=len), killed=killed)
        self.violations += seen.problems
        if not before and not after:
            return "same"
        return "after" if before else "before"

    def _between(self, seen: invariants.Seen, differences: list[str], *, killed: bool) -> str:
        """Only a failure after the commit point, where the storage would not go on, may leave this."""
        places = self._halfway
        if places and not killed and all(_within(places, text) for text in differences):
            self.violations += [problem for problem in seen.problems if not _within(places, problem)]
            return "halfway"
        self.violations += [*seen.problems, f"neither as before nor as after: {differences}"]
        return "neither"

    def _truth(self, answers: frozenset[str], state: str, *, waits: bool) -> None:
        """What the tasks say is so."""
        assert self.operation is not None
        verb = self.operation.task_verb or self.operation.verb
        for task in self.world.client.task.list().items:
            name = task.error.name if task.error else None
            if task.state not in ENDED:
                self._wrong("a task goes on", task.verb)
            elif task.owner == SERVICE:
                # A domain whose destruction a restart took up again is gone when its garbage would be collected, and
                # cannot be read where that waits for somebody to go on.
                gone = {"NoSuchDomain", "StorageFailed"} if waits else {"NoSuchDomain"}
                if name not in (None, *gone) and task.created > self.world.service.born:
                    self._wrong("a task of the start failed", f"{task.verb}: {task.error}")
            elif task.id in self.world.kept["tasks"] or task.verb != verb:
                continue
            elif task.state is self.operation.end:
                if task.state is TaskState.SUCCEEDED and state in ("before", "halfway"):
                    self._wrong("the task says that it succeeded", state)
            elif name not in answers:
                self._wrong(f"the task ended as {task.state.value}", str(task.error))
            elif name == "Interrupted" and state != "before" and state != "same":
                self._wrong("the task says that it was interrupted, and nothing changed", state)

    def _wrong(self, what: str, more: str) -> None:
        self.violations.append(f"{what}: {more}")

    def of_end(self, when: str) -> None:
        """Everything is as after a run without accident, and nothing is left behind."""
        seen = self.look()
        differences = invariants.differences(self.after, seen.facts)
        remains = [f"left behind: {path}" for path in invariants.remains(self.world.home)]
        self.violations += [f"{when}: {text}" for text in [*seen.problems, *differences, *remains]]

    def of_record(self) -> None:
        """After a kill: the audit log has lost nothing, and agrees with the tasks."""
        client = self.world.client
        tasks = client.task.list().items  # first, as some may end meanwhile
        records = {record.task: record for record in client.audit.list().items}
        for task in tasks:
            record = records.get(task.id)
            if record is None:
                self._wrong("the audit log knows nothing of a task", f"{task.verb} of {task.owner}")
            elif task.state in ENDED and (record.outcome.value, record.error) != (
                task.state.value,
                task.error.name if task.error else None,
            ):
                self._wrong("the audit log and a task disagree", f"{record.outcome.value}, and {task}")
        for record in records.values():
            if record.outcome is AuditOutcome.RUNNING and record.task is None:
                self._wrong("a call goes on in the audit log", record.verb)

    def of_health(self) -> None:
        """The service itself finds nothing wrong."""
        client = self.world.client
        for item in client.domain.list().items:
            if garbage := client.domain.get_stats(domain=item.id).garbage:
                self._wrong("garbage by the service's own count", str(garbage))
            checked = self.world.service.wait(client.domain.check(domain=item.id, deep=True))
            if checked.state is not TaskState.SUCCEEDED:
                self._wrong("it cannot be checked", str(checked.error))
                continue
            for problem in (checked.result or {})["problems"]:
                if problem["kind"] not in _HARMLESS:
                    self._wrong(f"a check finds {problem['kind']}", problem["message"])


def _within(places: tuple[str, ...], text: str) -> bool:
    return any(place in text for place in places)
