# SPDX-License-Identifier: Apache-2.0
"""What was on stable storage when it was published, and when it was told: read from a recording of system calls.

A file is stable when it was synchronised after its last write, an entry of a folder when the folder was after the
entry was made.  Who wrote it does not matter: the service and its tools are recorded together.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.tracing import NAMING, SIZING, SYNCING, TELLING, UNNAMING, WRITING, Call

_WORKER = "worker-0"
_CLIENT = "client unix"


@dataclass
class Ledger:
    """Goes through a recording and notes what is not stable yet."""

    home: Path
    roles: dict[int, str]
    findings: list[str] = field(default_factory=list)
    publications: int = 0
    _written: dict[str, int] = field(default_factory=dict)
    """file -> where its last write ended"""
    _entered: dict[str, dict[str, int]] = field(default_factory=dict)
    """folder -> name -> where the entry was made"""
    _renamed: dict[str, str] = field(default_factory=dict)
    """folder -> what was renamed in it, and is not yet known to stay so"""
    _made: set[str] = field(default_factory=set)
    """the files that were not there before"""
    _recording: int | None = None
    """the thread that wrote into the record of tasks, while that is not stable"""
    _told_early: str | None = None
    """the last reply, if the record of tasks was not stable when it went out"""

    def read(self, calls: Iterable[Call]) -> Ledger:
        for call in sorted(calls, key=lambda call: call.ended):
            if call.result is not None and call.result >= 0:
                self._note(call)
        if self._renamed:
            self._find("at the end the folder was not synchronised", ", ".join(self._renamed.values()))
        if self._told_early:
            self._find("told before the record of tasks was stable", self._told_early)
        return self

    def _find(self, what: str, text: str) -> None:
        self.findings.append(f"not durable: {what}: {text.replace(str(self.home), '')}")

    def _note(self, call: Call) -> None:
        if call.name in TELLING:
            self._told(call)
            return
        path = call.opened if call.name == "openat" else call.paths[0] if call.paths else None
        if path is None or not path.startswith(f"{self.home}/") or path.endswith("/hsmd.log"):
            return
        if call.name in WRITING | SIZING:
            self._wrote(call, path)
        elif call.name in SYNCING:
            self._synced(call, path)
        elif call.name in NAMING:
            self._named(call, path, call.paths[-1])
        elif call.name in UNNAMING:
            self._unnamed(path)
        elif call.name in ("mkdir", "mkdirat") or (call.name == "openat" and call.made):
            self._enter(path, call.ended)

    def _wrote(self, call: Call, path: str) -> None:
        if path.endswith("tasks.db-wal"):
            if self.roles.get(call.thread) == _WORKER and self._recording is None:
                self._recorded()
            self._recording = call.thread
        self._written[path] = call.ended

    def _recorded(self) -> None:
        """The end of a task is being written down: all that it did is stable."""
        if self._renamed:
            self._find("recorded as done before a rename was stable", ", ".join(self._renamed.values()))
        for path in self._written:
            if not path.startswith(f"{self.home}/state/"):
                self._find("recorded as done before a file was stable", path)

    def _synced(self, call: Call, path: str) -> None:
        if self._written.get(path, call.began) < call.began:
            del self._written[path]
            if path.endswith("tasks.db-wal"):
                self._recording = None
        entries = self._entered.get(path, {})
        self._entered[path] = {name: made for name, made in entries.items() if made > call.began}
        self._renamed.pop(path, None)

    def _enter(self, path: str, place: int) -> None:
        self._made.add(path)
        self._entered.setdefault(os.path.dirname(path), {})[os.path.basename(path)] = place

    def _named(self, call: Call, old: str, new: str) -> None:
        if call.name.startswith("rename"):
            self._publishes(old, new)
            if old in self._written:
                self._written[new] = self._written.pop(old)
            self._entered.get(os.path.dirname(old), {}).pop(os.path.basename(old), None)
            self._renamed[os.path.dirname(new)] = call.text
        else:
            self._enter(new, call.ended)

    def _publishes(self, old: str, new: str) -> None:
        """Before a rename into place all that it makes visible is stable."""
        name = os.path.basename(new)
        folder = os.path.dirname(new)
        if not old.endswith(".new"):
            return
        self.publications += 1
        if name == "domains.json":
            scope, above = old, None
        elif name == "metadata":
            scope = os.path.dirname(folder)
            above = os.path.dirname(scope)
        else:
            scope, above = folder, os.path.dirname(folder)
        for path in self._written:
            if path == scope or path.startswith(f"{scope}/"):
                self._find(f"published {name} before its file was stable", path)
        for entered, names in self._entered.items():
            if entered == scope or entered.startswith(f"{scope}/"):
                for entry in names:
                    self._find(f"published {name} before the folder was stable", f"{entered}/{entry}")
        if above is not None and os.path.basename(scope) in self._entered.get(above, {}):
            self._find(f"published {name} before its folder's own entry was stable", scope)

    def _unnamed(self, path: str) -> None:
        if path in self._written and path not in self._made:
            self._find("given back before the wiping was stable", path)
        self._written.pop(path, None)
        self._entered.get(os.path.dirname(path), {}).pop(os.path.basename(path), None)

    def _told(self, call: Call) -> None:
        """A client's thread answers for what it recorded itself, and with the last reply for all."""
        if self.roles.get(call.thread) == _CLIENT:
            self._told_early = None if self._recording is None else call.text
            if self._recording == call.thread:
                self._find("told before the record of tasks was stable", call.text)
