# SPDX-License-Identifier: Apache-2.0
"""Values and structures of the API that more than one class uses.

Integers fit 64 bits, sizes are bytes, times are seconds since the epoch, ids are UUIDs.  Text excludes what XML 1.0
cannot carry, so that a value accepted on one wire travels on all.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any, Generic, NewType, TypeVar
from uuid import UUID

from msgspec import Meta

from libvdsm.declare import Info

T = TypeVar("T")

_MAX = 2**63 - 1
MAX_CAPACITY = 2**62
"""Of a volume, in bytes: what can be rounded up and still be an offset in a file."""
# Everything but control characters, surrogates and the two code points that XML forbids.
_LINE = "^[^\\x00-\\x1f\\x7f\\ud800-\\udfff\\ufffe\\uffff]*\\Z"

_SINCE_1_1 = {"since": "1.1"}
"""Of what was added to something that was there before."""

DomainId = NewType("DomainId", UUID)
"""A storage domain."""
ImageId = NewType("ImageId", UUID)
"""An image."""
VolumeId = NewType("VolumeId", UUID)
"""A volume."""
TaskId = NewType("TaskId", UUID)
"""A task."""
SessionId = NewType("SessionId", UUID)
"""A session."""
TransferId = NewType("TransferId", UUID)
"""A transfer."""
SecretId = NewType("SecretId", UUID)
"""A secret."""

Bytes = Annotated[int, Meta(ge=0, le=_MAX, extra={"unit": "bytes"})]
Count = Annotated[int, Meta(ge=0, le=_MAX)]
Time = Annotated[float, Meta(ge=0, extra={"unit": "seconds since the epoch"})]
Seconds = Annotated[float, Meta(ge=0, le=1e9, extra={"unit": "seconds"})]
Sequence = Annotated[int, Meta(ge=0, le=_MAX)]

Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=_LINE, description="a name that people use")]
Line = Annotated[str, Meta(max_length=210, pattern=_LINE, description="one line of text, at most 210 characters")]
Word = Annotated[str, Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9_.:-]+\\Z")]
Path = Annotated[
    str, Meta(min_length=1, max_length=1024, pattern="^/[^\\x00-\\x1f\\x7f\\ud800-\\udfff\\ufffe\\uffff]*\\Z")
]
Text = Annotated[str, Meta(max_length=65536)]

Descriptor = Annotated[
    int,
    Meta(
        ge=0,
        le=1023,
        description="an open file of the caller's: in Python a file descriptor; on the wire its index among the "
        "descriptors sent with the message (SCM_RIGHTS), which only a Unix socket can carry",
        extra={"descriptor": True},
    ),
]
Limit = Annotated[int, Meta(ge=1, le=100_000, description="how many items at most are answered")]
Cursor = Annotated[
    str, Meta(max_length=256, pattern=_LINE, description="the `next` of the page before; absent: from the beginning")
]
Filter = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=4096,
        pattern=_LINE,
        description="only those that fit this expression on their fields",
        extra=_SINCE_1_1,
    ),
]
Sort = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=256,
        pattern=_LINE,
        description="up to three fields to sort by, with commas between them; with a `-` before it, a field sorts downwards",
        extra=_SINCE_1_1,
    ),
]
Tag = Annotated[str, Meta(min_length=1, max_length=64, pattern=_LINE)]
Tags = Annotated[list[Tag], Meta(max_length=32)]
WithSecret = Annotated[
    SecretId, Meta(description="a secret of this host to encrypt it with; absent: not encrypted", extra=_SINCE_1_1)
]
Generation = Annotated[
    int,
    Meta(ge=0, le=999, description="the generation that the volume is expected to have; absent: any"),
]


class OpenEnum(enum.Enum):
    """An enumeration that grows: a client that meets a value newer than itself reads ``UNKNOWN``."""

    @classmethod
    def _missing_(cls, value: object) -> OpenEnum | None:
        return cls.__members__.get("UNKNOWN")


class VolumeFormat(OpenEnum):
    """How the data of a volume is laid out."""

    RAW = "raw"
    """the bytes that the guest sees, one after the other"""
    QCOW2 = "qcow2"
    """QEMU's copy-on-write format; needed for anything that has a parent"""
    UNKNOWN = "unknown"
    """a value newer than this client"""


