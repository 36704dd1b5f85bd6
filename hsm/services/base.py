# SPDX-License-Identifier: Apache-2.0
"""What services have in common: the parts they answer from, the caller, and how a verb becomes a task."""

from __future__ import annotations

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
from libvdsm.api import VERBS
from libvdsm.api.errors import InvalidParameter
from libvdsm.api.types import TaskInfo
from libvdsm.server.caller import Caller
from libvdsm.server.dispatch import Sessions


@dataclass(frozen=True)
class Parts:
    """What the composition root gives to services."""

    context: Context
    tasks: TaskManager
    events: EventLog
    sessions: Sessions
    status: Status
    config_file: str | None
    audit: AuditStore | None


class Service:
    """Base of the services."""

    def __init__(self, parts: Parts, caller: Caller) -> None:
        self.parts = parts
        self.context = parts.context
        self.caller = caller

    def submit(self, verb: str, **params: Any) -> TaskInfo[Any]:
        """Have the verb's operation done.  All ids are chosen by now, so that asking again after a crash is the same."""
        given: msgspec.Struct = VERBS[verb].params(**params)
        operation = OPERATIONS[verb](self.context, given)
        # An open file does not outlive this process; its number would mean another one after a restart.
        kept = msgspec.structs.replace(given, **dict.fromkeys(VERBS[verb].descriptors))
        return self.parts.tasks.submit(verb, kept, operation, owner=self.caller.user, request=self.caller.request)


def fitting(verb: str, *, name: str | None, description: str | None) -> None:
    """Name and description fit the format, or the caller is told before anything begins."""
    try:
        description_format.write(name=name, description=description)
    except description_format.TooLong as error:
        raise InvalidParameter(verb=verb, reason=str(error)) from None
