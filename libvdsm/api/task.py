# SPDX-License-Identifier: Apache-2.0
"""Task: changes that go on, or have ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Any

from msgspec import Meta

from libvdsm.api.errors import InvalidCursor, InvalidFilter, InvalidSort, NoSuchTask, TaskNotEnded, TaskPastStopping
from libvdsm.api.types import Cursor, Filter, Limit, Nothing, Seconds, Sort, TaskId, TaskInfo, TaskState
from libvdsm.declare import Info, Right, verb


class TaskPage(Info, frozen=True, kw_only=True):
    """Tasks, the newest first."""

    items: Annotated[list[TaskInfo[Any]], Meta(description="the tasks")]
    next: (
        Annotated[Cursor, Meta(description="give it as `start` to read on; absent: this was the last page")] | None
    ) = None


class Task(ABC):
    """Changes that go on, or have ended."""

    @verb(since="1.0", right=Right.READ, errors=(InvalidFilter, InvalidSort, InvalidCursor))
    @abstractmethod
    def list(
        self,
        *,
        state: Annotated[TaskState, Meta(description="only tasks in this state")] | None = None,
        filter: Filter | None = None,
        sort: Sort | None = None,
        limit: Limit = 1000,
        start: Cursor | None = None,
    ) -> TaskPage:
        """List the tasks that the service knows, those that ended included, until they are cleared or too old.

        If nothing else is said, the newest are first.
        """

    @verb(since="1.0", right=Right.READ, errors=(NoSuchTask,), positional=("task",))
    @abstractmethod
    def get_info(self, *, task: Annotated[TaskId, Meta(description="the task")]) -> TaskInfo[Any]:
        """Tell the state of one task."""

    @verb(since="1.0", right=Right.READ, errors=(NoSuchTask,), positional=("task",), blocking=True)
    @abstractmethod
    def wait(
        self,
        *,
        task: Annotated[TaskId, Meta(description="the task")],
        timeout: Annotated[Seconds, Meta(le=60, description="answer after this time at the latest")] = 30.0,
    ) -> TaskInfo[Any]:
        """Wait until a task has ended, at most `timeout` seconds, and tell its state then, ended or not."""

    @verb(since="1.0", right=Right.OPERATE, errors=(NoSuchTask, TaskPastStopping), positional=("task",))
    @abstractmethod
    def stop(self, *, task: Annotated[TaskId, Meta(description="the task")]) -> TaskInfo[Any]:
        """Ask a task to stop.

        Before its commit point it ends as `stopped` and has changed nothing; what it made is given back.  After the
        commit point it cannot be stopped: it is finished.
        """

    @verb(since="1.0", right=Right.OPERATE, errors=(NoSuchTask, TaskNotEnded), positional=("task",))
    @abstractmethod
    def clear(self, *, task: Annotated[TaskId, Meta(description="the task")]) -> Nothing:
        """Forget a task that has ended."""
