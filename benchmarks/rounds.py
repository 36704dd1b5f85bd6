# SPDX-License-Identifier: Apache-2.0
"""Interleaved rounds: what a benchmark is, and how its figure comes about.

A round measures both sides, one right after the other, and which one begins alternates; so a machine that is busy
for a while slows both.  A figure is the median over the rounds, a ratio is ours divided by the bare tool's.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

Side = Callable[[], float]
"""Measures one side for one round, in the benchmark's unit."""


class NotHere(Exception):
    """This machine, or this user, cannot do what is to be measured; says why."""


@dataclass(frozen=True)
class Sides:
    """The service, and what it is compared with."""

    ours: Side
    bare: Side | None = None


@dataclass(frozen=True)
class Goal:
    """What is to be reached.  With several bounds, one of them is enough; with none, the figure is only reported."""

    text: str
    ours_at_most: float | None = None
    ours_at_least: float | None = None
    ratio_at_most: float | None = None
    ratio_at_least: float | None = None

    def met(self, ours: float, ratio: float | None) -> bool:
        bounds = (
            None if self.ours_at_most is None else ours <= self.ours_at_most,
            None if self.ours_at_least is None else ours >= self.ours_at_least,
            None if self.ratio_at_most is None or ratio is None else ratio <= self.ratio_at_most,
            None if self.ratio_at_least is None or ratio is None else ratio >= self.ratio_at_least,
        )
        known = [bound for bound in bounds if bound is not None]
        return any(known) or not known


@dataclass(frozen=True)
class Benchmark:
    """One figure.  ``prepare`` makes ready in a folder of its own what the rounds need, and cleans up after them."""

    name: str
    title: str
    unit: str
    goal: Goal
    prepare: Callable[[Path], AbstractContextManager[Sides]]
    times: int = 1
    """Measured so many times in a round, as it is short."""


@dataclass(frozen=True)
class Outcome:
    """What was measured.  ``pairwise`` is the median of each round's own ratio."""

    benchmark: Benchmark
    ours: float
    bare: float | None
    ratio: float | None
    pairwise: float | None
    lowest: float
    highest: float

    @property
    def met(self) -> bool:
        return self.benchmark.goal.met(self.ours, self.ratio)


def measure(benchmark: Benchmark, folder: Path, rounds: int) -> Outcome:
    """Run one benchmark."""
    ours: list[float] = []
    bare: list[float] = []
    with benchmark.prepare(folder) as sides:
        for number in range(rounds * benchmark.times):
            turns = [(sides.ours, ours)]
            if sides.bare is not None:
                turns.append((sides.bare, bare))
            for side, figures in turns if number % 2 == 0 else reversed(turns):
                figures.append(side())
    middle = statistics.median(ours)
    beside = statistics.median(bare) if bare else None
    return Outcome(
        benchmark,
        ours=middle,
        bare=beside,
        ratio=middle / beside if beside else None,
        pairwise=statistics.median(one / other for one, other in zip(ours, bare, strict=True)) if bare else None,
        lowest=min(ours),
        highest=max(ours),
    )
