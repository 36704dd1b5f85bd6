# SPDX-License-Identifier: Apache-2.0
"""Answers made from a declared type alone: zeros, nothing in the lists, nil ids, the first member of an enumeration.

They are valid: one that the client's decoder refused would be noticed without any test looking at it.
"""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

import msgspec
from msgspec import inspect

from libvdsm.api.types import TaskInfo, TaskState
from libvdsm.declare import Verb

_TEXTS = ("", "a", "/a")
"""The emptiest first; a name must not be empty, and a path begins with a slash."""


def default(annotation: Any) -> Any:
    """The emptiest value of a type.  What may be absent is."""
    return _built(inspect.type_info(annotation))


def answer(verb: Verb) -> Any:
    """What a verb that does nothing answers; a task has succeeded, since a verb that admits failure is no danger."""
    made = default(verb.result)
    if isinstance(made, TaskInfo):
        result = default(verb.task_result) if verb.makes_task else None
        made = msgspec.structs.replace(made, state=TaskState.SUCCEEDED, result=result)
    return made


def _built(kind: inspect.Type) -> Any:  # noqa: C901  a table of kinds, one line each
    match kind:
        case inspect.Metadata():
            return _built(kind.type)
        case inspect.AnyType() | inspect.NoneType():
            return None
        case inspect.BoolType():
            return False
        case inspect.IntType():
            return kind.ge or 0
        case inspect.FloatType():
            return kind.ge or 0.0
        case inspect.StrType():
            return _text(kind)
        case inspect.UUIDType():
            return UUID(int=0)
        case inspect.EnumType():
            return next(iter(kind.cls))
        case inspect.ListType():
            return []
        case inspect.DictType():
            return {}
        case inspect.UnionType():
            return _built(kind.types[0])
        case inspect.StructType():
            return kind.cls(**{field.name: _built(field.type) for field in kind.fields if field.required})
    msg = f"no default is known for {kind}"
    raise TypeError(msg)


def _text(kind: inspect.StrType) -> str:
    least, pattern = kind.min_length or 0, kind.pattern or ""
    return next(text for text in _TEXTS if len(text) >= least and re.search(pattern, text))
