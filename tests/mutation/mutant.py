# SPDX-License-Identifier: Apache-2.0
"""The mutant: a service's method that does nothing and claims that all is well.

Lives in the process of the tests and in the services that they start.  A verb that makes a task makes a real one, which
`Task.wait`, events and the record on disk know, and which succeeds at once without having done anything: the worst
there is, since all that gives it away is that the storage did not change.
"""

from __future__ import annotations

import functools
import importlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hsm.tasks.locks import Locks
from hsm.tasks.manager import Job, Objects
from libvdsm.api import VERBS
from libvdsm.api.types import TaskInfo
from libvdsm.declare import Verb
from tests.mutation import defaults

VERB, FOLDER = "HSM_MUTATE", "HSM_MUTATE_FOLDER"
"""Environment variables: which verb, and (optional) where to write down what happened."""
CALLED = "called"
_PATIENCE = 5.0


@dataclass(frozen=True)
class _Claim:
    """An operation that has nothing to do: what was asked for is there already, it says."""

    result: Any
    locks: Locks = ()
    objects: Objects = field(default_factory=Objects)
    resumes: bool = False

    def outcome(self) -> Any:
        return self.result

    def run(self, job: Job) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        pass


def replace(name: str) -> None:
    """Have the service's method answer defaults, in this process, for as long as it lives."""
    verb = VERBS[name]
    module = importlib.import_module(f"hsm.services.{verb.cls.lower()}")
    service = getattr(module, f"{verb.cls}Service")
    method = getattr(service, verb.method)

    # Its signature is compared with the declaration when the service starts.
    @functools.wraps(method)
    def mutated(self: Any, **params: Any) -> Any:
        _note()
        return _submitted(self, verb, params) if verb.makes_task else defaults.answer(verb)

    setattr(service, verb.method, mutated)


def _submitted(service: Any, verb: Verb, params: dict[str, Any]) -> TaskInfo[Any]:
    tasks, caller = service.parts.tasks, service.caller
    claim = _Claim(defaults.default(verb.task_result))
    task = tasks.submit(verb.full, verb.params(**params), claim, owner=caller.user, request=caller.request)
    ended: TaskInfo[Any] = tasks.wait(task.id, _PATIENCE)
    return ended


def _note() -> None:
    """A mutant that survives was called and believed, or was never called: two holes of different kinds."""
    folder = os.environ.get(FOLDER)
    if folder:
        Path(folder, CALLED).touch()
