# SPDX-License-Identifier: Apache-2.0
"""Event: what happens, as it happens."""

from __future__ import annotations

from hsm.services.base import Service
from libvdsm.api.errors import NotSupported
from libvdsm.api.event import Event, EventPage, Subscription


class EventService(Service, Event):
    def poll(self, *, after: int | None = None, timeout: float = 0.0, limit: int = 1000) -> EventPage:
        return self.parts.events.poll(after, timeout, limit, self.caller.owner)

    def subscribe(self, *, after: int | None = None) -> Subscription:
        connection = self.caller.connection
        push = connection.push
        if push is None:
            raise NotSupported(reason="this wire cannot push events; use Event.poll")
        connection.subscribed = True
        begin, missed = self.parts.events.listen(
            push, after, lambda: connection.session.owner if connection.session else None
        )
        connection.on_close.append(lambda: self.parts.events.stop_listening(push))
        return Subscription(after=begin, missed=missed)
