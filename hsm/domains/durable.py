# SPDX-License-Identifier: Apache-2.0
"""Changes to files that are on stable storage when the function returns.

The order is the same everywhere: the content is synchronised, then the folder with all that was made in it, then one
rename publishes, then the folder again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import suppress

_MODE = 0o660
_WIPE_STEP = 32 * 2**20
"""Storage is wiped in steps, so that others' input and output, leases first of all, get their turn."""


def sync_folders(*paths: str) -> None:
    """Make the entries of folders durable."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_file(path: str) -> None:
    """Make a file's content durable."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_new(
    path: str,
    content: bytes | Sequence[tuple[int, bytes]],
    *,
    length: int = 0,
    allocate: bool = False,
    sync: bool = True,
    mode: int = _MODE,
) -> None:
    """Make a file anew: zeros of a length, but for the content.  What a crash left under the name is overwritten."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        if length:
            os.ftruncate(descriptor, length)
            if allocate:
                os.posix_fallocate(descriptor, 0, length)
        for offset, data in [(0, content)] if isinstance(content, bytes) else content:
            write_at(descriptor, data, offset)
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_at(descriptor: int, data: bytes, offset: int) -> None:
    """Write all of it."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def write_into(path: str, change: Callable[[bytes], Sequence[tuple[int, bytes]]], length: int) -> None:
    """Change a file as its first ``length`` bytes say.  Each write is stable before anybody can rely on what it says."""
    descriptor = os.open(path, os.O_RDWR | os.O_DSYNC | os.O_CLOEXEC)
    try:
        for offset, data in change(os.pread(descriptor, length, 0)):
            write_at(descriptor, data, offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def extend(path: str, length: int, *, allocate: bool) -> None:
    """Make a file longer; it is never made shorter."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_size < length:
            os.ftruncate(descriptor, length)
        if allocate:
            os.posix_fallocate(descriptor, 0, length)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cut(path: str, length: int) -> None:
    """Make a file shorter; it is never made longer."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_size > length:
            os.ftruncate(descriptor, length)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(path: str, data: bytes, *, suffix: str, mode: int = _MODE) -> None:
    """Put a file in the place of another, or where none is: the rename is the commit point."""
    folder = os.path.dirname(path)
    temporary = path + suffix
    try:
        write_new(temporary, data, mode=mode)
        sync_folders(folder)
        os.rename(temporary, path)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folders(folder)


def wipe(path: str) -> None:
    """Overwrite a file's data with zeros, and wait until they are on stable storage.

    Holes are skipped: nothing was ever written there.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    zeros = bytes(2**20)
    try:
        end = os.fstat(descriptor).st_size
        offset = 0
        synced = 0
        while (start := _next_data(descriptor, offset, end)) is not None:
            hole = os.lseek(descriptor, start, os.SEEK_HOLE)
            while start < hole:
                count = min(len(zeros), hole - start)
                write_at(descriptor, zeros[:count], start)
                start += count
                if start - synced >= _WIPE_STEP:
                    os.fdatasync(descriptor)
                    synced = start
            offset = hole
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _next_data(descriptor: int, offset: int, end: int) -> int | None:
    if offset >= end:
        return None
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise
