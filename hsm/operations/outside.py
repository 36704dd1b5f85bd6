# SPDX-License-Identifier: Apache-2.0
"""Open files from outside a domain, which callers hand over."""

from __future__ import annotations

import fcntl
import os
import stat

from hsm.tasks.manager import Job
from libvdsm.api.errors import FileNotUsable

_CHUNK = 4 * 2**20


def own_file(descriptor: int, *, write: bool) -> int:
    """A descriptor of our own for a file that a caller passed, fit for the direction."""
    mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
    kind = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISBLK(kind)):
        raise FileNotUsable(reason="it is neither a file nor a block device")
    if mode not in ((os.O_RDWR,) if write else (os.O_RDONLY, os.O_RDWR)):
        raise FileNotUsable(reason=f"it is not open for {'reading and writing' if write else 'reading'}")
    return os.dup(descriptor)


def copy_private(source: int, target: int, job: Job) -> None:
    """Copy the data of a file, leaving out its holes."""
    end = os.fstat(source).st_size
    os.ftruncate(target, end)
    offset = 0
    while offset < end:
        job.check()
        job.progress("taking a private copy", offset, end)
        data = os.pread(source, _CHUNK, offset)
        if not data:
            return
        if data.count(0) != len(data):
            os.pwrite(target, data, offset)
        offset += len(data)
