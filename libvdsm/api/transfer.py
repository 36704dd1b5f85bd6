# SPDX-License-Identifier: Apache-2.0
"""Transfer: images that are uploaded and downloaded over HTTP, by clients that may lose the connection."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated

from msgspec import Meta

from libvdsm.api.errors import (
    CannotEncrypt,
    ChecksumMismatch,
    DamagedImage,
    DomainBusy,
    DomainDamaged,
    DomainReadOnly,
    FormatMismatch,
    ImageDamaged,
    ImageExists,
    ImageInUse,
    ImageUnfinished,
    Interrupted,
    InvalidCursor,
    InvalidFilter,
    InvalidSort,
    NoSpace,
    NoSuchDomain,
    NoSuchImage,
    NoSuchSecret,
    NoSuchTransfer,
    NoSuchVolume,
    NotSupported,
    SecretWrong,
    StorageFailed,
    TaskStopped,
    ToolFailed,
    TransferExists,
    TransferStateWrong,
    UnsafeImage,
    UnsupportedImage,
    VolumeDamaged,
    VolumeExists,
    VolumeIllegal,
)
from libvdsm.api.types import (
    MAX_CAPACITY,
    Allocation,
    Bytes,
    Cursor,
    DomainId,
    Filter,
    ImageId,
    Limit,
    Line,
    Name,
    OpenEnum,
    SecretId,
    Sort,
    TaskInfo,
    Text,
    Time,
    TransferId,
    VolumeFormat,
    VolumeId,
)
from libvdsm.declare import Info, Right, verb


class Direction(OpenEnum):
    """Which way the data goes."""

    UPLOAD = "upload"
    """into a new image"""
    DOWNLOAD = "download"
    """out of an image"""
    UNKNOWN = "unknown"
    """a value newer than this client"""


class Content(OpenEnum):
    """What travels."""

    DATA = "data"
    """what a guest sees, whatever the format of the volume"""
    FILE = "file"
    """a qcow2 file as it is; only for uploads"""
    UNKNOWN = "unknown"
    """a value newer than this client"""


class TransferState(OpenEnum):
    """Where a transfer is in its life; the table of transitions is in the guide."""

    STARTING = "starting"
    """its image is being made"""
    RUNNING = "running"
    """data may move"""
    PAUSED = "paused"
    """no data may move; it was asked for, or nobody had moved any for a while, or `Transfer.finish` failed"""
    INTERRUPTED = "interrupted"
    """something ended that it needs; it goes on with `Transfer.resume`, from what has arrived"""
    FINISHING = "finishing"
    """all was sent, and is being checked"""
    FINISHED = "finished"
    """all is there: an uploaded image can be used"""
    CANCELLED = "cancelled"
    """ended as asked; an image that was to be uploaded is gone"""
    EXPIRED = "expired"
    """ended since nobody went on with it; an image that was to be uploaded is gone"""
    FAILED = "failed"
    """ended, since its image is gone or cannot be used any more"""
    UNKNOWN = "unknown"
    """a value newer than this client"""


class TransferInfo(Info, frozen=True, kw_only=True):
    """A transfer that goes on, or has ended."""

    id: Annotated[TransferId, Meta(description="the transfer")]
    direction: Annotated[Direction, Meta(description="which way")]
    content: Annotated[Content, Meta(description="what travels")]
    state: Annotated[TransferState, Meta(description="where it is in its life")]
    domain: Annotated[DomainId, Meta(description="the domain")]
    image: Annotated[ImageId, Meta(description="the image")]
    volume: Annotated[VolumeId, Meta(description="the volume that is written, or whose state is read")]
    format: Annotated[VolumeFormat, Meta(description="format of the volume")]
    size: Annotated[Bytes, Meta(description="bytes to travel, holes included")]
    arrived: Annotated[
        Bytes,
        Meta(
            description="upload: so many bytes from the beginning are known to be on stable storage; go on from there"
        ),
    ]
    created: Annotated[Time, Meta(description="when it was started")]
    expires: Annotated[Time, Meta(description="when it ends unless somebody goes on with it")] | None = None
    url: (
        Annotated[
            Text,
            Meta(description="where the data goes, while it runs; only told to callers who may operate: it is the key"),
        ]
        | None
    ) = None
    socket: (
        Annotated[Text, Meta(description="the Unix socket that answers the same, for clients of this host")] | None
    ) = None
    moved: Annotated[Bytes, Meta(description="bytes that were dealt with since it last began to run")] | None = None
    checksum: Annotated[Text, Meta(description="of the whole content, once it was compared")] | None = None
    name: Annotated[Name, Meta(description="the new image's name")] | None = None
    note: Annotated[Line, Meta(description="what its client wrote down, to know it again")] | None = None
    problem: Annotated[Text, Meta(description="why it does not run, or did not finish")] | None = None


class TransferPage(Info, frozen=True, kw_only=True):
    """A page of transfers."""

    items: Annotated[list[TransferInfo], Meta(description="the transfers")]
    next: (
        Annotated[Cursor, Meta(description="give it as `start` to read on; absent: this was the last page")] | None
    ) = None


_Transfer = Annotated[TransferId, Meta(description="the transfer")]
_READING = (NoSuchDomain, DomainDamaged, StorageFailed)
_OPENING = (NoSuchImage, NoSuchVolume, ImageInUse, ImageUnfinished, ImageDamaged, VolumeIllegal, VolumeDamaged)
_CHECKING = (UnsafeImage, FormatMismatch, UnsupportedImage, DamagedImage, ChecksumMismatch)


class Transfer(ABC):
    """Uploads and downloads that survive a broken connection."""

    @verb(
        since="1.1",
        right=Right.OPERATE,
        errors=(
            *_READING,
            *_OPENING,
            DomainBusy,
            DomainReadOnly,
            NoSpace,
            ImageExists,
            VolumeExists,
            TransferExists,
            NotSupported,
            ToolFailed,
            NoSuchSecret,
            SecretWrong,
            CannotEncrypt,
        ),
        positional=("direction", "image"),
    )
    @abstractmethod
    def start(
        self,
        *,
        domain: Annotated[DomainId, Meta(description="the domain")],
        direction: Annotated[Direction, Meta(description="which way")],
        image: Annotated[
            ImageId, Meta(description="download: the image; upload: id for the new image, absent: one is chosen")
        ]
        | None = None,
        volume: Annotated[
            VolumeId,
            Meta(
                description="download: the state of this volume, absent: the present one; "
                "upload: id for the new volume, absent: one is chosen"
            ),
        ]
        | None = None,
        size: Annotated[
            Bytes,
            Meta(
                ge=1,
                le=MAX_CAPACITY,
                description="upload: bytes to travel; for data the size that the guest sees, rounded up to 512",
            ),
        ]
        | None = None,
        name: Annotated[Name, Meta(description="upload: what people call the image; need not be unique")] | None = None,
        format: Annotated[VolumeFormat, Meta(description="upload: format of the new volume")] = VolumeFormat.QCOW2,
        allocation: Annotated[
            Allocation, Meta(description="upload: whether space is taken at once")
        ] = Allocation.SPARSE,
        content: Annotated[Content, Meta(description="what travels")] = Content.DATA,
        description: Annotated[Line, Meta(description="upload: any text")] | None = None,
        note: Annotated[Line, Meta(description="any text, for the client to know the transfer again")] | None = None,
        id: Annotated[TransferId, Meta(description="id for the transfer; absent: one is chosen")] | None = None,
        secret: Annotated[
            SecretId, Meta(description="upload: a secret of this host to encrypt the image with; absent: not encrypted")
        ]
        | None = None,
    ) -> TransferInfo:
        """Begin to move an image in or out; the data itself goes to `url`, as `ovirt-imageio` takes and gives it.

        The commit point of an upload's start is the appearance of its volume's metadata, which say that the volume is
        illegal; the image can be used after `Transfer.finish`.  Unless somebody goes on with it, it is given back when
        it expires.  A download reads a state that nobody writes meanwhile.  With `id`, the same call again answers the
        same transfer.
        """

    @verb(since="1.1", right=Right.READ, errors=(NoSuchTransfer,), positional=("transfer",))
    @abstractmethod
    def get_info(self, *, transfer: _Transfer) -> TransferInfo:
        """Tell the state of one transfer."""

    @verb(since="1.1", right=Right.READ, errors=(InvalidFilter, InvalidSort, InvalidCursor))
    @abstractmethod
    def list(
        self,
        *,
        domain: Annotated[DomainId, Meta(description="only this domain's; absent: all")] | None = None,
        state: Annotated[TransferState, Meta(description="only transfers in this state")] | None = None,
        filter: Filter | None = None,
        sort: Sort | None = None,
        limit: Limit = 1000,
        start: Cursor | None = None,
    ) -> TransferPage:
        """List the transfers that the service knows, those that ended included, until they are too old.

        If nothing else is said, the newest are first.
        """

    @verb(
        since="1.1",
        right=Right.OPERATE,
        errors=(NoSuchTransfer, TransferStateWrong, ToolFailed),
        positional=("transfer", "arrived"),
    )
    @abstractmethod
    def checkpoint(
        self,
        *,
        transfer: _Transfer,
        arrived: Annotated[Bytes, Meta(description="so many bytes from the beginning have been sent")],
    ) -> TransferInfo:
        """Make what an upload has sent so far stable, and remember how much that is.

        When this has answered, the client need not send it again, whatever ends in between.
        """

    @verb(
        since="1.1",
        right=Right.OPERATE,
        errors=(NoSuchTransfer, TransferStateWrong, ToolFailed),
        positional=("transfer",),
    )
    @abstractmethod
    def pause(self, *, transfer: _Transfer) -> TransferInfo:
        """Move no more data until `Transfer.resume`.  What has been answered before is stable then."""

    @verb(
        since="1.1",
        right=Right.OPERATE,
        errors=(NoSuchTransfer, TransferStateWrong, *_READING, *_OPENING, ToolFailed, NoSuchSecret, SecretWrong),
        positional=("transfer",),
    )
    @abstractmethod
    def resume(self, *, transfer: _Transfer) -> TransferInfo:
        """Go on with a transfer that was paused or interrupted; one that runs answers as it is.

        An upload goes on from `arrived`: what was sent after that may be lost.
        """

    @verb(
        since="1.1",
        right=Right.OPERATE,
        errors=(NoSuchTransfer, TransferStateWrong, *_READING, DomainBusy, DomainReadOnly, NoSpace, ImageInUse),
        positional=("transfer",),
    )
    @abstractmethod
    def cancel(self, *, transfer: _Transfer) -> TransferInfo:
        """End a transfer.  The image that was to be uploaded is given back; its unpublishing is the commit point."""

    @verb(
        since="1.1",
        right=Right.OPERATE,
        errors=(
            NoSuchTransfer,
            TransferStateWrong,
            *_READING,
            DomainBusy,
            DomainReadOnly,
            NoSpace,
            VolumeDamaged,
            *_CHECKING,
            ToolFailed,
            NoSuchSecret,
            SecretWrong,
            TaskStopped,
            Interrupted,
        ),
        positional=("transfer",),
    )
    @abstractmethod
    def finish(
        self,
        *,
        transfer: _Transfer,
        checksum: Annotated[
            str,
            Meta(
                min_length=64,
                max_length=64,
                pattern="^[0-9a-f]{64}\\Z",
                description="of what was sent, to be compared: BLAKE2b of 32 bytes over those of each 4 MiB, "
                "as `ovirt_imageio.client.checksum` and `hsmctl` make it",
            ),
        ]
        | None = None,
    ) -> TaskInfo[TransferInfo]:
        """End a transfer whose data is all there.

        An upload is made stable, compared with the checksum, and its header is inspected; the commit point is the
        volume's metadata, which say from then on that it is legal.  If it fails before, the transfer is paused.
        """
