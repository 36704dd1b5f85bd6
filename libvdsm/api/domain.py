# SPDX-License-Identifier: Apache-2.0
"""Domain: the places where images lie."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Any

from msgspec import Meta

from libvdsm.api.errors import (
    DomainBusy,
    DomainDamaged,
    DomainExists,
    DomainInUse,
    DomainNotEmpty,
    DomainNotFound,
    DomainReadOnly,
    Interrupted,
    InvalidCursor,
    InvalidFilter,
    InvalidSort,
    NoSpace,
    NoSuchDomain,
    NotSupported,
    PathNotUsable,
    StorageFailed,
    TaskStopped,
    UnknownDomainType,
)
from libvdsm.api.types import (
    Bytes,
    Count,
    Cursor,
    DomainId,
    Filter,
    ImageId,
    Limit,
    Name,
    Nothing,
    OpenEnum,
    Path,
    Sort,
    TaskInfo,
    Text,
    VolumeId,
    VolumeInfo,
    Word,
)
from libvdsm.declare import Info, Right, verb


class DomainState(OpenEnum):
    """Whether a domain can be worked with."""

    OK = "ok"
    """it answers"""
    UNAVAILABLE = "unavailable"
    """it cannot be reached, or its metadata cannot be read"""
    UNKNOWN = "unknown"
    """a value newer than this client"""


class DomainInfo(Info, frozen=True, kw_only=True):
    """A domain that this service serves."""

    id: Annotated[DomainId, Meta(description="the domain")]
    type: Annotated[Word, Meta(description="its type, as in `Host.getCapabilities`")]
    state: Annotated[DomainState, Meta(description="whether it can be worked with")]
    path: Annotated[Text, Meta(description="where it lies")]
    name: Annotated[Text, Meta(description="its one text on storage, which is name and description")] | None = None
    version: Annotated[Count, Meta(description="of its layout: 5, or 4 for what is only read")] | None = None
    block_size: Annotated[Bytes, Meta(description="sector size it was made for")] | None = None
    alignment: Annotated[Bytes, Meta(description="space between leases")] | None = None
    problem: Annotated[Text, Meta(description="why it is unavailable")] | None = None


class DomainPage(Info, frozen=True, kw_only=True):
    """Domains, by name."""

    items: Annotated[list[DomainInfo], Meta(description="the domains")]
    next: (
        Annotated[Cursor, Meta(description="give it as `start` to read on; absent: this was the last page")] | None
    ) = None


class DomainStats(Info, frozen=True, kw_only=True):
    """How full a domain is."""

    id: Annotated[DomainId, Meta(description="the domain")]
    capacity: Annotated[Bytes, Meta(description="size of the storage beneath")]
    free: Annotated[Bytes, Meta(description="space left on the storage beneath")]
    images: Annotated[Count, Meta(description="images, templates included")]
    volumes: Annotated[Count, Meta(description="volumes")]
    actual_size: Annotated[Bytes, Meta(description="space that the volumes take")]
    promised: Annotated[Bytes, Meta(description="capacity of all leaves together: what the guests could write")]
    garbage: Annotated[Count, Meta(description="files and folders that nobody owns; see `Domain.collectGarbage`")]
    prepared: Annotated[Count, Meta(description="images in use on this host")]


class Problem(Info, frozen=True, kw_only=True):
    """Something on storage that is not as it should be."""

    kind: Annotated[Word, Meta(description="which kind of damage; the kinds are in the guide")]
    severity: Annotated[Word, Meta(description="error: data cannot be used; warning: it can, and something is wrong")]
    message: Annotated[Text, Meta(description="what is wrong, and what to do")]
    path: Annotated[Text, Meta(description="the file or folder")] | None = None
    image: Annotated[ImageId, Meta(description="the image")] | None = None
    volume: Annotated[VolumeId, Meta(description="the volume")] | None = None


class CheckReport(Info, frozen=True, kw_only=True):
    """What a check found."""

    domain: Annotated[DomainId, Meta(description="the domain")]
    healthy: Annotated[bool, Meta(description="no problem of severity `error`")]
    images: Annotated[Count, Meta(description="images looked at")]
    volumes: Annotated[Count, Meta(description="volumes looked at")]
    problems: Annotated[list[Problem], Meta(description="what was found")]


class GarbageReport(Info, frozen=True, kw_only=True):
    """What was given back, and what was left alone."""

    domain: Annotated[DomainId, Meta(description="the domain")]
    removed: Annotated[list[Text], Meta(description="files and folders removed, relative to the domain")]
    kept: Annotated[list[Text], Meta(description="looks like garbage, but somebody holds its lease, or it is not ours")]
    freed: Annotated[Bytes, Meta(description="space given back")]
    finished: (
        Annotated[list[ImageId], Meta(description="images with an interrupted change that was finished now")] | None
    ) = None
    unfinished: (
        Annotated[list[ImageId], Meta(description="images with a change in place that goes on, or cannot be finished")]
        | None
    ) = None


class DomainDump(Info, frozen=True, kw_only=True):
    """Everything that is known of a domain, as it lies on storage."""

    domain: Annotated[DomainInfo, Meta(description="the domain")]
    metadata: Annotated[dict[str, str], Meta(description="its metadata, as stored")]
    volumes: Annotated[list[VolumeInfo], Meta(description="its published volumes")]
    damaged: Annotated[list[Problem], Meta(description="what could not be read")]
    garbage: Annotated[list[Text], Meta(description="files and folders that nobody owns")]
    facts: Annotated[dict[str, Any], Meta(description="what the driver adds")]
    next: (
        Annotated[Cursor, Meta(description="give it as `start` to read on; absent: this was the last page")] | None
    ) = None


_Domain = Annotated[DomainId, Meta(description="the domain")]
_Type = Annotated[Word, Meta(description="type of the domain, as in `Host.getCapabilities`")]
_STORAGE = (NoSuchDomain, DomainBusy, DomainReadOnly, DomainDamaged, StorageFailed, NoSpace, TaskStopped, Interrupted)


class Domain(ABC):
    """The places where images lie."""

    @verb(
        since="1.0",
        right=Right.ADMINISTER,
        errors=(UnknownDomainType, DomainExists, PathNotUsable, StorageFailed, NoSpace, TaskStopped, Interrupted),
        positional=("name", "path"),
    )
    @abstractmethod
    def create(
        self,
        *,
        name: Annotated[Name, Meta(description="what people call the domain")],
        path: Annotated[Path, Meta(description="an existing folder that the domain is made in")],
        type: _Type = "local",
        id: Annotated[DomainId, Meta(description="id for the new domain; absent: one is chosen")] | None = None,
    ) -> TaskInfo[DomainInfo]:
        """Make a new, empty domain in a folder, and serve it.

        The commit point is the appearance of the domain's own metadata file.  With an `id`, the same call again
        answers the same.
        """

    @verb(
        since="1.0",
        right=Right.ADMINISTER,
        errors=(UnknownDomainType, DomainNotFound, DomainExists, *_STORAGE),
        positional=("path",),
    )
    @abstractmethod
    def attach(
        self,
        *,
        path: Annotated[Path, Meta(description="the folder that holds the domain")],
        type: _Type = "local",
        id: Annotated[DomainId, Meta(description="which domain, where the folder holds several")] | None = None,
    ) -> TaskInfo[DomainInfo]:
        """Serve a domain that exists, from now on and after restarts.  Attaching it again answers the same."""

    @verb(since="1.0", right=Right.ADMINISTER, errors=(DomainInUse, *_STORAGE), positional=("domain",))
    @abstractmethod
    def detach(self, *, domain: _Domain) -> TaskInfo[Nothing]:
        """Stop serving a domain; nothing on it changes.  Refused while images of it are in use here."""

    @verb(since="1.0", right=Right.READ, errors=(InvalidFilter, InvalidSort, InvalidCursor))
    @abstractmethod
    def list(
        self,
        *,
        filter: Filter | None = None,
        sort: Sort | None = None,
        limit: Limit = 1000,
        start: Cursor | None = None,
    ) -> DomainPage:
        """List the domains that are served, by name if nothing else is said, those that cannot be reached included."""

    @verb(since="1.0", right=Right.READ, errors=(NoSuchDomain,), positional=("domain",))
    @abstractmethod
    def get_info(self, *, domain: _Domain) -> DomainInfo:
        """Tell what a domain is and where it lies."""

    @verb(since="1.0", right=Right.READ, errors=(NoSuchDomain, DomainDamaged, StorageFailed), positional=("domain",))
    @abstractmethod
    def get_stats(self, *, domain: _Domain) -> DomainStats:
        """Tell how full a domain is, sizes in bytes."""

    @verb(since="1.0", right=Right.ADMINISTER, errors=_STORAGE, positional=("domain", "description"))
    @abstractmethod
    def set_description(
        self,
        *,
        domain: _Domain,
        description: Annotated[Name, Meta(description="the new name and description")],
    ) -> TaskInfo[DomainInfo]:
        """Change a domain's one text, which is both its name and its description."""

    @verb(since="1.0", right=Right.ADMINISTER, errors=(DomainNotEmpty, DomainInUse, *_STORAGE), positional=("domain",))
    @abstractmethod
    def format(
        self,
        *,
        domain: _Domain,
        force: Annotated[bool, Meta(description="even if it holds images: they are destroyed")] = False,
    ) -> TaskInfo[Nothing]:
        """Destroy a domain, and stop serving it.  Refused while it holds images, unless forced.

        The commit point is the disappearance of the domain's folder under its name; space is given back after.
        """

    @verb(since="1.0", right=Right.OPERATE, errors=(*_STORAGE,), positional=("domain",))
    @abstractmethod
    def check(
        self,
        *,
        domain: _Domain,
        deep: Annotated[bool, Meta(description="also have QEMU's own tool read every qcow2 volume")] = False,
    ) -> TaskInfo[CheckReport]:
        """Look for damage, and name it.  Changes nothing; volumes that are being written are passed over by `deep`."""

    @verb(
        since="1.0",
        right=Right.READ,
        errors=(NoSuchDomain, DomainDamaged, StorageFailed, NotSupported),
        positional=("domain",),
    )
    @abstractmethod
    def dump(self, *, domain: _Domain, limit: Limit = 10_000, start: Cursor | None = None) -> DomainDump:
        """Tell everything that lies on a domain, also what cannot be read; for support and for backup of metadata."""

    @verb(since="1.0", right=Right.OPERATE, errors=_STORAGE, positional=("domain",))
    @abstractmethod
    def collect_garbage(self, *, domain: _Domain) -> TaskInfo[GarbageReport]:
        """Give back what crashed or stopped operations left behind.

        Runs by itself when a domain is attached and when the service starts.  What somebody holds a lease of is left
        alone, however old it is; so is every file that this service would not have made.
        """
