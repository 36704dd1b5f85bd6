# SPDX-License-Identifier: Apache-2.0
"""What the guest writes: where, how much, and which byte."""

from __future__ import annotations

from dataclasses import dataclass

from hsmctl.values import show_size

MIB = 2**20
GIB = 2**30


@dataclass(frozen=True)
class Write:
    """A stretch of a disk, all of one byte."""

    byte: int
    offset: int
    length: int

    def __str__(self) -> str:
        """As qemu-io takes it."""
        return f"-P {self.byte:#04x} {show_size(self.offset)} {show_size(self.length)}"

    def of(self, byte: int) -> Write:
        """The same place with another byte."""
        return Write(byte, self.offset, self.length)


@dataclass(frozen=True)
class Writes:
    """All that is written, behind the end of the image that the guest began with; it fits ``capacity``."""

    capacity: int
    monday: Write
    tuesday: Write
    today: Write
    meanwhile: Write

    @classmethod
    def behind(cls, image: int, *, large: int, small: int) -> Writes:
        """For an image of this size; ``large`` is what monday writes, and tuesday overwrites a part of that."""
        first = max(GIB, -(-image // GIB) * GIB)
        end = first + large + small
        return cls(
            capacity=max(4 * GIB, -(-end // GIB) * GIB),
            monday=Write(0x11, first, large),
            tuesday=Write(0x22, first + large // 2, small),
            today=Write(0x33, first + large, small),
            meanwhile=Write(0x44, first, small),
        )
