# SPDX-License-Identifier: Apache-2.0
"""Image: the verbs that change which layers an image consists of, and keep what it shows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated

from msgspec import Meta

from libvdsm.api.errors import (
    CannotChange,
    CannotEncrypt,
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
    NotBelow,
    NotSnapshot,
    NotSupported,
    NotTemplate,
    SecretWrong,
    StorageFailed,
    TaskStopped,
    ToolFailed,
    VolumeDamaged,
    VolumeExists,
    VolumeIllegal,
    WouldLoseSnapshots,
)
from libvdsm.api.types import DomainId, ImageId, ImageInfo, OpenEnum, TaskInfo, VolumeId
from libvdsm.declare import Right, verb


class MergeDirection(OpenEnum):
    """Which of the volumes of a run is left."""

    AUTO = "auto"
    """whichever moves less data; a lowest volume that is raw or preallocated stays"""
    DOWN = "down"
    """the lowest: data is written into it"""
    UP = "up"
    """the uppermost: data is read into it"""
    UNKNOWN = "unknown"
    """a value newer than this client"""


_Domain = Annotated[DomainId, Meta(description="the domain")]
_Image = Annotated[ImageId, Meta(description="the image")]
_Wipe = Annotated[bool, Meta(description="overwrite the data of volumes that go with zeros")]

_CHANGING = (
    *(NoSuchDomain, DomainDamaged, StorageFailed, DomainBusy, DomainReadOnly, NoSpace, TaskStopped, Interrupted),
    *(NoSuchImage, ImageInUse, ImageUnfinished, ImageDamaged, VolumeIllegal, VolumeDamaged, IsTemplate),
)
_OPENING = (NoSuchSecret, SecretWrong)
_MOVING = (*_CHANGING, *_OPENING, ToolFailed)


class ImageLayers(ABC):
    """Virtual disks: their layers."""

    @verb(
        since="1.1",
        right=Right.OPERATE,
        errors=(*_MOVING, NotSnapshot, NotBelow),
        positional=("image", "volume"),
    )
    @abstractmethod
    def delete_snapshot(
        self,
        *,
        domain: _Domain,
        image: _Image,
        volume: Annotated[VolumeId, Meta(description="the snapshot: the volume that keeps its state")],
        child: (
            Annotated[
                VolumeId,
                Meta(description="the volume on top of it, as the caller saw it; absent: the one that is there"),
            ]
            | None
        ) = None,
        wipe: _Wipe = False,
    ) -> TaskInfo[ImageInfo]:
        """Keep the state of a snapshot no longer; nothing else of the image changes.

        The snapshot's volume is merged with the one on top of it, in the direction that moves less data. So one of
        the two ids is gone then, and the other's volume shows what the upper one showed. With `child`, the same call
        again answers the same; without it, it may mean the next snapshot. The commit point is an intent in the
        image's attributes; from then on the work is finished, and cannot be stopped.
        """

    @verb(
        since="1.1",
        right=Right.OPERATE,
        errors=(*_MOVING, NoSuchVolume, NotBelow, NotSupported),
        positional=("image", "base", "top"),
    )
    @abstractmethod
    def merge(
        self,
        *,
        domain: _Domain,
        image: _Image,
        base: Annotated[VolumeId, Meta(description="the lowest volume of the run")],
        top: Annotated[VolumeId, Meta(description="the uppermost volume of the run")],
        direction: Annotated[MergeDirection, Meta(description="which of them is left")] = MergeDirection.AUTO,
        wipe: _Wipe = False,
    ) -> TaskInfo[ImageInfo]:
        """Make one volume of a run of neighbours; it shows what the uppermost showed.

        The states that the others kept are lost. Bitmaps of volumes that go are lost too. A run of which only one end
        is left counts as merged. The commit point is an intent in the image's attributes; from then on the work is
        finished, and cannot be stopped.
        """

    @verb(
        since="1.1",
        right=Right.OPERATE,
        errors=(*_CHANGING, NoSuchVolume, NotSnapshot, VolumeExists),
        positional=("image", "volume"),
    )
    @abstractmethod
    def revert(
        self,
        *,
        domain: _Domain,
        image: _Image,
        volume: Annotated[VolumeId, Meta(description="the snapshot: the volume that keeps its state")],
        leaf: Annotated[VolumeId, Meta(description="id for the new layer; absent: one is chosen")] | None = None,
        wipe: _Wipe = False,
    ) -> TaskInfo[ImageInfo]:
        """Make the state of a snapshot the present one. What was changed since is lost, newer snapshots included.

        The snapshot stays, with a new, empty layer on top of it, and can be gone back to again. The image has the
        size that it had then. The commit point is an intent in the image's attributes. With `leaf`, the same call
        again answers the same.
        """

    @verb(since="1.1", right=Right.OPERATE, errors=(*_MOVING, WouldLoseSnapshots, NotSupported), positional=("image",))
    @abstractmethod
    def flatten(
        self,
        *,
        domain: _Domain,
        image: _Image,
        discard_snapshots: Annotated[bool, Meta(description="the states of its snapshots may be lost")] = False,
        wipe: _Wipe = False,
    ) -> TaskInfo[ImageInfo]:
        """Make one volume of an image, which stands on no template any more; it is sparse qcow2.

        An image of one volume that stands on nothing is left as it is, whatever its format.
        The commit point is an intent in the image's attributes; from then on the work is finished, and cannot be
        stopped.
        """

    @verb(
        since="1.1",
        right=Right.OPERATE,
        errors=(*_MOVING, NotTemplate, CannotChange, CannotEncrypt, NotSupported),
        positional=("image", "template"),
    )
    @abstractmethod
    def rebase(
        self,
        *,
        domain: _Domain,
        image: _Image,
        template: Annotated[ImageId, Meta(description="the template to stand on; absent: none")] | None = None,
    ) -> TaskInfo[ImageInfo]:
        """Put an image onto another template, or onto none. What it and its snapshots show stays the same.

        It takes the space of what the new template does not show in the same place. The commit point is an intent in
        the image's attributes; from then on the work is finished, and cannot be stopped.
        """
