# SPDX-License-Identifier: Apache-2.0
"""What we keep of an image and the metadata of oVirt's V5 format have no field for: one small JSON document.

Tags, the secret that it is encrypted with, a change in place that has begun, and an image that is still in the making.  Other programs that know the format
ignore it.  It fits beside the 512 bytes of metadata in a slot of 8 KiB, which is its place on block domains.  A
document that a newer service wrote is not understood, and so its image is left alone.  See
``docs/decisions/0015-attributes.md``.
"""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

import msgspec

_VERSION = 1
LIMIT = 7168
"""Bytes that a document has at most."""
TAGS = 32
"""Tags that an image, or a volume, has at most."""
TAGS_LIMIT = 1536
"""Of these, bytes for the tags of an image and its volumes: beside them the largest intent has to fit."""


class BadAttributes(Exception):
    """The document cannot be read, or not by this version."""


class AttributesTooLong(Exception):
    """All of it does not fit the place."""


class Intent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """A change in place that has begun, with all that is needed to finish it.

    While an image has one nobody uses the image; whoever gets its leases may finish the change.
    """

    binds_others: ClassVar[bool] = False
    """Something beyond this image depends on its end: until then the image cannot even be deleted."""


class Shrink(Intent, frozen=True, kw_only=True, tag="shrink"):
    """A volume becomes smaller: to ``capacity`` bytes."""

    volume: UUID
    capacity: int


class Move(Intent, frozen=True, kw_only=True, tag="move"):
    """The image goes to another domain: once it is published there, it is unpublished here."""

    binds_others: ClassVar[bool] = True
    to: UUID


class SnapshotMany(Intent, frozen=True, kw_only=True, tag="snapshotMany"):
    """Images are frozen together: ``volumes`` are their new layers, in the same order.  Lies with the first of them."""

    binds_others: ClassVar[bool] = True
    group: UUID
    images: tuple[UUID, ...]
    volumes: tuple[UUID, ...]
    name: str | None = None


class DeleteMany(Intent, frozen=True, kw_only=True, tag="deleteMany"):
    """Images go together.  Lies with the first of them."""

    binds_others: ClassVar[bool] = True
    group: UUID
    images: tuple[UUID, ...]
    wipe: bool


class Member(Intent, frozen=True, kw_only=True, tag="member"):
    """What becomes of this image is said by its leader's intent, if that is of this group; else nothing has begun."""

    leader: UUID
    group: UUID


