# SPDX-License-Identifier: Apache-2.0
"""argparse as hsmctl wants it: what is wrong with a command line is said with what would be right."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Sequence
from typing import Any, NoReturn

from hsmctl import queries
from hsmctl.codes import USAGE

_WIDTH = 100


class Parser(argparse.ArgumentParser):
    """argparse with help as it is wanted here, and a suggestion for what was mistyped."""

    def __init__(self, **given: Any) -> None:
        super().__init__(add_help=False, allow_abbrev=False, formatter_class=_Formatter, **given)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, rest = super().parse_known_args(None if args is None else list(queries.joined(args)), namespace)
        # argparse takes an argument of any number for none at the first option; what follows is its own all the same.
        several = next((action for action in self._actions if action.nargs == "*"), None)
        if several is not None and rest and not getattr(found, several.dest) and not any(w[:1] == "-" for w in rest):
            setattr(found, several.dest, self._get_values(several, rest))
            rest = []
        return found, rest

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        known = list(action.choices or ())
        if action.choices is None or value in known:
            return
        what = "command" if action.dest in ("class_", "verb_") else "value"
        hint = _suggestion(value, known) or f"there is {', '.join(known)}"
        shown = "" if what == "command" else f"{'/'.join(action.option_strings) or action.metavar}: "
        msg = f"{shown}there is no {what} {value!r}; {hint}"
        raise argparse.ArgumentError(None, msg)

    def refuse_rest(self, rest: Sequence[str]) -> NoReturn:
        """End because of words that no argument takes."""
        known = [option for action in self._actions for option in action.option_strings]
        options = [word.partition("=")[0] for word in rest if word.startswith("-")]
        if options:
            hint = _suggestion(options[0], known)
            self.error(f"there is no option {options[0]}{'; ' + hint if hint else ''}")
        self.error(f"too many arguments: {' '.join(rest)}")

    def error(self, message: str) -> NoReturn:
        text = message.removeprefix("argument ").replace("the following arguments are required:", "missing:")
        self.exit(USAGE, f"hsmctl: error: {text}\n{self.format_usage().rstrip()}\nMore: {self.prog} --help\n")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=min(_WIDTH, _terminal_width()))


def _suggestion(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else ""


def _terminal_width() -> int:
    try:
        return int(os.environ.get("COLUMNS") or 0) or os.get_terminal_size().columns
    except (OSError, ValueError):
        return _WIDTH
