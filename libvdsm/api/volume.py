# SPDX-License-Identifier: Apache-2.0
"""Volume: the layers of images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated

from msgspec import Meta

from libvdsm.api.errors import (
    CannotChange,
    CannotEncrypt,
    CannotShrink,
    DomainBusy,
    DomainDamaged,
    DomainReadOnly,
    GenerationMismatch,
    ImageDamaged,
    ImageExists,
    ImageInUse,
    ImageUnfinished,
    Interrupted,
    InvalidCursor,
    InvalidFilter,
    InvalidSort,
    IsTemplate,
    NoSpace,
    NoSuchDomain,
    NoSuchImage,
    NoSuchSecret,
    NoSuchVolume,
    NotSupported,
    NotTemplate,
    SecretWrong,
    StorageFailed,
    TaskStopped,
    TemplateInUse,
    ToolFailed,
    VolumeDamaged,
    VolumeExists,
    VolumeHasChildren,
    VolumeIllegal,
)
from libvdsm.api.image_copies import (
    COPYING,
    ClusterSize,
    Compress,
    CopyAllocation,
    CopyFormat,
    CopyInfo,
    CopySecret,
    Decrypt,
    Rate,
    WithChecksum,
)
from libvdsm.api.types import (
    MAX_CAPACITY,
    Allocation,
    Bytes,
    Compat,
    Cursor,
    DomainId,
    FileFormat,
    Filter,
    Generation,
    ImageId,
    Legality,
    Limit,
    Line,
    Name,
    Nothing,
    Sort,
    TagChange,
    Tags,
    TaskInfo,
    VolumeFormat,
    VolumeId,
    VolumeInfo,
)
from libvdsm.declare import Info, Right, verb


class VolumePage(Info, frozen=True, kw_only=True):
    """Volumes, by image, each image's oldest first."""

    items: Annotated[list[VolumeInfo], Meta(description="the volumes")]
    next: (
        Annotated[Cursor, Meta(description="give it as `start` to read on; absent: this was the last page")] | None
    ) = None


class Measure(Info, frozen=True, kw_only=True):
    """How much space a copy would need."""

    required: Annotated[Bytes, Meta(description="length of a new file with the same data")]
    fully_allocated: Annotated[Bytes, Meta(description="length of a new file with every block written")]


_Domain = Annotated[DomainId, Meta(description="the domain")]
_Image = Annotated[ImageId, Meta(description="the image it belongs to; absent: it is searched for")]
_Volume = Annotated[VolumeId, Meta(description="the volume")]

_READING = (NoSuchDomain, DomainDamaged, StorageFailed)
_STORAGE = (*_READING, DomainBusy, DomainReadOnly, NoSpace, TaskStopped, Interrupted)
_CHANGING = (
    *_STORAGE,
    NoSuchImage,
    NoSuchVolume,
    ImageInUse,
    ImageUnfinished,
    ImageDamaged,
    VolumeDamaged,
    GenerationMismatch,
    IsTemplate,
)


