# SPDX-License-Identifier: Apache-2.0
"""The fields of what a verb lists, as queries name them: by their names on the wire, dotted into structures."""

from __future__ import annotations

import enum
import functools
import operator
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec

from libvdsm.api.types import OpenEnum
from libvdsm.declare import Verb, bare, describe

Getter = Callable[[Any], Any]


class Kind(enum.Enum):
    """What a field holds, as far as queries care; the values stand in the schema document."""

    TEXT = "text"
    ID = "id"
    CHOICE = "choice"
    BOOLEAN = "boolean"
    NUMBER = "number"
    SIZE = "size"
    TIME = "time"
    LIST = "list"
    STRUCTURE = "structure"


_ORDERED = ("=", "!=", "<", "<=", ">", ">=", "in")
OPERATORS: Mapping[Kind, tuple[str, ...]] = {
    Kind.TEXT: ("=", "!=", "~", "in"),
    Kind.ID: ("=", "!=", "~", "in"),
    Kind.CHOICE: ("=", "!=", "in"),
    Kind.BOOLEAN: ("=", "!="),
    Kind.NUMBER: _ORDERED,
    Kind.SIZE: _ORDERED,
    Kind.TIME: _ORDERED,
    Kind.LIST: ("has", "~"),
    Kind.STRUCTURE: (),
}
"""How a value of each kind can be compared."""

_UNITS = {"bytes": Kind.SIZE, "seconds since the epoch": Kind.TIME}
_PLAIN = {str: Kind.TEXT, UUID: Kind.ID, bool: Kind.BOOLEAN, int: Kind.NUMBER, float: Kind.NUMBER}


@dataclass(frozen=True)
class Field:
    """One field.  ``get`` takes it out of an item; None where it, or what it is part of, is absent."""

    name: str
    kind: Kind
    optional: bool
    get: Getter
    choices: Mapping[str, OpenEnum]

    @property
    def operators(self) -> tuple[str, ...]:
        return OPERATORS[self.kind] + (("is",) if self.optional else ())

    @property
    def sortable(self) -> bool:
        return self.kind not in (Kind.LIST, Kind.STRUCTURE)


@functools.cache
def fields_of(struct: type[msgspec.Struct]) -> Mapping[str, Field]:
    """The fields of a structure that queries can name, by wire name, in order of declaration."""
    return {field.name: field for field in _fields(struct, "", None, optional=False)}


def listed(verb: Verb) -> type[msgspec.Struct] | None:
    """The structure of the items that a verb lists, if it takes a filter."""
    if not any(parameter.name == "filter" for parameter in verb.parameters):
        return None
    (item,) = typing.get_args(bare(typing.get_type_hints(verb.result)["items"]))
    struct: type[msgspec.Struct] = typing.get_origin(item) or item
    return struct


def _fields(struct: type[msgspec.Struct], prefix: str, outer: Getter | None, *, optional: bool) -> Iterator[Field]:
    for member in msgspec.structs.fields(struct):
        name = prefix + member.encode_name
        inner: Getter = operator.attrgetter(member.name)
        get = inner if outer is None else _within(outer, inner)
        may_lack = optional or not member.required
        type_ = bare(member.type)
        if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
            if may_lack:
                yield Field(name, Kind.STRUCTURE, may_lack, get, {})
            yield from _fields(type_, f"{name}.", get, optional=may_lack)
        elif (kind := _kind(type_, member.type)) is not None:
            yield Field(name, kind, may_lack, get, _choices(type_) if kind is Kind.CHOICE else {})


def _kind(type_: Any, annotation: Any) -> Kind | None:
    """None for what no query can ask for: structures in lists, and values of any form."""
    if typing.get_origin(type_) is list:
        return Kind.LIST if bare(typing.get_args(type_)[0]) is str else None
    type_ = getattr(type_, "__supertype__", type_)
    if isinstance(type_, type) and issubclass(type_, OpenEnum):
        return Kind.CHOICE
    return _UNITS.get(describe(annotation)[1].get("unit", ""), _PLAIN.get(type_))


def _choices(type_: type[OpenEnum]) -> Mapping[str, OpenEnum]:
    return {member.value: member for member in type_ if member.name != "UNKNOWN"}


def _within(outer: Getter, inner: Getter) -> Getter:
    def get(item: Any) -> Any:
        holder = outer(item)
        return None if holder is None else inner(holder)

    return get
