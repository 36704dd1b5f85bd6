# SPDX-License-Identifier: Apache-2.0
"""The API as one JSON document, from which other languages make their clients.

What travels is described, not what Python has: names are the wire's, an optional member is one that may be
left out (there is no null), a regular expression is one of ECMAScript's, and a generic structure is one
structure (``TaskInfo``), with what it holds told by the verb (``taskResult``).

Every value, wherever it stands, is described by a *schema*: JSON Schema, with what that has no word for added
to it (``unit``, ``descriptor``, ``option``).  Parameters, errors' attributes and events' members are lists of
``{name, required, schema}``, in order; of structures, ``order`` tells the order.  A member that came later than what
it is part of says ``since`` when.  A verb that takes a ``filter`` has ``fields``, those that it can ask for.
"""

from __future__ import annotations

import ast
import enum
import functools
import inspect
import itertools
import json
import string
import sys
import textwrap
import typing
from collections.abc import Iterable, Mapping
from typing import Any, NewType, TypeAlias

import msgspec

from libvdsm.api import CLASSES, ERRORS, EVENTS, VERBS, VERSION
from libvdsm.api.errors import COMMON
from libvdsm.api.types import OpenEnum
from libvdsm.declare import ApiError, Parameter, Right, Verb, bare, camel, describe, error_fields, meta_of
from libvdsm.query.fields import Field, listed
from libvdsm.query.fields import fields_of as queried

Document: TypeAlias = dict[str, Any]
Schema: TypeAlias = dict[str, Any]

_REF = "#/types/{name}"


def document() -> Document:
    """The whole API."""
    return {
        "version": VERSION,
        "rights": [{"name": right.name.lower(), "doc": documented(Right)[right.name]} for right in Right],
        "classes": [_class(name, cls) for name, cls in CLASSES.items()],
        "common": [error.__name__ for error in COMMON],
        "errors": [_error(error) for error in ERRORS.values()],
        "events": [_event(event) for event in EVENTS.values()],
        "types": {name: _component(kind) for name, kind in named_types().items()},
    }


def render(document: Document) -> str:
    """The document as text that is the same on every machine and every day."""
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def verbs_of(document: Document) -> dict[str, Document]:
    """Every verb by its full name."""
    return {f"{group['name']}.{verb['name']}": verb for group in document["classes"] for verb in group["verbs"]}


def fields_of(structure: Schema) -> list[Document]:
    """A structure's fields in the form that parameters have."""
    required = structure.get("required", [])
    return [
        {"name": name, "required": name in required, "schema": structure["properties"][name]}
        for name in structure.get("order", [])
    ]


def path(version: str = VERSION) -> str:
    """Where the document of a major version is kept."""
    return f"schema/libvdsm-{version.partition('.')[0]}.json"


def files() -> Mapping[str, str]:
    """What ``python -m libvdsm.generate schema`` writes."""
    return {path(): render(document())}


def schema_of(annotation: Any) -> Schema:
    """The schema of a value that is there: a type as annotated, without ``None``."""
    kind = bare(annotation)
    origin, arguments = typing.get_origin(kind) or kind, typing.get_args(kind)
    description, extra = describe(annotation)
    if _is_named(origin):
        schema: Schema = {"$ref": _REF.format(name=origin.__name__)}
    else:
        schema = _unnamed(kind, meta_of(annotation))
        if origin is list:
            schema["items"] = schema_of(arguments[0])
        if origin is dict and arguments[1] is not Any:
            schema["additionalProperties"] = schema_of(arguments[1])
    return schema | ({"description": description} if description else {}) | extra


def _unnamed(kind: Any, metas: list[msgspec.Meta]) -> Schema:
    annotation = functools.reduce(lambda inner, meta: typing.Annotated[inner, meta], metas, kind)
    (schema,), _ = msgspec.json.schema_components([annotation], ref_template=_REF)
    if "pattern" in schema:
        schema["pattern"] = schema["pattern"].replace("\\Z", "$")  # only Python tells them apart
    return schema


def _is_named(kind: Any) -> bool:
    return isinstance(kind, NewType) or (isinstance(kind, type) and issubclass(kind, msgspec.Struct | enum.Enum))


def named_types() -> dict[str, Any]:
    """Every structure, enumeration and kind of id that travels, by name."""
    found: dict[str, Any] = {}

    def visit(annotation: Any) -> None:
        kind = bare(annotation)
        origin = typing.get_origin(kind) or kind
        for argument in typing.get_args(kind):
            visit(argument)
        if not _is_named(origin) or origin.__name__ in found:
            return
        found[origin.__name__] = origin
        if isinstance(origin, type) and issubclass(origin, msgspec.Struct):
            for field in msgspec.structs.fields(origin):
                visit(field.type)

    for annotation in _travelling():
        visit(annotation)
    return found


def _travelling() -> Iterable[Any]:
    for verb in VERBS.values():
        yield from (parameter.type for parameter in verb.parameters)
        yield verb.result
    for event in EVENTS.values():
        yield from (field.type for field in msgspec.structs.fields(event))
    for error in ERRORS.values():
        yield from error_fields(error).values()


