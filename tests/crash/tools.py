# SPDX-License-Identifier: Apache-2.0
"""Accidents of the programs that do the bulk of the work, at their writes: the first, the last and three between.

A program has threads of its own, so its writes are counted over all of them: each stops the program, and it is let go
on until the one that is meant.  Killed are the program alone, and the service alone, of which no orphan may remain;
from that write on the storage is full, or fails.  And the service is killed in the one moment in which the program
was started and is not yet tied to it.
"""

from __future__ import annotations

import os
import random
import re
import select
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.crash.fixture import readable
from tests.crash.gate import Gate
from tests.crash.hsmd import PATIENCE, Hanging
from tests.crash.operation import Task, World
from tests.crash.points import HOME
from tests.crash.tracing import SIZING, WRITING, Call, Strace, parse
from tests.crash.trial import Outcome, Trial, watched

PROGRAMS = ("qemu-img", "qemu-io")
_BULK = WRITING | SIZING
_SILENCE = 0.5
"""Seconds."""
_VARYING = 20
"""One in so many writes is made in one run and not in another."""
_BEGUN = re.compile(rf"\d+ +(?:{'|'.join(_BULK)})\(")


@dataclass(frozen=True)
class Kind:
    """What happens at a write."""

    name: str
    answers: frozenset[str]
    errno: str | None = None
    kills_service: bool = False
    first_only: bool = False
    """whether it makes no difference which write it is"""

    def applies(self, moment: Moment) -> bool:
        return moment.write == 1 or not self.first_only

    def __str__(self) -> str:
        return self.name


ORPHANED = Kind("the service killed, its tool alive", frozenset({"Interrupted"}), kills_service=True)
KILLED = Kind("the tool killed", frozenset({"ToolFailed"}))
FULL = Kind("the tool meets ENOSPC", frozenset({"NoSpace"}), errno="ENOSPC")
BROKEN = Kind("the tool meets EIO", frozenset({"StorageFailed"}), errno="EIO")
UNTIED = Kind(
    "the service killed, its tool not yet tied to it", frozenset({"Interrupted"}), kills_service=True, first_only=True
)
KINDS = (ORPHANED, KILLED, FULL, BROKEN, UNTIED)


@dataclass(frozen=True)
class Moment:
    """A write of a program that an operation runs."""

    run: int
    """which of the operation's runs of programs, from 0"""
    file: str
    """what it writes, below {home}"""
    write: int
    """from 1"""
    writes: int
    program: str

    def __str__(self) -> str:
        return readable(f"write {self.write} of {self.writes} to {self.file} by run {self.run + 1}, {self.program}")


def moments(trial: Trial, choice: random.Random) -> Iterator[Moment]:
    """The first and the last write to each file of each run of a program, and three between them."""
    home = str(trial.recording.home)
    for number, run in enumerate(_runs(trial.recording.calls, set(trial.recording.roles), home)):
        count = Counter(call.paths[0] for call in run.writes)
        for file, total in sorted(count.items()):
            between = choice.sample(range(2, total), min(3, max(0, total - 2)))
            for write in sorted({1, total, *between}):
                yield Moment(number, file.replace(home, HOME, 1), write, total, run.program)


@dataclass(frozen=True)
class _Run:
    """One run of a program, and its bulk writes."""

    program: str
    writes: list[Call] = field(default_factory=list)


def _runs(calls: list[Call], ours: set[int], home: str) -> list[_Run]:
    """In their order."""
    found: list[_Run] = []
    for call in sorted(calls, key=lambda call: call.began):
        if call.thread in ours:
            continue
        if call.name == "execve" and call.result == 0 and (name := os.path.basename(call.paths[0])) in PROGRAMS:
            found.append(_Run(name))
        elif found and call.name in _BULK and call.paths[0].startswith(f"{home}/"):
            found[-1].writes.append(call)
    return found


