# SPDX-License-Identifier: Apache-2.0
"""Image: the verbs that copy and move, and say what a copy is compared by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated

from msgspec import Meta

from libvdsm.api.errors import (
    CannotEncrypt,
    CopyDiffers,
    DomainBusy,
    DomainDamaged,
    DomainReadOnly,
    ImageDamaged,
    ImageExists,
    ImageInUse,
    ImageUnfinished,
    Interrupted,
    NeedsCollapse,
    NoSpace,
    NoSuchDomain,
    NoSuchImage,
    NoSuchSecret,
    NoSuchVolume,
    NotSupported,
    NotTemplate,
    SameDomain,
    SecretWrong,
    StorageFailed,
    TaskStopped,
    TemplateInUse,
    TemplateMissing,
    ToolFailed,
    VolumeDamaged,
    VolumeExists,
    VolumeIllegal,
)
from libvdsm.api.types import (
    Allocation,
    Bytes,
    DomainId,
    ImageId,
    ImageInfo,
    Name,
    SecretId,
    TaskInfo,
    VolumeFormat,
    VolumeId,
    Word,
)
from libvdsm.declare import Info, Right, verb


class ChecksumInfo(Info, frozen=True, kw_only=True):
    """A checksum of what a guest sees, the same whatever format it is stored in."""

    algorithm: Annotated[Word, Meta(description="`blake2b`: BLAKE2b with 32 bytes of output")]
    block_size: Annotated[Bytes, Meta(description="length of a block; only checksums of equal blocks compare")]
    checksum: Annotated[Word, Meta(description="of the digests of all blocks, one after the other; hexadecimal")]
    capacity: Annotated[Bytes, Meta(description="how much was looked at: all that a guest sees")]


class CopyInfo(Info, frozen=True, kw_only=True):
    """What was copied or moved."""

    image: Annotated[ImageInfo, Meta(description="the image where it is now")]
    checksum: (
        Annotated[ChecksumInfo, Meta(description="of both sides; absent: not asked for, or nothing was left to copy")]
        | None
    ) = None


_Domain = Annotated[DomainId, Meta(description="the domain")]
_Image = Annotated[ImageId, Meta(description="the image")]

CopyFormat = Annotated[VolumeFormat, Meta(description="how the data is laid out; absent: as it is")]
CopyAllocation = Annotated[Allocation, Meta(description="whether space is taken at once; absent: as it is")]
ClusterSize = Annotated[
    Bytes,
    Meta(ge=4096, le=2 * 2**20, description="of qcow2 volumes, a power of 2; absent: as it is, or 64 KiB in new ones"),
]
Compress = Annotated[bool, Meta(description="compress the data of qcow2 volumes; what is written later is not")]
Rate = Annotated[
    Bytes,
    Meta(ge=65536, description="bytes a second that are copied at most; absent: as fast as it goes"),
]
CopySecret = Annotated[
    SecretId, Meta(description="encrypt the copy with this secret of the host; absent: as it is encrypted now")
]
Decrypt = Annotated[bool, Meta(description="the copy is not encrypted any more")]
WithChecksum = Annotated[
    bool, Meta(description="read source and copy again and compare them, before the copy is published")
]
BlockSize = Annotated[
    Bytes,
    Meta(ge=2**20, le=16 * 2**20, multiple_of=4096, description="length of a block; only equal ones compare"),
]

_READING = (
    NoSuchDomain,
    DomainDamaged,
    StorageFailed,
    NoSpace,
    TaskStopped,
    Interrupted,
    NoSuchImage,
    ImageInUse,
    ImageUnfinished,
    ImageDamaged,
    VolumeIllegal,
    VolumeDamaged,
    ToolFailed,
    NoSuchSecret,
    SecretWrong,
)
COPYING = (*_READING, DomainBusy, DomainReadOnly, ImageExists, VolumeExists, NotSupported, CopyDiffers)


class ImageCopies(ABC):
    """Copying and moving whole images."""

    @verb(
        since="1.1",
        right=Right.OPERATE,
        errors=(*COPYING, NoSuchVolume, CannotEncrypt, NeedsCollapse, TemplateMissing, NotTemplate),
        positional=("image", "name"),
    )
    @abstractmethod
    def copy(
        self,
        *,
        domain: _Domain,
        image: _Image,
        name: Annotated[Name, Meta(description="what people call the copy; absent: as the image")] | None = None,
        to: Annotated[DomainId, Meta(description="the domain to copy it to; absent: the same")] | None = None,
        volume: (
            Annotated[
                VolumeId,
                Meta(description="copy the state that this volume keeps; absent: the newest", extra={"new": False}),
            ]
            | None
        ) = None,
        collapse: Annotated[bool, Meta(description="into one volume, which stands on nothing")] = False,
        format: CopyFormat | None = None,
        allocation: CopyAllocation | None = None,
        cluster_size: ClusterSize | None = None,
        compress: Compress = False,
        rate: Rate | None = None,
        checksum: WithChecksum = False,
        id: Annotated[ImageId, Meta(description="id for the copy; absent: one is chosen")] | None = None,
        volumes: (
            Annotated[
                list[VolumeId],
                Meta(max_length=1000, description="ids for the copy's volumes, the oldest first; absent: chosen"),
            ]
            | None
        ) = None,
        secret: CopySecret | None = None,
        decrypt: Decrypt = False,
    ) -> TaskInfo[CopyInfo]:
        """Copy an image with its snapshots, or `collapse` it into one volume.

        The copy of a clone stands on the same template; on another domain the template has to be there first. A copy
        of a template is a template, and on another domain it keeps its ids, so that clones can follow; collapsed it
        is an ordinary image. Volumes of which nothing changes are copied as files, at once where the file system can
        share their space; others are converted. An encrypted image's copy is encrypted with the same secret, unless another one or `decrypt`
        is given, which needs `collapse` or an image of one volume. The image must not be written meanwhile: it is leased for reading.
        The commit point is the appearance of the newest volume's metadata. With `id` and `volumes`, the same call
        again answers the same.
        """

    @verb(
        since="1.1",
        right=Right.OPERATE,
        errors=(*COPYING, SameDomain, TemplateInUse, TemplateMissing, NotTemplate),
        positional=("image",),
    )
    @abstractmethod
    def move(
        self,
        *,
        domain: _Domain,
        image: _Image,
        to: Annotated[DomainId, Meta(description="the domain to move it to")],
        rate: Rate | None = None,
        checksum: WithChecksum = False,
    ) -> TaskInfo[CopyInfo]:
        """Move an image to another domain, with its snapshots, names and ids.

        The image must not be in use, and no clones may stand on it; a clone's template has to be on the other domain
        already. When all is copied, the image is marked as about to move; the commit point is the appearance of its
        newest volume's metadata on the other domain, and then it goes from this one. If the service ends meanwhile,
        there is one image, here or there, and whatever is left to do is done at the next start.
        """

    @verb(
        since="1.1",
        right=Right.OPERATE,
        errors=(*_READING, NoSuchVolume, NotSupported),
        positional=("image",),
    )
    @abstractmethod
    def checksum(
        self,
        *,
        domain: _Domain,
        image: _Image,
        volume: (
            Annotated[VolumeId, Meta(description="of the state that this volume keeps; absent: the newest")] | None
        ) = None,
        block_size: BlockSize = 4 * 2**20,
    ) -> TaskInfo[ChecksumInfo]:
        """Compute a checksum of what a guest sees; holes are known and not read.

        Equal content has an equal checksum, whether raw or qcow2, sparse or not, in one volume or in a chain. The
        image must not be written meanwhile: it is leased for reading.
        """
