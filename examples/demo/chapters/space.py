# SPDX-License-Identifier: Apache-2.0
"""Zeros take no space."""

from __future__ import annotations

from examples.demo.stage import Stage, reads
from hsmctl.values import show_size

_NOTES = 64 * 2**10
"""Bytes at most that a file system takes for its notes of the holes."""


def give_back(stage: Stage) -> None:
    tell, zeros = stage.tell, stage.writes.tuesday.of(0)
    tell.say("A guest deletes files and writes zeros over them, which takes as much space as they did:")
    stage.write(stage.prepare("web01"), zeros)
    stage.hsmctl("image", "teardown", "web01")
    before = stage.info("web01").actual_size
    stage.hsmctl("image", "sparsify", "web01")
    freed = before - stage.info("web01").actual_size
    tell.claim(
        f"{show_size(freed)} came back; web01 reads as before, and so does its snapshot.",
        freed >= zeros.length - _NOTES
        and reads(stage.leaf("web01"), zeros)
        and reads(stage.snapshot("web01", "tuesday"), stage.writes.tuesday),
        freed,
    )