def documented(holder: Any) -> Mapping[str, str]:
    """Name -> the string literal below its assignment, in a class or a module: what Python forgets at run
    time."""
    return _literals(inspect.getsource(holder), isinstance(holder, type))


@functools.cache
def _literals(source: str, of_class: bool) -> Mapping[str, str]:
    tree: Any = ast.parse(textwrap.dedent(source))
    body = tree.body[0].body if of_class else tree.body
    return {
        statement.targets[0].id: inspect.cleandoc(below.value.value)
        for statement, below in itertools.pairwise(body)
        if isinstance(statement, ast.Assign)
        and isinstance(statement.targets[0], ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }


def _doc(cls: type) -> str:
    """A class's own docstring: one that is inherited says nothing about it."""
    return inspect.cleandoc(vars(cls).get("__doc__") or "")


def _class(name: str, cls: type) -> Document:
    verbs = [_verb(verb) for verb in VERBS.values() if verb.cls == name]
    return {"name": name, "doc": _doc(cls), "verbs": verbs}


def _verb(verb: Verb) -> Document:
    declared = verb.declaration
    record = {
        "name": verb.name,
        "doc": verb.doc,
        "since": declared.since,
        "right": declared.right.name.lower(),
        "blocking": declared.blocking,
        "positional": [camel(name) for name in declared.positional],
        "descriptors": [camel(name) for name in verb.descriptors],
        "errors": [error.__name__ for error in declared.errors],
        "params": [_parameter(parameter) for parameter in verb.parameters],
        "result": schema_of(verb.result),
        "makesTask": makes_task(verb),
    }
    if makes_task(verb):
        record["taskResult"] = schema_of(verb.task_result)
    if (item := listed(verb)) is not None:
        record["fields"] = [_field(field) for field in queried(item).values()]
    if declared.deprecated_since:
        record["deprecated"] = {"since": declared.deprecated_since, "replacedBy": declared.replaced_by}
    return record


def makes_task(verb: Verb) -> bool:
    """Whether the verb starts a task of its own; those of ``Task`` only tell of one."""
    return verb.makes_task and verb.task_result is not Any


def _field(field: Field) -> Document:
    return {
        "name": field.name,
        "kind": field.kind.value,
        "operators": list(field.operators),
        "sortable": field.sortable,
    }


def _parameter(parameter: Parameter) -> Document:
    return _member(parameter.wire, parameter.type, parameter.required, parameter.default)


def _member(name: str, annotation: Any, required: bool, default: Any = None) -> Document:
    schema = schema_of(annotation)
    if not required and default is not None:
        schema["default"] = msgspec.to_builtins(default)
    return {"name": name, "required": required, "schema": schema}


def _error(error: type[ApiError]) -> Document:
    defaults = vars(error)
    attributes = [
        _member(camel(name), annotation, name not in defaults) for name, annotation in error_fields(error).items()
    ]
    return {
        "name": error.__name__,
        "code": error.code,
        "doc": _doc(error),
        "template": _neutral(error.template),
        "attributes": attributes,
    }


def _neutral(template: str) -> str:
    """A message's template with nothing in its braces but wire names: how to format them is Python's own."""
    pieces = string.Formatter().parse(template)
    return "".join(text + (f"{{{camel(name)}}}" if name else "") for text, name, _, _ in pieces)


def _event(event: type[msgspec.Struct]) -> Document:
    fields = msgspec.structs.fields(event)
    members = [_member(field.encode_name, field.type, field.required) for field in fields]
    return {"name": event.__name__, "doc": _doc(event), "members": members}


def _component(kind: Any) -> Schema:
    """A named type: where it is used, only its name stands."""
    if isinstance(kind, NewType):
        description = documented(sys.modules[kind.__module__]).get(kind.__name__, "")
        return schema_of(kind.__supertype__) | {"title": kind.__name__, "description": description}
    about = {"title": kind.__name__, "description": _doc(kind)}
    return (_enumeration(kind) if issubclass(kind, enum.Enum) else _structure(kind)) | about


def _enumeration(kind: type[enum.Enum]) -> Schema:
    """The values that travel.  ``UNKNOWN`` does not: it is what a client makes of a value that it does not
    know."""
    is_open = issubclass(kind, OpenEnum)
    members = [member for member in kind if not (is_open and member.name == "UNKNOWN")]
    return {
        "type": "string",
        "enum": [member.value for member in members],
        "enumDescriptions": [documented(kind).get(member.name, "") for member in members],
        "open": is_open,
    }


def _structure(kind: type[msgspec.Struct]) -> Schema:
    _, components = msgspec.json.schema_components([kind], ref_template=_REF)
    fields = msgspec.structs.fields(kind)
    base: Schema = components[kind.__name__]
    return base | {
        "properties": {field.encode_name: schema_of(field.type) for field in fields},
        "order": [field.encode_name for field in fields],
    }
