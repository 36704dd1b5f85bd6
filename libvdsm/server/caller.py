# SPDX-License-Identifier: Apache-2.0
"""Who calls: what a transport knows of its peer, and what a service is told of it."""

from __future__ import annotations

import os
import pwd
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import msgspec

from libvdsm.api.types import SessionId, TaskId, TaskMode
from libvdsm.declare import Right
from libvdsm.wire.messages import Notification

_UCRED = struct.Struct("3i")


class OwnerKey(NamedTuple):
    """Who owns tasks in the transparent mode: a user's client, by the name that it gave itself."""

    user: str
    name: str


@dataclass
class SessionRecord:
    """A session that a client opened."""

    id: SessionId
    task_mode: TaskMode
    opened: float
    name: str | None = None
    last_used: float = 0.0
    """monotonic"""
    user: str = ""
    owner: OwnerKey | None = None
    """in the transparent mode"""


@dataclass(eq=False)
class Connection:
    """One client on one transport, for as long as it is connected.

    ``uid`` and ``pid`` are the kernel's word over a Unix socket, and None elsewhere.  ``push`` sends an event to the
    client, where the wire can; it never waits, and ends the connection of a client that does not read.
    """

    wire: str
    peer: str
    right: Right
    uid: int | None = None
    gid: int | None = None
    pid: int | None = None
    descriptor: int | None = None
    """its socket, where it is one: the kernel tells when the peer hangs up"""
    carries_descriptors: bool = False
    push: Callable[[Notification], None] | None = None
    is_session: bool = False
    """Whether a session opened on it is in force until it ends; else the client sends the session's id with each call."""
    session: SessionRecord | None = None
    owns: bool = False
    """Whether its end is awaited, since it has stood for an owner of tasks."""
    subscribed: bool = False
    """Events are sent to it, so its silence is no reason to end it."""
    on_close: list[Callable[[], None]] = field(default_factory=list)

    @cached_property
    def user(self) -> str:
        """The caller in words, for logs and task owners.  Looked up once: that reads a file, and every call needs it."""
        if self.uid is None:
            return f"anonymous@{self.peer}"
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return f"uid {self.uid}"

    @property
    def identity(self) -> str:
        """The caller as others cannot be: by number where the kernel knows it, as users may share a name."""
        return self.user if self.uid is None else str(self.uid)

    def close(self) -> None:
        """The client is gone: whoever asked is told."""
        while self.on_close:
            self.on_close.pop()()


class Caller(msgspec.Struct, frozen=True):
    """What a service knows of the call that it answers."""

    connection: Connection
    session: SessionRecord | None
    request: str
    task: TaskId | None = None
    """the id that came with the call of a verb that makes a task"""
    params: msgspec.Struct | None = None
    """of such a verb, as they came"""

    @property
    def user(self) -> str:
        return self.connection.user

    @property
    def owner(self) -> OwnerKey | None:
        """Whose tasks the caller owns."""
        return self.session.owner if self.session else None


def peer_credentials(sock: socket.socket) -> tuple[int, int, int]:
    """(pid, uid, gid) of the process at the other end of a Unix socket, as it was when it connected."""
    pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid, gid


@dataclass(frozen=True)
class Access:
    """Which right a caller has: the policy, as configured."""

    anonymous: Right | None
    other_users: Right | None

    def of_user(self, uid: int) -> Right | None:
        """The service's own user and root administer; others have what the configuration says."""
        return Right.ADMINISTER if uid in (0, os.getuid()) else self.other_users
