# SPDX-License-Identifier: Apache-2.0
"""A manager with a record on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hsm.events import EventLog
from hsm.tasks.manager import TaskManager
from hsm.tasks.modes import NonTransparent
from hsm.tasks.store import TaskStore
from tests.tasks.scripted import PATIENCE, Rebuild, never

Start = Callable[..., TaskManager]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TaskStore]:
    made = TaskStore(tmp_path / "tasks.db")
    yield made
    made.close()


@pytest.fixture
def events() -> EventLog:
    return EventLog(10_000)


@pytest.fixture
def start(store: TaskStore, events: EventLog) -> Iterator[Start]:
    """Starts a manager on the record, which ends with the test."""
    with ExitStack() as stack:

        def begin(
            workers: int = 2,
            queue: int = 1000,
            rebuild: Rebuild = never,
            keep: float = 1e6,
            keep_count: int = 1000,
        ) -> TaskManager:
            manager = TaskManager(events, [NonTransparent(store, keep, keep_count)], workers, queue)
            stack.callback(manager.close, PATIENCE)
            manager.recover(rebuild)
            return manager

        yield begin


@pytest.fixture
def manager(start: Start) -> TaskManager:
    """With two workers."""
    return start()
