# SPDX-License-Identifier: Apache-2.0
"""Verbs, records and calls for tests that need no service."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from libvdsm.api.audit import AuditOutcome, AuditRecord
from libvdsm.api.types import Descriptor, DomainId, Line, Nothing, TaskInfo, Text, VolumeId
from libvdsm.declare import Right, Spec, Verb, read_class, verb
from libvdsm.server.caller import Connection, SessionRecord

_Secret = Annotated[str, Meta(max_length=100, pattern="^[a-z]*$", extra={"secret": True})]


class Key(Spec, frozen=True, kw_only=True):
    """Something with a secret in it."""

    kind: Line
    passphrase: _Secret


class Box(ABC):
    """A class of verbs that nobody serves."""

    @verb(since="1.1", right=Right.OPERATE)
    @abstractmethod
    def lock(
        self,
        *,
        domain: DomainId,
        id: VolumeId | None = None,
        passphrase: _Secret | None = None,
        keys: list[Key] | None = None,
        label: Annotated[Text, Meta(description="what stands on it")] | None = None,
        lines: list[Line] | None = None,
        source: Descriptor | None = None,
    ) -> Nothing:
        """Lock a box."""

    @verb(since="1.1", right=Right.OPERATE)
    @abstractmethod
    def fill(self, *, domain: DomainId) -> TaskInfo[Nothing]:
        """Fill a box, which takes time."""


VERBS: dict[str, Verb] = read_class(Box, TaskInfo)
LOCK, FILL = VERBS["lock"], VERBS["fill"]
DOMAIN = DomainId(uuid.UUID("00000000-0000-4000-8000-000000000001"))


def raw(**params: Any) -> msgspec.Raw:
    """Parameters as JSON-RPC has them."""
    return msgspec.Raw(msgspec.json.encode(params))


def connection(session: SessionRecord | None = None) -> Connection:
    return Connection("unix", "pid 77", Right.OPERATE, 0, 0, 77, session=session)


def record(**members: Any) -> AuditRecord:
    """One that is not written yet."""
    usual = {"number": 0, "time": 1.5, "user": "alice", "verb": "Box.lock", "params": {}, "request": "r-1"}
    return AuditRecord(**{**usual, "outcome": AuditOutcome.SUCCEEDED, **members})
