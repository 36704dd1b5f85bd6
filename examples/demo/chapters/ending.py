# SPDX-License-Identifier: Apache-2.0
"""Who did all this, and then everything goes."""

from __future__ import annotations

import os

from examples.demo.stage import ARCHIVE, Stage
from libvdsm.api.audit import AuditOutcome

_SHOWN = 6


def look_back(stage: Stage) -> None:
    tell = stage.tell
    tell.say("Whatever changed something, or tried to, is on record: by whom, what, when, and how it ended.")
    stage.unset("HSM_DOMAIN")
    stage.hsmctl("audit", "list", "--limit", str(_SHOWN))
    tell.say("What did not succeed:")
    stage.hsmctl("audit", "list", "--outcome", "failed")
    with stage.service.client() as client:
        records = client.audit.list().items
    failed = sorted({record.error or "" for record in records if record.outcome is AuditOutcome.FAILED})
    tell.claim(
        f"{len(records)} changes are on record, those that were killed or refused too.",
        failed == ["ImageInUse", "Interrupted", "TemplateInUse"],
        failed,
    )


def clean_up(stage: Stage) -> None:
    tell = stage.tell
    stage.hsmctl("image", "delete-many", "web01", "web02", "web04", "--domain", "default")
    stage.hsmctl("image", "delete", "web03", "--domain", ARCHIVE)
    stage.hsmctl("image", "list")
    left = [*stage.images_folder.rglob("*"), *stage.archived_folder.rglob("*")]
    tell.claim("No image is left, and no file of one.", not stage.images() and not left, left)
    pid = stage.service.pid
    tell.command(f"kill {pid}", "hsmd")
    tell.claim("hsmd ends in good order.", stage.service.stop() == 0 and not os.path.exists(f"/proc/{pid}"))
