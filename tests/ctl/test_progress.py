# SPDX-License-Identifier: Apache-2.0
"""What ^C means to a task that is waited for."""

from __future__ import annotations

import os
import signal
import uuid
from typing import Any, cast

import msgspec
import pytest

from hsmctl.failure import Refusal
from hsmctl.progress import Bar, numbers, wait, watch
from libvdsm.api.errors import TaskPastStopping
from libvdsm.api.types import Progress, TaskId, TaskInfo, TaskState
from libvdsm.client import Client

NONE = Progress(done=0, total=0, percent=0.0, step="waiting")
TASK: TaskInfo[Any] = TaskInfo(
    id=TaskId(uuid.UUID(int=7)),
    verb="Image.delete",
    state=TaskState.RUNNING,
    created=0.0,
    progress=NONE,
    owner="me",
    request="r",
)


class Tasks:
    """A service with one task, which is past stopping and succeeds at the third look; ^C is pressed at some looks.

    The look before the first is the call that begins the task.
    """

    def __init__(self, *pressed: int) -> None:
        self.task = self
        self.looks = 0
        self._pressed = pressed
        self.stopped = 0

    def ask(self) -> TaskInfo[Any]:
        if 0 in self._pressed:
            os.kill(os.getpid(), signal.SIGINT)
        return TASK

    def wait_for(self, on_progress: Any) -> Any:
        task = TASK
        while self.looks < 3:
            on_progress(task)
            self.looks += 1
            if self.looks in self._pressed:
                os.kill(os.getpid(), signal.SIGINT)
        on_progress(msgspec.structs.replace(task, state=TaskState.SUCCEEDED))
        return "result"

    def wait(self, _task: Any, *, on_progress: Any) -> Any:
        return self.wait_for(on_progress)

    def stop(self, *, task: TaskId) -> None:
        self.stopped += 1
        raise TaskPastStopping(task=task, reason="it has published its change")


def ended(tasks: Tasks) -> tuple[Any, bool]:
    outcome = wait(cast("Client", tasks), tasks.ask)
    return outcome.result, outcome.interrupted


def test_a_task_that_nobody_interrupts_gives_its_result() -> None:
    tasks = Tasks()
    assert ended(tasks) == ("result", False)
    assert tasks.stopped == 0


def test_a_task_past_stopping_is_waited_for_and_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    tasks = Tasks(1)
    assert ended(tasks) == ("result", True)
    assert tasks.stopped == 1
    said = capsys.readouterr().err
    assert "asking the task to stop" in said
    assert "it has published its change. Waiting for its end." in said


def test_an_interrupt_before_the_service_has_answered_stops_the_task_too() -> None:
    tasks = Tasks(0)
    assert ended(tasks) == ("result", True)
    assert tasks.stopped == 1


def test_the_second_interrupt_gives_up_waiting_and_says_how_to_ask_later() -> None:
    with pytest.raises(Refusal, match=f"`hsmctl task info {TASK.id}`") as caught:
        ended(Tasks(1, 2))
    assert caught.value.status == 130


def test_an_interrupt_of_who_only_watches_leaves_the_task_alone() -> None:
    class Interrupted:
        def __init__(self) -> None:
            self.task = self

        def wait(self, **_: object) -> None:
            raise KeyboardInterrupt

    with pytest.raises(Refusal, match=f"task {TASK.id} goes on") as caught:
        watch(cast("Client", Interrupted()), TASK)
    assert caught.value.status == 130


def test_afterwards_an_interrupt_is_what_it_was_before() -> None:
    before = signal.getsignal(signal.SIGINT)
    ended(Tasks())
    assert signal.getsignal(signal.SIGINT) is before


def test_progress_is_told_in_percent_bytes_and_rate() -> None:
    progress = Progress(done=2**30, total=2**32, percent=25.0, step="copying")
    assert numbers(progress, 100 * 2**20) == " 25%  1G of 4G  100M/s"
    assert numbers(progress, None) == " 25%  1G of 4G"
    assert numbers(NONE, 5.0) == ""


def test_where_nobody_watches_nothing_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar() as bar:
        bar.show(TASK)
    assert capsys.readouterr() == ("", "")
