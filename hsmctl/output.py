# SPDX-License-Identifier: Apache-2.0
"""How results and errors are written: for a terminal with rich, for a pipe in plain columns, or as JSON.

What goes to a pipe has no colours and is never cut to a width.
"""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO, TypeAlias

import msgspec

from libvdsm.api.types import ErrorInfo


@dataclass(frozen=True)
class Styled:
    """Text with a colour, in rich's words for it."""

    text: str
    style: str


Cell: TypeAlias = "str | Styled"


@dataclass(frozen=True)
class Table:
    """Rows under headings.  ``right`` are the headings of columns of numbers."""

    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    right: frozenset[str] = frozenset()
    empty: str = "There is nothing."
    heading: str = ""


@dataclass(frozen=True)
class Facts:
    """Labels and what they stand for; what is None is left out."""

    rows: Sequence[tuple[str, Cell | None]]
    heading: str = ""


@dataclass(frozen=True)
class Pieces:
    """Several of these, one below the other."""

    items: Sequence[View] = field(default_factory=tuple)


_FOLDED = frozenset({"DAMAGE", "DESCRIPTION", "HOW IT IS", "MEANING", "PROBLEM"})
_PROSE = 24
"""Columns that prose has at least."""
_UNSAFE = ("Cc", "Cf", "Zl", "Zp")
_REPLACED = "\N{REPLACEMENT CHARACTER}"

View: TypeAlias = "str | Styled | Table | Facts | Pieces"


def clean(text: str, *, lines: bool = False) -> str:
    """Text without what could play tricks on a terminal: names and paths are written by others."""
    keep = "\n" if lines else ""
    if text.isprintable():
        return text
    return "".join(c if c in keep or unicodedata.category(c) not in _UNSAFE else _REPLACED for c in text)


def show(view: View, stream: TextIO | None = None) -> None:
    """Write a view to standard output."""
    stream = stream or sys.stdout
    if stream.isatty():
        try:
            _show_rich(view, stream)
        except ImportError:
            pass
        else:
            return
    for line in plain(view):
        print(line, file=stream)


def show_json(value: Any, *, lines: bool = False) -> None:
    """A result as it travels, in the order of the declarations; as one line where many follow each other."""
    print(json.dumps(msgspec.to_builtins(value), indent=None if lines else 2, ensure_ascii=False))


def show_error(error: ErrorInfo, *, as_json: bool) -> None:
    """An error on standard error."""
    if as_json:
        told = msgspec.to_builtins(error)
        if not error.code:  # hsmctl's own: the numbers are the API's
            del told["code"]
        print(json.dumps(told, indent=2, ensure_ascii=False), file=sys.stderr)
        return
    first, _, rest = clean(error.message, lines=True).partition("\n")
    name = f"({error.name})"
    if sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        print(f"\x1b[1mhsmctl: \x1b[31merror:\x1b[0m {first} \x1b[2m{name}\x1b[0m", file=sys.stderr)
    else:
        print(f"hsmctl: error: {first} {name}", file=sys.stderr)
    if rest:
        print(rest, file=sys.stderr)


def plain(view: View) -> list[str]:
    """A view as lines of plain text."""
    if isinstance(view, Pieces):
        lines: list[str] = []
        for index, item in enumerate(view.items):
            lines += [""] * (index > 0) + plain(item)
        return lines
    if isinstance(view, Facts):
        rows = [(label, _text(value)) for label, value in view.rows if value is not None]
        width = max((len(label) for label, _ in rows), default=0)
        heading = [clean(view.heading)] if view.heading else []
        return heading + [f"{label + ':':<{width + 1}}  {text}" for label, text in rows]
    if isinstance(view, Table):
        return _plain_table(view)
    return [clean(line) for line in (view.text if isinstance(view, Styled) else view).split("\n")]


def _text(cell: Cell) -> str:
    return clean(cell.text if isinstance(cell, Styled) else cell) or "-"


def _plain_table(table: Table) -> list[str]:
    if not table.rows:
        return [table.empty]
    rows = [list(table.headings), *[[_text(cell) for cell in row] for row in table.rows]]
    widths = [max(_width(row[index]) for row in rows) for index in range(len(table.headings))]
    lines = [table.heading] if table.heading else []
    for row in rows:
        cells = []
        for heading, text, width in zip(table.headings, row, widths, strict=True):
            space = " " * (width - _width(text))
            cells.append(space + text if heading in table.right else text + space)
        lines.append("  ".join(cells).rstrip())
    return lines


def _width(text: str) -> int:
    """Columns that a text takes: two for each wide character, none for what stands above another."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _show_rich(view: View, stream: TextIO) -> None:
    from rich.console import Console

    console = Console(file=stream, highlight=False)
    _rich(view, console)


def _rich(view: View, console: Any) -> None:
    if isinstance(view, Pieces):
        for index, item in enumerate(view.items):
            if index:
                console.print()
            _rich(item, console)
    elif isinstance(view, Table) and view.rows:
        if view.heading:
            console.print(view.heading, style="bold", markup=False)
        _print_table(view, console)
    elif isinstance(view, Facts):
        _print_facts(view, console)
    else:
        for line in plain(view):
            console.print(line, markup=False, style=view.style if isinstance(view, Styled) else None)


def _rich_cell(cell: Cell) -> Any:
    from rich.text import Text

    return Text(_text(cell), style=cell.style if isinstance(cell, Styled) else "")


def _print_table(view: Table, console: Any) -> None:
    """Prose is folded into its column; all else stays whole, if need be beyond the edge, where a terminal wraps it."""
    from rich.table import Table as RichTable

    table = RichTable(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    needed = 0
    for index, heading in enumerate(view.headings):
        longest = max(_width(text) for text in [heading, *[_text(row[index]) for row in view.rows]])
        needed += 2 + (min(longest, _PROSE) if heading in _FOLDED else longest)
        justify: Any = "right" if heading in view.right else "left"
        table.add_column(heading, justify=justify, no_wrap=heading not in _FOLDED, overflow="fold")
    for row in view.rows:
        table.add_row(*[_rich_cell(cell) for cell in row])
    console.width, before = max(console.width, needed), console.width
    console.print(table, crop=False)
    console.width = before


def _print_facts(view: Facts, console: Any) -> None:
    """Line by line, and not as a table: a terminal then wraps a long path so that it can be copied whole."""
    from rich.text import Text

    if view.heading:
        console.print(Text(clean(view.heading), style="bold"))
    rows = [(label, value) for label, value in view.rows if value is not None]
    width = max((len(label) for label, _ in rows), default=0)
    for label, value in rows:
        line = Text.assemble((f"{label + ':':<{width + 1}}  ", "dim"), _rich_cell(value))
        console.print(line, soft_wrap=True)
