# SPDX-License-Identifier: Apache-2.0
"""Image: virtual disks."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated

from msgspec import Meta

from libvdsm.api.errors import (
    AlreadyPrepared,
    CannotShrink,
    DamagedImage,
    DomainBusy,
    DomainDamaged,
    DomainReadOnly,
    FileNotUsable,
    FormatMismatch,
    HasSnapshots,
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
    NoSuchVolume,
    NotSupported,
    NotTemplate,
    StorageFailed,
    TaskStopped,
    TemplateInUse,
    ToolFailed,
    UnsafeImage,
    UnsupportedImage,
    VolumeDamaged,
    VolumeExists,
    VolumeIllegal,
)
from libvdsm.api.image_changes import ImageChanges
from libvdsm.api.image_copies import ImageCopies
from libvdsm.api.image_groups import ImageGroup, ImageGroups
from libvdsm.api.image_layers import ImageLayers
from libvdsm.api.image_space import ImageSpace
from libvdsm.api.types import (
    MAX_CAPACITY,
    Allocation,
    Bytes,
    Cursor,
    Descriptor,
    DomainId,
    FileFormat,
    Filter,
    ImageId,
    ImageInfo,
    Limit,
    Line,
    Name,
    Nothing,
    Path,
    PreparedInfo,
    Sort,
    TaskInfo,
    VolumeFormat,
    VolumeId,
)
from libvdsm.declare import Info, Right, verb

__all__ = ["ExportInfo", "Image", "ImageGroup", "ImagePage"]


class ImagePage(Info, frozen=True, kw_only=True):
    """Images, by name."""

    items: Annotated[list[ImageInfo], Meta(description="the images")]
    next: (
        Annotated[Cursor, Meta(description="give it as `start` to read on; absent: this was the last page")] | None
    ) = None


class ExportInfo(Info, frozen=True, kw_only=True):
    """What was exported."""

    format: Annotated[FileFormat, Meta(description="format of the file")]
    length: Annotated[Bytes, Meta(description="length of the file")]
    capacity: Annotated[Bytes, Meta(description="size that a guest sees")]


_Domain = Annotated[DomainId, Meta(description="the domain")]
_Image = Annotated[ImageId, Meta(description="the image")]
_NewImage = Annotated[ImageId, Meta(description="id for the new image; absent: one is chosen")]
_NewVolume = Annotated[VolumeId, Meta(description="id for the new volume; absent: one is chosen")]
_Name = Annotated[Name, Meta(description="what people call it; need not be unique")]
_Description = Annotated[Line, Meta(description="any text")]
_Capacity = Annotated[
    Bytes,
    Meta(
        ge=1,
        le=MAX_CAPACITY,
        description="size that the guest sees; rounded up to 512",
        extra={"unit": "bytes", "option": "size"},
    ),
]
_Format = Annotated[VolumeFormat, Meta(description="how the data is laid out")]
_Allocation = Annotated[Allocation, Meta(description="whether space is taken at once")]
_Wipe = Annotated[bool, Meta(description="overwrite the data with zeros before its space is given back")]

_READING = (NoSuchDomain, DomainDamaged, StorageFailed)
_STORAGE = (*_READING, DomainBusy, DomainReadOnly, NoSpace, TaskStopped, Interrupted)
_CHANGING = (*_STORAGE, NoSuchImage, ImageInUse, ImageUnfinished, ImageDamaged, VolumeIllegal, VolumeDamaged)
_CREATING = (*_STORAGE, ImageExists, VolumeExists, ImageInUse)


class Image(ImageCopies, ImageLayers, ImageGroups, ImageChanges, ImageSpace):
    """Virtual disks: each a chain of volumes, the newest of which a guest writes."""

    @verb(since="1.0", right=Right.OPERATE, errors=(*_CREATING, NotSupported), positional=("name",))
    @abstractmethod
    def create(
        self,
        *,
        domain: _Domain,
        capacity: _Capacity,
        name: _Name | None = None,
        format: _Format = VolumeFormat.QCOW2,
        allocation: _Allocation = Allocation.SPARSE,
        description: _Description | None = None,
        id: _NewImage | None = None,
        volume: _NewVolume | None = None,
    ) -> TaskInfo[ImageInfo]:
        """Create an empty image.

        The commit point is the appearance of its volume's metadata.  With `id` and `volume`, the same call again
        answers the same.
        """

    @verb(
        since="1.0",
        right=Right.OPERATE,
        errors=(*_CHANGING, VolumeExists, IsTemplate, NotSupported),
        positional=("image", "name"),
    )
    @abstractmethod
    def snapshot(
        self,
        *,
        domain: _Domain,
        image: _Image,
        name: Annotated[Name, Meta(description="what people call the state that is kept")] | None = None,
        volume: _NewVolume | None = None,
    ) -> TaskInfo[ImageInfo]:
        """Freeze the present state of an image, and go on in a new layer on top of it.

        The image must not be in use.  The commit point is the appearance of the new layer's metadata.  With `volume`,
        the same call again answers the same.
        """

    @verb(
        since="1.0",
        right=Right.OPERATE,
        errors=(
            *_CREATING,
            NoSuchImage,
            ImageUnfinished,
            NotSupported,
            NotTemplate,
            CannotShrink,
            ImageDamaged,
            VolumeIllegal,
            VolumeDamaged,
        ),
        positional=("template", "name"),
    )
    @abstractmethod
    def clone(
        self,
        *,
        domain: _Domain,
        template: Annotated[ImageId, Meta(description="the template to stand on")],
        name: _Name | None = None,
        capacity: (
            Annotated[
                Bytes,
                Meta(
                    ge=1,
                    le=MAX_CAPACITY,
                    description="size that the guest sees; absent: the template's",
                    extra={"option": "size"},
                ),
            ]
            | None
        ) = None,
        description: _Description | None = None,
        id: _NewImage | None = None,
        volume: _NewVolume | None = None,
    ) -> TaskInfo[ImageInfo]:
        """Make a new image that stands on a template, and takes space only for what it changes.

        The commit point is the appearance of its own layer's metadata.
        """

    @verb(
        since="1.0",
        right=Right.OPERATE,
        errors=(*_CHANGING, HasSnapshots, ImageExists, VolumeExists, IsTemplate, NotSupported, ToolFailed),
        positional=("image", "name"),
    )
    @abstractmethod
    def make_template(
        self,
        *,
        domain: _Domain,
        image: _Image,
        name: Annotated[Name, Meta(description="make the template from a copy, and call it so")] | None = None,
        id: Annotated[ImageId, Meta(description="id for the copy; absent: one is chosen")] | None = None,
        volume: Annotated[VolumeId, Meta(description="id for the copy's volume; absent: one is chosen")] | None = None,
    ) -> TaskInfo[ImageInfo]:
        """Turn an image into a template, which can be cloned and is never written again.

        Without a `name`, the image itself becomes the template, at once; it must have no snapshots, since the format
        shares only single volumes.  With a `name`, the image stays as it is, and its present state is copied into a
        new template of one volume.  The commit point is the change, or the appearance, of that volume's metadata.
        """

    @verb(since="1.0", right=Right.READ, errors=(*_READING, InvalidFilter, InvalidSort, InvalidCursor))
    @abstractmethod
    def list(
        self,
        *,
        domain: Annotated[DomainId, Meta(description="only this domain; absent: all")] | None = None,
        filter: Filter | None = None,
        sort: Sort | None = None,
        limit: Limit = 10_000,
        start: Cursor | None = None,
    ) -> ImagePage:
        """List images, by name if nothing else is said, templates and damaged ones included."""

    @verb(since="1.0", right=Right.READ, errors=(*_READING, NoSuchImage), positional=("image",))
    @abstractmethod
    def get_info(self, *, domain: _Domain, image: _Image) -> ImageInfo:
        """Tell all about one image: its chain with the sizes that each layer takes, and whether it is in use here."""

    @verb(
        since="1.0",
        right=Right.OPERATE,
        errors=(
            *_CREATING,
            NotSupported,
            CannotShrink,
            FileNotUsable,
            FormatMismatch,
            UnsafeImage,
            UnsupportedImage,
            DamagedImage,
            ToolFailed,
        ),
        positional=("source", "name"),
    )
    @abstractmethod
    def import_(
        self,
        *,
        domain: _Domain,
        source: Annotated[Descriptor, Meta(description="the file to read", extra={"mode": "read"})] | None = None,
        path: (
            Annotated[Path, Meta(description="the file to read, instead of `source`; opened with the caller's rights")]
            | None
        ) = None,
        source_format: (
            Annotated[FileFormat, Meta(description="what the file is said to be; absent: what it is found to be")]
            | None
        ) = None,
        name: _Name | None = None,
        format: _Format = VolumeFormat.QCOW2,
        allocation: _Allocation = Allocation.SPARSE,
        capacity: (
            Annotated[
                Bytes,
                Meta(
                    ge=1,
                    le=MAX_CAPACITY,
                    description="size that the guest sees; absent: the file's",
                    extra={"option": "size"},
                ),
            ]
            | None
        ) = None,
        description: _Description | None = None,
        id: _NewImage | None = None,
        volume: _NewVolume | None = None,
    ) -> TaskInfo[ImageInfo]:
        """Make an image from a file.

        The file is looked at before any tool opens it: one that refers to other files, or is not of the format it is
        said to be, is refused.  It must not change meanwhile.  The commit point is the appearance of the new volume's
        metadata.
        """

    @verb(
        since="1.0",
        right=Right.OPERATE,
        errors=(*_CHANGING, NoSuchVolume, NotSupported, FileNotUsable, ToolFailed),
        positional=("image", "target"),
    )
    @abstractmethod
    def export(
        self,
        *,
        domain: _Domain,
        image: _Image,
        target: (
            Annotated[Descriptor, Meta(description="the file to write; it is cut to length", extra={"mode": "write"})]
            | None
        ) = None,
        path: (
            Annotated[Path, Meta(description="the file to write, instead of `target`; opened with the caller's rights")]
            | None
        ) = None,
        format: Annotated[FileFormat, Meta(description="format of the file: raw or qcow2")] = FileFormat.QCOW2,
        volume: Annotated[VolumeId, Meta(description="export this state of the image; absent: the newest")]
        | None = None,
    ) -> TaskInfo[ExportInfo]:
        """Write the state of an image, or of one of its snapshots, into a single file.

        The image must not be written meanwhile: it is leased for reading.  The file is whole and on stable storage
        when the task has succeeded; otherwise it is to be thrown away.
        """

    @verb(
        since="1.0",
        right=Right.OPERATE,
        errors=(
            *_READING,
            DomainReadOnly,
            NoSpace,
            NoSuchImage,
            ImageInUse,
            ImageUnfinished,
            ImageDamaged,
            VolumeIllegal,
            VolumeDamaged,
            IsTemplate,
            AlreadyPrepared,
        ),
        positional=("image",),
    )
    @abstractmethod
    def prepare(
        self,
        *,
        domain: _Domain,
        image: _Image,
        read_only: Annotated[bool, Meta(description="for reading only, together with other readers")] = False,
    ) -> PreparedInfo:
        """Make an image ready for use on this host, and hold its leases until it is torn down.

        The leases are held by a small process of their own, which outlives the service: an image stays prepared while
        the service restarts.  Preparing it again in the same way answers the same.
        """

    @verb(since="1.0", right=Right.OPERATE, errors=(*_READING, NoSuchImage), positional=("image",))
    @abstractmethod
    def teardown(self, *, domain: _Domain, image: _Image) -> Nothing:
        """End the use of an image on this host, and let go of its leases.  Whoever uses it must have closed it.

        An image that is not prepared is left as it is.
        """

    @verb(
        since="1.0",
        right=Right.OPERATE,
        errors=(*_CHANGING, TemplateInUse),
        positional=("image",),
    )
    @abstractmethod
    def delete(self, *, domain: _Domain, image: _Image, wipe: _Wipe = False) -> TaskInfo[Nothing]:
        """Delete an image with all its volumes.  What is gone already counts as deleted.

        The commit point is the renaming of the image's folder; data is wiped and space given back after that, and if
        the service ends meanwhile, later.
        """