class FileFormat(OpenEnum):
    """The format of an image file outside any domain."""

    RAW = "raw"
    """the bytes that the guest sees, one after the other"""
    QCOW2 = "qcow2"
    """QEMU's format, version 2 or 3"""
    VMDK = "vmdk"
    """VMware's, in one file: monolithicSparse or streamOptimized"""
    VDI = "vdi"
    """VirtualBox's"""
    VHDX = "vhdx"
    """Hyper-V's"""
    VPC = "vpc"
    """Virtual PC's and older Hyper-V's, also called VHD"""
    UNKNOWN = "unknown"
    """a value newer than this client"""


class Allocation(OpenEnum):
    """Whether the space of a volume is taken when it is made or when it is written."""

    SPARSE = "sparse"
    """space is taken when it is written"""
    PREALLOCATED = "preallocated"
    """all space is taken when the volume is made"""
    UNKNOWN = "unknown"
    """a value newer than this client"""


class VolumeRole(OpenEnum):
    """The place of a volume in its chain, derived from the published volumes that have it as their parent."""

    LEAF = "leaf"
    """the newest layer, which a guest writes"""
    INTERNAL = "internal"
    """frozen by a snapshot"""
    TEMPLATE = "template"
    """shared: any number of images stand on it, and nobody writes it"""
    UNKNOWN = "unknown"
    """a value newer than this client"""


class Legality(OpenEnum):
    """Whether the data of a volume can be relied upon."""

    LEGAL = "legal"
    """whole"""
    ILLEGAL = "illegal"
    """not to be used: a change in place has begun and not ended, or somebody marked it so"""
    FAKE = "fake"
    """a place holder of an old oVirt version, without data of its own"""
    UNKNOWN = "unknown"
    """a value newer than this client"""


class Compat(OpenEnum):
    """Version of the qcow2 format, which QEMU calls its compatibility level."""

    V2 = "v2"
    """`0.10` to `qemu-img info`: without bitmaps, and without clusters that are known to be zeros"""
    V3 = "v3"
    """`1.1` to `qemu-img info`: what this service writes"""
    UNKNOWN = "unknown"
    """a value newer than this client"""


class TagChange(OpenEnum):
    """What is done with tags that are given."""

    REPLACE = "replace"
    """they are the tags from now on; what was there before is gone"""
    ADD = "add"
    """they are added to what is there"""
    REMOVE = "remove"
    """they are taken away, where they are there"""
    UNKNOWN = "unknown"
    """a value newer than this client"""


class Encryption(OpenEnum):
    """How data is encrypted."""

    LUKS = "luks"
    """QEMU's own, within qcow2: a LUKS header in each volume, AES-256 in XTS mode"""
    UNKNOWN = "unknown"
    """a value newer than this client"""


class Nothing(Info, frozen=True, kw_only=True):
    """The result of a verb that has nothing to say but that it succeeded."""


