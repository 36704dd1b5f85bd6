# SPDX-License-Identifier: Apache-2.0
"""Task: changes that go on, or have ended."""

from __future__ import annotations

from typing import Any

from hsm.paging import Listing
from hsm.services.base import Service
from libvdsm.api.task import Task, TaskPage
from libvdsm.api.types import Nothing, TaskId, TaskInfo, TaskState


class TaskService(Service, Task):
    def list(
        self,
        *,
        state: TaskState | None = None,
        filter: str | None = None,
        sort: str | None = None,
        limit: int = 1000,
        start: str | None = None,
    ) -> TaskPage:
        listing: Listing[TaskInfo[Any]] = Listing(
            "Task.list", TaskInfo, default="-created", filter=filter, sort=sort, start=start, scope=(state,)
        )
        items, following = listing.page(self.parts.tasks.list(state, self.caller.owner), limit)
        return TaskPage(items=items, next=following)

    def get_info(self, *, task: TaskId) -> TaskInfo[Any]:
        return self.parts.tasks.get(task, self.caller.owner)

    def wait(self, *, task: TaskId, timeout: float = 30.0) -> TaskInfo[Any]:
        return self.parts.tasks.wait(task, timeout, self.caller.owner)

    def stop(self, *, task: TaskId) -> TaskInfo[Any]:
        return self.parts.tasks.stop(task, self.caller.owner)

    def clear(self, *, task: TaskId) -> Nothing:
        self.parts.tasks.clear(task, self.caller.owner)
        return Nothing()
