# SPDX-License-Identifier: Apache-2.0
"""Session: who a client is, and how its tasks are kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated

from msgspec import Meta

from libvdsm.api.types import Count, Line, SessionId, TaskMode, Text, Time, Word
from libvdsm.declare import Info, Right, verb

__all__ = ["Session", "SessionInfo", "TaskMode"]


class SessionInfo(Info, frozen=True, kw_only=True):
    """A session, and what its caller may do."""

    user: Annotated[Text, Meta(description="who the service takes the caller for")]
    wire: Annotated[Text, Meta(description="the wire in use")]
    right: Annotated[Word, Meta(description="the highest right: read, operate or administer")]
    verbs: Annotated[list[Word], Meta(description="the verbs that the caller may call")]
    task_mode: Annotated[TaskMode, Meta(description="who owns the tasks")]
    id: Annotated[SessionId, Meta(description="to send with each call where a connection is no session")] | None = None
    uid: Annotated[Count, Meta(description="the caller's user id, over a Unix socket")] | None = None
    pid: Annotated[Count, Meta(description="the caller's process id, over a Unix socket")] | None = None
    name: Annotated[Line, Meta(description="what the client calls itself")] | None = None
    opened: Annotated[Time, Meta(description="when it was opened")] | None = None
    owner: Annotated[Word, Meta(description="the name under which the client owns its tasks")] | None = None


class Session(ABC):
    """Who a client is, and how its tasks are kept."""

    @verb(since="1.0", right=Right.READ)
    @abstractmethod
    def open(
        self,
        *,
        task_mode: Annotated[TaskMode, Meta(description="who owns the tasks")] = TaskMode.NON_TRANSPARENT,
        name: Annotated[Line, Meta(description="what the client calls itself, for logs")] | None = None,
        owner: Annotated[Word, Meta(description="transparent mode: a name that the client keeps over restarts, a UUID")]
        | None = None,
    ) -> SessionInfo:
        """Open a session.

        On a connection of its own (framed JSON-RPC, standard input) it is in force from then on and ends with the
        connection.  Over HTTP, send its id with each call in the header ``Session-Id``; it ends after a time of
        silence (``[limits] session_idle``).  A client that opens none is served with the defaults.

        In the transparent mode the client owns its tasks: all sessions of one user with the same `owner` see them,
        and nobody else does.  Each call of a verb that makes a task brings the task's id.  When no session of the
        owner has been there for ``[tasks] owner_grace`` seconds, its tasks are asked to stop.
        """

    @verb(since="1.0", right=Right.READ)
    @abstractmethod
    def get_info(self) -> SessionInfo:
        """Tell who the service takes the caller for, and which verbs that caller may call."""
