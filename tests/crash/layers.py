# SPDX-License-Identifier: Apache-2.0
"""Operations that change which layers an image has, for the crash tests."""

from __future__ import annotations

from collections.abc import Callable

from libvdsm.api.image_layers import MergeDirection
from tests.crash import proofs
from tests.crash.contents import digest_of
from tests.crash.fixture import (
    CHAIN,
    CLONE,
    DISK,
    MAIN,
    NEW_VOLUME,
    SOURCE,
    volume,
)
from tests.crash.invariants import Facts
from tests.crash.operation import Operation, Task, World

_CONTENT = digest_of(SOURCE)


def _merge(base: str, top: str, direction: MergeDirection) -> Callable[[World], Task]:
    return lambda world: world.client.image.merge(
        domain=MAIN, image=CHAIN, base=volume(base), top=volume(top), direction=direction
    )


def _a_third_layer(world: World) -> None:
    made = world.client.image.snapshot(domain=MAIN, image=CHAIN, name="second", volume=NEW_VOLUME)
    world.service.wait(made)


def _another_template(world: World) -> None:
    world.service.wait(world.client.image.make_template(domain=MAIN, image=DISK))


def _reverted(before: Facts, after: Facts) -> bool:
    """The upper layer is gone, and an empty one is in its place; but for the name of the lower all else is as it was."""
    new, old = f"{CHAIN}/{NEW_VOLUME}", f"{CHAIN}/{volume('chain leaf')}"
    return (
        after[f"{new} data"] == _CONTENT
        and {key for key in before if before[key] != after.get(key)} == {key for key in before if key.startswith(old)}
        and all(key.startswith(new) for key in after.keys() - before.keys())
    )


LAYERS = [
    Operation(
        "layers merged down",
        "Image.merge",
        _merge("chain", "chain leaf", MergeDirection.DOWN),
        proofs.became(CHAIN, volume("chain"), volume("chain leaf"), volume("chain leaf")),
        halfway=(CHAIN,),
        leaks=True,
    ),
    Operation(
        "layers below another merged down",
        "Image.merge",
        _merge("chain", "chain leaf", MergeDirection.DOWN),
        lambda before, after: (
            after[f"{CHAIN}/{volume('chain')} data"] == before[f"{CHAIN}/{volume('chain leaf')} data"]
            and after[f"{CHAIN}/{NEW_VOLUME} data"] == before[f"{CHAIN}/{NEW_VOLUME} data"]
            and f"{CHAIN}/{volume('chain leaf')} data" not in after
        ),
        arrange=_a_third_layer,
        halfway=(CHAIN,),
        leaks=True,
    ),
    Operation(
        "layers merged up",
        "Image.merge",
        _merge("chain", "chain leaf", MergeDirection.UP),
        proofs.became(CHAIN, volume("chain leaf"), volume("chain leaf"), volume("chain")),
        halfway=(CHAIN,),
        leaks=True,
    ),
    Operation(
        "snapshot deleted",
        "Image.deleteSnapshot",
        lambda w: w.client.image.delete_snapshot(
            domain=MAIN, image=CHAIN, volume=volume("chain"), child=volume("chain leaf")
        ),
        proofs.became(CHAIN, volume("chain"), volume("chain leaf"), volume("chain leaf")),
        halfway=(CHAIN,),
        leaks=True,
    ),
    Operation(
        "image reverted",
        "Image.revert",
        lambda w: w.client.image.revert(domain=MAIN, image=CHAIN, volume=volume("chain"), leaf=NEW_VOLUME),
        _reverted,
        halfway=(CHAIN,),
    ),
    Operation(
        "clone flattened",
        "Image.flatten",
        lambda w: w.client.image.flatten(domain=MAIN, image=CLONE),
        proofs.became(CLONE, volume("clone"), volume("clone")),
        halfway=(CLONE,),
        leaks=True,
    ),
    Operation(
        "clone rebased",
        "Image.rebase",
        lambda w: w.client.image.rebase(domain=MAIN, image=CLONE, template=DISK),
        proofs.became(CLONE, volume("clone"), volume("clone")),
        arrange=_another_template,
        halfway=(CLONE,),
        leaks=True,
    ),
]
