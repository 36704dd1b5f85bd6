# SPDX-License-Identifier: Apache-2.0
"""Every error that a verb may answer.

The class name is the name on the wire, ``code`` the number for wires that know only numbers; neither ever changes.
1xx requests, 2xx volumes, 3xx images, 4xx domains and storage, 5xx tasks, 6xx images from outside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from libvdsm.api.types import (
    Bytes,
    Count,
    DomainId,
    ImageId,
    Seconds,
    SessionId,
    TaskId,
    Text,
    TransferId,
    VolumeId,
    Word,
)
from libvdsm.declare import ApiError

Reason = Annotated[Text, Meta(description="what exactly is wrong")]
Holder = Annotated[Text, Meta(description="who holds it, as far as can be seen")]
Where = Annotated[Text, Meta(description="the file or folder")]


@dataclass(eq=False)
class InvalidRequest(ApiError):
    """The message is not a request of this wire."""

    code = 100
    template = "This is not a valid request: {reason}."
    reason: Reason


@dataclass(eq=False)
class InvalidParameter(ApiError):
    """A parameter is missing, unknown, of the wrong type or out of bounds."""

    code = 101
    template = "{verb}: {reason}."
    verb: Annotated[Text, Meta(description="the verb that was called")]
    reason: Reason


@dataclass(eq=False)
class NoSuchVerb(ApiError):
    """The service has no such verb, or not yet."""

    code = 102
    template = "There is no verb {verb!r}; Host.getCapabilities lists what this service can do."
    verb: Annotated[Text, Meta(description="the verb that was called")]


@dataclass(eq=False)
class NotSupported(ApiError):
    """The verb exists, and cannot do this here."""

    code = 103
    template = "Not supported: {reason}."
    reason: Reason


@dataclass(eq=False)
class AccessDenied(ApiError):
    """The caller lacks the right that the verb needs."""

    code = 104
    template = (
        "{user} may not call {verb}, which needs the right to {right}; the administrator of this host can grant it."
    )
    user: Annotated[Text, Meta(description="the caller, as the service knows it")]
    verb: Annotated[Text, Meta(description="the verb that was called")]
    right: Annotated[Word, Meta(description="the right that it needs")]


@dataclass(eq=False)
class TooLarge(ApiError):
    """A message, or its nesting, goes beyond the configured limit."""

    code = 105
    template = "The message is too large: {reason}."
    reason: Reason


@dataclass(eq=False)
class InternalError(ApiError):
    """Something that nobody declared; the service's log has the details under the request's id."""

    code = 107
    template = "Internal error; please report it with what the log says of request {request}."
    request: Annotated[Text, Meta(description="id of the request in the log")]


@dataclass(eq=False)
class NoSuchSession(ApiError):
    """The session is unknown: it ended, or the service restarted."""

    code = 108
    template = "There is no session {session}; open one with Session.open."
    session: Annotated[SessionId, Meta(description="the session")]


@dataclass(eq=False)
class Unavailable(ApiError):
    """The service cannot take requests now."""

    code = 110
    template = "The service cannot take this now: {reason}; try again."
    reason: Reason


@dataclass(eq=False)
class ConnectionFailed(ApiError):
    """Raised by clients: the service could not be reached, or the connection ended in the middle of a call."""

    code = 111
    template = "No answer from {address}: {reason}. Is hsmd running?"
    address: Annotated[Text, Meta(description="where the client tried to reach it")]
    reason: Reason


@dataclass(eq=False)
class InvalidFilter(ApiError):
    """A filter is not an expression on the fields of what the verb lists."""

    code = 135
    template = "The filter is wrong at character {position}: {reason}."
    position: Annotated[Count, Meta(description="where in the filter, counted in characters from 1")]
    reason: Reason


@dataclass(eq=False)
class InvalidSort(ApiError):
    """An order is not a list of fields that the verb can sort by."""

    code = 136
    template = "The list cannot be sorted so: {reason}."
    reason: Reason


@dataclass(eq=False)
class InvalidCursor(ApiError):
    """A cursor is not of this list, or of one with another filter or order."""

    code = 137
    template = (
        "The cursor is not where a page of this list ended: {reason}. Leave `start` out to begin at the first page."
    )
    reason: Reason


@dataclass(eq=False)
class NoSuchVolume(ApiError):
    """The volume does not exist."""

    code = 201
    template = "Domain {domain} has no volume {volume}; see Volume.list."
    domain: Annotated[DomainId, Meta(description="the domain")]
    volume: Annotated[VolumeId, Meta(description="the volume")]


@dataclass(eq=False)
class VolumeExists(ApiError):
    """A volume has this id already, and is not what was asked for."""

    code = 202
    template = "Volume {volume} exists already and differs ({reason}); leave the id out or take another."
    volume: Annotated[VolumeId, Meta(description="the volume")]
    reason: Reason


@dataclass(eq=False)
class VolumeHasChildren(ApiError):
    """Another volume stands on this one."""

    code = 203
    template = (
        "Volume {volume} carries {children} other volume(s); only the newest volume of a chain can be changed so."
    )
    volume: Annotated[VolumeId, Meta(description="the volume")]
    children: Annotated[int, Meta(ge=1, le=2**31, description="how many stand on it")]


@dataclass(eq=False)
class VolumeIllegal(ApiError):
    """The volume is marked as not to be used."""

    code = 204
    template = (
        "Volume {volume} is marked illegal: its data may not be whole. Delete it, or make it legal if you know better."
    )
    volume: Annotated[VolumeId, Meta(description="the volume")]


@dataclass(eq=False)
class VolumeDamaged(ApiError):
    """What is on storage contradicts itself."""

    code = 205
    template = "Volume {volume} is damaged: {reason}. Nothing was changed; Domain.check tells more."
    volume: Annotated[VolumeId, Meta(description="the volume")]
    reason: Reason


@dataclass(eq=False)
class GenerationMismatch(ApiError):
    """The volume was changed by somebody else since the caller looked."""

    code = 206
    template = (
        "Volume {volume} has generation {found}, not {expected}: it changed meanwhile. Look again before you go on."
    )
    volume: Annotated[VolumeId, Meta(description="the volume")]
    expected: Annotated[int, Meta(ge=0, le=999, description="the generation that was expected")]
    found: Annotated[int, Meta(ge=0, le=999, description="the generation that it has")]


@dataclass(eq=False)
class CannotShrink(ApiError):
    """The new size is smaller than the present one."""

    code = 207
    template = (
        "Volume {volume} has {capacity} bytes; made smaller, it would lose the end of its data. Ask with `shrink` if it "
        "may."
    )
    volume: Annotated[VolumeId, Meta(description="the volume")]
    capacity: Annotated[Bytes, Meta(description="its present capacity")]


@dataclass(eq=False)
class CannotChange(ApiError):
    """The volume is of a kind that this verb does not change."""

    code = 208
    template = "Volume {volume} cannot be changed so: {reason}."
    volume: Annotated[VolumeId, Meta(description="the volume")]
    reason: Reason


@dataclass(eq=False)
class NoSuchImage(ApiError):
    """The image does not exist."""

    code = 301
    template = "Domain {domain} has no image {image}; see Image.list."
    domain: Annotated[DomainId, Meta(description="the domain")]
    image: Annotated[ImageId, Meta(description="the image")]


@dataclass(eq=False)
class ImageExists(ApiError):
    """An image has this id already, and is not what was asked for."""

    code = 302
    template = "Image {image} exists already and differs ({reason}); leave the id out or take another."
    image: Annotated[ImageId, Meta(description="the image")]
    reason: Reason


@dataclass(eq=False)
class NeedsCollapse(ApiError):
    """A chain of several volumes cannot have the form that was asked for, and one volume can."""

    code = 311
    template = (
        "A copy of image {image} keeps {volumes} volumes, and a chain cannot be {form}. "
        "Collapse it into one, or leave the form as it is."
    )
    image: Annotated[ImageId, Meta(description="the image")]
    volumes: Annotated[Count, Meta(description="how many volumes it is made of, a template's included")]
    form: Annotated[Word, Meta(description="what a chain cannot be")]


@dataclass(eq=False)
class SameDomain(ApiError):
    """An image is moved to the domain that it is on."""

    code = 312
    template = "Image {image} is on domain {domain} already. Give another domain, or make a copy."
    image: Annotated[ImageId, Meta(description="the image")]
    domain: Annotated[DomainId, Meta(description="the domain")]


@dataclass(eq=False)
class TemplateMissing(ApiError):
    """A clone goes where its template is not."""

    code = 313
    template = (
        "Image {image} stands on volume {volume} of template {base}, which domain {domain} does not have. "
        "Copy the template there first, or collapse the copy."
    )
    image: Annotated[ImageId, Meta(description="the clone")]
    base: Annotated[ImageId, Meta(description="the template")]
    volume: Annotated[VolumeId, Meta(description="the template's volume")]
    domain: Annotated[DomainId, Meta(description="where it was to go")]


@dataclass(eq=False)
class CopyDiffers(ApiError):
    """A copy reads back differently from its source."""

    code = 314
    template = (
        "The copy of image {image} reads back differently: its checksum is {copy}, the source's {source}. "
        "The copy was given back. Look at the storage."
    )
    image: Annotated[ImageId, Meta(description="the image that was copied")]
    source: Annotated[Text, Meta(description="the source's checksum")]
    copy: Annotated[Text, Meta(description="the copy's checksum")]


@dataclass(eq=False)
class ImageUnfinished(ApiError):
    """A change in place of this image has begun and not ended: it was interrupted, or goes on."""

    code = 317
    template = (
        "Image {image} has an unfinished {work}. An upload ends with its transfer, which can be finished or cancelled. "
        "For all else wait for the task; if there is none, ask for the same again, or have Domain.collectGarbage "
        "finish it."
    )
    image: Annotated[ImageId, Meta(description="the image")]
    work: Annotated[Word, Meta(description="what has begun")]


@dataclass(eq=False)
class ImageInUse(ApiError):
    """Somebody holds a lease of a volume of this image."""

    code = 303
    template = "Image {image} is in use: volume {volume} is held by {holder}. End that use, or wait until it is free."
    image: Annotated[ImageId, Meta(description="the image")]
    volume: Annotated[VolumeId, Meta(description="the volume that is held")]
    holder: Holder
    host: Annotated[Text, Meta(description="the host that holds it, where that is known")] | None = None


@dataclass(eq=False)
class NotTemplate(ApiError):
    """Only templates can be cloned: the format shares nothing else between images."""

    code = 304
    template = (
        "Image {image} is not a template, and only templates can be cloned. Turn it into one with Image.makeTemplate "
        "(it is read-only from then on), or make a template from a copy of it."
    )
    image: Annotated[ImageId, Meta(description="the image")]


@dataclass(eq=False)
class IsTemplate(ApiError):
    """Templates are never written."""

    code = 305
    template = "Image {image} is a template and never written; clone it and change the clone."
    image: Annotated[ImageId, Meta(description="the image")]


@dataclass(eq=False)
class HasSnapshots(ApiError):
    """The image has more than one volume, and the verb works on images of one."""

    code = 306
    template = (
        "Image {image} has {snapshots} snapshot(s); a template is one volume. Make the template from a copy instead."
    )
    image: Annotated[ImageId, Meta(description="the image")]
    snapshots: Annotated[int, Meta(ge=1, le=2**31, description="how many")]


@dataclass(eq=False)
class TemplateInUse(ApiError):
    """Other images stand on this template."""

    code = 307
    template = "Template {image} carries {clones} clone(s); delete those first."
    image: Annotated[ImageId, Meta(description="the template")]
    clones: Annotated[int, Meta(ge=1, le=2**31, description="how many images stand on it")]


@dataclass(eq=False)
class AlreadyPrepared(ApiError):
    """The image is prepared on this host in the other way."""

    code = 309
    template = "Image {image} is already prepared {mode} on this host; tear it down first."
    image: Annotated[ImageId, Meta(description="the image")]
    mode: Annotated[Text, Meta(description="how it is prepared")]


@dataclass(eq=False)
class ImageDamaged(ApiError):
    """The volumes of the image do not form a chain."""

    code = 310
    template = "Image {image} is damaged: {reason}. Nothing was changed; Domain.check tells more."
    image: Annotated[ImageId, Meta(description="the image")]
    reason: Reason


@dataclass(eq=False)
class NotBelow(ApiError):
    """Two volumes are no ends of a run of neighbours."""

    code = 320
    template = (
        "Volume {base} is not below volume {top} in image {image}. Name the older one first; "
        "Image.getInfo tells which stands on which."
    )
    image: Annotated[ImageId, Meta(description="the image")]
    base: Annotated[VolumeId, Meta(description="the one that should be below")]
    top: Annotated[VolumeId, Meta(description="the one that should be above")]


@dataclass(eq=False)
class NotSnapshot(ApiError):
    """The volume is the newest of its image: it keeps no earlier state."""

    code = 321
    template = (
        "Volume {volume} is the present state of image {image}, and no snapshot of it. Image.getInfo shows the "
        "snapshots; Volume.delete takes the present state away."
    )
    image: Annotated[ImageId, Meta(description="the image")]
    volume: Annotated[VolumeId, Meta(description="the volume")]


@dataclass(eq=False)
class WouldLoseSnapshots(ApiError):
    """The states that an image keeps would be lost, and nobody has said that they may."""

    code = 322
    template = (
        "Image {image} has {snapshots} snapshot(s), whose states would be lost. Ask with `discard_snapshots` if "
        "they may, or use Image.rebase, which keeps them."
    )
    image: Annotated[ImageId, Meta(description="the image")]
    snapshots: Annotated[int, Meta(ge=1, le=2**31, description="how many")]


@dataclass(eq=False)
class BitmapsNotSupported(ApiError):
    """The image's newest volume cannot have bitmaps, or not such ones."""

    code = 330
    template = "Volume {volume} cannot have this bitmap: {reason}."
    volume: Annotated[VolumeId, Meta(description="the image's newest volume")]
    reason: Reason


