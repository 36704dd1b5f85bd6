# SPDX-License-Identifier: Apache-2.0
"""Operations on tags, and on what is tagged, for the crash tests."""

from __future__ import annotations

from libvdsm.api.types import (
    TagChange,
)
from tests.crash import proofs
from tests.crash.contents import Contents, digest_of
from tests.crash.fixture import (
    CHAIN,
    DISK,
    MAIN,
    NEW_VOLUME,
    SOURCE,
    volume,
)
from tests.crash.invariants import Facts
from tests.crash.operation import Operation, Task, World

_CONTENT = digest_of(SOURCE)


def _tagged(world: World) -> None:
    """An image, and one with its leaf, have tags."""
    image, volumes = world.client.image, world.client.volume
    for task in (
        image.set_tags(domain=MAIN, image=DISK, tags=["before"]),
        image.set_tags(domain=MAIN, image=CHAIN, tags=["of the image"]),
        volumes.set_tags(domain=MAIN, volume=volume("chain leaf"), tags=["of the leaf"]),
    ):
        world.service.wait(task)


def _tag(world: World) -> Task:
    return world.client.image.set_tags(domain=MAIN, image=DISK, tags=["backup", "größer"])


def _untag(world: World) -> Task:
    return world.client.image.set_tags(domain=MAIN, image=DISK, tags=["before"], change=TagChange.REMOVE)


def _no_tags_of_the_leaf(world: World, facts: Facts, contents: Contents) -> str | None:
    """Nothing of a volume that is gone is left in what is kept of its image."""
    kept = (world.home.volume_file(CHAIN, volume("chain")).parent / f"{CHAIN}.hsm").read_text()
    return "the leaf's tags are still there" if "of the leaf" in kept else None


TAGS = [
    Operation("image tagged", "Image.setTags", _tag, proofs.changed(f"{DISK} tags")),
    Operation("tags taken from an image", "Image.setTags", _untag, proofs.changed(f"{DISK} tags"), arrange=_tagged),
    Operation(
        "volume tagged",
        "Volume.setTags",
        lambda w: w.client.volume.set_tags(domain=MAIN, volume=volume("chain"), tags=["kept", "größer"]),
        proofs.changed(f"{CHAIN}/{volume('chain')} told"),
    ),
    Operation(
        "snapshot made of what is tagged",
        "Image.snapshot",
        lambda w: w.client.image.snapshot(domain=MAIN, image=DISK, name="kept", volume=NEW_VOLUME),
        proofs.on_top(DISK, _CONTENT),
        arrange=_tagged,
    ),
    Operation(
        "tagged leaf deleted",
        "Volume.delete",
        lambda w: w.client.volume.delete(domain=MAIN, volume=volume("chain leaf")),
        lambda before, after: (
            after[f"{CHAIN} tags"] == ["of the image"]
            and after[f"{CHAIN}/{volume('chain')} data"] == _CONTENT
            and f"{CHAIN}/{volume('chain leaf')} data" not in after
        ),
        arrange=_tagged,
        done=_no_tags_of_the_leaf,
    ),
]
