# SPDX-License-Identifier: Apache-2.0
"""Image: the verb that gives back space which an image takes and does not need."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated

from msgspec import Meta

from libvdsm.api.errors import (
    CannotChange,
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
    NoSuchSecret,
    NoSuchVolume,
    NotSupported,
    SecretWrong,
    StorageFailed,
    TaskStopped,
    ToolFailed,
    VolumeDamaged,
    VolumeIllegal,
)
from libvdsm.api.types import Bytes, DomainId, ImageId, ImageInfo, TaskInfo, VolumeId
from libvdsm.declare import Info, Right, verb


class SparsifyInfo(Info, frozen=True, kw_only=True):
    """What came back."""

    freed: Annotated[Bytes, Meta(description="space that was given back to the storage")]
    image: Annotated[ImageInfo, Meta(description="the image as it is now")]


class ImageSpace(ABC):
    """Virtual disks: the space they take."""

    @verb(
        since="1.1",
        right=Right.OPERATE,
        errors=(
            *(
                NoSuchDomain,
                DomainDamaged,
                StorageFailed,
                DomainBusy,
                DomainReadOnly,
                NoSpace,
                TaskStopped,
                Interrupted,
            ),
            *(NoSuchImage, NoSuchVolume, ImageInUse, ImageUnfinished, ImageDamaged, VolumeIllegal, VolumeDamaged),
            *(IsTemplate, CannotChange, NotSupported, ToolFailed, NoSuchSecret, SecretWrong),
        ),
        positional=("image",),
    )
    @abstractmethod
    def sparsify(
        self,
        *,
        domain: Annotated[DomainId, Meta(description="the domain")],
        image: Annotated[ImageId, Meta(description="the image")],
        volume: (
            Annotated[VolumeId, Meta(description="only this layer; absent: all that are the image's own")] | None
        ) = None,
        rate: (
            Annotated[
                Bytes,
                Meta(ge=65536, description="bytes a second that are read at most; absent: as fast as it goes"),
            ]
            | None
        ) = None,
    ) -> TaskInfo[SparsifyInfo]:
        """Give back the space of what reads as zeros.  What the image and its snapshots show does not change.

        Nor does it at any moment meanwhile, so this can be stopped, or interrupted, at any time; what has come back by
        then has come back, and the rest is left for the next call. The image must not be in use. A template can be
        made sparse too, while no clone of it is in use. Preallocated layers are left as they are: their space is what
        they were made for; if there is no other, the answer is `CannotChange`.
        """
