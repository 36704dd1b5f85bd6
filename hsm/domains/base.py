# SPDX-License-Identifier: Apache-2.0
"""The driver protocol: what a type of domain has to be able to do, and nothing more.

A driver is a subclass of ``Domain`` and its capabilities as data.  It reads and writes what is on storage and knows
who holds which lease; *what* is done in which order is the operations' business, the same for all drivers.  Every
method may raise ``OSError``; operations turn it into a declared error.

The steps that change a domain come in pairs.  ``begin_*`` and ``make_*`` make what is garbage until published;
``publish`` and ``unpublish_*`` are commit points: one rename, or one change of tags, durable when the method returns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import ClassVar

import msgspec

from hsm.formats import attributes as attributes_format
from hsm.formats.attributes import Attributes
from hsm.formats.domain import DomainMetadata
from hsm.formats.qcow2 import Header
from hsm.formats.volume import VolumeMetadata
from libvdsm.api.types import (
    Allocation,
    DomainId,
    ImageId,
    VolumeFormat,
    VolumeId,
    VolumeRole,
)

DRIVER_API = "1.1"
"""Version of this protocol; a driver says which one it implements."""


@dataclass(frozen=True)
class Capabilities:
    """What a driver can do, as data."""

    shared: bool
    block: bool
    preallocation: bool
    description: str
    driver_api: str = DRIVER_API


class LeaseBusy(Exception):
    """Somebody else holds a lease.  ``volume`` is None for the domain's own."""

    def __init__(self, volume: VolumeId | None, holder: str) -> None:
        super().__init__(f"held by {holder}")
        self.volume = volume
        self.holder = holder


class DomainMissing(Exception):
    """There is no such domain at this place."""


@dataclass(frozen=True, order=True)
class Wanted:
    """A volume's lease to be acquired: ``image`` is the folder that it is reached by."""

    volume: VolumeId
    image: ImageId = field(compare=False)
    shared: bool = field(default=False, compare=False)


class Held(ABC):
    """Leases that are held.  A process that inherits ``descriptors`` keeps them alive: it is a carrier."""

    @property
    @abstractmethod
    def descriptors(self) -> tuple[int, ...]:
        """To be inherited by every program that works under these leases."""

    @abstractmethod
    def release(self) -> None:
        """Let go, once and for all.  Only after every carrier was waited for."""


class VolumeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A published volume as it lies on storage.  ``length`` and ``actual_size`` in bytes."""

    id: VolumeId
    folder: ImageId
    """the image it was found in; differs from the metadata's for a template's volume in a clone"""
    metadata: VolumeMetadata
    length: int
    actual_size: int
    links: int
    """in how many images its data appears, where the storage counts that; else 1"""
    header: Header | None = None
    damage: str | None = None
    tags: tuple[str, ...] = ()
    """as its image's attributes have them; a linked volume's are told in its own image only"""

    @property
    def is_linked(self) -> bool:
        return self.metadata.image != self.folder

    @property
    def header_capacity(self) -> int | None:
        """What the header says that the guest sees, in bytes; None where there is no header."""
        return None if self.header is None else self.header.capacity


class Damaged(msgspec.Struct, frozen=True, kw_only=True):
    """Something published that cannot be read."""

    path: str
    reason: str
    image: ImageId
    volume: VolumeId | None = None


class ImageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An image as it lies on storage.  Attributes that cannot be read are damage."""

    id: ImageId
    volumes: dict[VolumeId, VolumeRecord]
    damaged: list[Damaged]
    attributes: Attributes = attributes_format.NONE

    @property
    def own(self) -> list[VolumeRecord]:
        return [volume for volume in self.volumes.values() if not volume.is_linked]

    @property
    def published(self) -> bool:
        """Whether it is there at all: garbage has no volume of its own with metadata, or not yet its leaf."""
        if self.attributes.making is not None:
            leaf = self.attributes.making.leaf
            return leaf in self.volumes or any(bad.volume == leaf for bad in self.damaged)
        return any(True for _ in self.own) or any(bad.volume is not None for bad in self.damaged)

    def children(self) -> dict[VolumeId, list[VolumeId]]:
        """Parent -> the volumes of this image that stand on it."""
        found: dict[VolumeId, list[VolumeId]] = {}
        for volume in self.volumes.values():
            if volume.metadata.parent is not None and not volume.is_linked:
                found.setdefault(VolumeId(volume.metadata.parent), []).append(volume.id)
        return found

    def leaves(self) -> list[VolumeRecord]:
        """The own volumes that nothing stands on; a sound image has one."""
        parents = self.children()
        return [volume for volume in self.own if volume.id not in parents]

    def role(self, volume: VolumeRecord) -> VolumeRole:
        """LEAF or INTERNAL as derived from what is published, never as written."""
        if volume.metadata.role is VolumeRole.TEMPLATE:
            return VolumeRole.TEMPLATE
        return VolumeRole.INTERNAL if self.children().get(volume.id) else VolumeRole.LEAF


class Garbage(msgspec.Struct, frozen=True, kw_only=True):
    """Something that nobody published, or that was unpublished.  ``path`` is relative to the domain.

    ``begun``: it was never published, so its maker may be about to; only who holds the domain's lease can tell.
    """

    path: str
    begun: bool


@dataclass(frozen=True)
class Space:
    """Of the storage beneath a domain, in bytes."""

    capacity: int
    free: int


@dataclass(frozen=True)
class NewVolume:
    """A volume to be made.  ``length`` of its file or device in bytes."""

    image: ImageId
    volume: VolumeId
    length: int
    format: VolumeFormat
    allocation: Allocation
    first: bool
    """the image has no volume of its own yet"""
    template: tuple[ImageId, VolumeId] | None = None


