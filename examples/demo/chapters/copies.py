# SPDX-License-Identifier: Apache-2.0
"""Whole images move between domains; where the file system shares space, copies take none."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time

from examples.demo.stage import ARCHIVE, Stage
from libvdsm.api.types import ImageInfo

_FICLONE = 0x40049409
_AT_ONCE = 5.0
"""Seconds in which a copy that shares its space is made, however busy the machine is."""


def move(stage: Stage) -> None:
    tell = stage.tell
    tell.say(
        "A move takes everything along: snapshots, their names, the ids. Whoever knows the image finds it again, and at "
        "any moment, killed or not, there is one of it."
    )
    before = stage.info("web01")
    stage.hsmctl("image", "move", "web01", "--to", ARCHIVE, slow=True)
    there = stage.info("web01")
    stage.hsmctl("image", "list", "--domain", ARCHIVE)
    home = stage.images_folder / str(before.id)
    tell.claim(
        "web01 is there with the same ids, and not here any more.",
        there.id == before.id
        and there.domain != before.domain
        and _layers(there) == _layers(before)
        and not home.exists(),
        there,
    )
    stage.hsmctl("image", "move", "web01", "--domain", ARCHIVE, "--to", "default", slow=True)
    back = stage.info("web01")
    tell.claim("And back.", back.domain == before.domain and _layers(back) == _layers(before), back)
    tell.claim("A guest sees what it saw when web01 was exported.", stage.checksum("web01") == stage.seen)
    if _shares(stage):
        _share(stage)


def _layers(image: ImageInfo) -> list[tuple[object, ...]]:
    return [(volume.id, volume.name, volume.capacity) for volume in image.chain or []]


def _share(stage: Stage) -> None:
    stage.tell.say("This file system can share space between files, so a copy on the same domain takes none:")
    begun = time.monotonic()
    stage.hsmctl("image", "copy", "web01", "web01-copy")
    took = time.monotonic() - begun
    stage.tell.claim("It was made at once.", took < _AT_ONCE, took)
    stage.hsmctl("image", "delete", "web01-copy")


def _shares(stage: Stage) -> bool:
    """Whether the file system of the first domain can."""
    with tempfile.TemporaryFile(dir=stage.work) as one, tempfile.TemporaryFile(dir=stage.work) as other:
        one.write(bytes(os.sysconf("SC_PAGE_SIZE")))
        one.flush()
        try:
            fcntl.ioctl(other.fileno(), _FICLONE, one.fileno())
        except OSError:
            return False
        return True
