# SPDX-License-Identifier: Apache-2.0
"""Bitmap: what of an image was written since a backup."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated

from msgspec import Meta

from libvdsm.api.errors import (
    BitmapExists,
    BitmapsNotSupported,
    BitmapUnusable,
    DomainBusy,
    DomainDamaged,
    DomainReadOnly,
    ImageDamaged,
    ImageInUse,
    ImageUnfinished,
    Interrupted,
    InvalidCursor,
    IsTemplate,
    NoSpace,
    NoSuchBitmap,
    NoSuchDomain,
    NoSuchImage,
    NoSuchSecret,
    SecretWrong,
    StorageFailed,
    TaskStopped,
    ToolFailed,
    TooManyBitmaps,
    VolumeDamaged,
    VolumeIllegal,
)
from libvdsm.api.types import Bytes, Cursor, DomainId, ImageId, Limit, Nothing, TaskInfo, Text, VolumeId
from libvdsm.declare import Info, Right, verb


class BitmapLayer(Info, frozen=True, kw_only=True):
    """A bitmap in one volume of an image: it marks what was written while that was the newest volume."""

    volume: Annotated[VolumeId, Meta(description="the volume")]
    granularity: Annotated[Bytes, Meta(description="what one bit stands for")]
    recording: Annotated[bool, Meta(description="whether what is written to the volume is marked")]
    in_use: Annotated[
        bool,
        Meta(description="QEMU has the volume open, or ended without storing the bitmap: what it says is not whole"),
    ]


class BitmapInfo(Info, frozen=True, kw_only=True):
    """One bitmap of an image, as a whole."""

    name: Annotated[Text, Meta(description="its name")]
    granularity: Annotated[Bytes, Meta(description="what one bit stands for, in the newest volume that has it")]
    usable: Annotated[bool, Meta(description="whether all that was written since it was added is known by it")]
    layers: Annotated[list[BitmapLayer], Meta(description="the volumes that have it, the newest first")]
    problem: Annotated[Text, Meta(description="why it is not usable, if so")] | None = None


class BitmapPage(Info, frozen=True, kw_only=True):
    """Bitmaps of an image, by name."""

    items: Annotated[list[BitmapInfo], Meta(description="the bitmaps")]
    next: (
        Annotated[Cursor, Meta(description="give it as `start` to read on; absent: this was the last page")] | None
    ) = None


class Extent(Info, frozen=True, kw_only=True):
    """A part of the disk that a guest sees."""

    offset: Annotated[Bytes, Meta(description="where it begins")]
    length: Annotated[Bytes, Meta(description="how long it is")]


class ExtentPage(Info, frozen=True, kw_only=True):
    """Parts of a disk, in order; neighbours are joined."""

    items: Annotated[list[Extent], Meta(description="the parts")]
    next: (
        Annotated[Cursor, Meta(description="give it as `start` to read on; absent: this was the last page")] | None
    ) = None


_Domain = Annotated[DomainId, Meta(description="the domain")]
_Image = Annotated[ImageId, Meta(description="the image")]
_Name = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=255,
        pattern="^[^\\x00-\\x1f\\x7f\\ud800-\\udfff\\ufffe\\uffff]*\\Z",
        description="the bitmap's name",
    ),
]

_READING = (NoSuchDomain, NoSuchImage, DomainDamaged, StorageFailed, ImageDamaged, VolumeDamaged)
_CHANGING = (
    *_READING,
    DomainBusy,
    DomainReadOnly,
    NoSpace,
    TaskStopped,
    Interrupted,
    ImageInUse,
    ImageUnfinished,
    IsTemplate,
    NoSuchSecret,
    SecretWrong,
    ToolFailed,
    VolumeIllegal,
)


class Bitmap(ABC):
    """What was written to images since a point in time: for backups of what has changed.

    A bitmap is added where a full backup is made.  From then on QEMU marks in it what a guest writes, also across
    snapshots, and the next backup copies only that.  Bitmaps are in qcow2 volumes; an image must not be in use to
    change its bitmaps.
    """

    @verb(
        since="1.1",
        right=Right.OPERATE,
        errors=(*_CHANGING, BitmapExists, BitmapsNotSupported, TooManyBitmaps),
        positional=("image", "bitmap"),
    )
    @abstractmethod
    def add(
        self,
        *,
        domain: _Domain,
        image: _Image,
        bitmap: _Name,
        granularity: Annotated[
            Bytes, Meta(ge=512, le=2**31, description="what one bit stands for: a power of two")
        ] = 65536,
    ) -> TaskInfo[BitmapInfo]:
        """Begin to record what is written to an image.  The image must not be in use.

        The commit point is the tool's own: one header that names the new bitmap.  If a bitmap of this name and
        granularity records already, that is the answer.
        """

    @verb(since="1.1", right=Right.OPERATE, errors=_CHANGING, positional=("image", "bitmap"))
    @abstractmethod
    def remove(self, *, domain: _Domain, image: _Image, bitmap: _Name) -> TaskInfo[Nothing]:
        """Remove a bitmap from all volumes of an image.  The image must not be in use.

        What is gone already counts as removed.  A removal that the service did not survive is finished when it starts
        again.
        """

    @verb(
        since="1.1",
        right=Right.OPERATE,
        errors=(*_CHANGING, NoSuchBitmap, BitmapsNotSupported),
        positional=("image", "bitmap"),
    )
    @abstractmethod
    def clear(self, *, domain: _Domain, image: _Image, bitmap: _Name) -> TaskInfo[BitmapInfo]:
        """Begin a bitmap anew: what was written before now is not marked any more.  The image must not be in use.

        One that was not usable is usable afterwards.  It is in the newest volume alone then; so an image that is taken
        back to an older snapshot has no such bitmap, and none that says too little.
        """

    @verb(since="1.1", right=Right.READ, errors=_READING, positional=("image",))
    @abstractmethod
    def list(self, *, domain: _Domain, image: _Image, limit: Limit = 10_000, start: Cursor | None = None) -> BitmapPage:
        """List the bitmaps of an image, by name, and which of its volumes have them.

        While a guest writes, and after a QEMU that did not end in order, bitmaps are in use.
        """

    @verb(
        since="1.1",
        right=Right.READ,
        errors=(*_READING, ImageInUse, NoSuchBitmap, BitmapUnusable, InvalidCursor),
        positional=("image", "bitmap"),
    )
    @abstractmethod
    def get_extents(
        self, *, domain: _Domain, image: _Image, bitmap: _Name, limit: Limit = 10_000, start: Cursor | None = None
    ) -> ExtentPage:
        """Tell which parts of an image were written since a bitmap was added or cleared.

        All volumes that have the bitmap are taken together.  The image must not be in use for writing.  Where a volume
        grew, what was added reads as zeros until it is written, and is not told.
        """