@dataclass(eq=False)
class NoSuchBitmap(ApiError):
    """The image has no bitmap of this name."""

    code = 331
    template = "Image {image} has no bitmap {bitmap}; see Bitmap.list."
    image: Annotated[ImageId, Meta(description="the image")]
    bitmap: Annotated[Text, Meta(description="the bitmap's name")]


@dataclass(eq=False)
class BitmapExists(ApiError):
    """The image has a bitmap of this name already, and it is not what was asked for."""

    code = 332
    template = "Image {image} has a bitmap {bitmap} already ({reason}); remove it first, or take another name."
    image: Annotated[ImageId, Meta(description="the image")]
    bitmap: Annotated[Text, Meta(description="the bitmap's name")]
    reason: Reason


@dataclass(eq=False)
class BitmapUnusable(ApiError):
    """The bitmap does not know all that was written."""

    code = 333
    template = (
        "Bitmap {bitmap} of image {image} cannot be relied upon: {reason}. Make a full backup, and begin a bitmap anew "
        "with Bitmap.clear or Bitmap.add."
    )
    image: Annotated[ImageId, Meta(description="the image")]
    bitmap: Annotated[Text, Meta(description="the bitmap's name")]
    reason: Reason


@dataclass(eq=False)
class TooManyBitmaps(ApiError):
    """The image's newest volume has as many bitmaps as it may have."""

    code = 334
    template = (
        "Image {image} has {count} bitmaps, and each costs memory and time; remove some that are of no use any more."
    )
    image: Annotated[ImageId, Meta(description="the image")]
    count: Annotated[int, Meta(ge=1, le=2**31, description="how many")]


