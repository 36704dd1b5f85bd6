# SPDX-License-Identifier: Apache-2.0
"""``qemu-io``: single requests into a qcow2 file, as a guest would make them."""

from __future__ import annotations

from collections.abc import Sequence

from libvdsm.run import CommandError, Runner

_PROGRAM = "qemu-io"
_MOST = 2**30
"""Bytes of one request; QEMU takes less than 2 GiB."""


class QemuIo:
    """The program, with the deadline that the configuration sets, in seconds."""

    def __init__(self, runner: Runner, *, deadline: float) -> None:
        self._runner = runner
        self._deadline = deadline

    def discard(self, path: str, offset: int, end: int, *, descriptors: Sequence[int]) -> None:
        """Give back a range of a qcow2 file, and have that stable."""
        commands = [f"discard {start} {min(_MOST, end - start)}\n" for start in range(offset, end, _MOST)]
        said = self._runner.run(
            [_PROGRAM, "-f", "qcow2", "-d", "unmap", path],
            deadline=self._deadline,
            descriptors=descriptors,
            stdin="".join([*commands, "flush\n"]).encode(),
            complaints=False,
        )
        # Its status tells nothing of single requests.
        if failed := [line for line in said.decode(errors="replace").splitlines() if "failed" in line]:
            raise CommandError(_PROGRAM, "; ".join(failed)[-2000:])
