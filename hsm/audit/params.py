# SPDX-License-Identifier: Apache-2.0
"""Parameters as they may be written down: only what the verb declares, nothing secret, nothing long.

A call is recorded also when it was refused before anybody looked at its parameters; so nothing is taken for granted
about them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

import msgspec

from libvdsm.api.types import DomainId, ImageId, VolumeId
from libvdsm.declare import Parameter, Verb, bare

Id = TypeVar("Id")
Given: TypeAlias = "msgspec.Raw | Mapping[str, Any]"
"""Parameters as a wire has them: JSON that nobody looked into, or plain values."""

SECRET = "(secret)"
NOT_VALID = "(not valid)"
_LONGEST = 1024
"""Characters: a path stays whole, a document does not."""
_MOST = 100
"""Items of a list."""
_UNTOLD = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
"""What XML cannot carry, and what is no text at all."""


@dataclass(frozen=True)
class About:
    """What a call is about."""

    domain: DomainId | None
    image: ImageId | None
    volume: VolumeId | None


def shown(verb: Verb, given: Given) -> dict[str, Any]:
    """The parameters of a call by their wire names, as a record has them."""
    values = _plain(given)
    return {
        parameter.wire: _shown(parameter, values[parameter.wire])
        for parameter in verb.parameters
        if values.get(parameter.wire) is not None and not parameter.extra.get("descriptor")
    }


def about(verb: Verb, params: Mapping[str, Any]) -> About:
    """What ``shown`` parameters are about, as far as they say so."""

    def said(name: str, kind: Callable[[UUID], Id]) -> Id | None:
        for parameter in verb.parameters:
            value = params.get(parameter.wire, NOT_VALID)
            if parameter.name in (name, "id") and bare(parameter.type) == kind and value != NOT_VALID:
                return kind(UUID(value))
        return None

    return About(said("domain", DomainId), said("image", ImageId), said("volume", VolumeId))


def text(value: str) -> str:
    """Text that is short enough, and that every wire can carry."""
    if len(value) > _LONGEST:
        value = f"{value[:_LONGEST]}… ({len(value)} characters)"
    return value if value.isprintable() else _UNTOLD.sub("\N{REPLACEMENT CHARACTER}", value)


def _plain(given: Given) -> Mapping[str, Any]:
    if not isinstance(given, msgspec.Raw):
        return given
    try:
        values = msgspec.json.decode(given)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _shown(parameter: Parameter, value: Any) -> Any:
    if parameter.secret:
        return SECRET
    try:
        msgspec.convert(value, parameter.type)
    except (msgspec.ValidationError, RecursionError):
        return NOT_VALID
    return _cut(value)


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, list):
        more = [f"… ({len(value)} items)"] if len(value) > _MOST else []
        return [_cut(item) for item in value[:_MOST]] + more
    if isinstance(value, dict):
        return {text(str(key)): _cut(item) for key, item in value.items()}
    return value
