# SPDX-License-Identifier: Apache-2.0
"""Tasks that a client owns: the client is killed at every step, the service is, and both are.

The client is a program of its own that asks again by itself, so nobody waits here for the collector, or for anything
else, between a restart of the service and the repeated call.  In the end there is exactly one result, and nothing of
the task is, or was, in the service's own records.
"""

from __future__ import annotations

import os
import select
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from libvdsm.api.types import TaskInfo
from tests.crash import invariants
from tests.crash.accidents import KILL
from tests.crash.fixture import NO_DEFAULT
from tests.crash.hsmd import PATIENCE, Hanging, Hsmd
from tests.crash.operation import Operation, World
from tests.crash.operations import NEW_DOMAIN, OPERATIONS
from tests.crash.points import Point
from tests.crash.tracing import STARTING, Strace, parse
from tests.crash.trial import Bench, Outcome, Recording, Trial, watched
from tests.crash.verdict import Verdict

OWNED = (
    "qcow2 file imported",
    "file of others imported into preallocated space",
    "template copied",
    "snapshot made",
    "template cloned",
    "image deleted",
    "leaf wiped",
    "raw volume resized",
    "qcow2 volume resized",
    "domain created",
    "domain formatted",
    "chain copied to another domain",
    "chain moved",
    "layers merged down",
    "layers merged up",
)
"""The operations of the table that a client owns here, by name."""

_GRACE = 0.05
_NOTICED = 5.0
"""Seconds until an absence has to be noticed, on a machine that has other things to do."""
_HELD = 1_000_000 * int(PATIENCE)
"""Microseconds for which a thread is held at a call; it is let go long before."""
_NAME, _TASK = "crash-test", str(uuid.uuid5(uuid.NAMESPACE_URL, "hsm-crash-test:owned task"))


@dataclass(frozen=True)
class Loss:
    """Who is killed."""

    name: str
    service: bool
    owner: bool

    def __str__(self) -> str:
        return self.name

    def applies(self, point: Point) -> bool:
        # A call that starts a program is not held: the kernel has it begun in the middle.
        return not point.reads and (self.service or point.name not in STARTING)


SERVICE = Loss("service killed, owner asks again", service=True, owner=False)
OWNER = Loss("owner killed", service=False, owner=True)
BOTH = Loss("owner and service killed", service=True, owner=True)
LOSSES = (SERVICE, OWNER, BOTH)


@dataclass(frozen=True)
class Owned:
    """One row of the table."""

    name: str
    operation: Operation


_UNFINISHED: dict[str, tuple[object, ...]] = {"domain created": (NEW_DOMAIN,)}
"""What lies between the two states when both are killed, until the owner asks again: a restart takes up a task that
the service owns, and knows nothing of these."""


def _row(name: str) -> Owned:
    found = next(operation for operation in OPERATIONS if operation.name == name)
    return Owned(f"owned: {name}", replace(found, halfway=_UNFINISHED.get(name, found.halfway)))


ROWS = [_row(name) for name in OWNED]


class _Owner:
    """The program that owns the task."""

    def __init__(self, trial: OwnedTrial, world: World) -> None:
        self._nursery = trial.bench.nursery
        self._log = trial.bench.folder / "owner.log"
        self._log.unlink(missing_ok=True)
        arguments = [str(world.home.path), trial.operation.name, _NAME, _TASK]
        self._pid = self._nursery.bear(arguments, self._log, os.environ["PATH"], client=True)
        self._pidfd = os.pidfd_open(self._pid)
        self._status: int | None = None

    def gone(self) -> bool:
        return bool(select.select([self._pidfd], [], [], 0)[0])

    def ended(self) -> int:
        """Wait for its end: the exit status, or minus the signal."""
        if self._status is None:
            self._status = self._nursery.ended(self._pid)
        return self._status

    def kill(self) -> None:
        if self._status is None:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self.ended()

    def close(self) -> None:
        self.kill()
        os.close(self._pidfd)

    def said(self) -> str:
        return self._log.read_text(errors="replace")[-1500:]


