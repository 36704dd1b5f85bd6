# SPDX-License-Identifier: Apache-2.0
"""What becomes of a task that a restart interrupted, decided from what is on storage alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from hsm.tasks.operation import Operation, Task
from hsm.tasks.states import Event
from libvdsm.api.errors import InternalError, Interrupted
from libvdsm.api.types import ErrorInfo
from libvdsm.declare import ApiError
from libvdsm.log import Log, request_id
from libvdsm.server.dispatch import error_info

log = Log("hsm.tasks")

Rebuild = Callable[[str, bytes], Operation]
"""Makes an operation from a verb and its parameters as JSON."""


class Settled(NamedTuple):
    """How it goes on."""

    event: Event
    result: Any = None
    error: ErrorInfo | None = None


def settle(task: Task, params: bytes, rebuild: Rebuild) -> Settled:
    """Ask a task's operation for its outcome."""
    token = request_id.set(task.info.request)
    try:
        task.operation = rebuild(task.info.verb, params)
        task.locks = task.operation.locks
        result = task.operation.outcome()
    except ApiError as error:
        # What it worked on is gone, or cannot be read now: the caller has to look.
        return Settled(Event.FAIL, error=error_info(error))
    except Exception:  # the boundary of a task: what cannot be rebuilt keeps the service from no start
        log.exception("interrupted task cannot be settled", task=task.info.id, verb=task.info.verb)
        return Settled(Event.FAIL, error=error_info(InternalError(request=task.info.request)))
    finally:
        request_id.reset(token)
    log.info("interrupted task", task=task.info.id, verb=task.info.verb, done=result is not None)
    if result is not None:
        return Settled(Event.SUCCEED, result)
    return Settled(Event.RESUME) if task.operation.resumes else Settled(Event.FAIL, error=error_info(Interrupted()))
