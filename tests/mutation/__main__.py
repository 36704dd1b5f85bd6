# SPDX-License-Identifier: Apache-2.0
"""Proves that the tests notice a verb that does nothing: ``make check-tests``.

Each verb in turn answers defaults and does nothing; some test has to fail.  Who reads the table learns which test
stands for which verb.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from libvdsm.api import VERBS
from tests.mutation.trial import Trial, Verdict, attempt_verb, confirmed


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("verbs", nargs="*", metavar="Verb", help="such as Image.create; none: all")
    parser.add_argument("--jobs", type=int, default=2, help="trials at once (2)")
    parser.add_argument("--timeout", type=float, default=150.0, help="seconds for one run of pytest (150)")
    arguments = parser.parse_args()
    if unknown := [verb for verb in arguments.verbs if verb not in VERBS]:
        parser.error(f"no such verb: {', '.join(unknown)}")
    verbs = arguments.verbs or list(VERBS)
    began = time.monotonic()

    def tried(verb: str) -> Trial:
        trial = attempt_verb(verb, arguments.timeout)
        print(f"{trial.verb}: {trial.verdict.value}", file=sys.stderr)
        return trial

    with ThreadPoolExecutor(arguments.jobs) as pool:
        trials = list(pool.map(tried, verbs))
    trials = confirmed(trials, arguments.timeout)
    print(table(trials))
    counts = ", ".join(f"{sum(t.verdict is verdict for t in trials)} {verdict.value}" for verdict in Verdict)
    print(f"\n{len(trials)} verbs: {counts}; {time.monotonic() - began:.0f} s")
    return int(any(trial.verdict is not Verdict.KILLED for trial in trials))


def table(trials: list[Trial]) -> str:
    """The table, and after it the output of what went wrong."""
    width = max(len(trial.verb) for trial in trials)
    middle = max(len(_told(trial)) for trial in trials)
    lines = [f"{'verb':{width}}  {'killed by':{middle}}  seconds"]
    lines += [f"{trial.verb:{width}}  {_told(trial):{middle}}  {trial.seconds:7.1f}" for trial in trials]
    for trial in trials:
        if trial.verdict is Verdict.ERROR:
            lines += ["", f"---- {trial.verb}: {trial.by}", trial.output]
    return "\n".join(lines)


def _told(trial: Trial) -> str:
    if trial.verdict is Verdict.KILLED:
        return trial.by.removeprefix("tests/")
    return f"{trial.verdict.value.upper()}: {trial.by}"


if __name__ == "__main__":
    sys.exit(main())