def strike(trial: Trial, moment: Moment, kind: Kind) -> Outcome:
    """Run the operation with an accident of its program.

    A program that has several requests under way gets by with some writes more or less each time: where it ended
    before the one that was meant, an earlier one is.
    """
    while True:
        outcome = _strike(trial, moment, kind)
        earlier = moment.write - max(1, moment.writes // _VARYING)
        if outcome.fired or outcome.violations or earlier < moment.writes * 3 // 4:
            return outcome
        moment = replace(moment, write=earlier)


def _strike(trial: Trial, moment: Moment, kind: Kind) -> Outcome:
    outcome = Outcome(f"{trial.operation.name}: {kind.name} at {moment}")
    with watched(outcome), trial.world(*(("setpriv",) if kind is UNTIED else PROGRAMS)) as world:
        task = trial.operation.call(world)
        assert task is not None
        assert world.gate is not None
        if kind is UNTIED:
            outcome.fired = _untied(trial, world, world.gate, moment, outcome.violations)
        else:
            outcome.fired = _at_write(trial, world, world.gate, moment, kind)
        if outcome.fired:
            _aftermath(trial, world, task, kind, moment, outcome.violations)
    return outcome


def _aftermath(
    trial: Trial, world: World, task: Task, kind: Kind, moment: Moment, violations: list[str]
) -> None:
    assert world.gate is not None
    world.gate.open()
    if not kind.kills_service:
        world.service.wait(task)
    # What is full outside of all domains is the caller's file.
    outside = kind is FULL and moment.file.startswith(f"{HOME}/outside/")
    answers = frozenset({"FileNotUsable"}) if outside else kind.answers
    trial.judge(world, answers, violations, killed=kind.kills_service)


def _at_write(trial: Trial, world: World, gate: Gate, moment: Moment, kind: Kind) -> bool:
    """The accident at a write; whether it happened."""
    for _ in range(moment.run):
        gate.arrival()
        gate.let_go()
    pid, _ = gate.arrival()
    program = os.pidfd_open(pid)
    try:
        file = moment.file.replace(HOME, str(world.home.path))
        if kind.errno is not None:
            return _fails(trial, gate, pid, file, moment.write - 1, kind.errno)
        with _stopped_after(gate, pid, file, moment.write) as stopped:
            if not stopped:
                return False
            if kind.kills_service:
                world.service.kill()
            else:
                signal.pidfd_send_signal(program, signal.SIGKILL)
            # Stopped it may be, gone it has to be: what is gone writes no more.
            if not select.select([program], [], [], PATIENCE)[0]:
                raise Hanging("the program outlives its service")
            return True
    finally:
        os.close(program)


def _fails(trial: Trial, gate: Gate, pid: int, file: str, writes: int, errno: str) -> bool:
    """From one write on all fail; whether one did."""
    if writes:
        with _stopped_after(gate, pid, file, writes) as stopped:
            if not stopped:
                return False
    injection = f"{','.join(sorted(_BULK))}:error={errno}"
    failing = Strace(pid, _BULK, trial.bench.folder / "injection", path=file, inject=[injection], whole=True)
    if writes:
        os.kill(pid, signal.SIGCONT)
    else:
        gate.let_go()
    return "(INJECTED)" in failing.finish()


@contextmanager
def _stopped_after(gate: Gate, pid: int, file: str, writes: int) -> Iterator[bool]:
    """The program, waiting at the gate, goes on and is stopped after so many writes; false if it ended before."""
    reading, writing = os.pipe()
    injection = f"{','.join(sorted(_BULK))}:signal=STOP"
    tracer = Strace(pid, _BULK, Path("/dev/null"), path=file, inject=[injection], whole=True, stops=True, into=writing)
    os.close(writing)
    try:
        gate.let_go()
        yield _follow(reading, pid, writes)
    finally:
        tracer.kill()
        os.close(reading)


def _follow(reading: int, pid: int, writes: int) -> bool:
    """Let a program go on at each of its stops until it has made so many writes; false if it ends before."""
    seen, going_on = 0, False
    for line in _lines(reading):
        if _BEGUN.match(line):
            seen, going_on = seen + 1, False
        elif "stopped by SIGSTOP" in line and seen >= writes:
            return True
        elif "stopped by SIGSTOP" in line and not going_on:
            going_on = True
            os.kill(pid, signal.SIGCONT)
        elif not line and _is_stopped(pid):
            # Two threads wrote at once, and the second stop came after the first had been let go on.
            if seen >= writes:
                return True
            os.kill(pid, signal.SIGCONT)
    return False


def _is_stopped(pid: int) -> bool:
    try:
        status = Path("/proc", str(pid), "stat").read_text()
    except FileNotFoundError:
        return False
    # Traced it shows as t, for the moment in which strace looks; stopped for good as T, or t in a stop of the group.
    return status.rpartition(")")[2].split()[0] in "Tt"


def _lines(reading: int) -> Iterator[str]:
    """What strace writes; an empty line when it has been silent for a while."""
    pending = b""
    until = time.monotonic() + PATIENCE
    while True:
        if time.monotonic() > until:
            raise Hanging("the program does not get to its write")
        if not select.select([reading], [], [], _SILENCE)[0]:
            yield ""
            continue
        data = os.read(reading, 65536)
        if not data:
            return
        *lines, pending = (pending + data).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)


def _untied(trial: Trial, world: World, gate: Gate, moment: Moment, violations: list[str]) -> bool:
    """The service dies when the program is started and does not know yet that it should die too."""
    run = -1
    while run < moment.run:
        pid, arguments = gate.arrival()
        run += any(f" {program} " in arguments for program in PROGRAMS)
        if run < moment.run:
            gate.let_go()
    program = os.pidfd_open(pid)
    try:
        output = trial.bench.folder / "injection"
        tracer = Strace(pid, _BULK, output, path=moment.file.replace(HOME, str(world.home.path)), whole=True)
        world.service.kill()
        gate.let_go()
        if not select.select([program], [], [], PATIENCE)[0]:
            raise Hanging("the program outlives its service")
        if orphan := parse(tracer.finish()):
            violations.append(f"an orphan wrote: {orphan[0].text}")
        return True
    finally:
        os.close(program)
