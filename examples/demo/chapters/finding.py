# SPDX-License-Identifier: Apache-2.0
"""Words of one's own on images, and lists of what fits."""

from __future__ import annotations

from examples.demo.stage import Stage

_FILTER = 'tags has "env=prod" and actualSize > 1M'


def find(stage: Stage) -> None:
    stage.tell.say("Tags are words of your own. The service filters and sorts:")
    stage.hsmctl("image", "tag", "web01", "env=prod", "backup")
    stage.hsmctl("image", "tag", "web02", "env=prod")
    listed = stage.read("image", "list", "--filter", _FILTER, "--sort", "-actualSize").splitlines()[1:]
    found = [line.split()[0] for line in listed]
    stage.tell.claim("Two of four fit.", sorted(found) == ["web01", "web02"] and len(stage.images()) == 4, found)
