# SPDX-License-Identifier: Apache-2.0
"""Bitmaps that outlast the programs that write their file.

Who opens a qcow2 file to write it marks all its bitmaps as in use, and stores them anew when it closes the file.  Where
that is interrupted (seen with strace, at every write) entries of the directory stay marked, or the bit of the header
stays cleared by which bitmaps count.  No more is lost: at each moment the header names a directory that is whole, and
tables and bits that an entry names are as they were when the file was opened, for they are given back only after the
header names others.

QEMU cannot know what else was written meanwhile, and takes such bitmaps for lost.  We know: only our programs had the
file, which holds its lease, and no guest.  So before they begin the image's intent says whose bitmaps were sound, the
*guarded*; what is interrupted is mended, which takes writes of four bytes in place and needs no room.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable

import msgspec

from hsm.domains.base import Domain, Held, ImageRecord, VolumeRecord
from hsm.formats import bitmaps as bitmaps_format
from hsm.formats import qcow2
from hsm.formats.attributes import ChangeBitmaps, Guarded
from hsm.operations import chains
from hsm.operations.base import Context, domain_lease
from hsm.tasks.manager import Job
from libvdsm.api.types import ImageId

MOST = 64
"""So many volumes, and names, an intent has room for.  Beyond that nothing is guarded, and what is lost is told."""


def digest(name: str) -> str:
    """What stands for a name of any length."""
    return hashlib.blake2s(name.encode(), digest_size=6).hexdigest()


def guard(volumes: Iterable[VolumeRecord]) -> Guarded:
    """What is to be kept of the bitmaps of volumes that programs are about to write."""
    having = {volume.id: volume.header for volume in volumes if volume.header is not None and volume.header.bitmaps}
    in_use = {digest(bitmap.name) for header in having.values() for bitmap in header.bitmaps if bitmap.in_use}
    if len(having) > MOST or len(in_use) > MOST:
        return Guarded()
    return Guarded(volumes=tuple(having), in_use=tuple(sorted(in_use)))


def mend(domain: Domain, record: ImageRecord, guarded: Guarded) -> None:
    """Make good what interrupted programs left of guarded bitmaps.  Its leases are held, and no program is alive."""
    for id_ in guarded.volumes:
        volume = next((found for found in record.volumes.values() if found.id == id_), None)
        if volume is not None:
            _mend(domain, volume, guarded.in_use)


def _mend(domain: Domain, volume: VolumeRecord, in_use: tuple[str, ...]) -> None:
    descriptor = os.open(domain.data_path(volume.folder, volume.id), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)

    def read(offset: int, length: int) -> bytes:
        return os.pread(descriptor, length, offset)

    def write(offset: int, data: bytes) -> None:
        os.pwrite(descriptor, data, offset)

    try:
        start = read(0, qcow2.READ)
        at, again = qcow2.bitmaps_again(start)
        counting = start[:at] + again + start[at + len(again) :]
        header = qcow2.with_bitmaps(qcow2.parse(counting, os.fstat(descriptor).st_size), read)
        # Cut off to less than what a guest sees, it may have bits beyond its end, which QEMU does not expect.
        whole = header.capacity >= volume.metadata.capacity
        left = [
            bitmap
            for bitmap in header.bitmaps
            if bitmap.in_use
            and digest(bitmap.name) not in in_use
            and whole
            and bitmaps_format.covers(bitmap, header.capacity, header.cluster_size)
        ]
        for bitmap in left:
            write(*bitmaps_format.let_go(bitmap, read))
        if left:
            domain.sync_data(volume.folder, volume.id)
        if header.bitmaps and counting != start:
            # Only now: until then what the directory says does not count.
            write(at, again)
            domain.sync_data(volume.folder, volume.id)
    finally:
        os.close(descriptor)


def settle(context: Context, domain: Domain, image: ImageId) -> None:
    """The end of a change of bitmaps, whether it was made or not: what it left is mended, and the intent goes."""
    record = chains.image_of(domain, image)
    if not isinstance(record.attributes.intent, ChangeBitmaps):
        return
    mend(domain, record, record.attributes.intent.guarded)
    with domain_lease(context, domain):
        record = chains.image_of(domain, image)
        domain.set_attributes(image, msgspec.structs.replace(record.attributes, intent=None))


def finish(context: Context, job: Job, domain: Domain, image: ImageId, _held: Held) -> bool:
    """Of a change that nobody goes on with: each of its steps leaves bitmaps that are right, or say that they are not."""
    job.progress("mending bitmaps")
    settle(context, domain, image)
    return True
