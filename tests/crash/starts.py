# SPDX-License-Identifier: Apache-2.0
"""Accidents of the start itself: the first one, and those that find what a crash has left.

The service is stopped before it does anything, or when its worker begins, so that the tracer is there in time.  A
start that fails says why and ends, or serves; and the next one finishes what there is to finish.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from libvdsm.api.errors import ConnectionFailed
from libvdsm.api.types import TaskState
from tests.crash import durability, invariants, points
from tests.crash.accidents import KILL, Accident
from tests.crash.fixture import NO_DEFAULT, Home, empty, remove, volume
from tests.crash.hsmd import ENDED, SERVICE, Hsmd
from tests.crash.invariants import Facts
from tests.crash.operation import World
from tests.crash.operations import OPERATIONS
from tests.crash.points import Point
from tests.crash.tracing import CHANGING, READING, STARTING, TELLING, Strace, parse
from tests.crash.trial import Bench, Outcome, Recording, Trial, watched
from tests.crash.verdict import Verdict
from tests.service import end_keepers


@dataclass(frozen=True)
class Start:
    """One way in which a service can begin."""

    name: str
    operation: str | None
    """what was interrupted by the crash before; None: there was nothing before"""
    crash: Callable[[Point], bool]
    """where"""
    finished: bool
    """whether the start finishes it; else it is undone"""


STARTS = [
    Start("first start", None, lambda _: False, finished=True),
    Start(
        "start after a crash in an import",
        "file of others imported into preallocated space",
        lambda point: point.name == "rename" and point.role == "worker-0",
        finished=False,
    ),
    Start(
        "start after a crash in the making of a domain",
        "domain created",
        lambda point: "outbox" in point.text,
        finished=True,
    ),
    Start(
        "start after a crash in a resize",
        "qcow2 volume resized",
        lambda point: ".new" in point.text,
        finished=True,
    ),
    Start(
        "start after a crash in a formatting",
        "domain formatted",
        lambda point: point.name.startswith(("unlink", "rmdir")),
        finished=True,
    ),
    Start(
        "start after a crash in a merge down",
        "layers below another merged down",
        lambda point: point.name == "rename" and ".meta." in point.text,
        finished=True,
    ),
    Start(
        "start after a crash in a merge up",
        "layers merged up",
        lambda point: (
            point.name == "fsync" and point.path is not None and point.path.endswith(str(volume("chain leaf")))
        ),
        finished=True,
    ),
    Start(
        "start after a crash in going back",
        "image reverted",
        lambda point: point.name == "rename" and ".meta." in point.text,
        finished=True,
    ),
]


class _StartVerdict(Verdict):
    """The first domain's id is chosen at random; here it has a name."""

    def look(self) -> invariants.Seen:
        seen = super().look()
        if self.operation is None:
            seen.facts = _named(seen.facts, self.world.home)
        return seen


def _named(facts: Facts, home: Home) -> Facts:
    def name(text: str) -> str:
        for number, id_ in enumerate(invariants.attached(home)):
            text = text.replace(id_, f"<domain {number}>")
        return text

    return {
        name(key): [name(str(item)) for item in value] if isinstance(value, list) else value
        for key, value in facts.items()
    }