@dataclass(eq=False)
class NoSuchDomain(ApiError):
    """The domain is not attached to this service."""

    code = 401
    template = "Domain {domain} is not attached here; see Domain.list and Domain.attach."
    domain: Annotated[DomainId, Meta(description="the domain")]


@dataclass(eq=False)
class DomainExists(ApiError):
    """The domain exists already, and is not what was asked for."""

    code = 402
    template = "Domain {domain} exists already and differs ({reason}); leave the id out or take another."
    domain: Annotated[DomainId, Meta(description="the domain")]
    reason: Reason


@dataclass(eq=False)
class DomainNotFound(ApiError):
    """There is no such domain at this place."""

    code = 403
    template = "There is no domain to attach at {path}: {reason}."
    path: Where
    reason: Reason


@dataclass(eq=False)
class DomainBusy(ApiError):
    """Somebody else changes the domain's metadata, for longer than it may take."""

    code = 404
    template = "Domain {domain} is being changed by {holder} for longer than {waited:.0f} s; try again."
    domain: Annotated[DomainId, Meta(description="the domain")]
    holder: Holder
    waited: Annotated[float, Meta(ge=0, description="how long was waited", extra={"unit": "seconds"})]


@dataclass(eq=False)
class DomainInUse(ApiError):
    """Images of the domain are in use."""

    code = 405
    template = "Domain {domain} is in use: {reason}."
    domain: Annotated[DomainId, Meta(description="the domain")]
    reason: Reason


