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

from hsm.tools.qemu_img import Source, following
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
    """The program, with the deadlines that the configuration sets, in seconds.  ``direct``: past the page cache.

    Files are given as ``qcow2``, never guessed; what they stand on is found by their headers.
    """

    def __init__(self, runner: Runner, *, deadline: float, quick: float, direct: bool) -> None:
        self._runner = runner
        self._deadline = deadline
        self._quick = quick
        self._cache = "none" if direct else "writeback"

    def commit(self, top: str, base: str, *, descriptors: Sequence[int], on_percent: Callable[[float], None]) -> None:
        """Write what a volume and those between keep into one below, which grows if it is smaller.

        Only that one is changed.
        """
        self._run(
            ["commit", "-p", "-f", "qcow2", "-t", self._cache, "-b", base, "-d", top],
            descriptors,
            on_output=following(on_percent),
        )

    def rebase(
        self,
        path: str,
        parent: tuple[str, str] | None,
        *,
        descriptors: Sequence[int],
        on_percent: Callable[[float], None],
    ) -> None:
        """Put a volume onto another parent, given by name and format; what it shows stays the same."""
        argv = ["rebase", "-p", "-f", "qcow2", "-t", self._cache, "-T", self._cache, *_onto(parent), path]
        self._run(argv, descriptors, on_output=following(on_percent))

    def name_parent(self, path: str, parent: tuple[str, str] | None, *, descriptors: Sequence[int]) -> None:
        """Have the header name another parent; no data is looked at."""
        self._run(["rebase", "-u", "-f", "qcow2", *_onto(parent), path], descriptors, quick=True)

    def mark(self, path: str, *, descriptors: Sequence[int]) -> None:
        """Keep the present state of a file in it, to return to."""
        self._run(["snapshot", "-q", "-c", _MARK, _node(path)], descriptors)

    def return_to_mark(self, path: str, *, descriptors: Sequence[int]) -> None:
        """Undo all that was written since the mark was made; the mark stays."""
        self._run(["snapshot", "-q", "-a", _MARK, _node(path)], descriptors)

    def unmark(self, path: str, *, descriptors: Sequence[int]) -> None:
        """What was written since the mark is right: the mark goes."""
        self._run(["snapshot", "-q", "-d", _MARK, _node(path)], descriptors)

    def mend(self, path: str, *, descriptors: Sequence[int]) -> None:
        """Give back the clusters that an interrupted program left without use."""
        argv = [_PROGRAM, "check", "-q", "-r", "all", "-f", "qcow2", path]
        try:
            self._runner.run(argv, deadline=self._deadline, descriptors=descriptors)
        except CommandError as error:
            if error.status != _ONLY_LEAKS:
                raise

    def data(self, path: str, format_: str) -> list[Extent]:
        """Where in a chain there is data, as seen from its uppermost volume."""
        argv = [_PROGRAM, "map", "--output=json", "-U", Source(path, format_).argument]
        said = json.loads(self._runner.run(argv, deadline=self._deadline))
        return [Extent(item["start"], item["length"], item["depth"]) for item in said if item["data"]]

    def _run(
        self,
        argv: Sequence[str],
        descriptors: Sequence[int],
        *,
        quick: bool = False,
        on_output: Callable[[bytes], None] | None = None,
    ) -> None:
        self._runner.run(
            [_PROGRAM, *argv],
            deadline=self._quick if quick else self._deadline,
            descriptors=descriptors,
            on_output=on_output,
            complaints=False,
        )


def _onto(parent: tuple[str, str] | None) -> list[str]:
    return ["-b", ""] if parent is None else ["-b", parent[0], "-F", parent[1]]


def _node(path: str) -> str:
    """Where the program takes no format but by name."""
    return Source(path, "qcow2").argument