class VolumeInfo(Info, frozen=True, kw_only=True):
    """One volume: its metadata, and what its file says."""

    id: Annotated[VolumeId, Meta(description="the volume")]
    domain: Annotated[DomainId, Meta(description="the domain it lies on")]
    image: Annotated[ImageId, Meta(description="the image it belongs to")]
    format: Annotated[VolumeFormat, Meta(description="layout of its data")]
    allocation: Annotated[Allocation, Meta(description="whether its space was taken at once")]
    role: Annotated[VolumeRole, Meta(description="its place in the chain")]
    legality: Annotated[Legality, Meta(description="whether its data can be relied upon")]
    capacity: Annotated[Bytes, Meta(description="size that the guest sees")]
    actual_size: Annotated[Bytes, Meta(description="space it takes on the storage")]
    length: Annotated[Bytes, Meta(description="length of its file or device")]
    created: Annotated[Time, Meta(description="when it was made")]
    generation: Annotated[int, Meta(ge=0, le=999, description="raised by each change in place, wraps after 999")]
    sequence: Annotated[Count, Meta(description="raised by each snapshot of the image")]
    parent: Annotated[VolumeId, Meta(description="the volume below it in the chain")] | None = None
    name: Annotated[Name, Meta(description="of the leaf: the image's name; of others: the snapshot's")] | None = None
    description: Annotated[Line, Meta(description="the user's text")] | None = None
    backing_file: Annotated[Text, Meta(description="the backing file that the qcow2 header names")] | None = None
    cluster_size: Annotated[Bytes, Meta(description="of a qcow2 volume")] | None = None
    damage: (
        Annotated[Text, Meta(description="why its data could not be read, if so; Domain.check says more")] | None
    ) = None
    tags: (
        Annotated[Tags, Meta(description="the user's; a template's volume has them in its own image", extra=_SINCE_1_1)]
        | None
    ) = None
    compat: Annotated[Compat, Meta(description="version of a qcow2 volume's format", extra=_SINCE_1_1)] | None = None
    encryption: Annotated[Encryption, Meta(description="how its data is encrypted, if so", extra=_SINCE_1_1)] | None = (
        None
    )


class PreparedInfo(Info, frozen=True, kw_only=True):
    """An image made ready for use on this host, and held by a lease until ``Image.teardown``."""

    domain: Annotated[DomainId, Meta(description="the domain")]
    image: Annotated[ImageId, Meta(description="the image")]
    volume: Annotated[VolumeId, Meta(description="the leaf")]
    path: Annotated[Text, Meta(description="the leaf's file or device, to give to QEMU")]
    format: Annotated[VolumeFormat, Meta(description="the leaf's format, to give to QEMU: it must not guess")]
    read_only: Annotated[bool, Meta(description="held by shared leases only: others may read it too")]
    since: Annotated[Time, Meta(description="when it was prepared")]
    keeper: Annotated[Count, Meta(description="process id of the keeper that holds the leases")]
    encryption: Annotated[Encryption, Meta(description="how its data is encrypted, if so", extra=_SINCE_1_1)] | None = (
        None
    )
    secret: (
        Annotated[SecretId, Meta(description="the secret to give to QEMU for the image's volumes", extra=_SINCE_1_1)]
        | None
    ) = None


class ImageInfo(Info, frozen=True, kw_only=True):
    """One image: a chain of volumes, the leaf of which a guest writes."""

    id: Annotated[ImageId, Meta(description="the image")]
    domain: Annotated[DomainId, Meta(description="the domain it lies on")]
    leaf: Annotated[VolumeId, Meta(description="its newest volume")]
    capacity: Annotated[Bytes, Meta(description="size that the guest sees")]
    actual_size: Annotated[Bytes, Meta(description="space that its own volumes take on the storage")]
    created: Annotated[Time, Meta(description="when its oldest own volume was made")]
    is_template: Annotated[bool, Meta(description="whether it can be cloned, and not be written")]
    legality: Annotated[Legality, Meta(description="of the leaf")]
    snapshots: Annotated[Count, Meta(description="how many of its own volumes are frozen")]
    name: Annotated[Name, Meta(description="what people call it; not necessarily unique")] | None = None
    description: Annotated[Line, Meta(description="the user's text")] | None = None
    template: Annotated[ImageId, Meta(description="the template that it was cloned from")] | None = None
    prepared: Annotated[PreparedInfo, Meta(description="present while it is in use on this host")] | None = None
    chain: (
        Annotated[
            list[VolumeInfo],
            Meta(description="its volumes, the oldest first, a template's included; only in `Image.getInfo`"),
        ]
        | None
    ) = None
    damage: Annotated[Text, Meta(description="why it cannot be used, if so")] | None = None
    pending: (
        Annotated[Word, Meta(description="a change in place that has begun and not ended; until then it is not used")]
        | None
    ) = None
    tags: Annotated[Tags, Meta(description="the user's, of the image as a whole", extra=_SINCE_1_1)] | None = None
    encryption: Annotated[Encryption, Meta(description="how its data is encrypted, if so", extra=_SINCE_1_1)] | None = (
        None
    )
    secret: (
        Annotated[SecretId, Meta(description="the secret that its own volumes are encrypted with", extra=_SINCE_1_1)]
        | None
    ) = None