@dataclass(eq=False)
class DomainNotEmpty(ApiError):
    """The domain holds images."""

    code = 406
    template = (
        "Domain {domain} holds {images} image(s), which formatting would destroy; delete them first, or force it."
    )
    domain: Annotated[DomainId, Meta(description="the domain")]
    images: Annotated[int, Meta(ge=1, le=2**31, description="how many")]


@dataclass(eq=False)
class DomainDamaged(ApiError):
    """The domain's own metadata cannot be read."""

    code = 407
    template = "Domain {domain} is damaged: {reason}. Nothing was changed."
    domain: Annotated[DomainId, Meta(description="the domain")]
    reason: Reason


@dataclass(eq=False)
class UnknownDomainType(ApiError):
    """No driver for this type of domain is installed."""

    code = 408
    template = "There is no driver for domains of type {type!r}; installed: {installed}."
    type: Annotated[Text, Meta(description="the type asked for")]
    installed: Annotated[Text, Meta(description="the types that can be used")]


@dataclass(eq=False)
class PathNotUsable(ApiError):
    """The path cannot be used for this."""

    code = 409
    template = "{path} cannot be used: {reason}."
    path: Where
    reason: Reason


@dataclass(eq=False)
class NoSpace(ApiError):
    """The storage is full."""

    code = 410
    template = "Domain {domain} has no space left ({reason}). What was begun is given back; free space and try again."
    domain: Annotated[DomainId, Meta(description="the domain")]
    reason: Reason


