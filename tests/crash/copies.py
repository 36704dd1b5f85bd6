# SPDX-License-Identifier: Apache-2.0
"""The operations that copy and move, for the crash tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from libvdsm.api.types import Allocation, DomainId, ImageId, TaskState, VolumeFormat, VolumeId
from tests.crash import proofs
from tests.crash.fixture import CHAIN, CLONE, DISK, MAIN, NEW, NEW_VOLUME, RAW, SPARE, volume
from tests.crash.hsmd import ENDED
from tests.crash.operation import Operation, Task, World

_BASE, _LEAF = volume("chain"), volume("chain leaf")
_PAIRS = {_BASE: volume("new base"), _LEAF: NEW_VOLUME}


def _copy(image: ImageId, ids: list[VolumeId], **params: Any) -> Callable[[World], Task]:
    return lambda world: world.client.image.copy(domain=MAIN, image=image, name="new", id=NEW, volumes=ids, **params)


def _chain(**params: Any) -> Callable[[World], Task]:
    return _copy(CHAIN, list(_PAIRS.values()), **params)


def _move(image: ImageId, **params: Any) -> Callable[[World], Task]:
    return lambda world: world.client.image.move(domain=MAIN, image=image, to=SPARE, **params)


def _copied(image: ImageId, old: VolumeId, to: DomainId = MAIN) -> proofs.Proof:
    return proofs.copied(image, {old: NEW_VOLUME}, (to, NEW))


def _stopped(world: World) -> Task:
    """A move whose tool has begun, and is stopped; or that has ended before its tool begins."""
    task = _move(CHAIN)(world)
    assert world.gate is not None
    if not world.gate.comes(lambda: world.service.gone(0) or world.client.task.get_info(task=task.id).state in ENDED):
        return world.client.task.get_info(task=task.id)
    world.gate.arrival()
    return world.client.task.stop(task=task.id)


COPIES = [
    Operation("chain copied", "Image.copy", _chain(), proofs.copied(CHAIN, _PAIRS, (MAIN, NEW))),
    Operation(
        "chain copied to another domain", "Image.copy", _chain(to=SPARE), proofs.copied(CHAIN, _PAIRS, (SPARE, NEW))
    ),
    Operation(
        "chain copied with other clusters",
        "Image.copy",
        _chain(to=SPARE, cluster_size=4096, compress=True),
        proofs.copied(CHAIN, _PAIRS, (SPARE, NEW)),
    ),
    Operation(
        "chain collapsed",
        "Image.copy",
        _copy(CHAIN, [NEW_VOLUME], collapse=True, checksum=True),
        _copied(CHAIN, _LEAF),
    ),
    Operation(
        "snapshot copied as raw",
        "Image.copy",
        _copy(CHAIN, [NEW_VOLUME], volume=_BASE, collapse=True, format=VolumeFormat.RAW, to=SPARE),
        _copied(CHAIN, _BASE, SPARE),
    ),
    Operation("clone copied", "Image.copy", _copy(CLONE, [NEW_VOLUME]), _copied(CLONE, volume("clone"))),
    Operation(
        "clone copied to another domain",
        "Image.copy",
        _copy(CLONE, [NEW_VOLUME], to=SPARE),
        _copied(CLONE, volume("clone"), SPARE),
    ),
    Operation(
        "raw image copied into preallocated space",
        "Image.copy",
        _copy(RAW, [NEW_VOLUME], allocation=Allocation.PREALLOCATED),
        _copied(RAW, volume("raw")),
    ),
    Operation(
        "volume copied",
        "Volume.copy",
        lambda w: w.client.volume.copy(domain=MAIN, volume=volume("disk"), to=SPARE, to_image=NEW, id=NEW_VOLUME),
        _copied(DISK, volume("disk"), SPARE),
    ),
    Operation("chain moved", "Image.move", _move(CHAIN), proofs.moved(CHAIN, SPARE), halfway=(CHAIN,)),
    Operation(
        "clone moved",
        "Image.move",
        _move(CLONE),
        proofs.moved(CLONE, SPARE),
        halfway=(CLONE,),
    ),
    Operation(
        "image moved, and compared",
        "Image.move",
        _move(DISK, checksum=True),
        proofs.moved(DISK, SPARE),
        halfway=(DISK,),
    ),
    Operation(
        "checksum computed",
        "Image.checksum",
        lambda w: w.client.image.checksum(domain=MAIN, image=CHAIN),
        proofs.same,
    ),
    Operation(
        "move stopped", "Task.stop", _stopped, proofs.same, end=TaskState.STOPPED, task_verb="Image.move", gated=True
    ),
]
