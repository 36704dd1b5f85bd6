# SPDX-License-Identifier: Apache-2.0
"""Any structure of the API as a view, made from its declaration, for what has no look of its own."""

from __future__ import annotations

import enum
import typing
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from hsmctl.commands import kebab
from hsmctl.output import Cell, Facts, Pieces, Styled, Table, View
from hsmctl.values import show_duration, show_size, show_size_exactly, show_time
from libvdsm.declare import bare, camel, describe

_WORDS = {word: word.upper() for word in ("api", "cpu", "id", "pid", "uid")}
_GOOD = frozenset({"ok", "succeeded"})
_BAD = frozenset({"unavailable", "failed", "illegal", "error"})


def label(name: str) -> str:
    """A field's name in words, as a label: ``actual_size`` is ``Actual size``."""
    first, *rest = kebab(camel(name)).split("-")
    return " ".join([_WORDS.get(first, first.capitalize()), *[_WORDS.get(word, word) for word in rest]])


def state(value: enum.Enum | str) -> Cell:
    """A word that says whether something is well, coloured so."""
    text = value.value if isinstance(value, enum.Enum) else value
    style = "green" if text in _GOOD else "red" if text in _BAD else "yellow" if text in ("stopped", "warning") else ""
    return Styled(text, style) if style else text


def cell(value: Any, annotation: Any, *, exact: bool = False) -> Cell | None:
    """One value, in the unit that its declaration gives; None where it has no short form."""
    unit = describe(annotation)[1].get("unit")
    if value is None:
        return None
    if unit == "bytes":
        return show_size_exactly(value) if exact else show_size(value)
    if unit == "seconds since the epoch":
        return show_time(value)
    if unit == "seconds":
        return show_duration(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, enum.Enum):
        return state(value)
    if isinstance(value, (str, int, UUID)):
        return str(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list) and not any(isinstance(item, (msgspec.Struct, list, dict)) for item in value):
        return ", ".join(str(item) for item in value)
    return None


def facts(value: msgspec.Struct, *, heading: str = "", without: Sequence[str] = ()) -> View:
    """The members of a structure, one a line; members that are structures follow below."""
    hints = typing.get_type_hints(type(value), include_extras=True)
    rows: list[tuple[str, Cell | None]] = []
    below: list[View] = []
    for name in value.__struct_fields__:
        member = getattr(value, name)
        if name in without or member is None or member in ([], {}):
            continue
        short = cell(member, hints[name], exact=True)
        if short is not None:
            rows.append((label(name), short))
        elif isinstance(member, msgspec.Struct):
            below.append(facts(member, heading=label(name)))
        elif isinstance(member, dict):
            below.append(Facts([(str(key), str(item)) for key, item in member.items()], label(name)))
        elif member:
            below.append(table(member, bare(hints[name]), label(name)))
    own = [Facts(rows, heading)] if rows else []
    return Pieces([*own, *below])


def table(items: Sequence[msgspec.Struct], list_type: Any, title: str = "") -> Table:
    """Structures of one type as rows; members that all of them lack are left out."""
    kind = typing.get_args(list_type)[0]
    kind = typing.get_origin(kind) or kind
    hints = typing.get_type_hints(kind, include_extras=True)
    present = [
        name
        for name in kind.__struct_fields__
        if any(cell(getattr(item, name), hints[name]) is not None for item in items)
    ]
    rows = [[cell(getattr(item, name), hints[name]) or "-" for name in present] for item in items]
    right = frozenset(heading(name) for name in present if describe(hints[name])[1].get("unit") == "bytes")
    return Table([heading(name) for name in present], rows, right, heading=title)


def heading(name: str) -> str:
    return label(name).upper()
