# SPDX-License-Identifier: Apache-2.0
"""Domains that are folders: oVirt's V5 layout, as local, NFS and Gluster domains have it.

``dom_md/metadata`` is the domain's own; ``images/<image>/<volume>`` is a volume's data, beside it ``.meta`` and
``.lease``.  A volume is published when its ``.meta`` is there under its name, which is one rename; a template's
volume is hard-linked into the folders of its clones.  What was unpublished is renamed to ``_remove_me_…`` (or
``_remove_me_ZERO_…`` when it is to be wiped), and may be taken away at any later time.
"""

from __future__ import annotations

import errno
import os
import shutil
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from hsm.domains import durable, file_attributes, file_garbage, file_links, presence
from hsm.domains.base import (
    Damaged,
    Domain,
    DomainMissing,
    Garbage,
    Held,
    ImageRecord,
    NewVolume,
    Space,
    VolumeRecord,
    Wanted,
)
from hsm.domains.names import ATTRIBUTES, REMOVED, WIPED, as_id
from hsm.domains.names import LEASE as _LEASE
from hsm.domains.names import META as _META
from hsm.domains.names import NEW as _NEW
from hsm.formats import attributes as attributes_format
from hsm.formats import domain as domain_format
from hsm.formats import qcow2
from hsm.formats import volume as volume_format
from hsm.formats.attributes import Attributes, BadAttributes
from hsm.formats.domain import DomainMetadata
from hsm.formats.volume import BadMetadata, VolumeMetadata
from libvdsm.api.types import Allocation, DomainId, ImageId, VolumeFormat, VolumeId

_METADATA_LIMIT = 4096
_SPECIAL = {"ids": 0, "leases": 0, "inbox": 16 * 2**20, "outbox": 16 * 2**20, "xleases": 0}
"""Files beside the metadata, and their lengths: those that sanlock formats begin empty."""


