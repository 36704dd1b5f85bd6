# SPDX-License-Identifier: Apache-2.0
"""Event: what happens, as it happens.

Each class derived from ``EventData`` is an event; its name is the class name.  Events carry an increasing sequence
number, also over restarts of the service, and are kept for a while, so that a client that polls misses none or is
told that it did.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Any

from msgspec import Meta

from libvdsm.api.errors import NotSupported
from libvdsm.api.types import (
    Count,
    DomainId,
    ImageId,
    Line,
    Progress,
    Seconds,
    Sequence,
    TaskId,
    TaskState,
    Time,
    TransferId,
    VolumeId,
    Word,
)
from libvdsm.declare import Info, Right, verb


class EventData(Info, frozen=True, kw_only=True):
    """Base of all events."""


class TaskChanged(EventData, frozen=True, kw_only=True):
    """A task changed its state, or went on."""

    task: Annotated[TaskId, Meta(description="the task")]
    verb: Annotated[Word, Meta(description="the verb that started it")]
    state: Annotated[TaskState, Meta(description="its state now")]
    progress: Annotated[Progress, Meta(description="how far it is")]


class DomainAttached(EventData, frozen=True, kw_only=True):
    """A domain is served from now on."""

    domain: Annotated[DomainId, Meta(description="the domain")]
    name: Annotated[Line, Meta(description="its name")]


class DomainDetached(EventData, frozen=True, kw_only=True):
    """A domain is no longer served."""

    domain: Annotated[DomainId, Meta(description="the domain")]


class DomainChanged(EventData, frozen=True, kw_only=True):
    """A domain's own metadata changed."""

    domain: Annotated[DomainId, Meta(description="the domain")]


class VolumeCreated(EventData, frozen=True, kw_only=True):
    """A volume was published; without a parent, or on a template, its image is new."""

    domain: Annotated[DomainId, Meta(description="the domain")]
    image: Annotated[ImageId, Meta(description="the image")]
    volume: Annotated[VolumeId, Meta(description="the volume")]


class VolumeChanged(EventData, frozen=True, kw_only=True):
    """A volume's size, description, legality, role or tags changed."""

    domain: Annotated[DomainId, Meta(description="the domain")]
    image: Annotated[ImageId, Meta(description="the image")]
    volume: Annotated[VolumeId, Meta(description="the volume")]


class VolumeDeleted(EventData, frozen=True, kw_only=True):
    """A volume is gone; its image goes on."""

    domain: Annotated[DomainId, Meta(description="the domain")]
    image: Annotated[ImageId, Meta(description="the image")]
    volume: Annotated[VolumeId, Meta(description="the volume")]


class ImageChanged(EventData, frozen=True, kw_only=True):
    """What is kept of an image as a whole changed: its tags."""

    domain: Annotated[DomainId, Meta(description="the domain")]
    image: Annotated[ImageId, Meta(description="the image")]


class ImageDeleted(EventData, frozen=True, kw_only=True):
    """An image is gone, with all its volumes."""

    domain: Annotated[DomainId, Meta(description="the domain")]
    image: Annotated[ImageId, Meta(description="the image")]


class ImagePrepared(EventData, frozen=True, kw_only=True):
    """An image is in use on this host."""

    domain: Annotated[DomainId, Meta(description="the domain")]
    image: Annotated[ImageId, Meta(description="the image")]
    read_only: Annotated[bool, Meta(description="whether it is only read")]


class ImageTornDown(EventData, frozen=True, kw_only=True):
    """An image is no longer in use on this host."""

    domain: Annotated[DomainId, Meta(description="the domain")]
    image: Annotated[ImageId, Meta(description="the image")]


class GarbageCollected(EventData, frozen=True, kw_only=True):
    """What crashed or stopped operations left behind was given back."""

    domain: Annotated[DomainId, Meta(description="the domain")]
    items: Annotated[Count, Meta(description="files and folders removed")]


class TransferChanged(EventData, frozen=True, kw_only=True):
    """A transfer changed its state."""

    transfer: Annotated[TransferId, Meta(description="the transfer")]
    domain: Annotated[DomainId, Meta(description="the domain")]
    image: Annotated[ImageId, Meta(description="the image")]
    state: Annotated[Word, Meta(description="its state now, as `Transfer.getInfo` tells it")]


class EventInfo(Info, frozen=True, kw_only=True):
    """Something that happened."""

    sequence: Annotated[Sequence, Meta(description="larger than that of every event before")]
    time: Annotated[Time, Meta(description="when it happened")]
    name: Annotated[Word, Meta(description="which event; a client passes over names that it does not know")]
    data: Annotated[dict[str, Any], Meta(description="the members that the event of this name has")]


class EventPage(Info, frozen=True, kw_only=True):
    """Events, the oldest first."""

    items: Annotated[list[EventInfo], Meta(description="the events")]
    next: Annotated[Sequence, Meta(description="give it as `after` in the next call")]
    missed: Annotated[
        bool, Meta(description="whether events after `after` are no longer kept: look at everything anew")
    ]


class Subscription(Info, frozen=True, kw_only=True):
    """Events will follow on this connection."""

    after: Annotated[Sequence, Meta(description="the first event that follows has a larger sequence")]
    missed: Annotated[
        bool, Meta(description="whether events after `after` are no longer kept: look at everything anew")
    ]


_After = Annotated[
    Sequence, Meta(description="only events with a larger sequence; absent: only what happens from now on")
]


class Event(ABC):
    """What happens, as it happens."""

    @verb(since="1.0", right=Right.READ, blocking=True)
    @abstractmethod
    def poll(
        self,
        *,
        after: _After | None = None,
        timeout: Annotated[Seconds, Meta(le=60, description="answer after this time at the latest")] = 0.0,
        limit: Annotated[int, Meta(ge=1, le=10_000, description="how many events at most are answered")] = 1000,
    ) -> EventPage:
        """Answer the events after a sequence; if there are none, wait up to `timeout` seconds for one.

        The first call, without `after`, answers where to begin.  Works on every wire.
        """

    @verb(since="1.0", right=Right.READ, errors=(NotSupported,))
    @abstractmethod
    def subscribe(self, *, after: _After | None = None) -> Subscription:
        """Have events sent on this connection as they happen, as notifications with the method `event`.

        Needs a wire that can push: framed JSON-RPC.  A client that reads too
        slowly loses its connection, and begins again with the last sequence it saw.
        """
