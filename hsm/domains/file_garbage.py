# SPDX-License-Identifier: Apache-2.0
"""Garbage of domains that are folders: what it looks like, and how it is given back.

Life is proved by leases alone.  A maker locks a new volume's lease while it holds the domain's, so whoever holds the
domain's lease and gets the volume's knows that nobody is at work on it.  Files that this service would not have made
are never touched; and data that has no other link, in a folder to which it does not belong, is kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from uuid import UUID

from hsm.domains import durable, file_attributes, presence
from hsm.domains.base import Garbage, Held, LeaseBusy
from hsm.domains.names import (
    ATTRIBUTES,
    LEASE,
    META,
    NEW,
    REMOVED,
    as_id,
    attributes_of,
    removed,
    volume_of,
)
from hsm.formats import volume as volume_format
from hsm.formats.attributes import BadAttributes
from libvdsm.api.types import VolumeId

Acquire = Callable[[Sequence[tuple[VolumeId, str, bool]]], Held]
"""Acquires leases given as (volume, lease file, shared), all or none; raises ``LeaseBusy``."""


def find(root: str) -> Iterator[Garbage]:
    """Everything in a domain's folder that nobody published, or that was unpublished."""
    for name in sorted(os.listdir(os.path.join(root, "images"))):
        path = os.path.join(root, "images", name)
        if os.path.islink(path):
            continue
        if removed(name):
            yield Garbage(path=f"images/{name}", begun=False)
        elif as_id(name) and presence.is_folder(path):
            yield from _find_in_image(path, f"images/{name}")
    special = os.path.join(root, "dom_md")
    for name in sorted(os.listdir(special)):
        if name.startswith("metadata") and name.endswith(NEW):
            yield Garbage(path=f"dom_md/{name}", begun=True)


def _find_in_image(folder: str, relative: str) -> Iterator[Garbage]:
    names = _files(folder)
    if not _published(folder, names):
        if _only_ours(folder):
            yield Garbage(path=relative, begun=True)
        return
    for name in sorted(names):
        volume = volume_of(name)
        if removed(name):
            yield Garbage(path=os.path.join(relative, name), begun=False)
        elif attributes_of(name) and name.endswith(NEW):
            yield Garbage(path=os.path.join(relative, name), begun=True)
        elif volume is None or _is_removed(names, volume):
            continue
        elif name.endswith(NEW) or (f"{volume}{META}" not in names and not _needed(folder, volume)):
            yield Garbage(path=os.path.join(relative, name), begun=True)


def _files(folder: str) -> set[str]:
    """The names of files; folders and links are nothing that we make."""
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}


def _only_ours(folder: str) -> bool:
    """Whether a folder holds nothing that we would not have made."""
    with os.scandir(folder) as entries:
        return all(
            entry.is_file(follow_symlinks=False)
            and (volume_of(entry.name) or removed(entry.name) or attributes_of(entry.name))
            for entry in entries
        )


def _is_removed(names: set[str], volume: object) -> bool:
    """Whether the volume was unpublished: then it is given back as a whole, by its renamed metadata."""
    return any(name.startswith(REMOVED) and str(volume) in name for name in names)


def _published(folder: str, names: set[str]) -> bool:
    """Whether an image's folder holds a volume of its own with metadata, or with metadata that cannot be read.

    Of an image that is made of several, whether it holds the leaf.
    """
    image = os.path.basename(folder)
    if f"{image}{ATTRIBUTES}" in names:
        try:
            making = file_attributes.read(folder).making
        except BadAttributes:
            return True
        if making is not None:
            return f"{making.leaf}{META}" in names
    for name in names:
        if name.endswith(META) and as_id(name[:36]):
            try:
                if str(volume_format.parse(_read(os.path.join(folder, name))).image) == image:
                    return True
            except volume_format.BadMetadata:
                return True
            except FileNotFoundError:
                continue
    return False


def _needed(folder: str, volume: UUID) -> bool:
    """Whether a published volume stands on this one, whose metadata then was lost; or may, as it cannot be read."""
    for name in os.listdir(folder):
        if name.endswith(META) and as_id(name[: -len(META)]):
            try:
                if volume_format.parse(_read(os.path.join(folder, name))).parent == volume:
                    return True
            except volume_format.BadMetadata:
                return True
            except FileNotFoundError:
                continue
    return False


