# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.crash``: every accident at every point of every operation."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from concurrent.futures import as_completed

from tests.crash.runner import Choice, Result, at_work, operations

_ROW = "{:<52} {:>7} {:>10} {:>7} {:>11} {:>7}"


def main() -> int:
    """The program."""
    arguments = _arguments()
    names = operations(arguments.operation)
    if not names:
        print(f"no operation is called {arguments.operation!r}; there are:", *operations(), sep="\n  ")
        return 2
    choice = Choice(arguments.seed, arguments.sample, arguments.only)
    print(f"seed {choice.seed}, {len(names)} operations", flush=True)
    print(_ROW.format("operation", "points", "accidents", "fired", "violations", "seconds"), flush=True)
    began = time.monotonic()
    with at_work(choice, names, arguments.jobs) as coming:
        results = [_told(future.result()) for future in as_completed(coming.values())]
    return _end(results, time.monotonic() - began)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--operation", default="", metavar="TEXT", help="only operations with this in their name")
    parser.add_argument("--only", default="", metavar="TEXT", help="only accidents with this in their description")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="chooses the tools' random writes")
    parser.add_argument("--sample", type=int, metavar="N", help="so many accidents of each operation; default: all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="worker processes; default: processors")
    return parser.parse_args()


def _told(result: Result) -> Result:
    print(_row(result), flush=True)
    for violation in result.violations:
        print(f"    {violation}", flush=True)
    return result


def _row(result: Result) -> str:
    return _ROW.format(
        result.name,
        result.points,
        result.accidents,
        result.fired,
        len(result.violations),
        f"{result.seconds:.0f}",
    )


def _end(results: list[Result], seconds: float) -> int:
    total = Result("total", seconds=seconds)
    for result in results:
        total.points += result.points
        total.accidents += result.accidents
        total.fired += result.fired
        total.publications += result.publications
        total.violations += result.violations
    print(_row(total))
    print(
        f"{len(results)} operations, {total.points} points, {total.accidents} accidents, {total.fired} fired, "
        f"{len(total.violations)} violations; {total.publications} publications found durable; "
        f"{seconds / 60:.1f} minutes"
    )
    return 1 if total.violations or total.fired != total.accidents else 0


if __name__ == "__main__":
    sys.exit(main())