@dataclass(eq=False)
class StorageFailed(ApiError):
    """The storage answered with an error."""

    code = 411
    template = "The storage of domain {domain} failed: {reason}. Look at the storage, then try again."
    domain: Annotated[DomainId, Meta(description="the domain")]
    reason: Reason


@dataclass(eq=False)
class DomainReadOnly(ApiError):
    """The domain can be read, and not changed, by this service."""

    code = 412
    template = "Domain {domain} can only be read here: {reason}."
    domain: Annotated[DomainId, Meta(description="the domain")]
    reason: Reason


@dataclass(eq=False)
class NoSuchTask(ApiError):
    """The task is unknown, or was cleared."""

    code = 501
    template = "There is no task {task}; see Task.list."
    task: Annotated[TaskId, Meta(description="the task")]


@dataclass(eq=False)
class TaskNotEnded(ApiError):
    """Only tasks that ended can be cleared."""

    code = 502
    template = "Task {task} has not ended; stop it or wait for it."
    task: Annotated[TaskId, Meta(description="the task")]


@dataclass(eq=False)
class TaskPastStopping(ApiError):
    """The task has published its change, or ended."""

    code = 503
    template = "Task {task} cannot be stopped any more: {reason}."
    task: Annotated[TaskId, Meta(description="the task")]
    reason: Reason


@dataclass(eq=False)
class TaskStopped(ApiError):
    """The task was stopped before it changed anything."""

    code = 504
    template = "Stopped as asked, before anything was changed."


@dataclass(eq=False)
class Interrupted(ApiError):
    """The service ended in the middle of the task, before its commit point."""

    code = 505
    template = "The service ended before this was done, and nothing was changed; ask for it again."


@dataclass(eq=False)
class TaskIdRequired(ApiError):
    """The client owns its tasks, and did not say which one this is."""

    code = 506
    template = (
        "{verb} makes a task that its caller owns, and came without its id. Open a session with an owner "
        "(Session.open), and send an id with the call: the member task of JSON-RPC, the header Task-Id of HTTP."
    )
    verb: Annotated[Text, Meta(description="the verb that was called")]


