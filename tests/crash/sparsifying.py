# SPDX-License-Identifier: Apache-2.0
"""Giving space back, and changing the version of a volume, as rows of the table."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from hsm.tools import offload
from libvdsm.api.types import Compat, ImageId, VolumeId
from tests.crash import proofs
from tests.crash.contents import Contents
from tests.crash.fixture import CHAIN, CLONE, DISK, KIB, MAIN, MIB, RAW, volume
from tests.crash.invariants import Facts
from tests.crash.operation import Operation, Task, World
from tests.formats import qemu

_BITMAP = "backup"
_OLD = f"{CHAIN}/{volume('chain leaf')}"


def _sparsify(image: ImageId) -> Callable[[World], Task]:
    return lambda world: world.client.image.sparsify(domain=MAIN, image=image)


def _zeros(image: ImageId, *volumes: VolumeId, format_: str = "qcow2") -> Callable[[World], None]:
    """Zeros in two places of each volume, as data: in the second some that are said to be zeros, with data behind."""

    def arrange(world: World) -> None:
        for volume_ in volumes:
            path = world.home.volume_file(image, volume_)
            qemu.write(path, format_, 0, 64 * KIB, 256 * KIB)
            if format_ == "qcow2":
                qemu.write(path, format_, 0xC1, 2 * MIB + 64 * KIB, 64 * KIB)
                qemu.zero(path, format_, 2 * MIB + 64 * KIB, 64 * KIB)
            qemu.write(path, format_, 0, 2 * MIB + 128 * KIB, 64 * KIB)
            # What is not allocated yet is counted in no file.
            subprocess.run(["sync", str(path)], check=True)

    return arrange


def _marked(world: World) -> None:
    _zeros(DISK, volume("disk"))(world)
    world.service.wait(world.client.bitmap.add(domain=MAIN, image=DISK, bitmap=_BITMAP))
    qemu.write(world.home.volume_file(DISK, volume("disk")), "qcow2", 0, 3 * MIB, 64 * KIB)


def _bitmap_is_kept(before: Facts, after: Facts) -> bool:
    return before == after and before[f"{DISK} bitmaps"] == {_BITMAP: [(3 * MIB, 64 * KIB)]}


def _old(world: World) -> None:
    """The upper layer is as an old oVirt made it: version 2, and the path to what it stands on."""
    path = world.home.volume_file(CHAIN, volume("chain leaf"))
    below = f"../{CHAIN}/{volume('chain')}"
    qemu.create(path, "qcow2", 8 * MIB, "-u", "-o", "compat=0.10", "-b", below, "-F", "qcow2")
    qemu.write(path, "qcow2", 0xA1, 3 * MIB, 64 * KIB)


def _old_with_zeros(world: World) -> None:
    """Version 2 has no word for zeros; what lies below must stay hidden."""
    _old(world)
    path = world.home.volume_file(CHAIN, volume("chain leaf"))
    qemu.write(path, "qcow2", 0, 0, 256 * KIB)
    qemu.write(path, "qcow2", 0, 2 * MIB, 256 * KIB)
    subprocess.run(["sync", str(path)], check=True)


def _sparse(image: ImageId, *volumes: VolumeId) -> proofs.Done:
    """No block of zeros takes space any more; a qcow2 file's metadata, which are mostly zeros, among them."""

    def done(world: World, facts: Facts, contents: Contents) -> str | None:
        for volume_ in volumes:
            path = world.home.volume_file(image, volume_)
            if blocks := _blocks_of_zeros(path):
                return f"{path.name} keeps zeros at {blocks}"
        return None

    return done


def _blocks_of_zeros(path: Path) -> list[int]:
    """Where the file has data, and that is zeros."""
    found = []
    with path.open("rb") as file:
        for start, end in offload.data_of(file.fileno()):
            for offset in range(start, end, 64 * KIB):
                file.seek(offset)
                if not file.read(min(64 * KIB, end - offset)).strip(b"\0"):
                    found.append(offset)
    return found


OPERATIONS = [
    Operation(
        "raw image made sparse",
        "Image.sparsify",
        _sparsify(RAW),
        proofs.same,
        arrange=_zeros(RAW, volume("raw"), format_="raw"),
        done=_sparse(RAW, volume("raw")),
    ),
    Operation(
        "chain made sparse",
        "Image.sparsify",
        _sparsify(CHAIN),
        proofs.same,
        arrange=_zeros(CHAIN, volume("chain leaf")),
        done=_sparse(CHAIN, volume("chain"), volume("chain leaf")),
    ),
    Operation(
        "clone made sparse, its zeros over data",
        "Image.sparsify",
        _sparsify(CLONE),
        proofs.same,
        arrange=_zeros(CLONE, volume("clone")),
        done=_sparse(CLONE, volume("clone")),
    ),
    Operation(
        "image with a bitmap made sparse",
        "Image.sparsify",
        _sparsify(DISK),
        _bitmap_is_kept,
        arrange=_marked,
        done=_sparse(DISK, volume("disk")),
    ),
    Operation(
        "layer of version 2 made sparse",
        "Image.sparsify",
        _sparsify(CHAIN),
        proofs.same,
        arrange=_old_with_zeros,
        done=_sparse(CHAIN, volume("chain leaf")),
    ),
    Operation(
        "layer of version 2 amended",
        "Volume.amend",
        lambda w: w.client.volume.amend(domain=MAIN, volume=volume("chain leaf"), compat=Compat.V3),
        lambda before, after: (
            proofs.changed(f"{_OLD} told")(before, after)
            and [dict(facts[f"{_OLD} told"])["compat"] for facts in (before, after)] == ["v2", "v3"]  # type: ignore[call-overload]
        ),
        arrange=_old,
    ),
]
