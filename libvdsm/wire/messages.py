# SPDX-License-Identifier: Apache-2.0
"""What travels, whatever the wire: calls, replies, events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from libvdsm.api.event import EventInfo
from libvdsm.api.types import ErrorInfo

CallId = int | float | str | None
"""Chosen by the client of a wire that has such ids; the reply carries it back."""


class Call(msgspec.Struct):
    """A verb to be called.

    ``params`` is what the wire's codec can give without work: JSON that was not looked into (``msgspec.Raw``), or a
    mapping of plain values.  ``descriptors`` are open files that came with the message; whoever received them closes
    them when the call was answered.
    """

    verb: str
    params: msgspec.Raw | Mapping[str, Any]
    id: CallId = None
    wants_reply: bool = True
    session: str | None = None
    request: str | None = None
    task: str | None = None
    """chosen by the client that owns the task"""
    descriptors: list[int] = msgspec.field(default_factory=list)


class Reply(msgspec.Struct):
    """The answer to one call: a result structure, or an error."""

    id: CallId
    result: Any = None
    error: ErrorInfo | None = None


class Notification(msgspec.Struct):
    """An event on its way to a client that subscribed."""

    event: EventInfo


class BadMessage(Exception):
    """The bytes are not a message of this wire.  ``too_large`` when a limit was passed."""

    def __init__(self, reason: str, *, too_large: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.too_large = too_large
