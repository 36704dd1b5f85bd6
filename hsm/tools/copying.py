# SPDX-License-Identifier: Apache-2.0
"""Moving the bulk of the data: which way is taken for which source and target.

Byte for byte, for files that change nothing: shared by the file system, copied by its server, or by ``qemu-img`` as
raw bytes.  With anything changed, what a guest sees is copied by ``qemu-img``.  It is given several requests at once
and goes past the page cache where both ends can: the fastest of all ways that were measured, it makes files of few
pieces, and leaves the cache to others (``docs/decisions/0016-copying.md``).

Nothing here makes the target stable: callers do.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hsm.tools import offload
from hsm.tools.nodes import Source, takes_direct
from hsm.tools.qemu_img import Options, QemuImg


class Way(enum.StrEnum):
    """How a file was copied byte for byte."""

    SHARED = "shared"
    BY_SERVER = "by its server"
    BY_TOOL = "by a tool"


@dataclass(frozen=True)
class Course:
    """How a copy is followed and held back.  ``rate`` in bytes a second."""

    on_percent: Callable[[float], None]
    stop: Callable[[], bool]
    rate: int | None = None


class Copier:
    """Copies into files that are there, and all zeros but for what makes an empty qcow2 file."""

    def __init__(self, tool: QemuImg) -> None:
        self._tool = tool

    def same(self, source: str, target: str, course: Course, *, descriptors: Sequence[int], share: bool = True) -> Way:
        """Copy a file byte for byte.  ``share``: its space may be the source's until one of them is written."""
        reading = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            writing = os.open(target, os.O_RDWR | os.O_CLOEXEC)
            try:
                if share and offload.reflink(reading, writing):
                    return Way.SHARED
                if offload.is_by_server(writing) and self._by_server(reading, writing, course):
                    return Way.BY_SERVER
                offload.reserve(reading, writing, course.stop)
            finally:
                os.close(writing)
        finally:
            os.close(reading)
        self.content(Source(source, "raw"), Source(target, "raw"), course, descriptors=descriptors)
        return Way.BY_TOOL

    def _by_server(self, source: int, target: int, course: Course) -> bool:
        length = max(1, os.fstat(source).st_size)
        return offload.copy(
            source,
            target,
            on_done=lambda done: course.on_percent(100 * done / length),
            stop=course.stop,
            rate=course.rate,
        )

    def content(
        self,
        source: Source,
        target: Source,
        course: Course,
        *,
        descriptors: Sequence[int],
        backing: tuple[str, str] | None = None,
        compress: bool = False,
    ) -> None:
        """Copy what a guest sees; with ``backing`` (path and format) only what the source's own layer holds."""
        direct = takes_direct(target.path)
        length = os.stat(target.path).st_size
        self._tool.convert(
            source,
            target,
            descriptors=descriptors,
            direct=direct,
            existing=True,
            on_percent=course.on_percent,
            stop=course.stop,
            more=Options(backing=backing, compress=compress, rate=course.rate, parallel=direct),
        )
        if target.format == "raw" and os.stat(target.path).st_size > length:
            # Past the page cache the tool writes whole blocks of the storage, the last one beyond the end.
            os.truncate(target.path, length)
