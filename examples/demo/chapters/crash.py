# SPDX-License-Identifier: Apache-2.0
"""The service is killed in the middle of an import, while a guest runs; nothing is half-made, and nothing lost."""

from __future__ import annotations

import os
import select
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from examples.demo import content
from examples.demo.chapters.proof import EXPORTED
from examples.demo.content import Fingerprint
from examples.demo.narrator import DemoFailed
from examples.demo.stage import Command, Stage, reads
from hsmctl.codes import UNREACHABLE
from hsmctl.values import show_size
from libvdsm.api.types import PreparedInfo, TaskId, TaskState

_FROM, _TO = 40.0, 80.0
"""The part of the import, in percent, that counts as its middle."""
_ATTEMPTS = 5
_END = 10.0


@dataclass(frozen=True)
class Killed:
    """What was at work when the service was killed."""

    task: TaskId
    tools: list[int]


def kill(stage: Stage) -> None:
    tell = stage.tell
    tell.say(f"A guest runs on web02. {EXPORTED} is being imported as web03 when hsmd is killed without warning.")
    path = stage.prepare("web02")
    held = stage.info("web02").prepared
    before = stage.fingerprint()
    tell.say(f"The sha256 of all {len(before.sums)} files of its images, {show_size(before.size)}, is noted for later.")
    killed = _kill_in_the_middle(stage)
    _left_behind(stage, before)

    tell.say(
        "The guest notices nothing: its path is QEMU's own, and its lease is held by a process that is still there."
    )
    stage.write(path, stage.writes.meanwhile)

    tell.say("The service starts again, settles what became of its task, and collects garbage.")
    tell.command("hsmd --home service &", silent=True)
    stage.service.start()
    _after_the_restart(stage, before, killed, path, held)
    _once_more(stage)


def _kill_in_the_middle(stage: Stage) -> Killed:
    for _ in range(_ATTEMPTS):
        with stage.service.client() as client:
            stage.tell.command(f"hsmctl image import {EXPORTED} web03 &")
            command = stage.begin(client, "image", "import", EXPORTED, "web03")
            killed = _strike(stage, command)
            if killed is not None:
                stage.finish(command, UNREACHABLE)
                stage.tell.proved("hsmctl has lost the service, and says what to do once it is back.")
                _gone(stage, killed.tools)
                return killed
            stage.finish(command, 0)
        stage.tell.say("That was too fast to be caught in the middle; once more.")
        stage.hsmctl("image", "delete", "web03")
    raise DemoFailed(f"{_ATTEMPTS} imports were over before they could be interrupted")


def _strike(stage: Stage, command: Command) -> Killed | None:
    """Kill the service in the middle of the command's task; None if no middle was seen."""
    for task in command.looks():
        if task.progress.step == "copying" and _FROM <= task.progress.percent <= _TO:
            tools = [child.pid for child in command.client.host.get_stats().children if child.name == "qemu-img"]
            if not tools:
                continue
            stage.service.kill()
            stage.tell.bar(task.progress, last=True)
            stage.tell.command(f"kill -KILL {stage.service.pid}", "hsmd")
            return Killed(task.id, tools)
        stage.tell.bar(task.progress)
    if (ended := command.task()) is not None:
        stage.tell.bar(ended.progress, last=True)
    return None


def _gone(stage: Stage, tools: Iterable[int]) -> None:
    for pid in tools:
        with suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            try:
                poll = select.poll()
                poll.register(descriptor, select.POLLIN)
                gone = bool(poll.poll(_END * 1000))
            finally:
                os.close(descriptor)
            if not gone:
                raise DemoFailed(f"qemu-img, process {pid}, goes on without the service")
    stage.tell.proved("The qemu-img that copied has ended with it: nothing writes behind anybody's back.")


def _left_behind(stage: Stage, before: Fingerprint) -> None:
    images = stage.images_folder
    new = [path for path in images.rglob("*") if path.is_file() and str(path.relative_to(images)) not in before.sums]
    published = [path.name for path in new if path.suffix == ".meta"]
    stage.tell.claim(
        f"The {show_size(content.space(new))} that it had copied were published nowhere: nobody can take them for a disk.",
        new and not published,
        published,
    )


def _after_the_restart(
    stage: Stage, before: Fingerprint, killed: Killed, path: Path, held: PreparedInfo | None
) -> None:
    tell = stage.tell
    stage.hsmctl("task", "info", str(killed.task))
    with stage.service.client() as client:
        task = client.task.get_info(task=killed.task)
        stats = client.domain.get_stats(domain=stage.info("web02").domain)
    tell.claim(
        "The import has failed, and says why.",
        task.state is TaskState.FAILED and task.error is not None and task.error.name == "Interrupted",
        task,
    )
    stage.hsmctl("image", "list")
    images = stage.images()
    tell.claim("There is no web03, whole or in part.", "web03" not in images and len(images) == 3, list(images))
    tell.claim("web02 is in use as before, by the same process.", held and images["web02"].prepared == held, held)
    stage.hsmctl("domain", "check", "--deep")
    stage.hsmctl("domain", "collect-garbage", why="done at the start already")
    tell.claim("No garbage is left.", stats.garbage == 0, stats)

    leaf = str(path.relative_to(stage.images_folder))
    changed = before.differences(stage.fingerprint())
    tell.claim(
        f"All other {len(before.sums) - 1} files have the checksums from before; web02, where the guest wrote, differs.",
        changed == [leaf],
        changed,
    )
    stage.hsmctl("image", "teardown", "web02")
    tell.claim("What the guest wrote meanwhile is there.", reads(path, stage.writes.meanwhile))


def _once_more(stage: Stage) -> None:
    stage.tell.say("And the import, from the beginning:")
    stage.hsmctl("image", "import", EXPORTED, "web03", slow=True)
    path = stage.prepare("web03", read_only=True)
    stage.on_path(path, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", EXPORTED)
    stage.hsmctl("image", "teardown", "web03")
    stage.tell.proved("web03 is the file, bit for bit.")
