# SPDX-License-Identifier: Apache-2.0
"""Trials: the tests, run against a mutant in a process and a folder of their own, and what they show."""

from __future__ import annotations

import enum
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from libvdsm.api import VERBS
from tests.mutation import mutant, plugin
from tests.mutation.plugin import ROOT

FALLBACK = ("tests/server", "tests/ctl")
"""Where a verb may be tested that no module of its own tests."""
_TAIL = 15
_PASSED, _FAILED = 0, 1


class Verdict(enum.Enum):
    """What a trial showed."""

    KILLED = "killed"
    SURVIVED = "survived"
    ERROR = "error"
    """it showed nothing: the harness, or the tests themselves, are broken"""


@dataclass(frozen=True)
class Trial:
    """A verb's trial; ``by`` is the test that killed the mutant, or the reason of another verdict."""

    verb: str
    verdict: Verdict
    by: str
    seconds: float
    output: str = ""


@dataclass(frozen=True)
class _Run:
    """One run of pytest.  ``code`` is None if it took too long; ``failed`` are tests, not fixtures."""

    code: int | None
    failed: list[str]
    called: bool
    output: str


def modules(verb: str) -> list[str]:
    """The modules that concern a verb, one that is named after the verb first."""
    cls, _, name = verb.partition(".")
    found = sorted((ROOT / "tests" / "verbs").glob(f"test_{cls.lower()}*.py"))
    found.sort(key=lambda path: not path.stem.endswith(f"_{name.lower()}"))
    return [str(path.relative_to(ROOT)) for path in found]


def attempt(verb: str, stages: Sequence[Sequence[str]], timeout: float) -> Trial:
    """Have tests try to kill a mutant, each stage if the ones before let it live."""
    began = time.monotonic()
    called = broken = False
    output = ""
    for paths in stages:
        run = _run(paths, timeout, verb)
        called, broken, output = called or run.called, broken or run.code != _PASSED, run.output
        seconds = time.monotonic() - began
        if run.code is None:
            return Trial(verb, Verdict.ERROR, f"more than {timeout:.0f} s", seconds, output)
        if run.code not in (_PASSED, _FAILED):
            return Trial(verb, Verdict.ERROR, f"pytest ended with {run.code}", seconds, output)
        if run.failed and not run.called:
            return Trial(verb, Verdict.ERROR, f"failed, and never called it: {run.failed[0]}", seconds, output)
        if run.failed:
            return Trial(verb, Verdict.KILLED, run.failed[0], seconds, output)
    seconds = time.monotonic() - began
    if broken:
        return Trial(verb, Verdict.ERROR, "fixtures broke, no test failed", seconds, output)
    return Trial(verb, Verdict.SURVIVED, "called, and believed" if called else "never called", seconds)


def attempt_verb(verb: str, timeout: float) -> Trial:
    """Have the tests that concern a verb try to kill its mutant, then those of the service as a whole."""
    stages = [stage for stage in (modules(verb), FALLBACK) if stage]
    trial = attempt(verb, stages, timeout)
    if len(stages) == 1 and trial.verdict is Verdict.SURVIVED:
        trial = replace(trial, by=f"{trial.by}; tests/verbs has no test_{VERBS[verb].cls.lower()}.py")
    return trial


def confirmed(trials: Sequence[Trial], timeout: float) -> list[Trial]:
    """The trials, without the kills by tests that fail by themselves too: such a test shows nothing."""
    killers = sorted({trial.by for trial in trials if trial.verdict is Verdict.KILLED})
    if not killers:
        return list(trials)
    run = _run(killers, timeout, None)
    if run.code == _PASSED:
        return list(trials)
    # Without an answer for each, none counts.
    failing = set(killers if run.code != _FAILED or not run.failed else run.failed)
    return [
        replace(trial, verdict=Verdict.ERROR, by=f"fails without the mutant too: {trial.by}", output=run.output)
        if trial.verdict is Verdict.KILLED and trial.by in failing
        else trial
        for trial in trials
    ]


def _run(paths: Sequence[str], timeout: float, verb: str | None) -> _Run:
    """Run tests, mutated or not; nothing that they started is left."""
    # A short name: paths of sockets are below it, and they have 108 bytes.
    with tempfile.TemporaryDirectory(prefix="hsm-mut-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        environment = {key: value for key, value in os.environ.items() if key != mutant.VERB}
        environment[mutant.FOLDER] = name
        if verb is not None:
            environment[mutant.VERB] = verb
        argv = [sys.executable, "-m", "pytest", "--tb=short", "-p", "tests.mutation.plugin"]
        argv += ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), "--basetemp", str(folder / "t"), *paths]
        # To a file: a pipe stays open for as long as anything that the tests started.
        with (folder / "output").open("wb") as output:
            code = _ended(argv, environment, output.fileno(), timeout)
        _end_leftovers(name)
        failures = folder / plugin.FAILED
        lines = failures.read_text().splitlines() if failures.exists() else []
        phases = [line.partition(" ") for line in lines]
        return _Run(
            code,
            [test for phase, _, test in phases if phase == "call"],
            (folder / mutant.CALLED).exists(),
            "\n".join((folder / "output").read_text(errors="replace").splitlines()[-_TAIL:]),
        )


def _ended(argv: list[str], environment: dict[str, str], output: int, timeout: float) -> int | None:
    with subprocess.Popen(
        argv, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0
    ) as process:
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def _end_leftovers(folder: str) -> None:
    """A test that failed may leave services and keepers; they have the run's own folder in their arguments."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if folder.encode() in (entry / "cmdline").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue
