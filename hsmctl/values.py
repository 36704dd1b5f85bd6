# SPDX-License-Identifier: Apache-2.0
"""Values as people write and read them, and as the API has them."""

from __future__ import annotations

import dataclasses
import enum
import re
import time
import typing
import uuid
from typing import Any

import msgspec

from libvdsm.api.errors import VolumeExists
from libvdsm.api.types import DomainId, ImageId, OpenEnum, SecretId, TaskId, TransferId, VolumeId
from libvdsm.config import parse_size
from libvdsm.declare import Parameter, Verb, bare

_UNITS = "KMGTP"
_SMALLEST = 2**20
"""Bytes that a disk has when it is given without a unit; a smaller number has lost its unit."""
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)?\Z")
_SECONDS = {None: 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Kind(enum.Enum):
    """What a parameter is to a person who types it; the value stands for it in usage lines."""

    FLAG = ""
    FILE = "FILE"
    SIZE = "SIZE"
    SECONDS = "SECONDS"
    MOMENT = "TIME"
    WHOLE = "N"
    NUMBER = "NUMBER"
    CHOICE = "CHOICE"
    DOMAIN = "DOMAIN"
    IMAGE = "IMAGE"
    VOLUME = "VOLUME"
    TASK = "TASK"
    TRANSFER = "TRANSFER"
    SECRET = "SECRET"
    HIDDEN = "VALUE-FILE"
    """a value that nobody may see: it comes from a file, or is asked for"""
    NEW_ID = "ID"
    PATH = "PATH"
    TEXT = "TEXT"


_EXISTING = {
    DomainId: Kind.DOMAIN,
    ImageId: Kind.IMAGE,
    VolumeId: Kind.VOLUME,
    TaskId: Kind.TASK,
    TransferId: Kind.TRANSFER,
    SecretId: Kind.SECRET,
}
NAMED = frozenset(_EXISTING.values())
"""What the service knows by name or id."""
_PLAIN = {bool: Kind.FLAG, int: Kind.WHOLE, float: Kind.NUMBER, str: Kind.TEXT}
_UNIT = {"bytes": Kind.SIZE, "seconds": Kind.SECONDS, "seconds since the epoch": Kind.MOMENT}
_MOMENTS = ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S")


def element(parameter: Parameter) -> Parameter | None:
    """Of a parameter that is a list, one of its members as if it were a parameter; else None."""
    type_ = bare(parameter.type)
    if typing.get_origin(type_) is not list:
        return None
    return dataclasses.replace(parameter, type=typing.get_args(type_)[0])


def kind_of(verb: Verb, parameter: Parameter) -> Kind:
    """How a parameter, or each member of it, is typed; ``TypeError`` for a type that no command line has met yet."""
    parameter = element(parameter) or parameter
    if parameter.secret:
        return Kind.HIDDEN
    if parameter.extra.get("descriptor"):
        return Kind.FILE
    type_ = bare(parameter.type)
    if type_ in _EXISTING:
        return Kind.NEW_ID if _is_new(verb, parameter) else _EXISTING[type_]
    if isinstance(type_, type) and issubclass(type_, OpenEnum):
        return Kind.CHOICE
    if parameter.name == "path":
        return Kind.PATH
    if type_ in _PLAIN:
        return _UNIT.get(parameter.extra.get("unit", ""), _PLAIN[type_])
    msg = f"{verb.full}: parameter {parameter.name} has a type that hsmctl cannot read: {type_}"
    raise TypeError(msg)


def _is_new(verb: Verb, parameter: Parameter) -> bool:
    # A verb that makes a volume can find that its id is taken; one that only uses a volume cannot.
    makes = VolumeExists in verb.declaration.errors
    if "new" in parameter.extra:
        return bool(parameter.extra["new"])
    # And what has to be named is there.
    return parameter.name in ("id", "leaf") or (
        parameter.name in ("volume", "volumes") and makes and not parameter.required
    )


def choices(parameter: Parameter) -> list[str]:
    """The values of an enumeration, without the one that only old clients see."""
    type_ = bare((element(parameter) or parameter).type)
    return [member.value for member in type_ if member.name != "UNKNOWN"]


def read(kind: Kind, parameter: Parameter, text: str) -> Any:
    """Text of a command line as the API's value; ``ValueError`` says what is wrong with it.

    Ids that may be written as names stay text, since only the service can tell what they mean; so do paths,
    which only a service on this host shares.
    """
    value: Any = text
    if kind is Kind.FILE and text == "-":
        msg = (
            "'-' is not supported: the service reads and writes at any place of a file, which standard input "
            "and output do not allow; use a file, if need be a temporary one"
        )
        raise ValueError(msg)
    if kind in NAMED or kind in (Kind.FILE, Kind.PATH, Kind.HIDDEN):
        return text
    if kind is Kind.SIZE:
        value = parse_size(text)
        _refuse_forgotten_unit(parameter, text, value)
    elif kind is Kind.SECONDS:
        value = parse_duration(text)
    elif kind is Kind.MOMENT:
        value = parse_moment(text)
    elif kind is Kind.WHOLE:
        value = _number(int, text)
    elif kind is Kind.NUMBER:
        value = _number(float, text)
    elif kind is Kind.NEW_ID and parse_id(text) is None:
        msg = f"{text!r} is not an id; write a UUID, such as {uuid.uuid4()}"
        raise ValueError(msg)
    try:
        return msgspec.convert(value, (element(parameter) or parameter).type)
    except msgspec.ValidationError as error:
        raise ValueError(_plain_words(str(error), kind)) from None


def _refuse_forgotten_unit(parameter: Parameter, text: str, size: int) -> None:
    """A disk of some bytes is what nobody wants, and what ``--size 10`` would make."""
    text = text.strip()
    if parameter.name == "capacity" and 0 < size < _SMALLEST and text[-1:].isdigit():
        unit = "G" if size < 1024 else "M"
        msg = f"{text} is {text} byte{'' if size == 1 else 's'}; did you mean {text}{unit}? Write {text}B for bytes"
        raise ValueError(msg)


def parse_id(text: str) -> uuid.UUID | None:
    """A whole id, or None."""
    try:
        return uuid.UUID(text) if len(text) == 36 else None
    except ValueError:
        return None


def parse_duration(text: str) -> float:
    """``90``, ``90s``, ``5m`` or ``1.5h`` as seconds."""
    match = _DURATION.match(text.strip())
    if match is None:
        msg = f"{text!r} is not a time; write for example 30, 30s, 5m or 1.5h"
        raise ValueError(msg)
    return float(match[1]) * _SECONDS[match[2]]


def parse_moment(text: str) -> float:
    """``2h`` for two hours ago, ``2026-11-20`` or ``2026-11-20 18:30`` in local time, or seconds since the epoch."""
    text = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if _DURATION.match(text):
        return time.time() - parse_duration(text)
    for form in _MOMENTS:
        try:
            return time.mktime(time.strptime(text, form))
        except (ValueError, OverflowError):
            continue
    msg = f"{text!r} is not a time; write for example 2h or 7d (ago), 2026-11-20 or '2026-11-20 18:30'"
    raise ValueError(msg)


def show_size(size: int) -> str:
    """Bytes in the largest unit that leaves at least one, as ``parse_size`` reads it: ``64G``, ``1.5T``."""
    value, unit = float(size), ""
    for larger in _UNITS:
        if value < 1023.5:
            break
        value, unit = value / 1024, larger
    if not unit:
        return str(size)
    digits = f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
    return digits.removesuffix(".0") + unit


def show_size_exactly(size: int) -> str:
    """A size for people, with the exact number where the short form loses it or is hard to read."""
    return show_size(size) if size < 1024 else f"{show_size(size)} ({size} bytes)"


def show_time(moment: float) -> str:
    """A moment, in the local time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def show_duration(seconds: float) -> str:
    """A span of time, in at most two units."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def _number(kind: type, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        msg = f"{text!r} is not a {'whole ' if kind is int else ''}number"
        raise ValueError(msg) from None


def _plain_words(text: str, kind: Kind) -> str:
    """A validation error without the library's own words for types."""
    match = re.match(r"Expected `\w+` (of length )?(>=|<=|matching regex) (.*)", text)
    if match is None:
        return text
    if match[2] == "matching regex":
        return "it holds characters that are not allowed here"
    bound = "at least" if match[2] == ">=" else "at most"
    limit = show_size(int(match[3])) if kind is Kind.SIZE else match[3]
    unit = f" character{'' if limit == '1' else 's'} long" if match[1] else ""
    return f"it has to be {bound} {limit}{unit}"
