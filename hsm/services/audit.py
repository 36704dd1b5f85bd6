# SPDX-License-Identifier: Apache-2.0
"""Audit: who changed what, from where, and how it ended."""

from __future__ import annotations

from hsm.audit.store import AuditError, Wanted
from hsm.services.base import Service
from libvdsm.api.audit import Audit, AuditOutcome, AuditPage
from libvdsm.api.errors import InvalidParameter, NotSupported, Unavailable
from libvdsm.api.types import DomainId, ImageId

_NUMBER = 18
"""Digits at most: more would be no number of a record."""


class AuditService(Service, Audit):
    def list(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        user: str | None = None,
        verb: str | None = None,
        domain: DomainId | None = None,
        image: ImageId | None = None,
        outcome: AuditOutcome | None = None,
        limit: int = 1000,
        start: str | None = None,
    ) -> AuditPage:
        store = self.parts.audit
        if store is None:
            raise NotSupported(reason="no audit log is kept: [audit] enabled is no")
        wanted = Wanted(since, until, user, verb, domain, image, outcome)
        try:
            items, following = store.find(wanted, limit, _before(start))
        except AuditError as error:
            raise Unavailable(reason=str(error)) from None
        return AuditPage(items=items, next=None if following is None else str(following))


def _before(start: str | None) -> int | None:
    """The number below which a page begins."""
    if start is None:
        return None
    if not (start.isascii() and start.isdigit() and len(start) <= _NUMBER):
        raise InvalidParameter(verb="Audit.list", reason=f"start: {start!r} is the `next` of no page")
    return int(start)
