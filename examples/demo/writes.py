# SPDX-License-Identifier: Apache-2.0
"""What the guest writes: where, how much, and which byte."""

from __future__ import annotations

from dataclasses import dataclass

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
        return f"-P {self.byte:#04x} {_exactly(self.offset)} {_exactly(self.length)}"

    def of(self, byte: int) -> Write:
        """The same place with another byte."""
        return Write(byte, self.offset, self.length)


@dataclass(frozen=True)
class Writes:
    """All that is written, behind the end of the image that the guest began with; it fits ``capacity``.

    ``monday_alone`` is a part of monday's that nobody overwrites before ``later``, which is after a backup.
    """

    capacity: int
    monday: Write
    tuesday: Write
    today: Write
    meanwhile: Write
    monday_alone: Write
    later: tuple[Write, Write]

    @classmethod
    def behind(cls, image: int, *, large: int, small: int) -> Writes:
        """For an image of this size; ``large`` is what monday writes, and tuesday overwrites a part of that."""
        first = max(GIB, -(-image // GIB) * GIB)
        end = first + large + 2 * small
        return cls(
            capacity=max(4 * GIB, -(-end // GIB) * GIB),
            monday=Write(0x11, first, large),
            tuesday=Write(0x22, first + large // 2, small),
            today=Write(0x33, first + large, small),
            meanwhile=Write(0x44, first, small),
            monday_alone=Write(0x11, first + large // 4, small // 4),
            later=(Write(0x55, first + large // 4, small // 4), Write(0x66, first + large + small, small // 4)),
        )


def _exactly(size: int) -> str:
    """A size in whole MiB, or in quarters of a GiB."""
    return f"{size // MIB}M" if size % (GIB // 4) else f"{size / GIB:g}G"
