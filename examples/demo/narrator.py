# SPDX-License-Identifier: Apache-2.0
"""What the reader sees: headings, prose, commands, progress, and claims that were checked.

On a terminal with colours; anywhere else plain text, where a progress bar is one line, written when it ends.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hsmctl.values import show_size
from libvdsm.api.types import Progress

_BAR = 28


class DemoFailed(Exception):
    """Something is not as the demonstration says."""


class Narrator:
    """Writes to standard output."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._colours = self._terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self._width = max(60, min(100, shutil.get_terminal_size((80, 24)).columns))
        self._times: list[tuple[str, float]] = []
        self._claims = 0
        self._silent = False

    def opening(self, title: str, text: str) -> None:
        """The first words."""
        self._line(self._styled(title, "1;36"))
        self.say(text)

    @contextmanager
    def chapter(self, title: str) -> Iterator[None]:
        """A numbered heading; the time until the end goes into the summary."""
        self._heading(f"{len(self._times) + 1}. {title}")
        begun = time.monotonic()
        yield
        self._times.append((title, time.monotonic() - begun))

    def say(self, text: str) -> None:
        """Prose, in a paragraph of its own."""
        self._line("\n" + textwrap.fill(" ".join(text.split()), self._width, break_on_hyphens=False))

    def command(self, text: str, why: str = "", *, silent: bool = False) -> None:
        """A command as a person would type it; its own output follows, unless it is ``silent``."""
        space = "" if self._silent else "\n"
        self._line(space + self._styled(f"$ {text}", "1") + (self._styled(f"   # {why}", "2") if why else ""))
        self._silent = silent

    def output(self, text: str) -> None:
        """What a command wrote."""
        if text.strip():
            self._line(text.rstrip("\n"))

    def claim(self, text: str, holds: object, found: object = "") -> None:
        """Say what is so; if it is not, that is the end.  ``found`` tells what there is instead."""
        if not holds:
            raise DemoFailed(f"not so: {text}" + (f" (found: {found})" if found != "" else ""))
        self.proved(text)

    def proved(self, text: str) -> None:
        """Say what the command before has proved by ending as it had to."""
        self._claims += 1
        mark = self._styled("✓", "1;32")
        wrapped = textwrap.wrap(" ".join(text.split()), self._width - 4, break_on_hyphens=False)
        self._line("\n".join(f"{' ' if number else mark} {line}" for number, line in enumerate(wrapped)))

    def bar(self, progress: Progress, *, last: bool = False) -> None:
        """How far an operation is; ``last`` leaves the bar as it is now."""
        if not (self._terminal or last):
            return
        self._silent = False
        length = min(_BAR, self._width - 50)
        full = round(length * progress.percent / 100)
        drawn = self._styled("█" * full, "36") + self._styled("░" * (length - full), "2")
        size = f"{show_size(progress.done)} of {show_size(progress.total)}  " if progress.total else ""
        text = f"  {drawn} {progress.percent:3.0f}%  {size}{progress.step}"
        sys.stdout.write(f"\r\x1b[2K{text}" if self._terminal else text)
        sys.stdout.write("\n" if last else "")
        sys.stdout.flush()

    def summary(self) -> None:
        """Times of all chapters, and how much was proved."""
        self._heading("Summary")
        self._line("")
        widest = max(len(title) for title, _ in self._times)
        for number, (title, seconds) in enumerate(self._times, 1):
            self._line(f"  {number:2}. {title:<{widest}}  {seconds:6.1f} s")
        self._line(self._styled(f"      {'in all':<{widest}}  {sum(s for _, s in self._times):6.1f} s", "1"))
        self._line("\n" + self._styled(f"All {self._claims} claims were checked, and hold.", "1;32"))

    def trouble(self, text: str) -> None:
        """An error, on standard error."""
        sys.stdout.flush()
        mark = "\x1b[1;31mdemo:\x1b[0m" if self._colours else "demo:"
        print(f"\n{mark} {text}", file=sys.stderr, flush=True)

    def _heading(self, text: str) -> None:
        self._line("\n" + self._styled(f"── {text} {'─' * (self._width - len(text) - 4)}", "1;36"))

    def _styled(self, text: str, codes: str) -> str:
        return f"\x1b[{codes}m{text}\x1b[0m" if self._colours else text

    def _line(self, text: str) -> None:
        self._silent = False
        # Commands write to the same place by themselves: nothing of ours may wait in a buffer.
        print(text, flush=True)