class Volume(ABC):
    """The layers of images; most users want `Image` instead."""

    @verb(
        since="1.0",
        right=Right.OPERATE,
        errors=(
            *_STORAGE,
            NoSuchImage,
            NoSuchVolume,
            ImageExists,
            VolumeExists,
            ImageInUse,
            ImageUnfinished,
            ImageDamaged,
            VolumeDamaged,
            VolumeIllegal,
            VolumeHasChildren,
            CannotShrink,
            CannotChange,
            NotTemplate,
            IsTemplate,
            NotSupported,
            NoSuchSecret,
            SecretWrong,
        ),
    )
    @abstractmethod
    def create(
        self,
        *,
        domain: _Domain,
        image: Annotated[ImageId, Meta(description="the image to put it in; absent: a new one")] | None = None,
        parent: (
            Annotated[VolumeId, Meta(description="the volume to stand on: the image's leaf, or a template's volume")]
            | None
        ) = None,
        capacity: (
            Annotated[
                Bytes,
                Meta(
                    ge=1,
                    le=MAX_CAPACITY,
                    description="size that the guest sees; absent: the parent's",
                    extra={"option": "size"},
                ),
            ]
            | None
        ) = None,
        format: Annotated[VolumeFormat, Meta(description="how the data is laid out; with a parent: qcow2")] = (
            VolumeFormat.QCOW2
        ),
        allocation: Annotated[Allocation, Meta(description="whether space is taken at once")] = Allocation.SPARSE,
        description: Annotated[Line, Meta(description="any text")] | None = None,
        id: Annotated[VolumeId, Meta(description="id for the new volume; absent: one is chosen")] | None = None,
    ) -> TaskInfo[VolumeInfo]:
        """Create a volume: empty in a new image, on top of an image's leaf, or in a new image on top of a template.

        The commit point is the appearance of its metadata.  With an `id`, the same call again answers the same.
        """

    @verb(since="1.0", right=Right.READ, errors=(*_READING, NoSuchImage, NoSuchVolume), positional=("volume",))
    @abstractmethod
    def get_info(self, *, domain: _Domain, volume: _Volume, image: _Image | None = None) -> VolumeInfo:
        """Tell all about one volume, read anew from the storage.  Faster when the image is given."""

    @verb(since="1.0", right=Right.READ, errors=(*_READING, NoSuchImage, InvalidFilter, InvalidSort, InvalidCursor))
    @abstractmethod
    def list(
        self,
        *,
        domain: _Domain,
        image: Annotated[ImageId, Meta(description="only this image's; absent: all")] | None = None,
        filter: Filter | None = None,
        sort: Sort | None = None,
        limit: Limit = 10_000,
        start: Cursor | None = None,
    ) -> VolumePage:
        """List volumes with everything that `getInfo` tells, as they lie on the storage now.

        If nothing else is said, they are listed by image, and each image's oldest first.
        """

    @verb(
        since="1.0",
        right=Right.OPERATE,
        errors=(*_CHANGING, CannotShrink, VolumeHasChildren, VolumeIllegal, ToolFailed, NoSuchSecret, SecretWrong),
        positional=("volume", "capacity"),
    )
    @abstractmethod
    def resize(
        self,
        *,
        domain: _Domain,
        volume: _Volume,
        capacity: Annotated[
            Bytes, Meta(ge=1, le=MAX_CAPACITY, description="new size that the guest sees; rounded up to 512")
        ],
        image: _Image | None = None,
        generation: Generation | None = None,
        shrink: Annotated[
            bool, Meta(description="it may become smaller: what lies beyond the new end is lost")
        ] = False,
    ) -> TaskInfo[VolumeInfo]:
        """Make a leaf larger, or with `shrink` smaller.  The image must not be in use.

        A volume that grows has its data grown first, then its metadata say so.  One that shrinks is marked first, and
        from then on the change is finished, not taken back.  A resize that the service did not survive is finished
        when it starts again.
        """

    @verb(since="1.0", right=Right.OPERATE, errors=_CHANGING, positional=("volume", "description"))
    @abstractmethod
    def set_description(
        self,
        *,
        domain: _Domain,
        volume: _Volume,
        description: Annotated[Line, Meta(description="the new text; empty: none")],
        image: _Image | None = None,
        generation: Generation | None = None,
    ) -> TaskInfo[VolumeInfo]:
        """Change the user's text of a volume; its name stays.  Works while the image is in use on this host."""

    @verb(since="1.0", right=Right.OPERATE, errors=_CHANGING, positional=("volume", "legality"))
    @abstractmethod
    def set_legality(
        self,
        *,
        domain: _Domain,
        volume: _Volume,
        legality: Annotated[Legality, Meta(description="legal, or illegal")],
        image: _Image | None = None,
        generation: Generation | None = None,
    ) -> TaskInfo[VolumeInfo]:
        """Say whether a volume's data can be relied upon.  Raises its generation.  The image must not be in use."""

    @verb(
        since="1.0",
        right=Right.READ,
        errors=(
            *(*_READING, NoSuchImage, NoSuchVolume, ImageDamaged, VolumeDamaged, ToolFailed),
            *(NoSuchSecret, SecretWrong),
        ),
        positional=("volume",),
    )
    @abstractmethod
    def measure(
        self,
        *,
        domain: _Domain,
        volume: _Volume,
        image: _Image | None = None,
        format: Annotated[FileFormat, Meta(description="format of the copy: raw or qcow2")] = FileFormat.QCOW2,
        chain: Annotated[bool, Meta(description="with what lies below it; false: this layer alone")] = True,
    ) -> Measure:
        """Tell how many bytes a copy of a volume would need."""

    @verb(
        since="1.1", right=Right.OPERATE, errors=(*COPYING, NoSuchVolume, CannotEncrypt), positional=("volume", "name")
    )
    @abstractmethod
    def copy(
        self,
        *,
        domain: _Domain,
        volume: Annotated[VolumeId, Meta(description="the volume whose state is copied", extra={"new": False})],
        name: Annotated[Name, Meta(description="what people call the new image; absent: as the old one")] | None = None,
        image: _Image | None = None,
        to: Annotated[DomainId, Meta(description="the domain to copy it to; absent: the same")] | None = None,
        format: CopyFormat | None = None,
        allocation: CopyAllocation | None = None,
        cluster_size: ClusterSize | None = None,
        compress: Compress = False,
        rate: Rate | None = None,
        checksum: WithChecksum = False,
        to_image: (
            Annotated[ImageId, Meta(description="id for the new image; absent: one is chosen", extra={"new": True})]
            | None
        ) = None,
        id: Annotated[VolumeId, Meta(description="id for the new volume; absent: one is chosen")] | None = None,
        secret: CopySecret | None = None,
        decrypt: Decrypt = False,
    ) -> TaskInfo[CopyInfo]:
        """Copy the state that a volume keeps, with all that it stands on, into a new image of one volume.

        It is `Image.copy` of that state, collapsed. Data is never copied over a volume that is there.
        """

    @verb(
        since="1.0",
        right=Right.OPERATE,
        errors=(*_CHANGING, VolumeHasChildren, TemplateInUse),
        positional=("volume",),
    )
    @abstractmethod
    def delete(
        self,
        *,
        domain: _Domain,
        volume: _Volume,
        image: _Image | None = None,
        wipe: Annotated[bool, Meta(description="overwrite the data with zeros before its space is given back")] = False,
        generation: Generation | None = None,
    ) -> TaskInfo[Nothing]:
        """Delete a leaf: the image returns to the state that the volume below it kept.  The image must not be in use.

        The last volume takes its image with it.  What is gone already counts as deleted.  The commit point is the
        disappearance of the volume's metadata under its name.
        """

    @verb(
        since="1.1",
        right=Right.OPERATE,
        errors=(*_STORAGE, NoSuchImage, NoSuchVolume, ImageUnfinished, ImageDamaged, VolumeDamaged, IsTemplate),
        positional=("volume", "tags"),
    )
    @abstractmethod
    def set_tags(
        self,
        *,
        domain: _Domain,
        volume: _Volume,
        tags: Annotated[Tags, Meta(description="short texts, such as `gold` or `consistent`")],
        change: Annotated[TagChange, Meta(description="what is done with them")] = TagChange.REPLACE,
        image: _Image | None = None,
    ) -> TaskInfo[VolumeInfo]:
        """Set, add or remove the tags of one layer of an image, which go when it goes.

        As `Image.setTags` in all else.
        """

    @verb(
        since="1.1",
        right=Right.OPERATE,
        errors=(
            *(*_STORAGE, NoSuchImage, NoSuchVolume, ImageInUse, ImageUnfinished, ImageDamaged),
            *(VolumeDamaged, VolumeIllegal, IsTemplate, CannotChange),
        ),
        positional=("volume",),
    )
    @abstractmethod
    def amend(
        self,
        *,
        domain: _Domain,
        volume: _Volume,
        compat: (
            Annotated[Compat, Meta(description="version of the format; it only goes up. Absent: it stays")] | None
        ) = None,
        image: _Image | None = None,
    ) -> TaskInfo[VolumeInfo]:
        """Change what a qcow2 volume's own header says of its format.  What a guest sees does not change.

        Volumes of old oVirt domains are of version 2; with version 3 they can have bitmaps, and be made sparse in a
        way that copies know of. There is no way down: what version 3 says of zeros and of bitmaps,
        version 2 cannot say. The image must not be in use; a template is changed for all its clones, while none of
        them is. The commit point is one write of the header's first 512 bytes, which is made or not made.
        """
