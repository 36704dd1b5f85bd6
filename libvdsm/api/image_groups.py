# SPDX-License-Identifier: Apache-2.0
"""Image: verbs on several images at once, all or none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated

from msgspec import Meta

from libvdsm.api.errors import (
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
    TemplateInUse,
    VolumeDamaged,
    VolumeExists,
    VolumeIllegal,
)
from libvdsm.api.types import (
    DomainId,
    ImageId,
    ImageInfo,
    Name,
    Nothing,
    TaskInfo,
    VolumeId,
)
from libvdsm.declare import Info, Right, verb


class ImageGroup(Info, frozen=True, kw_only=True):
    """Images that were changed together, in the order in which they were named."""

    items: Annotated[list[ImageInfo], Meta(description="the images")]


_Domain = Annotated[DomainId, Meta(description="the domain")]
_Images = Annotated[list[ImageId], Meta(min_length=1, max_length=64, description="the images; none twice")]
_NewVolumes = Annotated[
    list[VolumeId], Meta(max_length=64, description="ids for the new volumes, in order; absent: they are chosen")
]
_Wipe = Annotated[bool, Meta(description="overwrite the data with zeros before its space is given back")]

_READING = (NoSuchDomain, DomainDamaged, StorageFailed)
_STORAGE = (*_READING, DomainBusy, DomainReadOnly, NoSpace, TaskStopped, Interrupted)
_CHANGING = (*_STORAGE, NoSuchImage, ImageInUse, ImageUnfinished, ImageDamaged, VolumeIllegal, VolumeDamaged)


class ImageGroups(ABC):
    """Virtual disks: several together."""

    @verb(
        since="1.1",
        right=Right.OPERATE,
        errors=(*_CHANGING, VolumeExists, IsTemplate),
        positional=("images",),
    )
    @abstractmethod
    def snapshot_many(
        self,
        *,
        domain: _Domain,
        images: _Images,
        name: Annotated[Name, Meta(description="what people call the state that is kept")] | None = None,
        volumes: _NewVolumes | None = None,
    ) -> TaskInfo[ImageGroup]:
        """Freeze the present state of several images together: of all of them, or of none.

        All of them are leased meanwhile, so what is kept of one fits what is kept of the others.  The commit point is
        an intent with the first of them; from then on the others follow, also after a crash.  With `volumes`, the same
        call again answers the same.
        """

    @verb(
        since="1.1",
        right=Right.OPERATE,
        errors=(*_STORAGE, ImageInUse, ImageUnfinished, TemplateInUse),
        positional=("images",),
    )
    @abstractmethod
    def delete_many(self, *, domain: _Domain, images: _Images, wipe: _Wipe = False) -> TaskInfo[Nothing]:
        """Delete several images together: all of them, or none.  What is gone already counts as deleted.

        The commit point is an intent with the first of them; from then on the others follow, also after a crash.
        """
