# SPDX-License-Identifier: Apache-2.0
"""How the API is declared, and how the declarations are read.

An API class is an abstract class whose methods are its verbs.  ``@verb`` attaches what a signature cannot say (since
which version, which right, which errors) and returns the function unchanged, so that a type checker sees an ordinary
method.  ``read_api`` turns the classes into *records*, once, at import; every wire, client, page of documentation and
command is made from these records and from nothing else.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import msgspec

F = TypeVar("F", bound=Callable[..., Any])


class Right(enum.IntEnum):
    """What a caller must be allowed to do.  Each right includes the ones before it."""

    READ = 1
    """look at anything, change nothing"""
    OPERATE = 2
    """use and change images, volumes and tasks"""
    ADMINISTER = 3
    """make, attach, detach and destroy domains"""


class Spec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Base of what clients send: strict, an unknown field is an error."""


class Info(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of what the service answers: lenient, so that an old client reads a newer service.

    Defaults are None and mean *absent*: absent members do not travel.
    """


class ApiError(Exception):
    """Base of every declared error: a class is an error, its attributes are its data.

    ``template`` is a format string over the attributes and says what to do.  ``code`` is the number on wires that
    know only numbers.  Subclasses are dataclasses with ``eq=False`` (a dataclass with ``eq`` is not hashable, and
    exceptions have to be).
    """

    code: ClassVar[int] = 0
    template: ClassVar[str] = ""

    @property
    def message(self) -> str:
        return self.template.format(**{field: getattr(self, field) for field in error_fields(type(self))})

    def __str__(self) -> str:
        return self.message

    def data(self) -> dict[str, Any]:
        """The attributes as plain values under their wire names, absent ones left out."""
        values = {camel(field): getattr(self, field) for field in error_fields(type(self))}
        return {name: msgspec.to_builtins(value) for name, value in values.items() if value is not None}


def error_fields(cls: type[ApiError]) -> dict[str, Any]:
    """Attribute name -> type annotation (with its ``Meta``), in order of declaration."""
    if not dataclasses.is_dataclass(cls):
        return {}
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


@dataclasses.dataclass(frozen=True)
class Declaration:
    """What ``@verb`` was told."""

    since: str
    right: Right
    errors: tuple[type[ApiError], ...]
    positional: tuple[str, ...]
    blocking: bool
    deprecated_since: str | None
    replaced_by: str | None


def verb(
    *,
    since: str,
    right: Right,
    errors: tuple[type[ApiError], ...] = (),
    positional: tuple[str, ...] = (),
    blocking: bool = False,
    deprecated_since: str | None = None,
    replaced_by: str | None = None,
) -> Callable[[F], F]:
    """Declare a method of an API class to be a verb.

    ``positional`` names the parameters that a command line takes without an option name, in order.  ``blocking``
    marks a verb that may wait by design (``Task.wait``), which limits and statistics have to know.
    """
    declaration = Declaration(since, right, errors, positional, blocking, deprecated_since, replaced_by)

    def attach(function: F) -> F:
        function.__verb__ = declaration  # type: ignore[attr-defined]
        return function

    return attach


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of a verb: Python name, wire name, type, and whether it may be left out."""

    name: str
    wire: str
    type: Any
    required: bool
    default: Any
    description: str
    extra: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Verb:
    """All that is known of one verb.  ``params`` is the struct that its parameters are decoded into."""

    cls: str
    name: str
    method: str
    doc: str
    declaration: Declaration
    parameters: tuple[Parameter, ...]
    params: type[msgspec.Struct]
    result: Any
    task_result: Any
    descriptors: tuple[str, ...]

    @property
    def full(self) -> str:
        return f"{self.cls}.{self.name}"

    @property
    def makes_task(self) -> bool:
        return self.task_result is not None


def camel(name: str) -> str:
    """``snake_case`` to ``camelCase``; a trailing underscore (``import_``) only avoids a Python keyword."""
    head, *rest = name.rstrip("_").split("_")
    return head + "".join(part.title() for part in rest)


def meta_of(annotation: Any) -> list[msgspec.Meta]:
    """The ``Meta`` objects on an annotation, outermost last; seen through optionals."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        inner, *metas = typing.get_args(annotation)
        return meta_of(inner) + [meta for meta in metas if isinstance(meta, msgspec.Meta)]
    if origin in (typing.Union, types.UnionType):
        return [meta for arm in typing.get_args(annotation) for meta in meta_of(arm)]
    return []


def describe(annotation: Any) -> tuple[str, dict[str, Any]]:
    """Description and extra facts of an annotation; what stands further out wins."""
    description = ""
    extra: dict[str, Any] = {}
    for meta in meta_of(annotation):
        description = meta.description or description
        extra.update(meta.extra or {})
    return description, extra


_BOUNDS = ("ge", "gt", "le", "lt", "multiple_of", "pattern", "min_length", "max_length", "description")


def merged(annotation: Any) -> Any:
    """The annotation with one ``Meta`` for all that it has, what stands further out winning.

    A parameter narrows a shared type (``Annotated[Bytes, Meta(ge=1)]``), and msgspec takes each bound only once.
    """
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.Union[tuple(merged(arm) for arm in typing.get_args(annotation))]  # noqa: UP007  made at run time
    if typing.get_origin(annotation) is not typing.Annotated:
        return annotation
    facts: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for meta in meta_of(annotation):
        facts |= {name: value for name in _BOUNDS if (value := getattr(meta, name)) is not None}
        extra |= meta.extra or {}
    return typing.Annotated[typing.get_args(annotation)[0], msgspec.Meta(**facts, extra=extra or None)]


def bare(annotation: Any) -> Any:
    """The annotation without ``Annotated`` and without ``None``, for code that asks what kind of value this is."""
    if typing.get_origin(annotation) is typing.Annotated:
        return bare(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        arms = [arm for arm in typing.get_args(annotation) if arm is not type(None)]
        return bare(arms[0]) if len(arms) == 1 else annotation
    return annotation


def declared(cls: type) -> dict[str, Callable[..., Any]]:
    """The methods of an API class that are verbs, in order of declaration.

    A large class is declared in parts, which it inherits; its own verbs come first.
    """
    found: dict[str, Callable[..., Any]] = {}
    for part in cls.__mro__:
        for method, function in vars(part).items():
            if hasattr(function, "__verb__"):
                found.setdefault(method, function)
    return found


def read_class(cls: type, task_type: type) -> dict[str, Verb]:
    """The verbs of one API class, by wire name, in order of declaration."""
    verbs = {}
    for method, function in declared(cls).items():
        declaration: Declaration = function.__verb__  # type: ignore[attr-defined]
        record = _read_verb(cls.__name__, method, function, declaration, task_type)
        verbs[record.name] = record
    return verbs


def _read_verb(cls: str, method: str, function: Callable[..., Any], declaration: Declaration, task_type: type) -> Verb:
    hints = {name: merged(hint) for name, hint in typing.get_type_hints(function, include_extras=True).items()}
    parameters = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name == "self":
            continue
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            msg = f"{cls}.{method}: parameter {name} must be keyword-only"
            raise TypeError(msg)
        required = parameter.default is inspect.Parameter.empty
        default = None if required else parameter.default
        description, extra = describe(hints[name])
        parameters.append(Parameter(name, camel(name), hints[name], required, default, description, extra))
    fields = [(p.name, p.type) if p.required else (p.name, p.type, p.default) for p in parameters]
    params = msgspec.defstruct(
        f"{cls}{camel(method).title()}Params",
        fields,
        kw_only=True,
        frozen=True,
        rename="camel",
        forbid_unknown_fields=True,
    )
    result = hints["return"]
    task_result = typing.get_args(result)[0] if typing.get_origin(result) is task_type else None
    if task_result is Any:
        # A verb of any task, not one that makes a task.
        task_result = None
    descriptors = tuple(p.name for p in parameters if p.extra.get("descriptor"))
    doc = inspect.cleandoc(function.__doc__ or "")
    return Verb(
        cls, camel(method), method, doc, declaration, tuple(parameters), params, result, task_result, descriptors
    )


def read_api(api: type, task_type: type) -> dict[str, Verb]:
    """Every verb of the API by its full wire name (``Image.create``), in order of declaration."""
    classes = typing.get_type_hints(api).values()
    return {record.full: record for cls in classes for record in read_class(cls, task_type).values()}


def compare_signatures(cls: type, implementation: type) -> list[str]:
    """Where an implementation's methods differ from the declaration in a way that type checkers pass over.

    mypy accepts a changed default value; a caller would get another one than the documentation says.
    """
    troubles = []
    for method, function in declared(cls).items():
        wanted = inspect.signature(function).parameters
        given = inspect.signature(getattr(implementation, method)).parameters
        for name, parameter in wanted.items():
            if name not in given:
                troubles.append(f"{implementation.__name__}.{method} lacks {name}")
            elif given[name].default != parameter.default:
                troubles.append(f"{implementation.__name__}.{method}: default of {name} differs")
    return troubles