def reclaim(root: str, garbage: Garbage, acquire: Acquire) -> int | None:
    """Give garbage back: bytes freed, or None if it is left alone."""
    path = os.path.join(root, garbage.path)
    name = os.path.basename(path)
    if not presence.exists(path):
        return 0
    if os.path.islink(path):
        return None
    if presence.is_folder(path):
        return _reclaim_folder(path, garbage, acquire)
    gone = removed(name)
    if gone is not None:
        return _reclaim_volume(os.path.dirname(path), VolumeId(gone[0]), path, acquire, wipe=gone[1])
    volume = volume_of(name)
    if name.endswith(NEW):
        # Only who holds the domain's lease renames such files into place, and that is the caller.
        return _unlink(path)
    if volume is None or presence.exists(os.path.join(os.path.dirname(path), f"{volume}{META}")):
        return None
    return _reclaim_volume(os.path.dirname(path), VolumeId(volume), None, acquire, wipe=False)


def _reclaim_volume(folder: str, volume: VolumeId, renamed: str | None, acquire: Acquire, *, wipe: bool) -> int | None:
    """One volume of an image that goes on: its data, its lease, and last what says that it was deleted."""
    data = os.path.join(folder, str(volume))
    held = _try(acquire, [(volume, data + LEASE)])
    if held is None:
        return None
    try:
        if presence.exists(data + META):
            # It was made again under the same id.
            return _unlink(renamed) if renamed else None
        if _needed(folder, volume):
            return None
        freed = _unlink(data, wipe=wipe) + _unlink(data + LEASE)
        durable.sync_folders(folder)
        return freed + (_unlink(renamed) if renamed else 0)
    finally:
        held.release()


def _reclaim_folder(folder: str, garbage: Garbage, acquire: Acquire) -> int | None:
    """A whole image: one that was deleted, or one that never was published."""
    name = os.path.basename(folder)
    gone = removed(name)
    image = gone[0] if gone else as_id(name)
    wipe = bool(gone and gone[1])
    own = _own_volumes(folder, image)
    held = _try(acquire, [(volume, os.path.join(folder, f"{volume}{LEASE}")) for volume in own])
    if held is None:
        return None
    try:
        names = os.listdir(folder)
        if garbage.begun and _published(folder, set(names)):
            return None
        if not _only_ours(folder) or _would_lose(folder, names, own):
            return None
        freed = 0
        # What says that the image was not published goes after all that would say that it is.
        for found in sorted(names, key=_last_things_last):
            if garbage.begun and attributes_of(found):
                durable.sync_folders(folder)
            mine = volume_of(found) in own
            freed += _unlink(os.path.join(folder, found), wipe=wipe and mine and as_id(found) is not None)
        os.rmdir(folder)
        durable.sync_folders(os.path.dirname(folder))
        return freed
    finally:
        held.release()


def _last_things_last(name: str) -> int:
    return 3 if attributes_of(name) else 2 if name.endswith(LEASE) else 1 if name.endswith(META) else 0


def _own_volumes(folder: str, image: UUID | None) -> set[VolumeId]:
    """The volumes in a folder that are not a template's, linked there."""
    names = os.listdir(folder)
    volumes = {VolumeId(found) for name in names if (found := volume_of(name))}
    for volume in list(volumes):
        try:
            if volume_format.parse(_read(os.path.join(folder, f"{volume}{META}"))).image != image:
                volumes.discard(volume)
        except (volume_format.BadMetadata, FileNotFoundError):
            continue
    return volumes


def _would_lose(folder: str, names: list[str], own: set[VolumeId]) -> bool:
    """Whether a template's data is linked nowhere else any more: then this is no garbage but a remainder."""
    linked = [name for name in names if (found := as_id(name)) and VolumeId(found) not in own]
    return any(os.stat(os.path.join(folder, name)).st_nlink < 2 for name in linked)


def _try(acquire: Acquire, wanted: list[tuple[VolumeId, str]]) -> Held | None:
    """The leases that exist, or None if one is held.  One that never was made holds nothing alive."""
    try:
        return acquire([(volume, path, False) for volume, path in sorted(wanted) if presence.exists(path)])
    except LeaseBusy:
        return None


def _unlink(path: str, *, wipe: bool = False) -> int:
    """Take a file away: the bytes that this gives back."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return 0
    if wipe and status.st_nlink == 1:
        durable.wipe(path)
    with suppress(FileNotFoundError):
        os.unlink(path)
    return status.st_blocks * 512 if status.st_nlink == 1 else 0


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(4096)
