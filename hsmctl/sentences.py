# SPDX-License-Identifier: Apache-2.0
"""What a change says when it is done: one sentence for each verb that changes something."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hsmctl.output import View
from hsmctl.shown import Shown
from hsmctl.values import show_size
from libvdsm.api.image_copies import CopyInfo
from libvdsm.api.types import ImageInfo


def _about(image: ImageInfo) -> str:
    return f"{image.name or 'image without a name'}, {show_size(image.capacity)}, id {image.id}"


def _tagged(tags: Sequence[str] | None, what: str) -> str:
    return f"{what} is tagged {', '.join(tags)}." if tags else f"{what} has no tags."


def _compared(done: CopyInfo) -> str:
    return f"\nBoth sides have the checksum {done.checksum.checksum}." if done.checksum else ""


def _snapshots(image: ImageInfo) -> str:
    return f"it has {image.snapshots or 'no'} snapshot{'' if image.snapshots == 1 else 's'} now"


SENTENCES: dict[str, Callable[[Any, Shown], View]] = {
    "Image.create": lambda image, _: f"Created {_about(image)}.",
    "Image.clone": lambda image, s: f"Cloned {s.name('template')}: {_about(image)}.",
    "Image.import": lambda image, s: f"Imported {_about(image)}{'; the file was taken as raw' if s.taken_raw else ''}.",
    "Image.snapshot": lambda image, s: (
        f"Kept the present state of {image.name or image.id} as a snapshot"
        f"{' named ' + s.given['name'] if s.given.get('name') else ''}; it has {image.snapshots} now."
    ),
    "Image.makeTemplate": lambda image, _: f"Template {_about(image)}.",
    "Image.export": lambda done, s: (
        f"Exported {s.name('image')}: {done.format.value}, {show_size(done.length)}; "
        f"a guest sees {show_size(done.capacity)}."
    ),
    "Image.snapshotMany": lambda group, s: (
        f"Kept the present state of {len(group.items)} images{' as ' + s.given['name'] if s.given.get('name') else ''}."
    ),
    "Image.deleteMany": lambda _, s: f"Deleted {len(s.given['images'])} images.",
    "Image.setTags": lambda image, s: _tagged(image.tags, s.name("image")),
    "Volume.setTags": lambda volume, s: _tagged(volume.tags, s.name("volume")),
    "Image.copy": lambda done, s: f"Copied {s.name('image')}: {_about(done.image)}.{_compared(done)}",
    "Image.move": lambda done, _: f"Moved {_about(done.image)}.{_compared(done)}",
    "Image.checksum": lambda found, s: f"{found.checksum}  {s.name('image')}",
    "Volume.copy": lambda done, s: f"Copied {s.name('volume')}: {_about(done.image)}.{_compared(done)}",
    "Bitmap.add": lambda bitmap, s: f"{s.name('image')} records what is written since now in bitmap {bitmap.name}.",
    "Bitmap.clear": lambda bitmap, _: f"Bitmap {bitmap.name} begins anew.",
    "Bitmap.remove": lambda _, s: f"Removed bitmap {s.given['bitmap']}.",
    "Secret.define": lambda secret, _: f"Secret {secret.name or 'without a name'} is defined here, id {secret.id}.",
    "Secret.generate": lambda secret, _: f"Made secret {secret.name or 'without a name'}, id {secret.id}.",
    "Secret.delete": lambda _, s: f"Secret {s.name('secret')} is forgotten here.",
    "Image.delete": lambda _, s: f"Deleted image {s.name('image')}.",
    "Image.teardown": lambda _, s: f"Image {s.name('image')} is no longer in use here.",
    "Image.merge": lambda image, s: f"Merged layers of {s.name('image')}; {_snapshots(image)}.",
    "Image.deleteSnapshot": lambda image, s: (
        f"Deleted snapshot {s.name('volume')} of {s.name('image')}; {_snapshots(image)}."
    ),
    "Image.revert": lambda image, s: (
        f"{s.name('image')} is as in snapshot {s.name('volume')} again, {show_size(image.capacity)}; {_snapshots(image)}."
    ),
    "Image.flatten": lambda _, s: f"{s.name('image')} stands alone now, in one layer.",
    "Image.rebase": lambda image, s: (
        f"{s.name('image')} stands on {s.name('template')} now."
        if image.template
        else f"{s.name('image')} stands on no template now."
    ),
    "Image.sparsify": lambda done, s: (
        f"Gave back {show_size(done.freed) if done.freed else 'nothing'} of {s.name('image')}, which takes {show_size(done.image.actual_size)} now."
    ),
    "Volume.amend": lambda volume, s: f"{s.name('volume')} is qcow2 {volume.compat.value} now.",
    "Image.resize": lambda image, s: f"{s.name('image')} has {show_size(image.capacity)} now.",
    "Volume.resize": lambda volume, s: f"{s.name('volume')} has {show_size(volume.capacity)} now.",
    "Volume.delete": lambda _, s: f"Deleted volume {s.name('volume')}.",
    "Domain.create": lambda domain, _: f"Made domain {domain.name} at {domain.path}, id {domain.id}.",
    "Domain.attach": lambda domain, _: f"Attached domain {domain.name or domain.id} at {domain.path}.",
    "Domain.detach": lambda _, s: f"Domain {s.name('domain')} is no longer served; nothing on it changed.",
    "Domain.format": lambda _, s: f"Destroyed domain {s.name('domain')}.",
    "Transfer.checkpoint": lambda t, _: f"{show_size(t.arrived)} of {show_size(t.size)} are on stable storage.",
    "Transfer.pause": lambda t, _: f"Transfer {t.id} is {t.state.value}.",
    "Transfer.cancel": lambda t, _: f"Transfer {t.id} is {t.state.value}.",
    "Transfer.finish": lambda t, _: f"Transfer {t.id} is {t.state.value}; image {t.name or t.image}.",
    "Task.clear": lambda _, s: f"Task {s.name('task')} is forgotten.",
}