class Guarded(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Volumes whose bitmaps are what they were, also where a program that writes the file is interrupted.

    ``in_use``: digests of the names of those that were of no use before.
    """

    volumes: tuple[UUID, ...] = ()
    in_use: tuple[str, ...] = ()


class ChangeBitmaps(Intent, frozen=True, kw_only=True, tag="bitmaps"):
    """Programs change bitmaps.  What they do not finish may stay undone; the other bitmaps are not to suffer."""

    guarded: Guarded


class MergeDown(Intent, frozen=True, kw_only=True, tag="merge-down"):
    """A run of neighbours becomes its lowest volume, ``base``.  ``gone`` are the others, the uppermost first.

    ``child`` stands on the uppermost, and then on ``base``.  ``generation`` is what ``base`` gets.  ``moved``: the data
    is in ``base``, and stable.  ``known``: digests of the names of the bitmaps that said all when it was begun.
    """

    base: UUID
    gone: tuple[UUID, ...]
    child: UUID | None = None
    generation: int
    wipe: bool = False
    moved: bool = False
    guarded: Guarded = Guarded()
    known: tuple[str, ...] = ()


class Pull(Intent, frozen=True, kw_only=True):
    """A volume takes into itself what it shows of those below, and stands on ``parent`` then, or on nothing.

    ``gone`` are volumes that nobody needs then, the uppermost first, and ``unlink`` a template's.  ``generation`` is
    what ``top`` gets.  ``moved``: the data is in ``top``, and stable.
    """

    top: UUID
    gone: tuple[UUID, ...] = ()
    parent: UUID | None = None
    unlink: UUID | None = None
    generation: int
    wipe: bool = False
    moved: bool = False


class MergeUp(Pull, frozen=True, kw_only=True, tag="merge-up"):
    """A run of neighbours becomes its uppermost volume."""


class Flatten(Pull, frozen=True, kw_only=True, tag="flatten"):
    """An image becomes one volume, which stands on nothing."""


class Rebase(Pull, frozen=True, kw_only=True, tag="rebase"):
    """An image's lowest volume goes onto ``parent``, the volume of the image ``template``, or onto nothing."""

    template: UUID | None = None


class Revert(Intent, frozen=True, kw_only=True, tag="revert"):
    """The state that ``to`` keeps is the present one: on it comes a new, empty ``leaf``; ``gone`` is what was above."""

    to: UUID
    leaf: UUID
    gone: tuple[UUID, ...]
    wipe: bool = False


AnyIntent = (
    Shrink | Move | SnapshotMany | DeleteMany | Member | MergeDown | MergeUp | Flatten | Rebase | Revert | ChangeBitmaps
)


class Making(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The image is made of several volumes, and is not there before its leaf is."""

    leaf: UUID


class VolumeAttributes(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, rename="camel"
):
    """Of one volume.  ``expires``: of what arrives in parts, when it is garbage; seconds since the epoch."""

    tags: tuple[str, ...] = ()
    expires: float | None = None


class Attributes(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, rename="camel"
):
    """Of one image; empty for most."""

    tags: tuple[str, ...] = ()
    volumes: dict[UUID, VolumeAttributes] = {}
    making: Making | None = None
    intent: AnyIntent | None = None
    secret: UUID | None = None
    """what all of the image's own volumes are encrypted with"""

    def without_volume(self, volume: UUID) -> Attributes:
        """When a volume goes.  An image that it was the last part of was made long ago."""
        left = {id_: kept for id_, kept in self.volumes.items() if id_ != volume}
        making = self.making if self.making and self.making.leaf != volume else None
        return msgspec.structs.replace(self, volumes=left, making=making)

    def tags_of(self, volume: UUID) -> tuple[str, ...]:
        return self.volumes[volume].tags if volume in self.volumes else ()

    def with_tags(self, tags: tuple[str, ...], volume: UUID | None = None) -> Attributes:
        """With other tags of the image, or of one of its volumes.  Raises ``AttributesTooLong``."""
        if volume is None:
            changed = msgspec.structs.replace(self, tags=tags)
        else:
            kept = msgspec.structs.replace(self.volumes.get(volume, VolumeAttributes()), tags=tags)
            others = {id_: other for id_, other in self.volumes.items() if id_ != volume}
            changed = msgspec.structs.replace(self, volumes=others | ({volume: kept} if kept != _EMPTY else {}))
        if len(tags) > TAGS:
            msg = f"it would have {len(tags)} tags, and {TAGS} are the limit"
            raise AttributesTooLong(msg)
        tagged = {id_: VolumeAttributes(tags=other.tags) for id_, other in changed.volumes.items() if other.tags}
        size = len(msgspec.json.encode(Attributes(tags=changed.tags, volumes=tagged)))
        if size > TAGS_LIMIT:
            msg = f"the tags of the image and its volumes would take {size} bytes, and {TAGS_LIMIT} are the limit"
            raise AttributesTooLong(msg)
        return changed


NONE = Attributes()
_EMPTY = VolumeAttributes()


class _Document(Attributes, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, rename="camel"):
    version: int
    image: UUID


class _Version(msgspec.Struct, frozen=True):
    version: int


_decode = msgspec.json.Decoder(_Document).decode
_version = msgspec.json.Decoder(_Version).decode


def parse(data: bytes, image: UUID) -> Attributes:
    """The attributes of this image from its document."""
    try:
        found = _version(data).version
        if found > _VERSION:
            msg = f"its attributes were written by a newer version (layout {found})"
            raise BadAttributes(msg)
        document = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"its attributes cannot be read: {error}"
        raise BadAttributes(msg) from None
    if document.image != image:
        msg = f"its attributes are image {document.image}'s"
        raise BadAttributes(msg)
    return Attributes(**{name: getattr(document, name) for name in Attributes.__struct_fields__})


def write(attributes: Attributes, image: UUID) -> bytes:
    """The document of this image."""
    fields = {name: getattr(attributes, name) for name in Attributes.__struct_fields__}
    data = msgspec.json.encode(_Document(version=_VERSION, image=image, **fields)) + b"\n"
    if len(data) > LIMIT:
        msg = f"tags and the like take {len(data)} bytes, and {LIMIT} are the limit"
        raise AttributesTooLong(msg)
    return data
