# SPDX-License-Identifier: Apache-2.0
"""Task: changes that go on, or have ended."""

from __future__ import annotations

import builtins
from typing import Any

from hsm.paging import page
from hsm.services.base import Service
from libvdsm.api.task import Task, TaskPage
from libvdsm.api.types import Nothing, TaskId, TaskInfo, TaskState

_FAR = 10**10


def _key(info: TaskInfo[Any]) -> str:
    """Sorts the newest first."""
    return f"{_FAR - info.created:020.6f} {info.id}"


class TaskService(Service, Task):
    def list(self, *, state: TaskState | None = None, limit: int = 1000, start: str | None = None) -> TaskPage:
        found: builtins.list[TaskInfo[Any]] = sorted(self.parts.tasks.list(state, self.caller.owner), key=_key)
        items, following = page(found, _key, limit, start)
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
