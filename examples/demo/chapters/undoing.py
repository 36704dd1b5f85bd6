# SPDX-License-Identifier: Apache-2.0
"""Back to a snapshot, fewer layers, no template any more."""

from __future__ import annotations

from examples.demo.stage import Stage, reads
from hsmctl.codes import FAILED
from libvdsm.api.types import ImageInfo, VolumeInfo

_BROKEN = 0xEE


def go_back(stage: Stage) -> None:
    tell, writes = stage.tell, stage.writes
    tell.say("An upgrade goes wrong, and overwrites what tuesday wrote. Back to the snapshot:")
    stage.write(stage.prepare("web01"), writes.tuesday.of(_BROKEN))
    stage.hsmctl("image", "teardown", "web01")
    stage.hsmctl("image", "revert", "web01", "tuesday")
    leaf = stage.leaf("web01")
    as_it_was = reads(leaf, writes.tuesday) and reads(leaf, writes.today.of(0))
    tell.claim("web01 reads as on tuesday, and the snapshot is still there.", as_it_was and _names(stage) == [
        "installed", "monday", "tuesday", "web01",
    ])  # fmt: skip

    tell.say("A snapshot that is no longer wanted is merged with its neighbour, whichever way moves less data:")
    stage.hsmctl("image", "delete-snapshot", "web01", "monday")
    stage.hsmctl("image", "info", "web01")
    tell.claim("The layer of monday is gone, and what it held is not.", _names(stage) == [
        "installed", "tuesday", "web01",
    ] and reads(stage.leaf("web01"), writes.monday_alone) and reads(stage.leaf("web01"), writes.tuesday))  # fmt: skip


def flatten(stage: Stage) -> None:
    tell = stage.tell
    tell.say("A template stays while clones stand on it:")
    stage.hsmctl("image", "delete", "web-base", status=FAILED)
    tell.claim("Refused, and everything is still there.", "web-base" in stage.images())
    tell.say("So web02 gets what it needs of it:")
    stage.hsmctl("image", "flatten", "web02", slow=True)
    alone = stage.info("web02")
    tell.claim("web02 stands on nothing.", alone.template is None and len(alone.chain or []) == 1, alone)
    stage.hsmctl("image", "delete", "web-base")
    wanted = (stage.writes.tuesday, stage.writes.today, stage.writes.meanwhile)
    wrong = [str(what) for what in wanted if not reads(stage.leaf("web02"), what)]
    tell.claim("The template is gone, and web02 has all that it had.", not wrong, wrong)


def together(stage: Stage) -> None:
    tell = stage.tell
    tell.say("web01 and web02 belong together. A snapshot of both is one of both, or none:")
    stage.prepare("web02")
    both = ("image", "snapshot-many", "web01", "web02", "--name", "together")
    stage.hsmctl(*both, status=FAILED)
    tell.claim("While a guest writes web02, web01 has got no snapshot either.", _having(stage, "together") == [])
    stage.hsmctl("image", "teardown", "web02")
    stage.hsmctl(*both)
    tell.claim("Now both have.", _having(stage, "together") == ["web01", "web02"])


def _having(stage: Stage, snapshot: str) -> list[str]:
    return [name for name in ("web01", "web02") if snapshot in _names(stage, name)]


def _names(stage: Stage, image: str = "web01") -> list[str | None]:
    return [volume.name for volume in _chain(stage.info(image))]


def _chain(image: ImageInfo) -> list[VolumeInfo]:
    return image.chain or []
