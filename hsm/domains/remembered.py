# SPDX-License-Identifier: Apache-2.0
"""Images in folders that were read before, and have not changed since.

Looking at a file takes a third of what opening, reading and parsing it does, and most of what a list shows is as it
was when it was shown before.  What tells is the status of each file that an image was read from, and of its folder:
whatever is done to a file gives it the time at which it was done, to the tick of the kernel's clock.  So what changed
just before it was read is not relied on: another change within the same tick could not be told from it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

from hsm.domains.base import ImageRecord
from hsm.domains.names import ATTRIBUTES, META
from hsm.formats import attributes as attributes_format
from libvdsm.api.types import ImageId

_SETTLED_NS = 1_000_000_000
"""Far more than a tick, and than the steps by which a clock is kept right; file systems that count in whole seconds
stay below it too."""

_MOST = 10_000
"""Images that are remembered, at about 3 KB each."""

_UNKNOWN = (2**63, 0, 0, 0)
"""Never settled, and so never what is remembered."""

_Status = tuple[int, int, int, int] | None
_Seen = tuple[ImageRecord, tuple[tuple[str, _Status], ...]]


class Remembered:
    """The images of one domain, whose folders are below ``images``."""

    def __init__(self, images: str) -> None:
        self._images = images
        self._seen: dict[ImageId, _Seen] = {}

    def image(self, image: ImageId, read: Callable[[ImageId], ImageRecord | None]) -> ImageRecord | None:
        """The image as it is; ``read`` is called if that is not known."""
        seen = self._seen.get(image)
        if seen is not None:
            for path, status in seen[1]:
                if _status(path) != status:
                    break
            else:
                return seen[0]
        return self._read(image, read)

    def keep(self, images: list[ImageId]) -> None:
        """Forget all but these, which are all that there are."""
        for gone in self._seen.keys() - set(images):
            self._seen.pop(gone, None)

    def _read(self, image: ImageId, read: Callable[[ImageId], ImageRecord | None]) -> ImageRecord | None:
        began = time.time_ns()
        record = read(image)
        if record is not None and not record.damaged and (image in self._seen or len(self._seen) < _MOST):
            looked = tuple((path, _status(path)) for path in self._sources(record))
            if all(status is None or status[0] < began - _SETTLED_NS for _, status in looked):
                # Nothing has been done to any of it since before it was read.
                self._seen[image] = record, looked
                return record
        self._seen.pop(image, None)
        return record

    def _sources(self, record: ImageRecord) -> Iterator[str]:
        """All that tells of an image.  What is added, renamed or taken away changes its folder."""
        folder = f"{self._images}/{record.id}"
        yield folder
        if record.attributes != attributes_format.NONE:
            yield f"{folder}/{record.id}{ATTRIBUTES}"
        for volume in record.volumes.values():
            yield f"{folder}/{volume.id}"
            yield f"{folder}/{volume.id}{META}"
            if volume.is_linked:
                home = f"{self._images}/{volume.metadata.image}"
                yield home
                yield f"{home}/{volume.id}{META}"
                yield f"{home}/{volume.metadata.image}{ATTRIBUTES}"


def _status(path: str) -> _Status:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError:
        # It is read again, and whoever reads it says what is wrong.
        return _UNKNOWN
    return found.st_ctime_ns, found.st_ino, found.st_size, found.st_blocks
