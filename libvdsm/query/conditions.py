# SPDX-License-Identifier: Apache-2.0
"""Conditions on items, put together from functions: each is made once and asked for every item.

A condition also knows what it *pins*: values that a field has to have one of wherever it holds.  Who looks items up
by such a field need not look at others.
"""

from __future__ import annotations

import fnmatch
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as member
from typing import Any

from libvdsm.query.fields import Field, Kind

Predicate = Callable[[Any], bool]
Pins = Mapping[str, frozenset[Any]]

_COMPARED = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


@dataclass(frozen=True)
class Condition:
    """Whether an item is wanted, and which values ``pins`` leaves to fields."""

    holds: Predicate
    pins: Pins = member(default_factory=dict)


EVERYTHING = Condition(lambda _item: True)


def compare(field: Field, sign: str, wanted: Any) -> Condition:
    """``=`` and its like.  An absent value equals nothing and is neither more nor less than anything."""
    get = field.get
    if sign == "=":
        return Condition(lambda item: get(item) == wanted, {field.name: frozenset((wanted,))})
    if sign == "!=":
        return Condition(lambda item: get(item) != wanted)
    fits = _COMPARED[sign]
    if field.optional:
        return Condition(lambda item: (value := get(item)) is not None and fits(value, wanted))
    return Condition(lambda item: fits(get(item), wanted))


def one_of(field: Field, wanted: frozenset[Any]) -> Condition:
    """``in``."""
    get = field.get
    return Condition(lambda item: get(item) in wanted, {field.name: wanted})


def has(field: Field, wanted: str) -> Condition:
    """Whether a list holds a text."""
    get = field.get
    return Condition(lambda item: wanted in (get(item) or ()))


def like(field: Field, pattern: str) -> Condition:
    """``~``: whether a text fits a pattern as a whole; of a list: whether any does.

    Users' patterns become regular expressions only in this way: ``fnmatch`` puts everything between two stars into an
    atomic group, so that matching never goes back over it, and no pattern takes exponential time.
    """
    fits = re.compile(fnmatch.translate(pattern)).match
    get = field.get
    if field.kind is Kind.LIST:
        return Condition(lambda item: any(fits(text) is not None for text in get(item) or ()))
    if field.kind is Kind.ID:
        return Condition(lambda item: (value := get(item)) is not None and fits(str(value)) is not None)
    return Condition(lambda item: (value := get(item)) is not None and fits(value) is not None)


def is_true(field: Field) -> Condition:
    """A field of true or false, standing alone."""
    return compare(field, "=", wanted=True)


def is_present(field: Field) -> Condition:
    get = field.get
    return Condition(lambda item: get(item) is not None)


def negation(condition: Condition) -> Condition:
    holds = condition.holds
    return Condition(lambda item: not holds(item))


def all_of(conditions: Sequence[Condition]) -> Condition:
    if len(conditions) == 1:
        return conditions[0]
    tests = [condition.holds for condition in conditions]

    def holds(item: Any) -> bool:
        for test in tests:  # noqa: SIM110  a generator for each item would cost as much as the tests
            if not test(item):
                return False
        return True

    pins: dict[str, frozenset[Any]] = {}
    for condition in conditions:
        for name, values in condition.pins.items():
            pins[name] = pins[name] & values if name in pins else values
    return Condition(holds, pins)


def any_of(conditions: Sequence[Condition]) -> Condition:
    if len(conditions) == 1:
        return conditions[0]
    tests = [condition.holds for condition in conditions]

    def holds(item: Any) -> bool:
        for test in tests:  # noqa: SIM110
            if test(item):
                return True
        return False

    first, *others = (condition.pins for condition in conditions)
    common = [name for name in first if all(name in pins for pins in others)]
    return Condition(holds, {name: first[name].union(*(pins[name] for pins in others)) for name in common})
