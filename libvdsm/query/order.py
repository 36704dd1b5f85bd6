# SPDX-License-Identifier: Apache-2.0
"""Orders of a list: ``-actualSize,name``, and places in them that survive what comes and goes.

An order is total: what is equal in all its fields is sorted by id.  A *mark* is the place of an item in it, made of
nothing but that item's own values; so the items after a mark are the same whether the item is still there or not.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import msgspec

from libvdsm.api.errors import InvalidSort
from libvdsm.query.fields import Field, Kind, fields_of

FIELDS = 3
"""How many fields a list can be sorted by.  With ``CUT`` it bounds what a cursor has to hold."""
CUT = 64
"""Texts are compared by so many characters of their beginning: as many as a name has at most."""

Value: TypeAlias = str | int | float | None
Mark: TypeAlias = tuple[Value, ...]

_UNSENDABLE = re.compile("[\\x00-\\x1f\\x7f\\ud800-\\udfff\\ufffe\\uffff]")
"""What a cursor cannot carry, since not every wire can."""


@dataclass(frozen=True)
class Column:
    """One field that is sorted by."""

    field: Field
    descending: bool
    absent_first: bool = False

    @cached_property
    def value(self) -> Callable[[Any], Value]:
        """What items are compared by; None where the field is absent."""
        get, kind = self.field.get, self.field.kind
        if kind is Kind.TEXT:
            return lambda item: _cut(get(item))
        if kind is Kind.CHOICE:
            return lambda item: None if (found := get(item)) is None else found.value
        if kind is Kind.BOOLEAN:
            return lambda item: None if (found := get(item)) is None else int(found)
        if kind is Kind.ID:
            return lambda item: None if (found := get(item)) is None else found.int
        return get

    def sort(self, items: list[Any]) -> None:
        """Sort, leaving equal ones as they stand."""
        value: Callable[[Any], Any] = self.value
        if not self.field.optional:
            items.sort(key=value, reverse=self.descending)
            return
        high = self.absent_first == self.descending
        absent = (high, 0)
        items.sort(
            key=lambda item: absent if (found := value(item)) is None else (not high, found), reverse=self.descending
        )

    def is_later(self, value: Any, mark: Any) -> bool:
        """Whether one of two different values comes after the other."""
        if value is None or mark is None:
            return (value is None) != self.absent_first
        return bool(value < mark if self.descending else value > mark)


class Order:
    """An order of the items of a list."""

    def __init__(self, columns: tuple[Column, ...], key: Field) -> None:
        self.columns = columns
        self._all = (*columns, Column(key, descending=False))
        self._key: Callable[[Any], int] = operator.attrgetter(f"{key.name}.int")

    def sort(self, items: list[Any]) -> None:
        items.sort(key=self._key)
        for column in reversed(self.columns):
            column.sort(items)

    def mark(self, item: Any) -> Mark:
        return tuple(column.value(item) for column in self._all)

    def is_after(self, item: Any, mark: Mark) -> bool:
        """Whether an item comes after a place."""
        for column, there in zip(self._all, mark, strict=True):
            value = column.value(item)
            if value != there:
                return column.is_later(value, there)
        return False

    def write(self, mark: Mark) -> str:
        """A mark as one line of text: each value with its length before it, as texts may hold anything."""
        return "".join("-" if value is None else f"{len(text := str(value))}:{text}" for value in mark)

    def read(self, text: str) -> Mark:
        """A mark from its text; ``ValueError`` if it is none of this order."""
        values: list[Value] = []
        rest = text
        for column in self._all:
            if rest.startswith("-"):
                values.append(None)
                rest = rest[1:]
                continue
            length, _, rest = rest.partition(":")
            value, rest = rest[: int(length)], rest[int(length) :]
            if len(value) != int(length):
                raise ValueError(text)
            values.append(_value(column.field.kind, value))
        if rest:
            raise ValueError(text)
        return tuple(values)


def parse(text: str, struct: type[msgspec.Struct], *, absent_first: bool = False) -> Order:
    """The order that a list of fields means; ``InvalidSort`` if it means none.

    What lacks a field comes last, whichever the direction; with ``absent_first``, first.
    """
    fields = fields_of(struct)
    columns: list[Column] = []
    for word in text.split(","):
        name = word.strip()
        descending = name.startswith("-")
        name = name.removeprefix("-").lstrip()
        if name not in fields or not fields[name].sortable:
            known = ", ".join(field.name for field in fields.values() if field.sortable)
            what = "cannot be sorted by" if name in fields else "is no field"
            raise InvalidSort(reason=f"{name!r} {what}; the fields are {known}, and a - before one sorts downwards")
        if any(column.field.name == name for column in columns):
            raise InvalidSort(reason=f"{name} is named twice")
        columns.append(Column(fields[name], descending, absent_first))
    if len(columns) > FIELDS:
        raise InvalidSort(reason=f"{len(columns)} fields are named, and at most {FIELDS} can be")
    return Order(tuple(columns), fields["id"])


def _cut(text: str | None) -> str | None:
    if text is None:
        return None
    text = text[:CUT]
    return text if text.isprintable() else _UNSENDABLE.sub(" ", text)


def _value(kind: Kind, text: str) -> Value:
    if kind in (Kind.TEXT, Kind.CHOICE):
        return text
    if kind in (Kind.ID, Kind.BOOLEAN):
        return int(text)
    return int(text) if text.isdecimal() else float(text)
