# SPDX-License-Identifier: Apache-2.0
"""The service is killed in the middle of a copy, while a guest runs; nothing is half-made, and nothing lost."""

from __future__ import annotations

from pathlib import Path

from examples.demo import content
from examples.demo.content import Fingerprint
from examples.demo.stage import ARCHIVE, Stage, reads
from examples.demo.striking import Killed, kill_the_service_during
from examples.demo.writes import MIB
from hsmctl.values import show_size
from libvdsm.api.types import PreparedInfo, TaskState

_COPY = ("image", "copy", "web01", "web03", "--collapse", "--to", ARCHIVE)
_LONGEST = 16
"""Seconds that the copy may take which is killed in its middle."""


def kill(stage: Stage) -> None:
    tell = stage.tell
    tell.say(
        "A second domain, and a copy of web01 to it, its four layers put into one. A guest runs on web02 meanwhile; "
        "and in the middle of the copy hsmd is killed without warning."
    )
    (stage.work / ARCHIVE).mkdir()
    stage.hsmctl("domain", "create", ARCHIVE, ARCHIVE)
    stage.export("HSM_DOMAIN", "default")
    path = stage.prepare("web02")
    held = stage.info("web02").prepared
    before = stage.fingerprint()
    tell.say(f"The sha256 of all {len(before.sums)} files of the images, {show_size(before.size)}, is noted for later.")
    rate = f"{max(200, stage.writes.capacity // MIB // _LONGEST)}M"
    undo = ("image", "delete", "web03", "--domain", ARCHIVE)
    killed = kill_the_service_during(stage, *_COPY, "--rate", rate, undo=undo)
    _left_behind(stage)

    tell.say(
        "The guest notices nothing: its path is QEMU's own, and its lease is held by a process that is still there."
    )
    stage.write(path, stage.writes.meanwhile)

    tell.say("The service starts again, settles what became of its task, and collects garbage.")
    tell.command("hsmd --home service &", silent=True)
    stage.service.start()
    _after_the_restart(stage, killed, held)
    _all_is_as_it_was(stage, before, path)
    _once_more(stage)


def _left_behind(stage: Stage) -> None:
    left = [path for path in stage.archived_folder.rglob("*") if path.is_file()]
    published = [path.name for path in left if path.suffix == ".meta"]
    stage.tell.claim(
        f"The {show_size(content.space(left))} that it had copied were published nowhere: nobody can take them for a disk.",
        left and not published,
        published,
    )


def _after_the_restart(stage: Stage, killed: Killed, held: PreparedInfo | None) -> None:
    tell = stage.tell
    with stage.service.client() as client:
        task = client.task.get_info(task=killed.task)
        garbage = [client.domain.get_stats(domain=domain.id).garbage for domain in client.domain.list().items]
    stage.hsmctl("task", "list", "--state", "failed")
    tell.claim(
        "The copy has failed, and says why.",
        task.state is TaskState.FAILED and task.error is not None and task.error.name == "Interrupted",
        task,
    )
    stage.hsmctl("image", "list")
    images = stage.images()
    tell.claim("There is no web03, whole or in part.", "web03" not in images and len(images) == 3, list(images))
    tell.claim("web02 is in use as before, by the same process.", held and images["web02"].prepared == held, held)
    stage.hsmctl("domain", "check", ARCHIVE, "--deep")
    tell.claim("No garbage is left.", garbage == [0, 0] and not any(stage.archived_folder.rglob("*")), garbage)


def _all_is_as_it_was(stage: Stage, before: Fingerprint, path: Path) -> None:
    leaf = str(path.relative_to(stage.images_folder))
    changed = before.differences(stage.fingerprint())
    stage.tell.claim(
        f"All other {len(before.sums) - 1} files have the checksums from before; web02, where the guest wrote, differs.",
        changed == [leaf],
        changed,
    )
    stage.hsmctl("image", "teardown", "web02")
    stage.tell.claim("What the guest wrote meanwhile is there.", reads(path, stage.writes.meanwhile))


def _once_more(stage: Stage) -> None:
    stage.tell.say(
        "And the copy, from the beginning. With --checksum both sides are read again before it is published:"
    )
    stage.hsmctl(*_COPY, "--checksum", slow=True)
    copy = stage.info("web03")
    stage.tell.claim("web03 is web01 on the other domain, in one layer.", len(copy.chain or []) == 1, copy)
