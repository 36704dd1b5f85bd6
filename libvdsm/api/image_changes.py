# SPDX-License-Identifier: Apache-2.0
"""Image: verbs that change an image as a whole, and not which layers it has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated

from msgspec import Meta

from libvdsm.api.errors import (
    CannotShrink,
    DomainBusy,
    DomainDamaged,
    DomainReadOnly,
    ImageDamaged,
    ImageInUse,
    ImageUnfinished,
    Interrupted,
    IsTemplate,
    NoSpace,
    NoSuchDomain,
    NoSuchImage,
    StorageFailed,
    TaskStopped,
    ToolFailed,
    VolumeDamaged,
    VolumeIllegal,
)
from libvdsm.api.types import MAX_CAPACITY, Bytes, DomainId, ImageId, ImageInfo, TagChange, Tags, TaskInfo
from libvdsm.declare import Right, verb

_Domain = Annotated[DomainId, Meta(description="the domain")]
_Image = Annotated[ImageId, Meta(description="the image")]

_STORAGE = (NoSuchDomain, DomainDamaged, StorageFailed, DomainBusy, DomainReadOnly, NoSpace, TaskStopped, Interrupted)


class ImageChanges(ABC):
    """Virtual disks: as a whole."""

    @verb(
        since="1.1",
        right=Right.OPERATE,
        errors=(
            *(*_STORAGE, NoSuchImage, ImageInUse, ImageUnfinished, ImageDamaged, VolumeIllegal, VolumeDamaged),
            *(IsTemplate, CannotShrink, ToolFailed),
        ),
        positional=("image", "capacity"),
    )
    @abstractmethod
    def resize(
        self,
        *,
        domain: _Domain,
        image: _Image,
        capacity: Annotated[
            Bytes, Meta(ge=1, le=MAX_CAPACITY, description="new size that the guest sees; rounded up to 512")
        ],
        shrink: Annotated[
            bool, Meta(description="it may become smaller: what lies beyond the new end is lost")
        ] = False,
    ) -> TaskInfo[ImageInfo]:
        """Make an image larger, or with `shrink` smaller: its newest volume, as `Volume.resize` does.

        Snapshots keep the size that they had.  The image must not be in use.  A resize that the service did not
        survive is finished when it starts again.
        """

    @verb(
        since="1.1",
        right=Right.OPERATE,
        errors=(*_STORAGE, NoSuchImage, ImageUnfinished, ImageDamaged),
        positional=("image", "tags"),
    )
    @abstractmethod
    def set_tags(
        self,
        *,
        domain: _Domain,
        image: _Image,
        tags: Annotated[Tags, Meta(description="short texts, such as `backup` or `env=prod`")],
        change: Annotated[TagChange, Meta(description="what is done with them")] = TagChange.REPLACE,
    ) -> TaskInfo[ImageInfo]:
        """Set, add or remove an image's tags; with none given, and nothing else said, it has none afterwards.

        They stay with the image through snapshots and moves, and mean nothing to the service or to oVirt; lists can
        be filtered by them.  All tags of an image and its volumes take at most 1536 bytes.  It may be in use.  The
        commit point is the replacing of the image's attributes.
        """
