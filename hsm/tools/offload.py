# SPDX-License-Identifier: Apache-2.0
"""Copying a file without moving its data through this host: the file system shares it, or its server copies it.

A file system that does neither copies through the page cache when it is asked for ``copy_file_range``, at a third of
the speed of any tool here (``docs/decisions``).  So only those are asked of which it is known that their server does
it; and ``FICLONE``, which shares or refuses, is tried everywhere.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from libvdsm.run import CommandStopped

_FICLONE = 0x40049409
_STEP = 64 * 2**20
_STEPS_A_SECOND = 4
"""With a rate: small steps, so that it is kept within each second, and a stop is heard."""
_BY_SERVERS = frozenset({"nfs4", "cifs", "smb3", "ceph", "ocfs2", "fuse.glusterfs"})
"""As /proc/self/mountinfo calls them."""
_RESERVING = frozenset({"ext4", "xfs"})
"""Where space is taken without writing; elsewhere the library may write zeros instead."""
_CANNOT = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.ENOTTY, errno.ETXTBSY})
"""What file systems answer that cannot, or not with these two files."""


def reflink(source: int, target: int) -> bool:
    """Have one open file share another's data; false if that cannot be."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in _CANNOT:
            return False
        raise
    return True


def is_by_server(descriptor: int) -> bool:
    """Whether copying within this file's file system is done by its server."""
    return _type_of(descriptor) in _BY_SERVERS


def _type_of(descriptor: int) -> str | None:
    """What the file system of an open file is called."""
    device = os.fstat(descriptor).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        about, _, kind = line.partition(" - ")
        if about.split()[2] == wanted:
            return kind.split()[0]
    return None


def copy(
    source: int, target: int, *, on_done: Callable[[int], None], stop: Callable[[], bool], rate: int | None
) -> bool:
    """Copy the data of one open file into another that is all zeros; false if that cannot be, before the first byte.

    ``rate`` in bytes a second.
    """
    step = _STEP if rate is None else max(1, min(_STEP, rate // _STEPS_A_SECOND))
    began, copied = time.monotonic(), 0
    for start, end in data_of(source):
        offset = start
        while offset < end:
            if stop():
                raise CommandStopped
            try:
                done = os.copy_file_range(source, target, min(step, end - offset), offset, offset)
            except OSError as error:
                if copied == 0 and error.errno in _CANNOT:
                    return False
                raise
            if done == 0:
                raise OSError(errno.EIO, "the file became shorter while it was copied")
            offset, copied = offset + done, copied + done
            on_done(offset)
            if rate is not None:
                wait_until(began + copied / rate, stop)
    return True


def reserve(source: int, target: int, stop: Callable[[], bool]) -> None:
    """Have the space of an open file's data taken in another one, where that is cheap.

    What is written in no order then lies in few pieces, and is written faster; a full storage is found before.
    """
    if _type_of(target) in _RESERVING:
        for start, end in data_of(source):
            if stop():
                raise CommandStopped
            os.posix_fallocate(target, start, end - start)


def data_of(descriptor: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that are no holes: (start, end)."""
    end, offset = os.fstat(descriptor).st_size, 0
    while offset < end:
        try:
            start = os.lseek(descriptor, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        offset = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, offset


def wait_until(moment: float, stop: Callable[[], bool]) -> None:
    """Wait until a moment of the monotonic clock, unless somebody wants it to stop."""
    while (left := moment - time.monotonic()) > 0:
        if stop():
            raise CommandStopped
        time.sleep(min(left, 0.1))
