# SPDX-License-Identifier: Apache-2.0
"""Asked before every verb that makes a task: does its caller own the task, and is it there already?

So a call that is repeated is answered with its task before the verb looks at anything: what the first one did may
have taken away what it was about.
"""

from __future__ import annotations

from typing import Any

from hsm.services.base import claim_of
from hsm.tasks.manager import TaskManager
from libvdsm.api.errors import InvalidParameter, TaskIdRequired
from libvdsm.api.types import TaskInfo, TaskMode
from libvdsm.declare import Verb
from libvdsm.server.caller import Caller


class Admission:
    """``default``: the mode of callers who opened no session."""

    def __init__(self, tasks: TaskManager, default: TaskMode) -> None:
        self._tasks = tasks
        self._default = default

    def __call__(self, caller: Caller, verb: Verb) -> TaskInfo[Any] | None:
        """The task that the call stands for, if it is there already."""
        mode = caller.session.task_mode if caller.session else self._default
        if mode is not TaskMode.TRANSPARENT:
            if caller.task is not None:
                reason = "the service owns this session's tasks and names them; open one with an owner to name them"
                raise InvalidParameter(verb=verb.full, reason=reason)
            return None
        claim = claim_of(caller, verb)
        if claim is None:
            raise TaskIdRequired(verb=verb.full)
        return self._tasks.known(verb.full, claim)
