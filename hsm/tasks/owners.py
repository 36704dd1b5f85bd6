# SPDX-License-Identifier: Apache-2.0
"""What becomes of tasks whose owner is gone: stopped after a while, and forgotten after a longer one.

Nothing here decides who is there; ``libvdsm.server.presence`` does, and tells.
"""

from __future__ import annotations

from contextlib import suppress

from hsm.tasks.manager import TaskManager
from hsm.tasks.states import ENDED
from libvdsm.api.errors import NoSuchTask, OwnerAbsent, TaskNotEnded, TaskPastStopping
from libvdsm.log import Log
from libvdsm.server.caller import OwnerKey
from libvdsm.server.presence import Presence, Stage

log = Log("hsm.owners")


class Owners:
    """Ends and forgets the tasks of those who are gone."""

    def __init__(self, tasks: TaskManager, grace: float, keep: float) -> None:
        """``grace`` and ``keep``: after so many seconds of absence tasks are stopped, and forgotten."""
        self._tasks = tasks
        self._grace = grace
        stages = (Stage(grace, self._stop), Stage(max(grace, keep), self._forget))
        self.presence = Presence(stages, tasks.owns)

    def _stop(self, owner: OwnerKey) -> None:
        """What has not reached its commit point stops; the rest is finished."""
        unfinished = [task for task in self._tasks.owned(owner) if task.state not in ENDED]
        log.info("owner gone", owner=owner.name, user=owner.user, seconds=self._grace, tasks=len(unfinished))
        for task in unfinished:
            with suppress(TaskPastStopping, NoSuchTask):
                self._tasks.stop(task.id, owner, why=OwnerAbsent(grace=self._grace))

    def _forget(self, owner: OwnerKey) -> None:
        for task in self._tasks.owned(owner):
            with suppress(TaskNotEnded, NoSuchTask):
                self._tasks.clear(task.id, owner)
