# SPDX-License-Identifier: Apache-2.0
"""What has to be true when an operation has succeeded.

A proof compares what is published before and after; ``done`` of an operation looks at what is beyond that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from libvdsm.api.types import DomainId, ImageId, VolumeId
from tests.crash import invariants
from tests.crash.contents import Contents
from tests.crash.fixture import NEW_VOLUME
from tests.crash.invariants import Facts
from tests.crash.operation import World

Proof = Callable[[Facts, Facts], bool]
Done = Callable[[World, Facts, Contents], str | None]


def same(before: Facts, after: Facts) -> bool:
    return before == after


def data(image: ImageId, volume_: VolumeId, content: str) -> Proof:
    """A new volume with this content, and all else as it was."""

    def proof(before: Facts, after: Facts) -> bool:
        place = f"{image}/{volume_}"
        others = {key: value for key, value in after.items() if not key.startswith(place)}
        return before == others and after[f"{place} data"] == content

    return proof


def on_top(image: ImageId, content: str) -> Proof:
    """A new layer that shows the same; of the layer below only the role and the name it is known by changed."""

    def proof(before: Facts, after: Facts) -> bool:
        changed = {key for key in before if before[key] != after[key]}
        return (
            after[f"{image}/{NEW_VOLUME} data"] == content
            and len(changed) == 1
            and all(key.endswith(" told") for key in changed)
        )

    return proof


def copied(image: object, pairs: dict[VolumeId, VolumeId], to: tuple[DomainId, ImageId]) -> Proof:
    """Each volume has a copy in which a guest sees the same, and all else is as it was."""

    def proof(before: Facts, after: Facts) -> bool:
        places = {new: invariants.place_of(*to, new) for new in pairs.values()}
        others = {key: value for key, value in after.items() if not key.startswith(tuple(places.values()))}
        same = all(after[f"{places[new]} data"] == before[f"{image}/{old} data"] for old, new in pairs.items())
        return before == others and same

    return proof


def moved(image: ImageId, to: DomainId) -> Proof:
    """Everything about it is as it was, on another domain."""

    def proof(before: Facts, after: Facts) -> bool:
        there = {f"{to}/{key}" if key.startswith(str(image)) else key: value for key, value in before.items()}
        return there == after != before

    return proof


def lost(*prefixes: object) -> Proof:
    """What begins so is gone, and nothing else."""

    def proof(before: Facts, after: Facts) -> bool:
        left = {key: value for key, value in before.items() if not key.startswith(tuple(map(str, prefixes)))}
        return left == after != before

    return proof


def changed(*keys: str) -> Proof:
    """Exactly these facts are others than before."""

    def proof(before: Facts, after: Facts) -> bool:
        return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)} == set(keys)

    return proof


def attached(key: str) -> Proof:
    def proof(before: Facts, after: Facts) -> bool:
        return key in str(after["attached"]) and key not in str(before["attached"])

    return proof


def exported(format_: str, source: str) -> Done:
    """The exported file shows what the volume shows."""

    def done(world: World, facts: Facts, contents: Contents) -> str | None:
        found = contents.guest([world.home.outside / "exported"], format_)
        return None if found == facts[f"{source} data"] else f"exported is {found}, not {facts[f'{source} data']}"

    return done


def hold(image: ImageId, volume_: VolumeId) -> Callable[[World], None]:
    """Keep a volume's file open, to see what becomes of its data."""

    def arrange(world: World) -> None:
        world.kept["file"] = world.home.volume_file(image, volume_).open("rb", buffering=0)

    return arrange


def zeros(world: World, facts: Facts, contents: Contents) -> str | None:
    """Where the data was there are zeros."""
    file: BinaryIO = world.kept["file"]
    file.seek(0)
    return "the data was given back and not wiped" if file.read().strip(b"\0") else None


def became(image: ImageId, left: object, shown: object, gone: object = None) -> Proof:
    """One volume of an image is left, shows what another showed, and those that went are gone; all else is as it was."""

    def proof(before: Facts, after: Facts) -> bool:
        mine = tuple(f"{image}/{name} " for name in (left, shown, gone) if name is not None)
        others = [{k: v for k, v in facts.items() if not k.startswith(mine)} for facts in (before, after)]
        there = {key.partition(" ")[0] for key in after if key.startswith(mine)}
        return (
            after[f"{image}/{left} data"] == before[f"{image}/{shown} data"]
            and (there == {f"{image}/{left}"} or gone is None)
            and others[0] == others[1]
        )

    return proof
