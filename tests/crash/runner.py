# SPDX-License-Identifier: Apache-2.0
"""Gives the operations to worker processes, and adds up what they report."""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from tests.crash import fixture, tools
from tests.crash.accidents import ACCIDENTS
from tests.crash.hsmd import Nursery
from tests.crash.operation import Operation
from tests.crash.operations import OPERATIONS
from tests.crash.owned import LOSSES, Owned, OwnedTrial
from tests.crash.owned import ROWS as OWNED
from tests.crash.points import Point
from tests.crash.starts import STARTS, Start, StartTrial
from tests.crash.trial import Bench, Outcome, Trial

_ROWS: list[Operation | Start | Owned] = [*OPERATIONS, *STARTS, *OWNED]
TABLE = {row.name: row for row in _ROWS}
P = TypeVar("P")
K = TypeVar("K")
_READS = 12
"""So many of the system calls by which an operation looks at a domain are tried, at random."""
_SLOW = ("Image.import", "Image.export", "Image.makeTemplate", "Image.copy", "Image.move", "Volume.copy")


@dataclass(frozen=True)
class Choice:
    """Which accidents to try."""

    seed: int
    sample: int | None = None
    """so many of each operation, and of its tools; None: all"""
    only: str = ""
    """a part of the accident's name"""


@dataclass
class Result:
    """One operation's."""

    name: str
    points: int = 0
    """system calls and tools' writes at which something can happen"""
    accidents: int = 0
    fired: int = 0
    publications: int = 0
    seconds: float = 0.0
    kinds: set[str] = field(default_factory=set)
    violations: list[str] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.violations += [fixture.readable(f"{outcome.what}: {text}") for text in outcome.violations]
        if not outcome.fired:
            self.violations.append(f"{outcome.what}: did not happen")


def operations(part: str = "") -> list[str]:
    """The names of the operations, those that take long first."""
    rows = [row for row in TABLE.values() if part in row.name]
    return [row.name for row in sorted(rows, key=lambda row: getattr(row, "verb", "") not in _SLOW)]


@contextmanager
def at_work(choice: Choice, names: list[str], jobs: int) -> Iterator[dict[str, Future[Result]]]:
    """The results to come, by operation."""
    with tempfile.TemporaryDirectory(prefix="hsm-crash-") as folder:
        place = Path(folder).resolve()
        nursery = Nursery()
        try:
            fixture.make(place / "fixture", nursery)
        finally:
            nursery.close()
        context = get_context("spawn")
        with ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(place,)) as pool:
            try:
                yield {name: pool.submit(_run, name, choice) for name in names}
            finally:
                pool.shutdown(cancel_futures=True)


_benches: list[Bench] = []
"""The worker process's one bench."""


def _begin(place: Path) -> None:
    folder = place / f"worker-{os.getpid()}"
    folder.mkdir()
    _benches.append(Bench(Nursery(), fixture.Home(place / "fixture"), folder))


def _run(name: str, choice: Choice) -> Result:
    began = time.monotonic()
    row = TABLE[name]
    bench = _benches[0]
    trial = _trial(row, bench)
    result = Result(name, publications=trial.recording.publications)
    result.add(trial.calm)
    dice = random.Random(f"{choice.seed} {name}")
    for outcome, kind in _outcomes(trial, result, choice, dice):
        result.accidents += 1
        result.fired += outcome.fired
        result.kinds.add(kind)
        result.add(outcome)
    result.seconds = time.monotonic() - began
    return result


def _trial(row: Operation | Start | Owned, bench: Bench) -> Trial | StartTrial:
    if isinstance(row, Owned):
        return OwnedTrial(row, bench)
    return StartTrial(row, bench) if isinstance(row, Start) else Trial(row, bench)


def _losses(
    trial: OwnedTrial, result: Result, choice: Choice, dice: random.Random, place: int
) -> Iterator[tuple[Outcome, str]]:
    points = [point for point in trial.recording.points if not point.reads]
    result.points = len(points)
    pairs = [(point, loss) for point in points for loss in LOSSES if loss.applies(point)]
    for point, loss in _some(pairs, LOSSES, choice, place, dice):
        outcome = trial.lose(point, loss)
        yield outcome if outcome.fired else trial.lose(point, loss), loss.name


def _outcomes(
    trial: Trial | StartTrial, result: Result, choice: Choice, dice: random.Random
) -> Iterator[tuple[Outcome, str]]:
    place = list(TABLE).index(result.name) + choice.seed
    if isinstance(trial, OwnedTrial):
        yield from _losses(trial, result, choice, dice, place)
        return
    points = _points(trial.recording.points, dice)
    result.points = len(points)
    own = [(point, accident) for point in points for accident in ACCIDENTS if accident.applies(point)]
    for point, accident in _some(own, ACCIDENTS, choice, place, dice):
        outcome = trial.strike(point, accident)
        # A page more in the record of tasks moves the calls behind it: the recording counts, but not at any price.
        yield outcome if outcome.fired else trial.strike(point, accident), accident.name
    if isinstance(trial, Trial) and not trial.operation.gated:
        moments = list(tools.moments(trial, dice))
        result.points += len(moments)
        pairs = [(moment, kind) for moment in moments for kind in tools.KINDS if kind.applies(moment)]
        for moment, kind in _some(pairs, tools.KINDS, choice, place, dice):
            yield tools.strike(trial, moment, kind), kind.name


def _points(points: list[Point], dice: random.Random) -> list[Point]:
    """All that change something, and some of those that only look."""
    reads = [point for point in points if point.reads]
    return [point for point in points if not point.reads] + dice.sample(reads, min(_READS, len(reads)))


def _some(
    pairs: list[tuple[P, K]], kinds: Sequence[K], choice: Choice, place: int, dice: random.Random
) -> Iterator[tuple[P, K]]:
    """All that are asked for, or a sample: the kinds take turns from operation to operation."""
    wanted = [pair for pair in pairs if choice.only in f"{pair[1]} {pair[0]}"]
    if choice.sample is None:
        yield from wanted
        return
    for number in range(place, place + choice.sample):
        turns = [kinds[(number + turn) % len(kinds)] for turn in range(len(kinds))]
        of_kind = next((found for kind in turns if (found := [pair for pair in wanted if pair[1] is kind])), [])
        if of_kind:
            yield dice.choice(of_kind)
