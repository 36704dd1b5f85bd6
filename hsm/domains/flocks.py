# SPDX-License-Identifier: Apache-2.0
"""Leases of domains that only one host uses: ``flock`` on the lease files.

A lock belongs to an open file, not to a process: whoever inherits the descriptor keeps it, and it is free when the
last holder has closed it or died.  So tools and keepers that inherit it carry the lease, as a sanlock-registered
socket does on shared domains.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Sequence
from pathlib import Path

from hsm.domains.base import Held, LeaseBusy
from libvdsm.api.types import VolumeId

_POLL = 0.05
_MOMENT = 0.002
_TRIES = 10


class HeldFlocks(Held):
    """Open, locked lease files."""

    def __init__(self) -> None:
        self._descriptors: list[int] = []

    @property
    def descriptors(self) -> tuple[int, ...]:
        return tuple(self._descriptors)

    def add(self, descriptor: int) -> None:
        self._descriptors.append(descriptor)

    def release(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())


def acquire(wanted: Sequence[tuple[VolumeId, str, bool]]) -> HeldFlocks:
    """Lock lease files, given as (volume, path, shared), all or none."""
    held = HeldFlocks()
    try:
        for volume, path, shared in wanted:
            held.add(_lock(volume, path, shared=shared))
    except BaseException:
        held.release()
        raise
    return held


def _lock(volume: VolumeId | None, path: str, *, shared: bool) -> int:
    """Lock one file.  The file is looked at again after locking: it may have been deleted in between."""
    tries = _TRIES
    while True:
        # A volume that another program made may lack its lease file; it is made here.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o660)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            if _is_same(descriptor, path):
                return descriptor
        except BlockingIOError:
            inode = os.fstat(descriptor).st_ino
            os.close(descriptor)
            tries -= 1
            if tries and _locker(inode) in (None, str(os.getpid())):
                # Nobody's by now; or ours, and perhaps let go of: a program that is being started has a copy for a
                # moment, until it is that program.
                time.sleep(_MOMENT)
                continue
            raise LeaseBusy(volume, holder_of(inode)) from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_same(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def acquire_waiting(path: str, wait: float) -> HeldFlocks:
    """Lock one file, waiting for its holder up to ``wait`` seconds."""
    until = time.monotonic() + wait
    while True:
        try:
            held = HeldFlocks()
            held.add(_lock(None, path, shared=False))
        except LeaseBusy:
            if time.monotonic() > until:
                raise
            time.sleep(_POLL)
        else:
            return held


def holder_of(inode: int) -> str:
    """Who locked a file, in words, as far as the kernel tells.

    ``/proc/locks`` names the process that took the lock; after it handed the descriptor on and died, only that fact
    is known.
    """
    pid = _locker(inode)
    return _process(pid) if pid is not None else "another process"


def _locker(inode: int) -> str | None:
    """The process that took a lock on a file."""
    for line in Path("/proc/locks").read_text(encoding="ascii", errors="replace").splitlines():
        parts = line.split()
        if "FLOCK" in parts and parts[-3].rpartition(":")[2] == str(inode):
            return parts[-4]
    return None


def _process(pid: str) -> str:
    try:
        name = Path("/proc", pid, "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return f"what process {pid}, now gone, handed it to"
    return f"process {pid} ({name})"
