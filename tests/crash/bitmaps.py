# SPDX-License-Identifier: Apache-2.0
"""Operations on bitmaps, and on images that have some, as rows of the table."""

from __future__ import annotations

from libvdsm.api.image_layers import MergeDirection
from tests.crash import proofs
from tests.crash.contents import digest_of
from tests.crash.fixture import DISK, KIB, MAIN, MIB, NEW_VOLUME, SOURCE, volume
from tests.crash.invariants import Facts
from tests.crash.operation import Operation, World
from tests.formats import qemu

_NAME = "backup"
_FACT = f"{DISK} bitmaps"


def _has_one(world: World) -> None:
    """Something is marked."""
    world.service.wait(world.client.bitmap.add(domain=MAIN, image=DISK, bitmap=_NAME))
    qemu.write(world.home.volume_file(DISK, volume("disk")), "qcow2", 0xB1, 0, 64 * KIB)


def _has_one_in_two_layers(world: World) -> None:
    _has_one(world)
    second = volume("second")
    world.service.wait(world.client.image.snapshot(domain=MAIN, image=DISK, volume=second))
    qemu.write(world.home.volume_file(DISK, second), "qcow2", 0xB2, 4 * MIB, 64 * KIB)


_MARKED = [(0, 64 * KIB), (4 * MIB, 64 * KIB)]


def _is_removed(before: Facts, after: Facts) -> bool:
    return before[_FACT] == {_NAME: _MARKED} and proofs.lost(_FACT)(before, after)


def _is_empty(before: Facts, after: Facts) -> bool:
    return (before[_FACT], after[_FACT]) == ({_NAME: _MARKED}, {_NAME: []}) and proofs.changed(_FACT)(before, after)


def _is_kept(before: Facts, after: Facts) -> bool:
    return before[_FACT] == after[_FACT] == {_NAME: _MARKED[:1]} and f"{DISK}/{NEW_VOLUME} data" in after


OPERATIONS = [
    Operation(
        "bitmap added",
        "Bitmap.add",
        lambda w: w.client.bitmap.add(domain=MAIN, image=DISK, bitmap=_NAME),
        lambda before, after: (
            after[_FACT] == {_NAME: []}
            and after[f"{DISK}/{volume('disk')} data"] == digest_of(SOURCE)
            and proofs.changed(_FACT)(before, after)
        ),
        halfway=(DISK,),
        leaks=True,
    ),
    Operation(
        "bitmap removed",
        "Bitmap.remove",
        lambda w: w.client.bitmap.remove(domain=MAIN, image=DISK, bitmap=_NAME),
        _is_removed,
        arrange=_has_one_in_two_layers,
        halfway=(DISK,),
        leaks=True,
    ),
    Operation(
        "bitmap cleared",
        "Bitmap.clear",
        lambda w: w.client.bitmap.clear(domain=MAIN, image=DISK, bitmap=_NAME),
        _is_empty,
        arrange=_has_one_in_two_layers,
        halfway=(DISK,),
        leaks=True,
    ),
    Operation(
        "snapshot made of what has a bitmap",
        "Image.snapshot",
        lambda w: w.client.image.snapshot(domain=MAIN, image=DISK, name="kept", volume=NEW_VOLUME),
        _is_kept,
        arrange=_has_one,
    ),
    Operation(
        "layers merged down that have a bitmap",
        "Image.merge",
        lambda w: w.client.image.merge(
            domain=MAIN, image=DISK, base=volume("disk"), top=volume("second"), direction=MergeDirection.DOWN
        ),
        lambda before, after: before[_FACT] == after[_FACT] == {_NAME: _MARKED},
        arrange=_has_one_in_two_layers,
        halfway=(DISK,),
        leaks=True,
    ),
]
