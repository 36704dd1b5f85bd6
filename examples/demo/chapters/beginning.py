# SPDX-License-Identifier: Apache-2.0
"""The service starts, and a real image becomes a disk."""

from __future__ import annotations

import os

from examples.demo.stage import Stage
from hsmctl.values import show_size


def start(stage: Stage) -> None:
    tell = stage.tell
    user = "root here, and as any other user just as well" if os.getuid() == 0 else f"uid {os.getuid()}, not as root"
    tell.say(
        "Without any settings, hsmd serves a domain of the type local in a folder of its own. It needs no other daemon, "
        f"and runs as {user}."
    )
    tell.command("hsmd --home service &", silent=True)
    stage.service.start()
    tell.command(f"export HSM_CONNECT={stage.service.address}", silent=True)
    stage.hsmctl("domain", "list")
    with stage.service.client() as client:
        types = [domain.type for domain in client.domain.list().items]
    tell.claim("One local domain is there, without any image.", types == ["local"] and not stage.images(), types)


def import_image(stage: Stage) -> None:
    tell, image = stage.tell, stage.image
    tell.say(
        "A file becomes a disk. It is looked at before any tool opens it: a file that refers to others is refused."
    )
    stage.hsmctl("image", "import", str(image.path.relative_to(stage.work)), "web01", slow=True)
    info = stage.info("web01")
    tell.claim(
        f"web01 is as large as the file, {show_size(info.capacity)}, and a chain of one volume.",
        info.capacity == -(-image.capacity // 512) * 512 and len(info.chain or []) == 1,
        info,
    )
    tell.say("A disk needs room:")
    stage.hsmctl("image", "resize", "web01", show_size(stage.writes.capacity))
    info = stage.info("web01")
    tell.claim(
        f"A guest sees {show_size(info.capacity)} now; on the storage web01 takes {show_size(info.actual_size)}.",
        info.capacity == stage.writes.capacity,
        info,
    )
