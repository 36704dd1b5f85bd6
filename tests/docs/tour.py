# SPDX-License-Identifier: Apache-2.0
"""Runs what a page tells its readers to type, and compares what it shows with what comes out.

Commands are lines that begin with ``$ `` in ``console`` blocks, and whole ``python`` blocks; all run in one shell, in
their order.  What a page shows below a command is the whole output, but for lines that stand for others (``...``),
ids, numbers, times, names of users and the home folder.  A command whose output shows an error has to fail.
"""

from __future__ import annotations

import getpass
import os
import re
import signal
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.docs.pages import PROMPT, ROOT, Page

_SHELL = "bash"
_LIMIT = 180
"""Seconds for a whole page, on a machine that does much else."""
_GAP = "..."
_MARK = "@ended@"
_ERRORS = ("hsmctl: error:", "hsmd: ")

# Whoever reads types slower than this.
_STARTED = "for _ in $(seq 50); do hsmctl host ping >/dev/null 2>&1 && break; sleep 0.05; done"
_ENDED = 'wait "$!"'
_JOBS = re.compile(r"bash: line \d+: +\d+ (Killed|Terminated) ")
"""What a shell without a terminal says of a program that a signal ended."""

_CHANGING = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{8}-…|\b[0-9a-f]{8}\b"), "ID"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"), "TIME"),
    (re.compile(r"\d+(\.\d+)? (ms|s|min)\b"), "DURATION"),
    (re.compile(r"\b\d+(\.\d+)?[KMGT]?\b"), "NUMBER"),
    (re.compile(r"NUMBER(\.NUMBER)+"), "NUMBER"),
    (re.compile(r"\s+"), " "),
)


@dataclass(frozen=True)
class Step:
    """Something to type, and what the page shows of the answer."""

    line: int
    command: str
    shown: tuple[str, ...]

    @property
    def fails(self) -> bool:
        return any(line.startswith(_ERRORS) for line in self.shown)


@dataclass(frozen=True)
class Answer:
    """What came out of a step."""

    status: int
    lines: tuple[str, ...]


def steps(page: Page) -> Iterator[Step]:
    """What a page tells to type, in its order."""
    for block in page.blocks:
        if block.language == "python":
            yield Step(block.line, f"python - <<'PYTHON'\n{block.text}\nPYTHON", (_GAP,))
        elif block.language == "console":
            yield from _steps(block.line, block.text)


def _steps(first: int, text: str) -> Iterator[Step]:
    command, begun, shown = "", 0, list[str]()
    for number, line in enumerate(text.splitlines(), first + 1):
        if line.startswith(PROMPT):
            if command:
                yield Step(begun, command, tuple(shown))
            command, begun, shown = line.removeprefix(PROMPT), number, []
        else:
            shown.append(line)
    if command:
        yield Step(begun, command, tuple(shown))


def run(wanted: list[Step], home: Path) -> list[Answer]:
    """The answers to all steps; fewer, when the shell ended early."""
    home.mkdir()
    written = home.with_suffix(".out")
    environment = {
        "HOME": str(home),
        "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
    }
    with written.open("wb") as output:
        shell = subprocess.Popen(
            [_SHELL, "-c", _script(wanted)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            shell.wait(_LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
    return list(_answers(written.read_text(encoding="utf-8")))


def _script(wanted: list[Step]) -> str:
    lines = ["trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT"]
    for step in wanted:
        lines += [step.command, f"status=$?; printf '{_MARK}%s\\n' \"$status\""]
        if step.command.endswith("&"):
            lines.append(_STARTED)
        if step.command.startswith("kill "):
            lines.append(_ENDED)
    return "\n".join(lines)


def _answers(text: str) -> Iterator[Answer]:
    before = ""
    for line in text.splitlines():
        if _MARK in line:
            rest, _, status = line.partition(_MARK)
            yield Answer(int(status), tuple(f"{before}{rest}".splitlines()))
            before = ""
        elif not _JOBS.match(line):
            before += f"{line}\n"


def difference(step: Step, answer: Answer, home: Path) -> str | None:
    """How the answer is not what the page shows, or None."""
    came = [_same(line, home) for line in answer.lines if line.strip()]
    gap = False
    rest = list(came)
    for line in step.shown:
        if not line.strip():
            continue
        if line.strip() == _GAP:
            gap = True
            continue
        expected = _same(line, home)
        if expected not in rest or (not gap and rest[0] != expected):
            return f"it shows\n  {expected}\nand there came\n  " + "\n  ".join(came)
        rest = rest[rest.index(expected) + 1 :]
        gap = False
    return None if gap or not rest else "it does not show\n  " + "\n  ".join(rest)


def _same(line: str, home: Path) -> str:
    """A line with what differs from run to run taken out."""
    line = line.replace(str(home), "~")
    line = re.sub(rf"\b{re.escape(getpass.getuser())}\b", "admin", line)
    for pattern, word in _CHANGING:
        line = pattern.sub(word, line)
    return line.strip()
