# SPDX-License-Identifier: Apache-2.0
"""Values as filters write them: texts, sizes with units, times, words of an enumeration, ids."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from libvdsm.config import parse_size
from libvdsm.query.fields import Field, Kind

_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?\Z")
_AGO = re.compile(r"now(?:-([0-9]+(?:\.[0-9]+)?)([smhdw]))?\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
_BOOLEANS = {"true": True, "false": False}


def read(field: Field, text: str, now: float) -> Any:
    """The text as a value to compare the field with; ``ValueError`` says what is expected."""
    try:
        if field.kind is Kind.TIME:
            return _time(text, now)
        return _READERS[field.kind](field, text)
    except (ValueError, OverflowError):
        raise ValueError(expected(field)) from None


def expected(field: Field) -> str:
    """What may stand as this field's value."""
    if field.kind is Kind.CHOICE:
        return f"one of {', '.join(field.choices)}"
    return _EXPECTED[field.kind]


def _text(_field: Field, text: str) -> str:
    return text


def _id(_field: Field, text: str) -> UUID:
    if not _ID.match(text):
        raise ValueError(text)
    return UUID(text)


def _choice(field: Field, text: str) -> Any:
    if text not in field.choices:
        raise ValueError(text)
    return field.choices[text]


def _boolean(_field: Field, text: str) -> bool:
    if text not in _BOOLEANS:
        raise ValueError(text)
    return _BOOLEANS[text]


def _number(_field: Field, text: str) -> float:
    if not _NUMBER.match(text):
        raise ValueError(text)
    return float(text) if "." in text else int(text)


def _size(_field: Field, text: str) -> int:
    return parse_size(text)


def _time(text: str, now: float) -> float:
    """Seconds since the epoch.  A date without a zone is UTC: the service does not know where its caller is."""
    if _NUMBER.match(text):
        return float(text)
    if ago := _AGO.match(text):
        return now - (float(ago[1]) * _SECONDS[ago[2]] if ago[1] else 0)
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


_READERS: Mapping[Kind, Callable[[Field, str], Any]] = {
    Kind.TEXT: _text,
    Kind.LIST: _text,
    Kind.ID: _id,
    Kind.CHOICE: _choice,
    Kind.BOOLEAN: _boolean,
    Kind.NUMBER: _number,
    Kind.SIZE: _size,
}
_EXPECTED: Mapping[Kind, str] = {
    Kind.TEXT: "a text",
    Kind.LIST: "a text",
    Kind.ID: "a whole id (for the beginning of one: ~ and a pattern, such as 3f2a*)",
    Kind.BOOLEAN: "true or false",
    Kind.NUMBER: "a number",
    Kind.SIZE: "a size, such as 512M or 64G",
    Kind.TIME: "a time, such as 2026-05-31, 2026-05-31T18:30:00+02:00, now-7d or seconds since the epoch",
}
