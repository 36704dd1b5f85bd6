# SPDX-License-Identifier: Apache-2.0
"""Session: who a client is."""

from __future__ import annotations

import time
import uuid

from hsm.services.base import Service
from libvdsm.api import VERBS
from libvdsm.api.session import Session, SessionInfo, TaskMode
from libvdsm.api.types import SessionId
from libvdsm.server.caller import SessionRecord


class SessionService(Service, Session):
    def open(self, *, task_mode: TaskMode = TaskMode.NON_TRANSPARENT, name: str | None = None) -> SessionInfo:
        connection = self.caller.connection
        record = SessionRecord(SessionId(uuid.uuid4()), task_mode, time.time(), name, user=connection.user)
        if connection.is_session:
            connection.session = record
        else:
            self.parts.sessions.add(record)
        return self._info(record)

    def get_info(self) -> SessionInfo:
        return self._info(self.caller.session)

    def _info(self, record: SessionRecord | None) -> SessionInfo:
        connection = self.caller.connection
        return SessionInfo(
            user=connection.user,
            wire=connection.wire,
            right=connection.right.name.lower(),
            verbs=[name for name, verb in VERBS.items() if verb.declaration.right <= connection.right],
            task_mode=record.task_mode if record else TaskMode.NON_TRANSPARENT,
            id=record.id if record else None,
            uid=connection.uid,
            pid=connection.pid,
            name=record.name if record else None,
            opened=record.opened if record else None,
        )
