# SPDX-License-Identifier: Apache-2.0
"""Ends programs without warning in the middle of what they do, and makes sure that it was the middle."""

from __future__ import annotations

import os
import select
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from examples.demo.narrator import DemoFailed
from examples.demo.stage import Command, Stage
from hsmctl.codes import UNREACHABLE
from libvdsm.api.types import TaskId

_FROM, _TO = 30.0, 80.0
"""The part of a task, in percent, that counts as its middle."""
_ATTEMPTS = 5
_END = 10.0


@dataclass(frozen=True)
class Killed:
    """What was at work when the service was killed."""

    task: TaskId
    tools: list[int]


def kill_the_service_during(stage: Stage, *words: str, undo: tuple[str, ...]) -> Killed:
    """Begin a command that copies, and kill the service in the middle of that; ``undo`` is for one that was too fast."""
    for _ in range(_ATTEMPTS):
        with stage.service.client() as client:
            stage.tell.command(f"hsmctl {' '.join(words)} &")
            command = stage.begin(client, *words)
            killed = _strike(stage, command)
            if killed is not None:
                stage.finish(command, UNREACHABLE)
                stage.tell.proved("hsmctl has lost the service, and says what to do once it is back.")
                _gone(stage, killed.tools)
                return killed
            stage.finish(command, 0)
        stage.tell.say("That was too fast to be caught in the middle; once more.")
        stage.hsmctl(*undo)
    raise DemoFailed(f"{_ATTEMPTS} times it was over before it could be interrupted")


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
