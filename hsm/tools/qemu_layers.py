# SPDX-License-Identifier: Apache-2.0
"""``qemu-img`` on the layers of an image: commit, rebase, the mark that a rebase can be taken back to, what lies where.

All of it changes volumes in place.  Seen with strace: ``rebase`` writes the header, which names the new parent, before
the tables that map what it pulled; so a header that names it proves nothing, neither after a kill nor after a power
cut.  The internal snapshot that ``mark`` takes does: it is stable before anything is pulled, and whoever finds it
returns to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hsm.tools.keys import handed
from hsm.tools.nodes import Source, takes_direct
from hsm.tools.qemu_img import following
from libvdsm.run import CommandError, Runner

_PROGRAM = "qemu-img"
_MARK = "hsm"
_ONLY_LEAKS = 3


@dataclass(frozen=True)
class Extent:
    """A range of what a guest sees that one layer keeps data for; ``depth`` 0 is the uppermost.  In bytes."""

    start: int
    length: int
    depth: int

    @property
    def end(self) -> int:
        return self.start + self.length


class QemuLayers:
    """The program, with the deadlines that the configuration sets, in seconds.

    Formats are given, never guessed; what a volume stands on is found by its header, unless its chain is spelled out.
    Data is moved past the page cache where the file system can: guests keep the cache, and what has been written is
    soon stable (1 GiB committed and synchronised: 2.0 s, through the cache 3.9; a busy disk, medians of three).
    """

    def __init__(self, runner: Runner, *, deadline: float, quick: float) -> None:
        self._runner = runner
        self._deadline = deadline
        self._quick = quick

    def commit(
        self, top: Source, base: str | None, *, descriptors: Sequence[int], on_percent: Callable[[float], None]
    ) -> None:
        """Write what a volume and those between keep into one below, which grows if it is smaller.

        Only that one is changed.  ``base``: its path; None: what the volume is said to stand on.
        """
        self._run(
            ["commit", "-p", *top.target_with_format, "-t", _cache(top), *(["-b", base] if base else []), "-d"],
            top,
            descriptors,
            on_output=following(on_percent),
        )

    def rebase(
        self,
        source: Source,
        parent: tuple[str, str] | None,
        *,
        descriptors: Sequence[int],
        on_percent: Callable[[float], None],
    ) -> None:
        """Put a volume onto another parent, given by name and format; what it shows stays the same."""
        cache = _cache(source)
        argv = ["rebase", "-p", *source.target_with_format, "-t", cache, "-T", cache, *_onto(parent)]
        self._run(argv, source, descriptors, on_output=following(on_percent))

    def name_parent(self, source: Source, parent: tuple[str, str] | None, *, descriptors: Sequence[int]) -> None:
        """Have the header name another parent; no data is looked at."""
        # Where keys are given with it, the program takes nothing below it.
        source = source.itself if source.keys else source
        self._run(["rebase", "-u", *source.target_with_format, *_onto(parent)], source, descriptors, quick=True)

    def mark(self, source: Source, *, descriptors: Sequence[int]) -> None:
        """Keep the present state of a file in it, to return to."""
        self._run(["snapshot", "-q", "-c", _MARK], source, descriptors, as_node=True)

    def return_to_mark(self, source: Source, *, descriptors: Sequence[int]) -> None:
        """Undo all that was written since the mark was made; the mark stays."""
        self._run(["snapshot", "-q", "-a", _MARK], source, descriptors, as_node=True)

    def unmark(self, source: Source, *, descriptors: Sequence[int]) -> None:
        """What was written since the mark is right: the mark goes."""
        self._run(["snapshot", "-q", "-d", _MARK], source, descriptors, as_node=True)

    def mend(self, source: Source, *, descriptors: Sequence[int]) -> None:
        """Give back the clusters that an interrupted program left without use."""
        try:
            with handed(source.keys) as keys:
                argv = [_PROGRAM, "check", "-q", "-r", "all", *source.target_with_format]
                self._runner.run(
                    [*argv, *keys.arguments, source.target],
                    deadline=self._deadline,
                    descriptors=(*descriptors, *keys.descriptors),
                )
        except CommandError as error:
            if error.status != _ONLY_LEAKS:
                raise

    def data(self, source: Source) -> list[Extent]:
        """Where in a chain there is data, as seen from its uppermost volume."""
        with handed(source.keys) as keys:
            argv = [_PROGRAM, "map", "--output=json", "-U", *keys.arguments, source.argument]
            said = json.loads(self._runner.run(argv, deadline=self._deadline, descriptors=keys.descriptors))
        return [Extent(item["start"], item["length"], item["depth"]) for item in said if item["data"]]

    def _run(
        self,
        argv: Sequence[str],
        source: Source,
        descriptors: Sequence[int],
        *,
        as_node: bool = False,
        quick: bool = False,
        on_output: Callable[[bytes], None] | None = None,
    ) -> None:
        """``as_node``: where the program takes no format but with the volume."""
        with handed(source.keys) as keys:
            self._runner.run(
                [_PROGRAM, *argv, *keys.arguments, source.argument if as_node else source.target],
                deadline=self._quick if quick else self._deadline,
                descriptors=(*descriptors, *keys.descriptors),
                on_output=on_output,
                complaints=False,
            )


def _cache(source: Source) -> str:
    return "none" if takes_direct(source.path) else "writeback"


def _onto(parent: tuple[str, str] | None) -> list[str]:
    return ["-b", ""] if parent is None else ["-b", parent[0], "-F", parent[1]]
