# SPDX-License-Identifier: Apache-2.0
"""What a model of a domain consists of."""

from __future__ import annotations

from dataclasses import dataclass, field

from libvdsm.api.types import Allocation, ImageId, Legality, TagChange, VolumeFormat, VolumeId
from libvdsm.declare import ApiError

BLOCK = 64 * 2**10
SECTOR = 512
Blocks = dict[int, int]
"""Block -> the byte that it is full of; a block that was never written is not in it, and reads as zeros."""


class Refused(Exception):
    """The verb has to fail, with one of these."""

    def __init__(self, *errors: type[ApiError]) -> None:
        super().__init__(" or ".join(error.__name__ for error in errors))
        self.errors = errors


def refuse(reasons: dict[type[ApiError], bool]) -> None:
    """Refuse if there is a reason."""
    if errors := [error for error, holds in reasons.items() if holds]:
        raise Refused(*errors)


def rounded(capacity: int) -> int:
    return -(-capacity // SECTOR) * SECTOR


@dataclass(eq=False)
class Marks:
    """A bitmap in one volume: the blocks that were written, if it says all."""

    blocks: set[int] = field(default_factory=set)
    sound: bool = True


@dataclass(eq=False)
class Layer:
    """A volume."""

    id: VolumeId
    capacity: int
    format: VolumeFormat = VolumeFormat.QCOW2
    allocation: Allocation = Allocation.SPARSE
    blocks: Blocks = field(default_factory=dict)
    text: str | None = None
    snapshot: str | None = None
    legality: Legality = Legality.LEGAL
    generation: int = 0
    tags: list[str] = field(default_factory=list)
    bitmaps: dict[str, Marks] = field(default_factory=dict)

    def passed_on(self) -> dict[str, Marks]:
        """The bitmaps of what comes on top."""
        return {name: Marks() for name, marks in self.bitmaps.items() if marks.sound}

    def changed(self) -> None:
        self.generation = (self.generation + 1) % 1000


@dataclass(eq=False)
class Image:
    """An image; its layers from the oldest to the leaf."""

    id: ImageId
    layers: list[Layer]
    name: str | None = None
    template: ImageId | None = None
    is_template: bool = False
    prepared: str | None = None
    tags: list[str] = field(default_factory=list)

    @property
    def leaf(self) -> Layer:
        return self.layers[-1]

    def at(self, position: int) -> Layer:
        """One of its layers; every number means one."""
        return self.layers[position % len(self.layers)]


def changed_tags(present: list[str], given: list[str], change: TagChange) -> list[str]:
    """Each once, in the order in which they came."""
    if change is TagChange.REMOVE:
        return [tag for tag in present if tag not in given]
    kept = present if change is TagChange.ADD else []
    return list(dict.fromkeys(kept + given))
