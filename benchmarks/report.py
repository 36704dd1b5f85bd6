# SPDX-License-Identifier: Apache-2.0
"""What was measured, for people (a table) and for programs (a JSON file)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.rounds import Outcome


class Entry(msgspec.Struct, frozen=True):
    """One benchmark in the file.  ``ratio`` is ours divided by bare, None where there is nothing to compare with."""

    name: str
    ours: float
    bare: float | None
    ratio: float | None
    goal: str
    met: bool
    unit: str


def write(outcomes: Sequence[Outcome], file: Path) -> None:
    """Write the file for programs."""
    entries = [
        Entry(
            name=outcome.benchmark.name,
            ours=outcome.ours,
            bare=outcome.bare,
            ratio=outcome.ratio,
            goal=outcome.benchmark.goal.text,
            met=outcome.met,
            unit=outcome.benchmark.unit,
        )
        for outcome in outcomes
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(entries), indent=2) + b"\n")


def show(outcomes: Sequence[Outcome], console: Console) -> None:
    """Print the table, and say what was missed."""
    table = Table(title="the service beside the bare tool, medians")
    table.add_column("benchmark")
    for heading in ("ours", "lowest-highest", "bare", "ratio", "pairwise"):
        table.add_column(heading, justify="right")
    table.add_column("unit")
    table.add_column("goal")
    table.add_column("")
    for outcome in outcomes:
        table.add_row(
            f"{outcome.benchmark.name}: {outcome.benchmark.title}",
            _figure(outcome.ours),
            f"{_figure(outcome.lowest)}-{_figure(outcome.highest)}",
            _figure(outcome.bare),
            _ratio(outcome.ratio),
            _ratio(outcome.pairwise),
            outcome.benchmark.unit,
            outcome.benchmark.goal.text,
            "[green]met[/]" if outcome.met else "[bold white on red] MISSED [/]",
        )
    console.print(table)
    if missed := [outcome.benchmark.name for outcome in outcomes if not outcome.met]:
        console.print(f"[bold red]MISSED: {', '.join(missed)}[/]; docs/benchmarks.md says what holds them back")


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _ratio(value: float | None) -> str:
    if value is None:
        return ""
    return f"1/{1 / value:.0f}" if 0 < value < 0.05 else f"{value:.2f}"