class Domain(ABC):
    """One domain on storage."""

    type: ClassVar[str]
    capabilities: ClassVar[Capabilities]

    id: DomainId
    path: str

    @classmethod
    @abstractmethod
    def create(cls, domain: DomainId, path: str, name: str) -> Domain:
        """Make a new domain at ``path``; its metadata comes last."""

    @classmethod
    @abstractmethod
    def discover(cls, path: str) -> list[DomainId]:
        """The domains at ``path``."""

    @classmethod
    @abstractmethod
    def open(cls, domain: DomainId, path: str) -> Domain:
        """The domain with this id at ``path``.  Raises ``DomainMissing``, or ``BadMetadata`` if it is damaged."""

    @classmethod
    @abstractmethod
    def remains(cls, domain: DomainId, path: str) -> Domain:
        """What is left of a domain that was being destroyed; good for ``destroy`` only.

        Raises ``BadMetadata`` if it is more than that: destroying it has not begun.
        """

    @abstractmethod
    def lease(self, wait: float) -> AbstractContextManager[None]:
        """Hold the domain's own lease: the right to change its metadata.  Raises ``LeaseBusy`` after ``wait`` seconds."""

    @abstractmethod
    def acquire(self, wanted: Sequence[Wanted]) -> Held:
        """Acquire volume leases, sorted, all or none.  Raises ``LeaseBusy`` at once."""

    @abstractmethod
    def metadata(self) -> DomainMetadata:
        """The domain's metadata, read anew."""

    @abstractmethod
    def set_metadata(self, metadata: DomainMetadata) -> None:
        """Replace the domain's metadata.  Under the domain's lease."""

    @abstractmethod
    def space(self) -> Space:
        """How much room the storage beneath has."""

    @abstractmethod
    def image_ids(self) -> list[ImageId]:
        """The images, sorted, those that are garbage included."""

    @abstractmethod
    def image(self, image: ImageId) -> ImageRecord | None:
        """An image with its volumes, read anew; None if there is no such folder."""

    def glance(self, image: ImageId) -> ImageRecord | None:
        """The same for a list, where nobody decides anything by it: what has not changed may be known from before."""
        return self.image(image)

    @abstractmethod
    def find_volume(self, volume: VolumeId) -> ImageId | None:
        """The image that a published volume belongs to."""

    @abstractmethod
    def clones(self, image: ImageId) -> int:
        """How many other images stand on a template."""

    @abstractmethod
    def data_path(self, image: ImageId, volume: VolumeId) -> str:
        """The file or device of a volume, to be opened by a program on this host."""

    @abstractmethod
    def has_lease(self, image: ImageId, volume: VolumeId) -> bool:
        """Whether the place of a volume's lease is there."""

    @abstractmethod
    def begin_volume(self, new: NewVolume) -> Held:
        """Make the place for a volume and acquire its lease.  Under the domain's lease; garbage until published."""

    @abstractmethod
    def make_data(self, new: NewVolume, content: Sequence[tuple[int, bytes]]) -> None:
        """Make the data of a volume: zeros but for ``content``, on stable storage when this returns."""

    @abstractmethod
    def sync_data(self, image: ImageId, volume: VolumeId) -> None:
        """Have what programs wrote into a volume on stable storage."""

    @abstractmethod
    def extend_data(self, image: ImageId, volume: VolumeId, length: int, allocation: Allocation) -> None:
        """Make a raw volume's data longer, and stable."""

    @abstractmethod
    def shrink_data(self, image: ImageId, volume: VolumeId, length: int) -> None:
        """Cut a raw volume's data at a length where the storage can, and have that stable."""

    @abstractmethod
    def publish(self, image: ImageId, volume: VolumeId, metadata: VolumeMetadata) -> None:
        """The commit point of making a volume.  Under the domain's lease; its data is stable already."""

    @abstractmethod
    def rewrite(self, image: ImageId, volume: VolumeId, metadata: VolumeMetadata) -> None:
        """Replace a published volume's metadata, durably.  Under the domain's lease."""

    @abstractmethod
    def set_attributes(self, image: ImageId, attributes: Attributes) -> None:
        """Replace an image's attributes, durably.  Under the domain's lease; the image's place is there."""

    @abstractmethod
    def unpublish_image(self, image: ImageId, *, wipe: bool) -> Garbage:
        """The commit point of deleting an image: it becomes this garbage.  Under the domain's lease."""

    @abstractmethod
    def unpublish_volume(self, image: ImageId, volume: VolumeId, *, wipe: bool) -> Garbage:
        """The commit point of deleting one volume: it becomes this garbage.  Under the domain's lease."""

    @abstractmethod
    def link_template(self, image: ImageId, template: ImageId, volume: VolumeId) -> None:
        """Have an image reach a template's volume under its own name, durably.  Under the domain's lease."""

    @abstractmethod
    def unlink_template(self, image: ImageId, volume: VolumeId) -> None:
        """The opposite, when nothing of the image stands on it any more.  Under the domain's lease."""

    @abstractmethod
    def abandon(self, image: ImageId, volume: VolumeId) -> None:
        """Give back what ``begin_volume`` and ``make_data`` made.  Under the domain's lease, the volume's let go of."""

    @abstractmethod
    def garbage(self) -> list[Garbage]:
        """What nobody published; what the driver would not have made is not in it."""

    @abstractmethod
    def reclaim(self, garbage: Garbage) -> int | None:
        """Give garbage back: bytes freed, or None if somebody holds its lease or it is garbage no longer.

        What was only ``begun`` needs the domain's lease; what was unpublished, which may take long, does not.
        """

    @abstractmethod
    def destroy(self) -> None:
        """Destroy the domain.  Its commit point comes first."""
