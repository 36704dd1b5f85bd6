# SPDX-License-Identifier: Apache-2.0
"""Host: what this service is, what it can do, and how it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated

from msgspec import Meta

from libvdsm.api.types import Bytes, Count, Seconds, Text, Time, Word
from libvdsm.declare import Info, Right, verb


class PingInfo(Info, frozen=True, kw_only=True):
    """Proof of life."""

    time: Annotated[Time, Meta(description="the service's clock")]


class DriverInfo(Info, frozen=True, kw_only=True):
    """A type of domain that this service can work on."""

    type: Annotated[Word, Meta(description="the type, as `Domain.create` takes it")]
    driver_api: Annotated[Word, Meta(description="version of the driver protocol that it implements")]
    shared: Annotated[bool, Meta(description="whether several hosts can use one domain at once")]
    block: Annotated[bool, Meta(description="whether volumes are devices, and not files")]
    preallocation: Annotated[bool, Meta(description="whether space can be reserved for a volume")]
    description: Annotated[Text, Meta(description="what it is, in a line")]


class ToolInfo(Info, frozen=True, kw_only=True):
    """A program that the service starts."""

    name: Annotated[Word, Meta(description="the program")]
    path: Annotated[Text, Meta(description="where it is")] | None = None
    version: Annotated[Text, Meta(description="what it says of itself")] | None = None
    missing: Annotated[Text, Meta(description="what cannot be done without it, if it is missing")] | None = None


class Capabilities(Info, frozen=True, kw_only=True):
    """What this service can do."""

    version: Annotated[Word, Meta(description="of the service")]
    api: Annotated[Word, Meta(description="version of the API, major.minor")]
    verbs: Annotated[list[Word], Meta(description="every verb it answers")]
    drivers: Annotated[list[DriverInfo], Meta(description="the types of domain")]
    wires: Annotated[
        list[Text], Meta(description="where it listens, as a client takes it: `unix:PATH`, `tcp:HOST:PORT`")
    ]
    task_modes: Annotated[list[Word], Meta(description="the task modes that `Session.open` takes")]
    tools: Annotated[list[ToolInfo], Meta(description="the programs it uses")]


class ChildInfo(Info, frozen=True, kw_only=True):
    """A process that the service started."""

    pid: Annotated[Count, Meta(description="process id")]
    name: Annotated[Text, Meta(description="what it is")]
    memory: Annotated[Bytes, Meta(description="resident memory")]


class HostStats(Info, frozen=True, kw_only=True):
    """How the service is."""

    uptime: Annotated[Seconds, Meta(description="since it started")]
    started: Annotated[Time, Meta(description="when it started")]
    start_duration: Annotated[Seconds, Meta(description="from the start of the process until it answered")]
    memory: Annotated[Bytes, Meta(description="resident memory of the service itself")]
    cpu: Annotated[Seconds, Meta(description="processor time used")]
    threads: Annotated[Count, Meta(description="threads")]
    connections: Annotated[Count, Meta(description="clients connected")]
    calls: Annotated[Count, Meta(description="calls answered since the start")]
    tasks_queued: Annotated[Count, Meta(description="tasks waiting")]
    tasks_running: Annotated[Count, Meta(description="tasks at work")]
    domains: Annotated[Count, Meta(description="domains attached")]
    children: Annotated[list[ChildInfo], Meta(description="processes it started: tools and keepers")]


class Host(ABC):
    """This host's storage service."""

    @verb(since="1.0", right=Right.READ)
    @abstractmethod
    def ping(self) -> PingInfo:
        """Answer at once, without touching any storage."""

    @verb(since="1.0", right=Right.READ)
    @abstractmethod
    def get_capabilities(self) -> Capabilities:
        """Tell what this service can do: versions, verbs, types of domain, tools.

        A client that needs something newer than 1.0 asks here, and not for version numbers.
        """

    @verb(since="1.0", right=Right.READ)
    @abstractmethod
    def get_stats(self) -> HostStats:
        """Tell how the service is: uptime, memory in bytes, tasks, and the processes it started."""