class OwnedTrial(Trial):
    """Runs one operation that a client owns; has a trial's face."""

    settings = (NO_DEFAULT, f"tasks.owner_grace={_GRACE}")

    def __init__(self, row: Owned, bench: Bench) -> None:
        self.row = row
        super().__init__(row.operation, bench)

    def call(self, world: World) -> TaskInfo[object] | None:
        """The owner's program, to its end."""
        with self._owner(world) as owner:
            self._succeeds(owner, self.calm.violations)
        return None

    def _record(self) -> Recording:
        recording = super()._record()
        if written := [point for point in recording.points if "/state/tasks" in point.text]:
            self.calm.violations.append(f"written down: {written[0]}")
        # A thread that serves a client is not there before the client is.
        recording.points = [point for point in recording.points if not point.role.startswith("client")]
        return recording

    @contextmanager
    def _owner(self, world: World) -> Iterator[_Owner]:
        owner = _Owner(self, world)
        try:
            yield owner
        finally:
            owner.close()

    def _succeeds(self, owner: _Owner, violations: list[str]) -> None:
        if owner.ended() != 0:
            violations.append(f"the owner ended with {owner.ended()}: {owner.said()}")

    # ---- with an accident

    def lose(self, point: Point, loss: Loss) -> Outcome:
        """Run the operation, and kill at a point."""
        outcome = Outcome(f"{self.row.name}: {loss} at {point}")
        with watched(outcome), self.world() as world, self._owner_at(world, point, loss, outcome) as owner:
            if outcome.fired:
                verdict = Verdict(
                    self.operation,
                    world,
                    self.bench.contents,
                    self.recording.before,
                    self.recording.after,
                    outcome.violations,
                )
                self._judge(verdict, owner, loss)
        return outcome

    @contextmanager
    def _owner_at(self, world: World, point: Point, loss: Loss, outcome: Outcome) -> Iterator[_Owner]:
        """The owner's program begins, and somebody is killed when its task comes to a point."""
        strace = Strace(
            world.service.thread(point.role),
            KILL.calls(point),
            self.bench.folder / "injection",
            path=KILL.filter(point, world.home.path),
            inject=KILL.expressions(point)
            if loss.service
            else [f"{point.name}:delay_enter={_HELD}:when={point.number}"],
        )
        with self._owner(world) as owner:
            try:
                outcome.fired = (
                    self._service_ends(world.service, owner, strace, point)
                    if loss.service
                    else self._owner_ends(world.service, owner, strace, point)
                )
            finally:
                strace.detach()
            yield owner

    def _service_ends(self, service: Hsmd, owner: _Owner, strace: Strace, point: Point) -> bool:
        _until(lambda: service.gone(0) or owner.gone(), "neither the service nor the task ends")
        if not service.gone(1.0):
            return False
        return KILL.happened(point, strace.finish(), killed=service.ended() == -signal.SIGKILL)

    def _owner_ends(self, service: Hsmd, owner: _Owner, strace: Strace, point: Point) -> bool:
        """The owner is killed while its task is held at the point, which goes on when that was noticed."""
        _until(lambda: owner.gone() or _held(strace, point), "the task does not get to its point")
        if owner.gone():
            return False
        owner.kill()
        noticed = " hsm.owners: owner gone "
        _until(lambda: noticed in service.log.read_text(), "the owner's absence is not noticed", _NOTICED)
        return True

    # ---- afterwards

    def _judge(self, verdict: Verdict, owner: _Owner, loss: Loss) -> None:
        world = verdict.world
        if loss.service:
            world.service.kill()
            if loss.owner:
                owner.kill()
            world.service = Hsmd(self.bench.nursery, world.home.path, *self.settings)
        if loss.owner:
            self._between(verdict, killed=loss.service)
            with self._owner(world) as again:
                self._succeeds(again, verdict.violations)
        else:
            self._succeeds(owner, verdict.violations)
        world.service.serve()
        verdict.of_end("asked again")
        if wrong := self.operation.done(world, self.recording.after, self.bench.contents):
            verdict.violations.append(f"asked again: {wrong}")
        verdict.of_health()
        self._invisible(verdict)

    def _between(self, verdict: Verdict, *, killed: bool) -> None:
        """Nobody has asked again: as before, or as after, and nothing is left behind."""
        world = verdict.world
        world.service.serve()
        client = world.client

        def idle() -> bool:
            stats = client.host.get_stats()
            return stats.tasks_running + stats.tasks_queued == 0

        _until(idle, "the task goes on")
        # After a restart a change in place waits for its owner between the two states; garbage was collected.
        waits = killed and self.operation.halfway is not None
        state = verdict.of_accident(frozenset(), killed=killed and not waits, waits=waits)
        said = world.service.log.read_text()
        if not killed and state == "before" and "state=stopped" not in said:
            verdict.violations.append("the task did not stop, and is not done")
        if state == "halfway" and not killed:
            verdict.violations.append("stopped in the middle of a change in place")

    def _invisible(self, verdict: Verdict) -> None:
        """Nobody else sees it."""
        for task in verdict.world.client.task.list().items:
            if str(task.id) == _TASK or task.mode is not None:
                verdict.violations.append(f"others see the task: {task}")
        if found := [name for name in invariants.remains(verdict.world.home) if "state/" in name]:
            verdict.violations.append(f"on the service's own disk: {found}")


def _held(strace: Strace, point: Point) -> bool:
    """Whether a thread is held at the point: strace has begun the line, and cannot end it."""
    said = strace.output.read_text() if strace.output.exists() else ""
    if said.endswith("\n"):
        return False
    return sum(call.name == point.name for call in parse(said)) + 1 >= point.number and said.rpartition("\n")[
        2
    ].startswith(f"{point.name}(")


def _until(condition: Callable[[], bool], otherwise: str, patience: float = PATIENCE) -> None:
    until = time.monotonic() + patience
    while not condition():
        if time.monotonic() > until:
            raise Hanging(otherwise)
        time.sleep(0.002)
