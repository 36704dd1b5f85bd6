# SPDX-License-Identifier: Apache-2.0
"""argparse as hsmctl wants it: what is wrong with a command line is said with what would be right."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Sequence
from typing import Any, NoReturn

from hsmctl import commands, queries

_WIDTH = 100
_MENTIONED = 3


class UsageError(Exception):
    """A command line that means nothing; ``usage`` tells what would, and where to read more."""

    def __init__(self, message: str, usage: str) -> None:
        super().__init__(message)
        self.usage = usage


class Parser(argparse.ArgumentParser):
    """argparse with help as it is wanted here, and a suggestion for what was mistyped."""

    def __init__(self, **given: Any) -> None:
        super().__init__(add_help=False, allow_abbrev=False, formatter_class=_Formatter, **given)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, rest = super().parse_known_args(None if args is None else list(queries.joined(args)), namespace)
        if any(word[:1] == "-" for word in rest):
            return found, rest
        # argparse takes arguments that may be left out for left out at the first option; what follows is theirs.
        for action in self._actions:
            if rest and not action.option_strings and action.nargs in ("?", "*"):
                rest = self._filled(found, action, rest)
        return found, rest

    def _filled(self, found: argparse.Namespace, action: argparse.Action, words: list[str]) -> list[str]:
        """Words that no argument took, without those that this one takes now."""
        if getattr(found, action.dest):
            return words
        taken = words if action.nargs == "*" else words[:1]
        try:
            setattr(found, action.dest, self._get_values(action, taken))
        except argparse.ArgumentError as error:
            self.error(str(error))
        return words[len(taken) :]

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        known = list(action.choices or ())
        if action.choices is None or value in known:
            return
        what = "command" if action.dest in ("class_", "verb_") else "value"
        elsewhere = commands.with_command(str(value)) if action.dest == "class_" else []
        hint = f"did you mean {' or '.join(elsewhere[:_MENTIONED])}?" if elsewhere else _suggestion(value, known)
        shown = "" if what == "command" else f"{'/'.join(action.option_strings) or action.metavar}: "
        msg = f"{shown}there is no {what} {value!r}; {hint or 'there is ' + ', '.join(known)}"
        raise argparse.ArgumentError(None, msg)

    def refuse_rest(self, rest: Sequence[str]) -> NoReturn:
        """End because of words that no argument takes."""
        known = [option for action in self._actions for option in action.option_strings]
        options = [word.partition("=")[0] for word in rest if word.startswith("-")]
        if options:
            hint = _suggestion(options[0], known)
            self.error(f"there is no option {options[0]}{'; ' + hint if hint else ''}")
        many = f"{self.prog.rpartition(' ')[2]}-many"
        hint = f"; {many} takes several" if any(self.prog == f"hsmctl {c[:-5]}" for c in commands.with_command(many)) else ""
        self.error(f"too many arguments: {' '.join(rest)}{hint}")

    def error(self, message: str) -> NoReturn:
        text = message.removeprefix("argument ").replace("the following arguments are required:", "missing:")
        raise UsageError(text, f"{self.format_usage().rstrip()}\nMore: {self.prog} --help")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=min(_WIDTH, _terminal_width()))


def _suggestion(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else ""


def _terminal_width() -> int:
    try:
        return int(os.environ.get("COLUMNS") or 0) or os.get_terminal_size().columns
    except (OSError, ValueError):
        return _WIDTH
