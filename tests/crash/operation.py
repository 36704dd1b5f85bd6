# SPDX-License-Identifier: Apache-2.0
"""What an operation is to the crash tests, and the world in which it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from libvdsm.api.types import TaskInfo, TaskState
from libvdsm.client import Client
from libvdsm.declare import ApiError
from tests.crash.contents import Contents
from tests.crash.fixture import Home
from tests.crash.gate import Gate
from tests.crash.hsmd import Hsmd
from tests.crash.invariants import Facts

Task = TaskInfo[Any]


@dataclass
class World:
    """Where an operation runs."""

    home: Home
    service: Hsmd
    gate: Gate | None = None
    kept: dict[str, Any] = field(default_factory=dict)
    """what ``arrange`` leaves for the call"""

    def close(self) -> None:
        for thing in self.kept.values():
            if hasattr(thing, "close"):
                thing.close()
        if self.gate is not None:
            self.gate.close()

    @property
    def client(self) -> Client:
        return self.service.client()

    def source(self, name: str) -> Path:
        return self.home.outside / name


def _nothing(world: World) -> None:
    """Nothing to arrange."""


def fine(world: World, facts: Facts, contents: Contents) -> None:
    """Nothing more to look at."""


@dataclass(frozen=True)
class Operation:
    """One row of the table."""

    name: str
    verb: str
    call: Callable[[World], Task | None]
    """the task, or None where the verb answers at once"""
    proof: Callable[[Facts, Facts], bool]
    arrange: Callable[[World], None] = _nothing
    end: TaskState = TaskState.SUCCEEDED
    """how its task ends when nothing happens"""
    task_verb: str | None = None
    """the verb of its task, where that is another one"""
    gone: tuple[type[ApiError], ...] = ()
    """what the repeated call may answer instead: the thing is gone, so it is done"""
    halfway: tuple[object, ...] = ()
    """the ids of what a failure after the commit point may leave between the two states, until it is done again"""
    leaks: bool = False
    """whether clusters may be left without use: where qemu-img changes a volume in place, and is interrupted"""
    gated: bool = False
    """whether its tool waits at a gate"""
    done: Callable[[World, Facts, Contents], str | None] = fine
    """what is wrong after it has succeeded, beyond what is published"""
