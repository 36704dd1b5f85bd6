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


class Form:
    """How the parameters of one verb are written down: made once, as every change needs it."""

    def __init__(self, verb: Verb) -> None:
        self._members = tuple(p for p in verb.parameters if not p.extra.get("descriptor"))
        self._domain = self._naming("domain", DomainId)
        self._image = self._naming("image", ImageId)
        self._volume = self._naming("volume", VolumeId)

    def _naming(self, name: str, kind: Any) -> tuple[str, ...]:
        """The wire names of those that say which one it is about: ``image``, or the ``id`` of a new image."""
        return tuple(p.wire for p in self._members if p.name in (name, "id") and bare(p.type) == kind)

    def shown(self, given: Given) -> dict[str, Any]:
        """The parameters of a call by their wire names, as a record has them."""
        values = _plain(given)
        return {
            parameter.wire: _shown(parameter, values[parameter.wire])
            for parameter in self._members
            if values.get(parameter.wire) is not None
        }

    def about(self, shown: Mapping[str, Any]) -> About:
        """What ``shown`` parameters are about, as far as they say so."""

        def said(names: tuple[str, ...], kind: Callable[[UUID], Id]) -> Id | None:
            value = next((shown[name] for name in names if shown.get(name, NOT_VALID) != NOT_VALID), None)
            return None if value is None else kind(UUID(value))

        return About(said(self._domain, DomainId), said(self._image, ImageId), said(self._volume, VolumeId))


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
