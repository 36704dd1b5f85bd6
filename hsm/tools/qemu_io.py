# SPDX-License-Identifier: Apache-2.0
"""``qemu-io``: single requests into a qcow2 file, as a guest would make them."""

from __future__ import annotations

from collections.abc import Sequence

from hsm.tools.keys import handed
from hsm.tools.nodes import Source
from libvdsm.run import CommandError, Runner

_PROGRAM = "qemu-io"
_MOST = 2**30
"""Bytes of one request; QEMU takes less than 2 GiB."""


class QemuIo:
    """The program, with the deadline that the configuration sets, in seconds."""

    def __init__(self, runner: Runner, *, deadline: float) -> None:
        self._runner = runner
        self._deadline = deadline

    def discard(self, source: Source, offset: int, end: int, *, descriptors: Sequence[int]) -> None:
        """Give back a range of a qcow2 file, and have that stable."""
        commands = [f"discard {start} {min(_MOST, end - start)}\n" for start in range(offset, end, _MOST)]
        with handed(source.keys) as keys:
            said = self._runner.run(
                [_PROGRAM, *source.target_with_format, "-d", "unmap", *keys.arguments, source.target],
                deadline=self._deadline,
                descriptors=(*descriptors, *keys.descriptors),
                stdin="".join([*commands, "flush\n"]).encode(),
                complaints=False,
            )
        # Its status tells nothing of single requests.
        if failed := [line for line in said.decode(errors="replace").splitlines() if "failed" in line]:
            raise CommandError(_PROGRAM, "; ".join(failed)[-2000:])
