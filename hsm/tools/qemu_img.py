# SPDX-License-Identifier: Apache-2.0
"""``qemu-img``: copying, checking, measuring, growing.

Formats are always given, never guessed, and a source from outside is opened with no backing file, whatever its header
says.  ``qemu-img convert`` does not synchronise what it wrote (seen with strace): callers do.  What fails when a file
is closed, the tables of a qcow2 file among it, is only complained about and the status is 0 (seen with strace: a full
disk at the last writes): so where something is written a complaint is a failure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hsm.tools.keys import Key, KeyRefused, handed
from hsm.tools.nodes import Source
from libvdsm.run import CommandError, Runner

_PROGRAM = "qemu-img"
_SOUND = (3, 63)
"""The status of a check that found nothing worse than leaks, and of one of a format that has nothing to check."""
_DAMAGED = (1, 2)
"""Of one that could not come to its end, and of one that found what contradicts itself."""
_PROGRESS = re.compile(rb"\((\d+(?:\.\d+)?)/100%\)")


@dataclass(frozen=True)
class Options:
    """How ``convert`` goes about it.

    ``backing``: path and format of what the target stands on; then only the source's own layer is copied.  ``rate``
    in bytes a second.  ``parallel``: several requests at once, in any order, which makes files of more pieces where
    they pass through the page cache, and is slower there.
    """

    backing: tuple[str, str] | None = None
    compress: bool = False
    rate: int | None = None
    parallel: bool = False

    @property
    def arguments(self) -> list[str]:
        found = ["-W", "-m", "4"] if self.parallel else []
        found += ["-c"] if self.compress else []
        found += ["-r", str(self.rate)] if self.rate else []
        return [*found, "-B", self.backing[0], "-F", self.backing[1]] if self.backing else found


@dataclass(frozen=True)
class Sizes:
    """In bytes."""

    required: int
    fully_allocated: int


class QemuImg:
    """The program, with the deadlines that the configuration sets, in seconds."""

    def __init__(self, runner: Runner, *, deadline: float, quick: float) -> None:
        self._runner = runner
        self._deadline = deadline
        self._quick = quick

    def convert(
        self,
        source: Source,
        target: Source,
        *,
        descriptors: Sequence[int],
        direct: bool,
        existing: bool,
        on_percent: Callable[[float], None],
        stop: Callable[[], bool],
        more: Options | None = None,
    ) -> None:
        """Copy.  ``existing``: the target is there already, and all zeros.  ``direct``: past the page cache."""
        argv = [_PROGRAM, "convert", "-p", "-t", "none" if direct else "writeback", "-O", target.format]
        argv += more.arguments if more else []
        if existing:
            argv.append("-n")
            # What stands on something is no zeros where it says nothing.
            argv += [] if more and more.backing else ["--target-is-zero"]
        with handed((*source.keys, *target.keys)) as keys:
            self._runner.run(
                [*argv, *keys.arguments, source.direct_argument if direct else source.argument, target.target],
                deadline=self._deadline,
                descriptors=(*descriptors, *keys.descriptors),
                on_output=following(on_percent),
                stop=stop,
                complaints=False,
            )

    def create(
        self,
        path: str,
        capacity: int,
        *,
        descriptors: Sequence[int],
        preallocated: bool = False,
        cluster_size: int | None = None,
        backing: tuple[str, str] | None = None,
    ) -> None:
        """Make a qcow2 file; ``preallocated``: with all its space reserved.  ``backing``: name and format."""
        options = ["preallocation=falloc"] if preallocated else []
        options += [f"cluster_size={cluster_size}"] if cluster_size else []
        argv = [_PROGRAM, "create", "-q", "-f", "qcow2", *(["-o", ",".join(options)] if options else [])]
        argv += ["-u", "-b", backing[0], "-F", backing[1]] if backing else []
        argv += [path, str(capacity)]
        self._runner.run(argv, deadline=self._deadline, descriptors=descriptors, complaints=False)

    def try_keys(self, source: Source) -> None:
        """Raise ``KeyRefused`` if the keys of a volume do not open it."""
        with handed(source.keys) as keys:
            argv = [_PROGRAM, "map", "-U", "--output=json", "--max-length=512", *keys.arguments, source.argument]
            self._runner.run(argv, deadline=self._quick, descriptors=keys.descriptors)

    def resize(self, source: Source, capacity: int, *, descriptors: Sequence[int], shrink: bool = False) -> None:
        """Grow a qcow2 file, or make it smaller."""
        with handed(source.keys) as keys:
            argv = [_PROGRAM, "resize", "-q", *source.target_with_format, *(["--shrink"] if shrink else [])]
            self._runner.run(
                [*argv, *keys.arguments, source.target, str(capacity)],
                deadline=self._quick,
                descriptors=(*descriptors, *keys.descriptors),
                complaints=False,
            )

    def bitmap(
        self, source: Source, name: str, *actions: str, descriptors: Sequence[int], granularity: int | None = None
    ) -> None:
        """Change one bitmap of a qcow2 file: ``add``, ``remove``, ``clear``, ``enable``, ``disable``, in this order.

        The file's other bitmaps are stored anew as well: where this is killed, they are left in use (seen), as by any
        program that writes the file; ``hsm.operations.bitmap_guard`` mends that.
        """
        argv = [_PROGRAM, "bitmap", *(f"--{action}" for action in actions)]
        if granularity is not None:
            argv += ["-g", str(granularity)]
        self._change_bitmap(argv, source.itself, name, source.itself.keys, descriptors)

    def merge_bitmap(self, source: Source, name: str, other: Source, *, descriptors: Sequence[int]) -> None:
        """Mark in a bitmap of a qcow2 file what the one of the same name in another file has marked."""
        argv = [_PROGRAM, "bitmap", "--merge", name, "-b", other.itself.argument]
        self._change_bitmap(argv, source.itself, name, source.itself.keys + other.itself.keys, descriptors)

    def _change_bitmap(
        self, argv: list[str], source: Source, name: str, needed: Sequence[Key], descriptors: Sequence[int]
    ) -> None:
        with handed(needed) as keys:
            self._runner.run(
                [*argv, *keys.arguments, "--", source.argument, name],
                deadline=self._deadline,
                descriptors=(*descriptors, *keys.descriptors),
                complaints=False,
            )

    def measure(self, source: Source, target_format: str) -> Sizes:
        """The length of a copy, also of what somebody writes at this time."""
        with handed(source.keys) as keys:
            argv = [_PROGRAM, "measure", "-U", "--output=json", "-O", target_format, *keys.arguments, source.argument]
            found = json.loads(self._runner.run(argv, deadline=self._quick, descriptors=keys.descriptors))
        return Sizes(required=found["required"], fully_allocated=found["fully-allocated"])

    def check(self, source: Source, *, stop: Callable[[], bool], descriptors: Sequence[int] = ()) -> str | None:
        """What is wrong inside a file; None, also where its format is none that can be checked.

        Leaked clusters waste space and lose nothing.  Raises ``CommandError`` where the program came to no
        verdict: it could not be started, or it was killed.
        """
        argv = [_PROGRAM, "check", "-q", "-U", *source.target_with_format]
        try:
            with handed(source.keys) as keys:
                argv += [*keys.arguments, source.target]
                inherited = (*descriptors, *keys.descriptors)
                self._runner.run(argv, deadline=self._deadline, stop=stop, descriptors=inherited)
        except KeyRefused:
            raise
        except CommandError as error:
            if error.status in _DAMAGED:
                return error.reason
            if error.status not in _SOUND:
                raise
        return None


def following(on_percent: Callable[[float], None]) -> Callable[[bytes], None]:
    """What to do with the output of a program that tells how far it is."""
    last = 0.0

    def on_output(data: bytes) -> None:
        nonlocal last
        found = _PROGRESS.findall(data)
        if found and float(found[-1]) > last:
            last = float(found[-1])
            on_percent(last)

    return on_output
