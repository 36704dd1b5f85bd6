# SPDX-License-Identifier: Apache-2.0
"""Good and bad values of every parameter of every verb, from the records: a new verb is tested by being declared."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec.inspect as inspect

from libvdsm.api import VERBS
from libvdsm.declare import Parameter, Verb


@dataclass(frozen=True)
class Bad:
    """Parameters with one thing wrong, and what the error's message has to name."""

    what: str
    params: Any
    named: str


def _arms(parameter: Parameter) -> tuple[inspect.Type, bool]:
    """The type without None, and whether None is allowed."""
    kind = inspect.type_info(parameter.type)
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    if isinstance(kind, inspect.UnionType):
        arms = [arm for arm in kind.types if not isinstance(arm, inspect.NoneType)]
        assert len(arms) == 1, parameter
        [arm] = arms
        return (arm.type if isinstance(arm, inspect.Metadata) else arm), len(arms) < len(kind.types)
    return kind, False


def good(parameter: Parameter) -> Any:
    """A value that the declaration allows; of what it names, nothing is there."""
    return _good(_arms(parameter)[0])


def _good(kind_: inspect.Type) -> Any:
    match kind_:
        case inspect.Metadata() as annotated:
            return _good(annotated.type)
        case inspect.UUIDType():
            return str(uuid.uuid4())
        case inspect.IntType() as kind:
            return max(kind.ge or 0, 1)
        case inspect.FloatType() as kind:
            return float(kind.ge or 0)
        case inspect.StrType() as kind:
            return "/nowhere" if (kind.pattern or "").startswith("^/") else "x"
        case inspect.BoolType():
            return False
        case inspect.EnumType() as kind:
            return next(iter(kind.cls)).value
        case inspect.ListType() as kind:
            return [_good(kind.item_type)]
        case kind:
            raise AssertionError(f"no sample of {kind}")


def good_params(verb: Verb) -> dict[str, Any]:
    """Everything that is required."""
    return {parameter.wire: good(parameter) for parameter in verb.parameters if parameter.required}


def _bad_values(parameter: Parameter) -> Iterator[tuple[str, Any]]:
    kind, nullable = _arms(parameter)
    if not nullable:
        yield "null", None
    if not isinstance(kind, inspect.ListType):
        yield "an array", []
    yield "an object", {}
    match kind:
        case inspect.UUIDType():
            yield from {"a number": 1, "no UUID": "x", "an empty text": "", "NUL": f"{uuid.uuid4()}\0"}.items()
            yield from {"a UUID cut off": str(uuid.uuid4())[:-1], "a long text": "0" * 10_000}.items()
        case inspect.IntType() as number:
            assert number.ge is not None, f"{parameter} has no lower bound"
            assert number.le is not None, f"{parameter} has no upper bound"
            yield from {"text": "1", "a boolean": True, "a fraction": 1.5, "too small": number.ge - 1}.items()
            yield from {"too large": number.le + 1, "beyond 64 bits": 2**64, "far beyond": 10**400}.items()
            yield "below 64 bits", -(2**63) - 1
        case inspect.FloatType() as number:
            assert number.ge is not None, f"{parameter} has no lower bound"
            assert number.le is not None, f"{parameter} has no upper bound"
            yield from {"text": "1", "a boolean": True, "too small": -0.5, "too large": number.le * 2}.items()
        case inspect.StrType() as text:
            assert text.max_length is not None, f"{parameter} has no upper bound"
            assert text.pattern is not None, f"{parameter} may hold control characters"
            yield from {"a number": 1, "a boolean": True, "NUL": good(parameter) + "\0"}.items()
            yield from {"a line end": good(parameter) + "\n", "an escape": good(parameter) + "\x1b[2J"}.items()
            yield "too long", good(parameter) + "x" * text.max_length
            if text.min_length:
                yield "empty", ""
        case inspect.BoolType():
            yield from {"a number": 1, "text": "true"}.items()
        case inspect.ListType() as list_:
            yield from _bad_lists(list_, f"{parameter}")
        case inspect.EnumType():
            yield from {
                "a number": 1,
                "a boolean": True,
                "a value of nothing": "nonsense",
                "unknown": "unknown",
            }.items()
            yield from {
                "empty": "",
                "NUL": f"{good(parameter)}\0",
                "another case": str(good(parameter)).upper(),
            }.items()
        case other:
            raise AssertionError(f"no samples of {other}")


def _bad_lists(list_: inspect.ListType, where: str) -> Iterator[tuple[str, Any]]:
    assert list_.max_length is not None, f"{where} has no upper bound"
    yield from {"text": "x", "of numbers": [1], "with null": [None], "of lists": [["x"]]}.items()
    yield from {"with an empty text": [""], "with NUL": ["\0"], "with a line end": ["x\n"]}.items()
    yield "too many", [_good(list_.item_type) for _ in range(list_.max_length + 1)]
    if list_.min_length:
        yield "empty", []


def bad_params(verb: Verb) -> Iterator[Bad]:
    """Every way in which the parameters of a verb can be wrong by themselves."""
    fine = good_params(verb)
    yield Bad("an unknown parameter", {**fine, "nonsense": 1}, "nonsense")
    yield Bad("a Python name", {**fine, "no_such_name": 1}, "no_such_name")
    for parameter in verb.parameters:
        if parameter.required:
            without = {name: value for name, value in fine.items() if name != parameter.wire}
            yield Bad(f"{parameter.wire} missing", without, parameter.wire)
        if parameter.name != parameter.wire:
            without = {name: value for name, value in fine.items() if name != parameter.wire}
            yield Bad(f"{parameter.name} as in Python", {**without, parameter.name: good(parameter)}, "field")
        for what, value in _bad_values(parameter):
            yield Bad(f"{parameter.wire}: {what}", {**fine, parameter.wire: value}, parameter.wire)


CHANGING = [verb for verb in VERBS.values() if verb.declaration.right > 1]
