# SPDX-License-Identifier: Apache-2.0
"""Everything goes, in an order that the service insists on."""

from __future__ import annotations

import os

from examples.demo.chapters.proof import EXPORTED
from examples.demo.stage import Stage
from hsmctl.codes import FAILED


def clean_up(stage: Stage) -> None:
    tell = stage.tell
    tell.say("A template stays while clones stand on it:")
    stage.hsmctl("image", "delete", "web-base", status=FAILED)
    tell.claim("Refused, and everything is still there.", len(stage.images()) == 4)
    for name in ("web02", "web-base", "web03", "web01"):
        stage.hsmctl("image", "delete", name)
    stage.hsmctl("image", "list")
    left = list(stage.images_folder.rglob("*"))
    tell.claim("No image is left, and no file of one.", not stage.images() and not left, left)
    (stage.work / EXPORTED).unlink()
    pid = stage.service.pid
    tell.command(f"kill {pid}", "hsmd")
    tell.claim("hsmd ends in good order.", stage.service.stop() == 0 and not os.path.exists(f"/proc/{pid}"))