class TaskState(OpenEnum):
    """Where a task is in its life; the table of transitions is in the guide."""

    QUEUED = "queued"
    """waiting for a worker, or for other tasks on the same things"""
    RUNNING = "running"
    """at work"""
    STOPPING = "stopping"
    """asked to stop, and not yet there"""
    SUCCEEDED = "succeeded"
    """done"""
    FAILED = "failed"
    """ended by an error; the error says what to do"""
    STOPPED = "stopped"
    """ended as asked, before anything was changed"""
    UNKNOWN = "unknown"
    """a value newer than this client"""


class TaskMode(OpenEnum):
    """Who owns the tasks that a session starts."""

    NON_TRANSPARENT = "nonTransparent"
    """the service: it names them, keeps them over restarts and lists them to everybody who may see them"""
    UNKNOWN = "unknown"
    """a value newer than this client"""
    TRANSPARENT = "transparent"
    """the client: it names them, alone sees them, and asks again after a restart; the service keeps nothing on disk"""
    DEFAULT = "default"
    """one of the others, as the service is configured (`[tasks] mode`)"""


class Progress(Info, frozen=True, kw_only=True):
    """How far a task is."""

    done: Annotated[Bytes, Meta(description="bytes of what a guest sees that are dealt with, holes included")]
    total: Annotated[Bytes, Meta(description="bytes in all; 0 while unknown")]
    percent: Annotated[float, Meta(ge=0, le=100, description="done in percent")]
    step: Annotated[Text, Meta(description="what it is doing, in a few words")]


class ErrorInfo(Info, frozen=True, kw_only=True):
    """An error as data: what a failed task holds, and what travels on a wire."""

    name: Annotated[Word, Meta(description="the error's stable name")]
    code: Annotated[int, Meta(ge=0, le=2**31 - 1, description="the error's stable number")]
    message: Annotated[Text, Meta(description="what happened and what to do, in plain words")]
    data: Annotated[dict[str, Any], Meta(description="the error's attributes")]


class TaskInfo(Info, Generic[T], frozen=True, kw_only=True):
    """A change that goes on, or has ended."""

    id: Annotated[TaskId, Meta(description="the task")]
    verb: Annotated[Word, Meta(description="the verb that started it")]
    state: Annotated[TaskState, Meta(description="where it is in its life")]
    created: Annotated[Time, Meta(description="when it was asked for")]
    progress: Annotated[Progress, Meta(description="how far it is")]
    owner: Annotated[Text, Meta(description="who asked for it")]
    request: Annotated[Text, Meta(description="id of the request that started it, as in the log")]
    started: Annotated[Time, Meta(description="when work began")] | None = None
    ended: Annotated[Time, Meta(description="when it ended")] | None = None
    domain: Annotated[DomainId, Meta(description="the domain it works on")] | None = None
    image: Annotated[ImageId, Meta(description="the image it works on")] | None = None
    volume: Annotated[VolumeId, Meta(description="the volume it works on")] | None = None
    result: Annotated[T, Meta(description="what the verb answers, once it succeeded")] | None = None
    error: Annotated[ErrorInfo, Meta(description="why it failed or was stopped")] | None = None
    mode: Annotated[TaskMode, Meta(description="present if the client owns it: `transparent`")] | None = None
