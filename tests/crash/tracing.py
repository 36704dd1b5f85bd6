# SPDX-License-Identifier: Apache-2.0
"""strace: attached to one thread or to a whole process, injecting, and its output as data."""

from __future__ import annotations

import os
import re
import select
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.crash.hsmd import PATIENCE, Hanging

WRITING = frozenset({"write", "pwrite64", "writev", "pwritev", "pwritev2", "copy_file_range", "sendfile"})
SIZING = frozenset({"ftruncate", "fallocate", "truncate"})
SYNCING = frozenset({"fsync", "fdatasync"})
NAMING = frozenset({"rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"})
UNNAMING = frozenset({"unlink", "unlinkat", "rmdir"})
MAKING = frozenset({"mkdir", "mkdirat", "openat"})
OWNING = frozenset({"chmod", "fchmod", "fchmodat", "chown", "fchown", "fchownat", "utimensat", "setxattr", "fsetxattr"})
CHANGING = WRITING | SIZING | SYNCING | NAMING | UNNAMING | MAKING | OWNING
"""The system calls that change what is on a file system, or make it stable."""
FILLING = frozenset({"pwrite64", "ftruncate", "fallocate", "mkdir"})
"""Those that need room."""
READING = frozenset({"stat", "lstat", "newfstatat", "statx", "read", "pread64", "getdents64", "access", "faccessat2"})
"""The system calls by which is learned what is there, besides openat."""
TELLING = frozenset({"sendto", "sendmsg"})
STARTING = frozenset({"execve", "vfork", "pidfd_open", "pidfd_send_signal"})

_BY_DESCRIPTOR = frozenset({"read", "pread64", "getdents64"})
_LINE = re.compile(r"(?:(\d+) +)?(.*)")
_CALL = re.compile(r"(\w+)\((.*)")
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)")
_END = re.compile(r"(.*?)\)? += (-?\d+|\?|0x[0-9a-f]+)(.*)")
_PLACE = re.compile(r'(?:\b(?:AT_FDCWD|\d+)<([^>]*)>(\(deleted\))?)|"((?:[^"\\]|\\.)*)"')
_UNFINISHED = " <unfinished ...>"


@dataclass(frozen=True)
class Call:
    """One system call.  ``began`` and ``ended`` are places in the order in which things happened."""

    thread: int
    name: str
    paths: tuple[str, ...]
    """the files that it is about, the source first; a file's name in an open folder is joined to the folder's"""
    folder: str | None
    """the open folder, where a name is relative to one"""
    opened: str | None
    text: str
    result: int | None
    began: int
    ended: int

    @property
    def made(self) -> bool:
        """Whether it opened a file that may not have been there before."""
        return self.name == "openat" and "O_CREAT" in self.text

    @property
    def emptied(self) -> bool:
        return self.name == "openat" and "O_TRUNC" in self.text


def parse(text: str) -> list[Call]:
    """What strace wrote, in the order in which the calls ended."""
    begun: dict[int, tuple[str, str, int]] = {}
    calls: list[Call] = []
    for place, line in enumerate(text.splitlines()):
        found = _LINE.fullmatch(line)
        assert found is not None
        thread, said = int(found[1] or 0), found[2]
        if said.endswith(_UNFINISHED) and (call := _CALL.match(said.removesuffix(_UNFINISHED))):
            begun[thread] = call[1], call[2], place
        elif (rest := _RESUMED.match(said)) and thread in begun:
            name, arguments, since = begun.pop(thread)
            calls += _call(thread, name, arguments + rest[2], since, place)
        elif call := _CALL.match(said):
            calls += _call(thread, call[1], call[2], place, place)
    return calls


def _call(thread: int, name: str, text: str, began: int, ended: int) -> Iterator[Call]:
    end = _END.fullmatch(text)
    if end is None:
        return
    paths, folder = _paths(name, end[1])
    result = None if end[2] == "?" else int(end[2], 0)
    yield Call(thread, name, paths, folder, _opened(end[2] + end[3]), f"{name}({text}", result, began, ended)


def _paths(name: str, arguments: str) -> tuple[tuple[str, ...], str | None]:
    """The files that a call is about, and the open folder that a name is relative to."""
    paths: list[str] = []
    folder: str | None = None
    base: str | None = None
    for place in _PLACE.finditer(arguments):
        if place[3] is None:
            base = place[1] + (" (deleted)" if place[2] else "")
            if name in WRITING | SIZING | SYNCING | OWNING | _BY_DESCRIPTOR and not paths:
                paths.append(base)
        elif name not in WRITING | SIZING | SYNCING | TELLING | _BY_DESCRIPTOR:
            given = place[3]
            if not given and base is not None:
                given = base
            elif not given.startswith("/") and base is not None:
                folder = base
                given = f"{base}/{given}"
            paths.append(given)
    return tuple(paths), folder


def _opened(answer: str) -> str | None:
    """What an open file really is: /dev/fd/5 is another file."""
    place = _PLACE.match(answer)
    return place[1] + (" (deleted)" if place[2] else "") if place else None


class Strace:
    """One strace at work; it has attached when this is made."""

    def __init__(
        self,
        target: int,
        calls: Iterable[str],
        output: Path,
        *,
        path: str | None = None,
        inject: Iterable[str] = (),
        whole: bool = False,
        stops: bool = False,
        into: int | None = None,
    ) -> None:
        """``target``: a thread, or with ``whole`` a process with all that it starts.

        Only ``calls`` are looked at, with ``path`` only those on one file; ``inject`` are expressions of strace's.
        ``stops``: tell when the target is stopped.  ``into``: a descriptor that gets the output instead of the file.
        """
        names = ",".join(sorted(calls))
        argv = ["strace", "-p", str(target), "-y", "-s", "0", "-e", f"trace={names}"]
        argv += ["-e", f"signal={'SIGSTOP' if stops else 'none'}"]
        argv += ["-o", str(output) if into is None else f"/dev/fd/{into}"]
        argv += ["-P", path] if path else []
        argv += [part for expression in inject for part in ("-e", f"inject={expression}")]
        argv += ["-f"] if whole else []
        self.output = output
        self._process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, pass_fds=() if into is None else (into,)
        )
        self._await_attached()

    def _await_attached(self) -> None:
        assert self._process.stderr is not None
        said = b""
        until = time.monotonic() + PATIENCE
        while b" attached" not in said:
            ready, _, _ = select.select([self._process.stderr], [], [], max(0.0, until - time.monotonic()))
            data = os.read(self._process.stderr.fileno(), 4096) if ready else b""
            if not data:
                self.kill()
                raise Hanging(f"strace did not attach: {said.decode()}")
            said += data

    def detach(self) -> str:
        """Let the target go on alone: what was written."""
        self._process.terminate()
        return self.finish()

    def finish(self) -> str:
        """Wait until the target is gone: what was written."""
        try:
            self._process.wait(PATIENCE)
        finally:
            self.kill()
        return self.output.read_text() if self.output.exists() else ""

    def kill(self) -> None:
        """Without a word: a stopped target stays stopped."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(PATIENCE)
        if self._process.stderr is not None:
            self._process.stderr.close()
