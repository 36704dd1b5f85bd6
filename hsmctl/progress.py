# SPDX-License-Identifier: Apache-2.0
"""Waiting for a task: a bar for who watches, and what ^C means.

The first ^C asks the task to stop and goes on waiting for what it becomes; the second gives up waiting.  Who
only watches a task that another command began does not stop it.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn, Self

from hsmctl.codes import INTERRUPTED
from hsmctl.failure import Refusal
from hsmctl.values import show_size
from libvdsm.api.errors import ConnectionFailed, TaskPastStopping
from libvdsm.api.types import Progress, TaskInfo, TaskState
from libvdsm.client import Client
from libvdsm.declare import ApiError

ENDED = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.STOPPED)
_LOOK = 0.5
"""Seconds between two looks at a task that is watched."""
_PATIENCE = 0.4
"""Seconds before a bar is drawn: most tasks are over by then, and need none."""


@dataclass(frozen=True)
class Ended:
    """A task that succeeded; ``interrupted`` if it did so against the user's wish."""

    result: Any
    interrupted: bool


def wait(client: Client, ask: Callable[[], TaskInfo[Any]]) -> Ended:
    """Ask for a task and wait for its end, and stop it on ^C."""
    # Counted from before the task exists: a ^C in between would leave it to itself, and nobody would know its id.
    with _interrupts() as interrupts, Bar() as bar:
        task = ask()
        asked = False

        def on_progress(current: TaskInfo[Any]) -> None:
            nonlocal asked
            bar.show(current)
            if interrupts.count and not asked:
                asked = True
                _stop(client, current, bar)

        try:
            return Ended(client.wait(task, on_progress=on_progress), bool(interrupts.count))
        except ConnectionFailed as error:
            bar.close()
            error.add_note(f"Once it answers again, `hsmctl task info {task.id}` tells what became of the task.")
            raise
        except ApiError as error:
            bar.close()
            if interrupts.count:
                raise Refusal(type(error).__name__, str(error), status=INTERRUPTED) from None
            raise
        except KeyboardInterrupt:
            bar.close()
            _give_up(task)


def watch(client: Client, task: TaskInfo[Any]) -> TaskInfo[Any]:
    """Wait for the end of a task that somebody else began, and tell what it became."""
    with Bar() as bar:
        try:
            while task.state not in ENDED:
                task = client.task.wait(task=task.id, timeout=_LOOK)
                bar.show(task)
        except KeyboardInterrupt:
            bar.close()
            _give_up(task)
    return task


def _stop(client: Client, task: TaskInfo[Any], bar: Bar) -> None:
    if task.state in ENDED:
        return
    bar.say("asking the task to stop; ^C again to go without knowing what it becomes")
    try:
        client.task.stop(task=task.id)
    except TaskPastStopping as error:
        bar.say(f"{error} Waiting for its end.")
    except ApiError as error:
        bar.say(f"it could not be asked to stop: {error}")


def _give_up(task: TaskInfo[Any]) -> NoReturn:
    msg = f"task {task.id} goes on; `hsmctl task info {task.id}` tells what it becomes"
    raise Refusal("Interrupted", msg, status=INTERRUPTED)


class _Interrupts:
    """How often ^C was pressed.  Counting instead of raising leaves no call cut in half."""

    def __init__(self) -> None:
        self.count = 0

    def handle(self, _signal: int, _frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt


@contextlib.contextmanager
def _interrupts() -> Iterator[_Interrupts]:
    interrupts = _Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before = signal.signal(signal.SIGINT, interrupts.handle)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)


class Bar:
    """A progress bar on standard error; nothing where that is no terminal."""

    def __init__(self) -> None:
        self._live: Any = None
        self._wanted = sys.stderr.isatty()
        self._begun = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str) -> None:
        if self._live is not None:
            self._live.console.print(f"hsmctl: {text}", markup=False, highlight=False, soft_wrap=True)
        else:
            print(f"hsmctl: {text}", file=sys.stderr)

    def show(self, task: TaskInfo[Any]) -> None:
        step = "stopping" if task.state is TaskState.STOPPING else task.progress.step or task.state.value
        self.draw(task.progress, step)

    def draw(self, progress: Progress, step: str) -> None:
        if not self._wanted or time.monotonic() - self._begun < _PATIENCE:
            return
        if self._live is None:
            self._live = _rich_bar()
            if self._live is None:
                self._wanted = False
                return
        bar = self._live.tasks[0]
        self._live.update(bar.id, completed=progress.done, total=progress.total or None, description=step)
        self._live.update(bar.id, numbers=numbers(progress, bar.speed))


def numbers(progress: Progress, speed: float | None) -> str:
    """Percent, bytes and rate, as far as they are known."""
    if not progress.total:
        return f"{progress.percent:.0f}%" if progress.percent else ""
    rate = f"  {show_size(int(speed))}/s" if speed else ""
    return f"{progress.percent:3.0f}%  {show_size(progress.done)} of {show_size(progress.total)}{rate}"


def _rich_bar() -> Any:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress
    except ImportError:
        return None
    live = RichProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[numbers]}", markup=False),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
        transient=True,
    )
    live.add_task("", total=None, numbers="")
    live.start()
    return live