@dataclass(eq=False)
class TaskExists(ApiError):
    """The id stands for another task of the same owner."""

    code = 507
    template = "Task {task} is {verb} already, with other parameters than these; choose a new id for a new task."
    task: Annotated[TaskId, Meta(description="the task")]
    verb: Annotated[Text, Meta(description="the verb that it was started by")]


@dataclass(eq=False)
class OwnerAbsent(ApiError):
    """The task was stopped before it changed anything, since the client that owns it was gone."""

    code = 508
    template = "Its owner was gone for {grace:g} s, so it was stopped before anything was changed; ask for it again."
    grace: Annotated[Seconds, Meta(description="how long an owner may be gone")]


@dataclass(eq=False)
class FormatMismatch(ApiError):
    """The file is of another format than was said."""

    code = 601
    template = "The file was declared to be {declared}, and is {found}: {reason}. Nothing was imported."
    declared: Annotated[Text, Meta(description="the format that the caller declared")]
    found: Annotated[Text, Meta(description="the format that the content has")]
    reason: Reason


@dataclass(eq=False)
class UnsafeImage(ApiError):
    """The file makes whoever opens it open other files of this host."""

    code = 602
    template = (
        "The file refers to other files, and was refused: {reason}. Flatten it into one file where it comes from."
    )
    kind: Annotated[Word, Meta(description="the way in which it refers to them")]
    reason: Reason


@dataclass(eq=False)
class UnsupportedImage(ApiError):
    """The file is of a format that cannot be imported."""

    code = 603
    template = "The file cannot be imported: {reason}. Convert it to raw or qcow2 where it comes from."
    reason: Reason


@dataclass(eq=False)
class DamagedImage(ApiError):
    """The file contradicts itself, or is cut off."""

    code = 604
    template = "The file is damaged: {reason}. Nothing was imported."
    reason: Reason


@dataclass(eq=False)
class ToolFailed(ApiError):
    """A program that does the work ended with an error."""

    code = 605
    template = "{tool} failed: {reason}. Nothing was changed."
    tool: Annotated[Text, Meta(description="the program")]
    reason: Reason


@dataclass(eq=False)
class FileNotUsable(ApiError):
    """The file outside the domain cannot be read or written."""

    code = 606
    template = "The file cannot be used: {reason}."
    reason: Reason


@dataclass(eq=False)
class NoSuchTransfer(ApiError):
    """The transfer is unknown, or ended too long ago."""

    code = 607
    template = "There is no transfer {transfer}; see Transfer.list."
    transfer: Annotated[TransferId, Meta(description="the transfer")]


@dataclass(eq=False)
class TransferStateWrong(ApiError):
    """The transfer is not in a state in which this can be done."""

    code = 608
    template = "Transfer {transfer} is {state}: {reason}."
    transfer: Annotated[TransferId, Meta(description="the transfer")]
    state: Annotated[Word, Meta(description="its state")]
    reason: Reason


@dataclass(eq=False)
class TransferExists(ApiError):
    """A transfer has this id already, and is not what was asked for."""

    code = 609
    template = "Transfer {transfer} exists already and differs ({reason}); leave the id out or take another."
    transfer: Annotated[TransferId, Meta(description="the transfer")]
    reason: Reason


@dataclass(eq=False)
class ChecksumMismatch(ApiError):
    """What arrived is not what was sent."""

    code = 610
    template = "The checksum of what arrived is {found}, not {expected}. The image is not used; send it again."
    expected: Annotated[Text, Meta(description="the checksum that the caller gave")]
    found: Annotated[Text, Meta(description="the checksum of what is there")]


COMMON: tuple[type[ApiError], ...] = (
    InvalidRequest,
    InvalidParameter,
    NoSuchVerb,
    AccessDenied,
    TooLarge,
    NoSuchSession,
    Unavailable,
    InternalError,
    TaskIdRequired,
    TaskExists,
    OwnerAbsent,
)
"""What any verb may answer, whatever it declares."""