class FileDomain(Domain):
    """What all domains that are folders have in common; leases are the driver's."""

    def __init__(self, domain: DomainId, path: str, host_id: int = 1) -> None:
        self.id = domain
        self.path = path
        self.host_id = host_id
        self.root = os.path.join(path, str(domain))
        self.images = os.path.join(self.root, "images")
        self._metadata = os.path.join(self.root, "dom_md", "metadata")

    # ---- the domain itself

    @classmethod
    def make_tree(cls, domain: DomainId, path: str, metadata: DomainMetadata) -> None:
        """Make a domain's folders and files, its metadata last; or nothing, where that fails."""
        root = os.path.join(path, str(domain))
        special, images = os.path.join(root, "dom_md"), os.path.join(root, "images")
        if presence.is_folder(images) and os.listdir(images):
            raise FileExistsError(errno.EEXIST, "it holds images, and its metadata is lost", root)
        try:
            for folder in (root, special, images):
                with suppress(FileExistsError):
                    os.mkdir(folder, 0o755)
            for name, length in _SPECIAL.items():
                durable.write_new(os.path.join(special, name), b"", length=length)
            durable.sync_folders(images, root, path)
            durable.replace(os.path.join(special, "metadata"), domain_format.write(metadata), suffix=_NEW)
        except OSError:
            with suppress(OSError):
                _unmake_tree(special, images, root)
            raise

    @classmethod
    def discover(cls, path: str) -> list[DomainId]:
        return sorted(
            DomainId(found)
            for entry in os.scandir(path)
            if (found := as_id(entry.name)) and presence.exists(os.path.join(entry.path, "dom_md", "metadata"))
        )

    def metadata(self) -> DomainMetadata:
        try:
            with open(self._metadata, "rb") as file:
                found = domain_format.parse(file.read(_METADATA_LIMIT * 16))
        except FileNotFoundError:
            msg = f"{self._metadata} does not exist"
            raise DomainMissing(msg) from None
        if found.id != self.id:
            msg = f"its metadata is domain {found.id}'s"
            raise BadMetadata(msg)
        return found

    def set_metadata(self, metadata: DomainMetadata) -> None:
        durable.replace(self._metadata, domain_format.write(metadata), suffix=f".{self.host_id}{_NEW}")

    def space(self) -> Space:
        found = os.statvfs(self.root)
        return Space(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)

    def refuse_unless_unpublished(self) -> None:
        """What still has its name is a damaged domain, perhaps with images in it, and not one half destroyed."""
        if presence.is_folder(self.root):
            msg = "its folder is there, and it has no metadata that say that it is such a domain"
            raise BadMetadata(msg)

    def destroy(self) -> None:
        removed = os.path.join(self.path, REMOVED + str(self.id))
        if presence.is_folder(self.root):
            os.rename(self.root, removed)
            durable.sync_folders(self.path)
        if presence.is_folder(removed):
            shutil.rmtree(removed)
            durable.sync_folders(self.path)

    # ---- reading

    def image_ids(self) -> list[ImageId]:
        return [ImageId(found) for name in sorted(os.listdir(self.images)) if (found := as_id(name))]

    def image(self, image: ImageId) -> ImageRecord | None:
        folder = f"{self.images}/{image}"
        try:
            names = os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            return None
        volumes: dict[VolumeId, VolumeRecord] = {}
        damaged: list[Damaged] = []
        for name in names:
            if not name.endswith(_META) or (found := as_id(name[: -len(_META)])) is None:
                continue
            record = self._read_volume(f"{folder}/{name[: -len(_META)]}", image, VolumeId(found))
            if isinstance(record, VolumeRecord):
                volumes[record.id] = record
            elif record is not None:
                damaged.append(record)
        kept = attributes_format.NONE
        if f"{image}{ATTRIBUTES}" in names:
            try:
                kept = file_attributes.read(folder)
            except BadAttributes as error:
                damaged.append(
                    Damaged(path=self._relative(f"{folder}/{image}{ATTRIBUTES}"), reason=str(error), image=image)
                )
        for id_, volume in volumes.items():
            # A template's volume has its tags where the template is, in whichever image it is linked.
            home = self._attributes_of(ImageId(volume.metadata.image)) if volume.is_linked else kept
            if tags := home.tags_of(id_):
                volumes[id_] = msgspec.structs.replace(volume, tags=tags)
        return ImageRecord(id=image, volumes=volumes, damaged=damaged, attributes=kept)

    def _attributes_of(self, image: ImageId) -> Attributes:
        """Of another image than the one that is read, which tells of its own damage."""
        try:
            return file_attributes.read(f"{self.images}/{image}")
        except BadAttributes:
            return attributes_format.NONE

    def _read_volume(self, data_path: str, image: ImageId, volume: VolumeId) -> VolumeRecord | Damaged | None:
        try:
            written = _read(data_path + _META, _METADATA_LIMIT)
        except FileNotFoundError:
            # It was unpublished since the folder was read.
            return None
        try:
            metadata = volume_format.parse(written)
            if metadata.image != image:
                metadata = self._original(metadata, volume)
            is_qcow2 = metadata.format is VolumeFormat.QCOW2
            status, start = _look(data_path, qcow2.READ) if is_qcow2 else (os.stat(data_path), b"")
        except (BadMetadata, FileNotFoundError) as error:
            reason = "its data is missing" if isinstance(error, FileNotFoundError) else str(error)
            return Damaged(path=self._relative(data_path), reason=reason, image=image, volume=volume)
        header = damage = None
        if is_qcow2:
            try:
                header = qcow2.with_bitmaps(
                    qcow2.parse(start, status.st_size), lambda at, n: _read_at(data_path, at, n)
                )
            except qcow2.BadHeader as error:
                damage = str(error)
        return VolumeRecord(
            id=volume,
            folder=image,
            metadata=metadata,
            length=status.st_size,
            actual_size=status.st_blocks * 512,
            links=status.st_nlink,
            header=header,
            damage=damage,
        )

    def _original(self, linked: VolumeMetadata, volume: VolumeId) -> VolumeMetadata:
        """A template's metadata from its own folder: replacing a file leaves links to it behind."""
        own = os.path.join(self.images, str(linked.image), f"{volume}{_META}")
        try:
            return volume_format.parse(_read(own, _METADATA_LIMIT))
        except FileNotFoundError:
            return linked

    def find_volume(self, volume: VolumeId) -> ImageId | None:
        name = f"{volume}{_META}"
        for image in self.image_ids():
            path = os.path.join(self.images, str(image), name)
            if presence.exists(path):
                try:
                    return ImageId(volume_format.parse(_read(path, _METADATA_LIMIT)).image)
                except BadMetadata:
                    return image
        return None

    def clones(self, image: ImageId) -> int:
        record = self.image(image)
        if record is None or not any(volume.links > 1 for volume in record.own):
            return 0
        own = {volume.id for volume in record.own}
        count = 0
        for other in self.image_ids():
            if other != image and any(presence.exists(self._file(other, volume)) for volume in own):
                count += 1
        return count

    def data_path(self, image: ImageId, volume: VolumeId) -> str:
        return self._file(image, volume)

    def lease_path(self, image: ImageId, volume: VolumeId) -> str:
        return self._file(image, volume) + _LEASE

    def has_lease(self, image: ImageId, volume: VolumeId) -> bool:
        return presence.exists(self.lease_path(image, volume))

    def _file(self, image: ImageId, volume: VolumeId) -> str:
        return f"{self.images}/{image}/{volume}"

    def _relative(self, path: str) -> str:
        return os.path.relpath(path, self.root)

    # ---- making

    def begin_volume(self, new: NewVolume) -> Held:
        folder = os.path.join(self.images, str(new.image))
        if new.first:
            # Also when a maker that crashed left the folder: nobody knows whether its entry is on stable storage.
            with suppress(FileExistsError):
                os.mkdir(folder, 0o755)
            durable.sync_folders(self.images)
        durable.write_new(self.lease_path(new.image, new.volume), b"", sync=False)
        held = self.acquire([Wanted(new.volume, new.image)])
        try:
            if new.template is not None:
                self._link_template(*new.template, new.image)
        except BaseException:
            held.release()
            raise
        return held

    @abstractmethod
    def acquire_files(self, wanted: Sequence[tuple[VolumeId, str, bool]]) -> Held:
        """Acquire leases given as (volume, lease file, shared), in this order, all or none; the driver's."""

    def acquire(self, wanted: Sequence[Wanted]) -> Held:
        return self.acquire_files(
            [(lease.volume, self.lease_path(lease.image, lease.volume), lease.shared) for lease in sorted(set(wanted))]
        )

    def _link_template(self, template: ImageId, volume: VolumeId, image: ImageId) -> None:
        for suffix in ("", _LEASE, _META):
            source, target = self._file(template, volume) + suffix, self._file(image, volume) + suffix
            with suppress(FileExistsError):
                os.link(source, target)

    def make_data(self, new: NewVolume, content: Sequence[tuple[int, bytes]]) -> None:
        durable.write_new(
            self._file(new.image, new.volume),
            content,
            length=new.length,
            allocate=new.allocation is Allocation.PREALLOCATED,
        )

    def sync_data(self, image: ImageId, volume: VolumeId) -> None:
        durable.sync_file(self._file(image, volume))

    def extend_data(self, image: ImageId, volume: VolumeId, length: int, allocation: Allocation) -> None:
        durable.extend(self._file(image, volume), length, allocate=allocation is Allocation.PREALLOCATED)

    def shrink_data(self, image: ImageId, volume: VolumeId, length: int) -> None:
        durable.cut(self._file(image, volume), length)

    def publish(self, image: ImageId, volume: VolumeId, metadata: VolumeMetadata) -> None:
        self.rewrite(image, volume, metadata)

    def rewrite(self, image: ImageId, volume: VolumeId, metadata: VolumeMetadata) -> None:
        # Host and generation in the name: two hosts never write one temporary file.
        suffix = f".{self.host_id}.{metadata.generation}{_NEW}"
        durable.replace(self._file(image, volume) + _META, volume_format.write(metadata), suffix=suffix)

    def set_attributes(self, image: ImageId, attributes: Attributes) -> None:
        file_attributes.replace(f"{self.images}/{image}", attributes, suffix=f".{self.host_id}{_NEW}")

    # ---- unmaking

    def unpublish_image(self, image: ImageId, *, wipe: bool) -> Garbage:
        removed = os.path.join(self.images, (WIPED if wipe else REMOVED) + str(image))
        left = Garbage(path=self._relative(removed), begun=False)
        if presence.is_folder(removed):
            # An image of the same id was deleted before, and its remains are still there.
            self.reclaim(left)
        os.rename(os.path.join(self.images, str(image)), removed)
        durable.sync_folders(self.images)
        return left

    def unpublish_volume(self, image: ImageId, volume: VolumeId, *, wipe: bool) -> Garbage:
        folder = os.path.join(self.images, str(image))
        removed = os.path.join(folder, f"{WIPED if wipe else REMOVED}{volume}{_META}")
        os.rename(self._file(image, volume) + _META, removed)
        durable.sync_folders(folder)
        return Garbage(path=self._relative(removed), begun=False)

    def link_template(self, image: ImageId, template: ImageId, volume: VolumeId) -> None:
        self._link_template(template, volume, image)
        durable.sync_folders(f"{self.images}/{image}")

    def unlink_template(self, image: ImageId, volume: VolumeId) -> None:
        file_links.remove(self._file(image, volume), image)

    def abandon(self, image: ImageId, volume: VolumeId) -> None:
        for path in (f"images/{image}/{volume}", f"images/{image}/{volume}{_LEASE}", f"images/{image}"):
            if presence.is_folder(os.path.join(self.root, path)) and self._is_published(image):
                continue
            self.reclaim(Garbage(path=path, begun=True))

    def _is_published(self, image: ImageId) -> bool:
        record = self.image(image)
        return record is not None and record.published

    def garbage(self) -> list[Garbage]:
        return list(file_garbage.find(self.root))

    def reclaim(self, garbage: Garbage) -> int | None:
        return file_garbage.reclaim(self.root, garbage, self.acquire_files)


def _unmake_tree(special: str, images: str, root: str) -> None:
    """Take a domain away that nobody has been told of; metadata first, as it was made last."""
    for name in ("metadata", f"metadata{_NEW}", *_SPECIAL):
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(special, name))
    for folder in (special, images, root):
        with suppress(FileNotFoundError):
            os.rmdir(folder)


def _read(path: str, limit: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, limit)
    finally:
        os.close(descriptor)


def _read_at(path: str, offset: int, length: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)


def _look(path: str, limit: int) -> tuple[os.stat_result, bytes]:
    """A file's status and its first bytes, its name being looked up once."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.fstat(descriptor), os.read(descriptor, limit)
    finally:
        os.close(descriptor)
