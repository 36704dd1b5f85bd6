# SPDX-License-Identifier: Apache-2.0
"""What services have in common: the parts they answer from, the caller, and how a verb becomes a task."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import msgspec

from hsm.audit.store import AuditStore
from hsm.events import EventLog
from hsm.formats import description as description_format
from hsm.operations.base import Context
from hsm.operations.catalogue import OPERATIONS
from hsm.status import Status
from hsm.tasks.manager import TaskManager
from hsm.tasks.modes import Claim
from libvdsm.api import VERBS
from libvdsm.api.errors import InvalidParameter
from libvdsm.api.types import TaskInfo
from libvdsm.declare import Verb
from libvdsm.server.caller import Caller
from libvdsm.server.dispatch import Sessions
from libvdsm.server.presence import Presence


@dataclass(frozen=True)
class Parts:
    """What the composition root gives to services."""

    context: Context
    tasks: TaskManager
    events: EventLog
    sessions: Sessions
    status: Status
    config_file: str | None
    presence: Presence
    audit: AuditStore | None


class Service:
    """Base of the services."""

    def __init__(self, parts: Parts, caller: Caller) -> None:
        self.parts = parts
        self.context = parts.context
        self.caller = caller

    def submit(self, verb: str, **params: Any) -> TaskInfo[Any]:
        """Have the verb's operation done.  All ids are chosen by now, so that asking again after a crash is the same."""
        claim = claim_of(self.caller, VERBS[verb])
        given: msgspec.Struct = VERBS[verb].params(**params)
        operation = OPERATIONS[verb](self.context, given)
        # An open file does not outlive this process; its number would mean another one after a restart.
        kept = msgspec.structs.replace(given, **dict.fromkeys(VERBS[verb].descriptors))
        user, request = self.caller.user, self.caller.request
        task = self.parts.tasks.submit(verb, kept, operation, owner=user, request=request, claim=claim)
        if claim is not None:
            self.parts.presence.note(claim.owner)
        return task

    def new_id(self, what: str) -> uuid.UUID:
        """The id of a new thing that the caller left to the service.

        At random; or from the task's id, where the caller owns the task: so the same call, after a restart that
        forgot the task, makes the same thing and not another one.
        """
        caller = self.caller
        if caller.owner is None or caller.task is None:
            return uuid.uuid4()
        return uuid.uuid5(caller.task, " ".join((*caller.owner, what)))


def claim_of(caller: Caller, verb: Verb) -> Claim | None:
    """The task as the caller asks for it, where the caller owns it."""
    if caller.owner is None or caller.task is None:
        return None
    asked = msgspec.structs.replace(caller.params, **dict.fromkeys(verb.descriptors)) if caller.params else None
    return Claim(caller.owner, caller.task, msgspec.json.encode(asked))


def fitting(verb: str, *, name: str | None, description: str | None) -> None:
    """Name and description fit the format, or the caller is told before anything begins."""
    try:
        description_format.write(name=name, description=description)
    except description_format.TooLong as error:
        raise InvalidParameter(verb=verb, reason=str(error)) from None
