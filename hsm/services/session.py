# SPDX-License-Identifier: Apache-2.0
"""Session: who a client is."""

from __future__ import annotations

import time
import uuid

from hsm.services.base import Service
from libvdsm.api import VERBS
from libvdsm.api.errors import InvalidParameter
from libvdsm.api.session import Session, SessionInfo
from libvdsm.api.types import SessionId, TaskMode
from libvdsm.server.caller import OwnerKey, SessionRecord


class SessionService(Service, Session):
    def open(
        self,
        *,
        task_mode: TaskMode = TaskMode.NON_TRANSPARENT,
        name: str | None = None,
        owner: str | None = None,
    ) -> SessionInfo:
        mode = self._default if task_mode is TaskMode.DEFAULT else task_mode
        transparent = mode is TaskMode.TRANSPARENT
        if transparent and owner is None:
            reason = "in the transparent mode it takes an owner: a name that the client keeps, such as a UUID"
            raise InvalidParameter(verb="Session.open", reason=reason)
        # Whoever is content with either mode may bring a name for the case.
        if owner is not None and task_mode is TaskMode.NON_TRANSPARENT:
            raise InvalidParameter(verb="Session.open", reason="owner is for the transparent mode: set taskMode")
        connection = self.caller.connection
        key = OwnerKey(connection.identity, owner) if transparent and owner else None
        record = SessionRecord(SessionId(uuid.uuid4()), mode, time.time(), name, user=connection.user, owner=key)
        presence = self.parts.presence
        presence.release(connection)
        if key is not None:
            presence.hold(key, connection)
        if connection.is_session:
            connection.session = record
            if key is not None and not connection.owns:
                connection.owns = True
                connection.on_close.append(lambda: presence.release(connection))
        else:
            presence.release(connection)
            self.parts.sessions.add(record)
        return self._info(record)

    def get_info(self) -> SessionInfo:
        return self._info(self.caller.session)

    @property
    def _default(self) -> TaskMode:
        return TaskMode(self.context.config.tasks.mode)

    def _info(self, record: SessionRecord | None) -> SessionInfo:
        connection = self.caller.connection
        return SessionInfo(
            user=connection.user,
            wire=connection.wire,
            right=connection.right.name.lower(),
            verbs=[name for name, verb in VERBS.items() if verb.declaration.right <= connection.right],
            task_mode=record.task_mode if record else self._default,
            id=record.id if record else None,
            uid=connection.uid,
            pid=connection.pid,
            name=record.name if record else None,
            opened=record.opened if record else None,
            owner=record.owner.name if record and record.owner else None,
        )
