# SPDX-License-Identifier: Apache-2.0
"""One operation on trial: recorded once without accident, then run once for each accident at each point.

After an accident the home has to be in one of two states: as before the operation, or as after it.  Nothing between
them, nothing lost, nothing left behind, and the task says which of the two it is.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from libvdsm.api.errors import ConnectionFailed
from libvdsm.api.types import TaskInfo
from libvdsm.declare import ApiError
from tests.crash import durability, invariants, points
from tests.crash.accidents import Accident
from tests.crash.contents import Contents
from tests.crash.fixture import NO_DEFAULT, Home, remove
from tests.crash.gate import Gate
from tests.crash.hsmd import Hanging, Hsmd, Nursery
from tests.crash.invariants import Facts
from tests.crash.operation import Operation, World
from tests.crash.points import Point
from tests.crash.tracing import CHANGING, READING, STARTING, TELLING, Call, Strace, parse
from tests.crash.verdict import Verdict
from tests.service import end_keepers


@dataclass
class Bench:
    """What a worker process has for all trials."""

    nursery: Nursery
    fixture: Home
    folder: Path
    contents: Contents = field(default_factory=Contents)


@dataclass
class Recording:
    """A run without accident."""

    calls: list[Call]
    roles: dict[int, str]
    points: list[Point]
    before: Facts
    after: Facts
    publications: int
    home: Path


@dataclass
class Outcome:
    """What became of one accident, or of the run without any."""

    what: str
    fired: bool = False
    violations: list[str] = field(default_factory=list)


@contextmanager
def watched(outcome: Outcome) -> Iterator[None]:
    """What hangs, or is gone when it should not be, is a violation like others."""
    try:
        yield
    except Hanging as hanging:
        outcome.violations.append(f"hanging: {hanging}")
    except ApiError as error:
        outcome.violations.append(f"afterwards {type(error).__name__}: {error.message}")


class Trial:
    """Runs one operation."""

    settings: tuple[str, ...] = (NO_DEFAULT,)
    """of the service"""

    def __init__(self, operation: Operation, bench: Bench) -> None:
        self.operation = operation
        self.bench = bench
        self.calm = Outcome(f"{operation.name}: no accident", fired=True)
        self._left: dict[Point, str] = {}
        """the state in which a kill at a point left the home"""
        self.recording = self._record()

    # ---- a run

    @contextmanager
    def world(self, *gate: str) -> Iterator[World]:
        """A fresh home, served, with what the operation needs arranged; ``gate``: the programs to stand before."""
        home = self.bench.fixture.copy(self.bench.folder / "home")
        programs = ("qemu-img",) if self.operation.gated else gate
        stands = Gate(self.bench.folder / "gate", *programs) if programs else None
        service = Hsmd(self.bench.nursery, home.path, *self.settings, path=stands.path if stands else None)
        world = World(home, service, stands)
        try:
            service.serve()
            if stands is not None:
                # What is arranged may need the program too, and is not what is on trial.
                stands.open()
            self.operation.arrange(world)
            if stands is not None:
                stands.shut()
            world.kept["tasks"] = {task.id for task in world.client.task.list().items}
            yield world
        finally:
            world.service.kill()
            world.close()
            end_keepers(home.path)
            remove(home.path)

    def call(self, world: World) -> TaskInfo[Any] | None:
        """The operation to its end: its task as it ended, or None.  Raises what the verb answers."""
        task = self.operation.call(world)
        return None if task is None else world.service.wait(task)

    def restart(self, world: World) -> None:
        """Another service for the same home."""
        world.service.kill()
        path = world.gate.path if world.gate and self.operation.gated else None
        world.service = Hsmd(self.bench.nursery, world.home.path, *self.settings, path=path)
        world.service.serve()

    # ---- without accident

    def _record(self) -> Recording:
        operation, violations = self.operation, self.calm.violations
        output = self.bench.folder / "recording"
        contents = self.bench.contents
        with self.world() as world:
            before = invariants.look(world.home, world.client, contents)
            violations += [f"before: {problem}" for problem in before.problems]
            strace = Strace(world.service.pid, CHANGING | READING | STARTING | TELLING, output, whole=True)
            ended = self.call(world)
            roles = world.service.threads()
            calls = parse(strace.detach())
            if ended is not None and ended.state is not operation.end:
                violations.append(f"it ended as {ended.state.value}: {ended.error}")
            ledger = durability.Ledger(world.home.path, roles).read(calls)
            violations += ledger.findings
            after = invariants.look(world.home, world.client, contents)
            violations += [f"after: {problem}" for problem in after.problems]
            if wrong := operation.done(world, after.facts, contents):
                violations.append(wrong)
            if not operation.proof(before.facts, after.facts):
                violations.append(f"it did something else: {invariants.differences(before.facts, after.facts)}")
            found = list(points.find(calls, roles, world.home.path))
            recording = Recording(calls, roles, found, before.facts, after.facts, ledger.publications, world.home.path)
            self.restart(world)
            again = invariants.look(world.home, world.client, contents)
            violations += [f"lost by a restart: {fact}" for fact in invariants.differences(after.facts, again.facts)]
        return recording

    # ---- with one

    def strike(self, point: Point, accident: Accident) -> Outcome:
        """Run the operation with an accident at a point."""
        outcome = Outcome(f"{self.operation.name}: {accident.name} at {point}")
        with watched(outcome), self.world() as world:
            outcome.fired = self.suffer(world, point, accident, outcome.violations)
            if outcome.fired:
                state = self.judge(world, accident.answers, outcome.violations, killed=accident.errno is None)
                self._compare(world, point, state, outcome.violations, killed=accident.errno is None)
        return outcome

    def _compare(self, world: World, point: Point, state: str, violations: list[str], *, killed: bool) -> None:
        """What a failure undoes, or finishes, a restart after a kill at the same point does too."""
        if killed:
            self._left[point] = state
        elif world.kept.get("failed") and state == "after" and self._left.get(point) == "before":
            violations.append("it failed before its commit point, and is done all the same")

    def suffer(self, world: World, point: Point, accident: Accident, violations: list[str]) -> bool:
        """The accident itself: whether it happened."""
        strace = Strace(
            world.service.thread(point.role),
            accident.calls(point),
            self.bench.folder / "injection",
            path=accident.filter(point, world.home.path),
            inject=accident.expressions(point),
        )
        try:
            with suppress(*([ConnectionFailed] if accident.errno is None else [])):
                ended = self.call(world)
                world.kept["failed"] = ended is not None and ended.error is not None
        except ApiError as error:
            if type(error).__name__ not in accident.answers:
                violations.append(f"answered {type(error).__name__}: {error.message}")
        finally:
            killed = accident.errno is None and world.service.gone(1.0)
            said = strace.finish() if killed else strace.detach()
        return accident.happened(point, said, killed=killed and world.service.ended() == -signal.SIGKILL)

    # ---- afterwards

    def judge(self, world: World, answers: frozenset[str], violations: list[str], *, killed: bool) -> str:
        """Everything that has to be true after an accident, and after the same call once more: the state it left."""
        verdict = Verdict(
            self.operation, world, self.bench.contents, self.recording.before, self.recording.after, violations
        )
        if killed:
            self.restart(world)
            verdict.of_record()
        else:
            verdict.collect()
        state = verdict.of_accident(answers, killed=killed)
        self._again(world, violations)
        if world.gate is not None:
            world.gate.open()
        verdict.of_end("again")
        if wrong := self.operation.done(world, self.recording.after, self.bench.contents):
            violations.append(f"again: {wrong}")
        verdict.of_health()
        if not killed:
            self.restart(world)
            verdict.of_end("after another restart")
        return state

    def _again(self, world: World, violations: list[str]) -> None:
        """The same call succeeds."""
        try:
            ended = self.call(world)
        except self.operation.gone:
            return
        except ApiError as error:
            violations.append(f"again: {type(error).__name__}: {error.message}")
            return
        if ended is not None and ended.state is not self.operation.end:
            violations.append(f"again: it ended as {ended.state.value}: {ended.error}")
