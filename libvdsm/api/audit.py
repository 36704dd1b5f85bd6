# SPDX-License-Identifier: Apache-2.0
"""Audit: who changed what, from where, and how it ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Any

from msgspec import Meta

from libvdsm.api.errors import NotSupported
from libvdsm.api.types import (
    Count,
    Cursor,
    DomainId,
    ImageId,
    Limit,
    Line,
    OpenEnum,
    Sequence,
    TaskId,
    Text,
    Time,
    VolumeId,
    Word,
)
from libvdsm.declare import Info, Right, verb


class AuditOutcome(OpenEnum):
    """What became of a call."""

    RUNNING = "running"
    """it has begun, and not ended"""
    SUCCEEDED = "succeeded"
    """it did what it was asked for"""
    FAILED = "failed"
    """an error ended it"""
    STOPPED = "stopped"
    """its task ended as asked, before anything was changed"""
    REFUSED = "refused"
    """the caller lacked the right, and nothing was done"""
    INTERRUPTED = "interrupted"
    """the service ended before it did; nobody knows whether it was done"""
    UNKNOWN = "unknown"
    """a value newer than this client"""


class AuditRecord(Info, frozen=True, kw_only=True):
    """One call that may have changed something, or a task that the service began on its own account."""

    number: Annotated[Sequence, Meta(description="larger than that of every record before")]
    time: Annotated[Time, Meta(description="when it was asked for")]
    user: Annotated[Text, Meta(description="who asked for it")]
    verb: Annotated[Word, Meta(description="the verb")]
    params: Annotated[
        dict[str, Any],
        Meta(
            description="the parameters that were given, without open files; what is secret is `(secret)`, what the "
            "verb does not take `(not valid)`, and long texts are cut"
        ),
    ]
    request: Annotated[Text, Meta(description="id of the request, as in the log")]
    outcome: Annotated[AuditOutcome, Meta(description="what became of it")]
    wire: Annotated[Text, Meta(description="the wire it came over; absent: the service itself asked for it")] | None = (
        None
    )
    peer: Annotated[Text, Meta(description="the other end of the connection")] | None = None
    uid: Annotated[Count, Meta(description="the caller's user id, over a Unix socket")] | None = None
    pid: Annotated[Count, Meta(description="the caller's process id, over a Unix socket")] | None = None
    session: Annotated[Text, Meta(description="what the client calls itself, if it opened a session")] | None = None
    domain: Annotated[DomainId, Meta(description="the domain it is about")] | None = None
    image: Annotated[ImageId, Meta(description="the image it is about")] | None = None
    volume: Annotated[VolumeId, Meta(description="the volume it is about")] | None = None
    task: Annotated[TaskId, Meta(description="the task that it started")] | None = None
    ended: Annotated[Time, Meta(description="when it ended, as far as that is known")] | None = None
    error: Annotated[Word, Meta(description="the name of the error that ended it")] | None = None
    message: Annotated[Text, Meta(description="the error in words")] | None = None


class AuditPage(Info, frozen=True, kw_only=True):
    """Records of the audit log, the newest first."""

    items: Annotated[list[AuditRecord], Meta(description="the records")]
    next: (
        Annotated[Cursor, Meta(description="give it as `start` to read on; absent: this was the last page")] | None
    ) = None


_Moment = Annotated[Time, Meta(le=1e11)]


class Audit(ABC):
    """Who changed what, from where, and how it ended."""

    @verb(since="1.1", right=Right.ADMINISTER, errors=(NotSupported,), changes=False)
    @abstractmethod
    def list(
        self,
        *,
        since: Annotated[_Moment, Meta(description="only what was asked for at this time or later")] | None = None,
        until: Annotated[_Moment, Meta(description="only what was asked for before this time")] | None = None,
        user: Annotated[Line, Meta(description="only what this user asked for")] | None = None,
        verb: Annotated[Word, Meta(description="only calls of this verb, by its full name: class, dot, verb")]
        | None = None,
        domain: Annotated[DomainId, Meta(description="only what is about this domain; absent: all")] | None = None,
        image: Annotated[ImageId, Meta(description="only what is about this image")] | None = None,
        outcome: Annotated[AuditOutcome, Meta(description="only what ended so")] | None = None,
        limit: Limit = 1000,
        start: Cursor | None = None,
    ) -> AuditPage:
        """List the records of the audit log, the newest first.

        Every call of a verb that changes something is recorded, also when it is refused or fails at once, and so are
        the tasks that the service begins on its own account.  Calls that only look are not.  Records are kept for
        ``[audit] keep`` seconds, and ``[audit] keep_count`` of them.
        """
