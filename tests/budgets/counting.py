# SPDX-License-Identifier: Apache-2.0
"""What a service did for each call, counted in a strace of it.

The calls mark themselves: a client sends an id with each request, and strace shows the message.  So what belongs to
which call follows from the order in the trace alone, and no clock is asked.
"""

from __future__ import annotations

import os
import re
import signal
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from libvdsm.log import request_id
from tests import service

_MARK = "budget:"
_CALLS = "recvmsg,fsync,fdatasync,syncfs,sync_file_range,flock,clone,clone3,fork,vfork"

_UNFINISHED = re.compile(r"(\d+) +(\w+)\((.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)\) += (-?\d+)")
_WHOLE = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)")
_REQUEST = re.compile(rf'\\"request\\":\\"{_MARK}([^\\]+)\\"')
_FILE = re.compile(r"\d+<([^>]*)>")


@dataclass
class Counts:
    """What one call took.  Programs' own synchronising is theirs, and differs between their versions."""

    processes: int = 0
    domain: int = 0
    state: int = 0
    other: int = 0
    leases: int = 0


class Traced:
    """A running service with a strace around it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._trace = home / "trace"
        command = ("strace", "-f", "--seccomp-bpf", "-y", "-s", "4096", "-e", f"trace={_CALLS}", "-e", "signal=none")
        self.daemon = service.Daemon(home, command=(*command, "-o", str(self._trace)))

    def stop(self) -> dict[str, Counts]:
        """Stop it, and count."""
        # The program itself, not strace, which would leave it alone.
        os.kill(self._pid(), signal.SIGTERM)
        self.daemon.process.wait(30)
        return count(self._trace.read_text(encoding="utf-8", errors="replace").splitlines(), self._pid(), self.home)

    def _pid(self) -> int:
        with self._trace.open(encoding="utf-8", errors="replace") as file:
            return int(file.readline().split()[0])


@contextmanager
def marked(label: str) -> Iterator[None]:
    """What is called meanwhile is counted under this label."""
    token = request_id.set(f"{_MARK}{label}")
    try:
        yield
    finally:
        request_id.reset(token)


def count(lines: list[str], service_pid: int, home: Path) -> dict[str, Counts]:
    """What the service at ``service_pid`` did, by label."""
    counts: defaultdict[str, Counts] = defaultdict(Counts)
    ours = {service_pid}
    label: str | None = None
    for thread, name, text, result in _calls(lines):
        if name == "recvmsg" and r"\"method\":" in text and thread in ours:
            marks = _REQUEST.findall(text)
            label = marks[-1] if marks else None
        elif name in ("clone", "clone3", "fork", "vfork") and result > 0:
            if "CLONE_THREAD" in text:
                if thread in ours:
                    ours.add(result)
            elif label is not None:
                counts[label].processes += 1
        if label is not None:
            _file_call(counts[label], name, text, result, home, ours=thread in ours)
    return dict(counts)


def _file_call(counts: Counts, name: str, text: str, result: int, home: Path, *, ours: bool) -> None:
    found = _FILE.match(text)
    if not ours or result != 0 or found is None:
        return
    path = found[1]
    in_domain = path.startswith(f"{home}/domains/")
    if name == "flock":
        counts.leases += in_domain and "LOCK_UN" not in text
    elif name in ("fsync", "fdatasync", "syncfs", "sync_file_range"):
        if in_domain:
            counts.domain += 1
        elif path.startswith(f"{home}/state"):
            counts.state += 1
        else:
            counts.other += 1


def _calls(lines: list[str]) -> Iterator[tuple[int, str, str, int]]:
    """(thread, name, arguments, result) of each system call, in the order in which they ended."""
    begun: dict[tuple[str, str], str] = {}
    for line in lines:
        if part := _UNFINISHED.match(line):
            begun[part[1], part[2]] = part[3]
        elif part := _RESUMED.match(line):
            yield int(part[1]), part[2], begun.pop((part[1], part[2]), "") + part[3], int(part[4])
        elif part := _WHOLE.match(line):
            yield int(part[1]), part[2], part[3], int(part[4])
