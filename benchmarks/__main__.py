# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmarks: ``python -m benchmarks [--rounds 5] [NAME...]``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from benchmarks import report
from benchmarks.rounds import NotHere, measure
from benchmarks.suite import BENCHMARKS


def main() -> int:
    """The program: its exit status."""
    arguments = _arguments()
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    chosen = [item for item in BENCHMARKS if not arguments.names or item.name in arguments.names]
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="hsm-bench-", dir=arguments.dir) as folder:
        for benchmark in chosen:
            began = time.monotonic()
            try:
                outcomes.append(measure(benchmark, Path(folder, benchmark.name), arguments.rounds))
            except NotHere as reason:
                console.print(f"{benchmark.name}: not measured: {reason}", style="bold yellow")
            console.print(f"{benchmark.name}: {time.monotonic() - began:.1f} s", style="dim")
    report.show(outcomes, console)
    report.write(outcomes, arguments.output)
    return int(arguments.strict and not all(outcome.met for outcome in outcomes))


def _arguments() -> argparse.Namespace:
    names = [benchmark.name for benchmark in BENCHMARKS]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure the service beside the bare tool."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these; all are {', '.join(names)}")
    parser.add_argument("--rounds", type=int, default=5, help="how often each side is measured; default 5")
    parser.add_argument("--strict", action="store_true", help="exit with status 1 when a goal is missed")
    parser.add_argument(
        "--output", type=Path, default=Path("build/benchmarks.json"), metavar="FILE", help="figures as JSON"
    )
    parser.add_argument(
        "--dir", default="/var/tmp", help="where volumes are made: on a real disk, and short, for sockets lie there too"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(names):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    if arguments.rounds < 1:
        parser.error("at least one round")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