class StartTrial:
    """Runs one start; has a trial's face."""

    def __init__(self, start: Start, bench: Bench) -> None:
        self.start = start
        self.bench = bench
        self.calm = Outcome(f"{start.name}: no accident", fired=True)
        self.operation = next((found for found in OPERATIONS if found.name == start.operation), None)
        self._settings = () if start.operation is None else (NO_DEFAULT,)
        self._left = bench.folder / "left"
        expected = self._crash()
        self.recording = self._record(expected)

    def _crash(self) -> Facts | None:
        """Make what the crash before has left; what has to be there in the end."""
        if self.operation is None:
            empty(self._left)
            return None
        trial = Trial(self.operation, self.bench)
        point = next(point for point in trial.recording.points if self.start.crash(point))
        with trial.world() as world:
            assert trial.suffer(world, point, KILL, self.calm.violations)
            world.home.copy(self._left)
            remove(self._left / "run")
        return trial.recording.after if self.start.finished else trial.recording.before

    @contextmanager
    def _world(self, stop: str) -> Iterator[World]:
        home = Home(self._left).copy(self.bench.folder / "home")
        world = World(home, Hsmd(self.bench.nursery, home.path, *self._settings, stop=stop))
        try:
            yield world
        finally:
            world.service.kill()
            end_keepers(home.path)
            remove(home.path)

    def _record(self, expected: Facts | None) -> Recording:
        violations = self.calm.violations
        with self._world("main") as world:
            service = world.service
            strace = Strace(
                service.pid, CHANGING | READING | STARTING | TELLING, self.bench.folder / "recording", whole=True
            )
            service.go_on()
            service.serve()
            roles = service.threads()
            calls = parse(strace.detach())
            ledger = durability.Ledger(world.home.path, roles).read(calls)
            violations += ledger.findings
            if expected is None:
                expected = _StartVerdict(None, world, self.bench.contents, {}, {}, violations).look().facts
                if [key for key in expected if key.endswith(" name")] != ["<domain 0> name"]:
                    violations.append(f"not one domain, but {expected}")
            self._verdict(world, expected, violations).of_end("started")
            found = [
                point
                for point in points.find(calls, roles, world.home.path)
                if point.role in ("main", "worker-0") and point.name not in STARTING
            ]
            return Recording(calls, roles, found, {}, expected, ledger.publications, world.home.path)

    def _verdict(self, world: World, expected: Facts, violations: list[str]) -> Verdict:
        return _StartVerdict(self.operation, world, self.bench.contents, {}, expected, violations)

    def strike(self, point: Point, accident: Accident) -> Outcome:
        """Start with an accident at a point."""
        outcome = Outcome(f"{self.start.name}: {accident.name} at {point}")
        with watched(outcome), self._world(point.role) as world:
            service = world.service
            strace = Strace(
                service.thread(point.role),
                accident.calls(point),
                self.bench.folder / "injection",
                path=accident.filter(point, world.home.path),
                inject=accident.expressions(point),
            )
            service.go_on()
            serves = self._serves(world, accident, outcome.violations)
            said = strace.detach() if serves else strace.finish()
            outcome.fired = accident.happened(point, said, killed=not serves and service.ended() < 0)
            if outcome.fired:
                self._judge(world, accident, outcome.violations, serves=serves)
        return outcome

    def _serves(self, world: World, accident: Accident, violations: list[str]) -> bool:
        """Whether it serves; if not it has ended, and said why."""
        try:
            world.service.serve()
        except (AssertionError, ConnectionFailed):
            # It has ended, before it answered or just after.
            if not world.service.gone():
                raise
            said = world.service.said()
            if accident is not KILL and (world.service.ended() != 1 or "Traceback" in said or "hsmd: " not in said):
                violations.append(f"it ended with {world.service.ended()} and said: {said}")
            return False
        return True

    def _judge(self, world: World, accident: Accident, violations: list[str], *, serves: bool) -> None:
        verdict = self._verdict(world, self.recording.after, violations)
        if serves:
            self._truth(world, accident.answers, violations)
            verdict.collect()
            if self.operation is not None and self.start.finished:
                self._again(world, violations)
                verdict.of_end("again")
        world.service.kill()
        world.service = Hsmd(self.bench.nursery, world.home.path, *self._settings)
        world.service.serve()
        verdict.of_end("started again")
        if accident is KILL:
            verdict.of_record()
        verdict.of_health()
        if not serves:
            self._settled(world, violations)

    def _truth(self, world: World, answers: frozenset[str], violations: list[str]) -> None:
        """What failed says so with an error that fits."""
        for task in world.client.task.list().items:
            name = task.error.name if task.error else None
            if task.owner == SERVICE and self._destroys and name in ("NoSuchDomain", "StorageFailed"):
                # The start collects the garbage of every domain, also of one that it destroys meanwhile.
                continue
            if task.state not in ENDED or name not in (None, "Interrupted", *answers):
                violations.append(f"{task.verb} is {task.state.value}: {task.error}")

    @property
    def _destroys(self) -> bool:
        return self.operation is not None and self.operation.verb == "Domain.format"

    def _again(self, world: World, violations: list[str]) -> None:
        """What the start could not finish is finished by the same call."""
        assert self.operation is not None
        try:
            task = self.operation.call(world)
        except self.operation.gone:
            return
        ended = world.service.wait(task) if task else None
        if ended is not None and ended.state is not TaskState.SUCCEEDED:
            violations.append(f"again: it ended as {ended.state.value}: {ended.error}")

    def _settled(self, world: World, violations: list[str]) -> None:
        """What was interrupted is finished or undone, and says which."""
        for task in world.client.task.list().items:
            if self.operation is not None and task.verb == self.operation.verb:
                wanted = TaskState.SUCCEEDED if self.start.finished else TaskState.FAILED
                if task.state is not wanted:
                    violations.append(f"{task.verb} is {task.state.value}: {task.error}")
