# SPDX-License-Identifier: Apache-2.0
"""The one text that a volume's metadata has, and what people call things in it.

oVirt keeps an image's name in its leaf as a JSON object with ``DiskAlias`` and ``DiskDescription``.  We add
``Snapshot``, the name of the state that a frozen volume keeps; other members are left as they are.  A text that is no
such object is a description.  See ``docs/decisions``.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from hsm.formats.volume import DESCRIPTION_LIMIT

_ALIAS, _TEXT, _SNAPSHOT = "DiskAlias", "DiskDescription", "Snapshot"
BYTES_LIMIT = 215
"""What metadata with all its other fields at their longest leaves of 512 bytes, rounded down."""

_NAME_LIMIT = 64
_UNFIT = re.compile("[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_HALVES = re.compile("[\ud800-\udfff]")
"""Halves of characters: JSON can spell them, files cannot hold them."""

_quickly = msgspec.json.Decoder(dict[str, Any]).decode
"""Ten times as fast as the json module, and stricter: what it refuses is not yet known to be no object."""


class TooLong(Exception):
    """Name and description do not fit the format."""


def _members(text: str) -> dict[str, Any] | None:
    if not text.startswith("{"):
        return None
    try:
        members = json.loads(text)
    except ValueError:
        return None
    return members if isinstance(members, dict) else None


def _text(members: dict[str, Any], key: str) -> str | None:
    value = members.get(key)
    return value if isinstance(value, str) and value else None


def _shown(text: str | None, most: int) -> str | None:
    """A text as the API can carry it: others wrote longer ones, and characters that some wires have not."""
    if text is None:
        return None
    text = _UNFIT.sub(" ", text)
    return text if len(text) <= most else text[: most - 1] + "…"


def read(text: str, *, leaf: bool) -> tuple[str | None, str | None]:
    """(name, description): the image's name of a leaf, the snapshot's of any other volume."""
    if not text.startswith("{"):
        return None, _shown(text or None, DESCRIPTION_LIMIT)
    try:
        members: dict[str, Any] | None = _quickly(text)
    except msgspec.DecodeError:
        members = _members(text)
    if members is None:
        return None, _shown(text, DESCRIPTION_LIMIT)
    name = _text(members, _ALIAS if leaf else _SNAPSHOT)
    return _shown(name, _NAME_LIMIT), _shown(_text(members, _TEXT), DESCRIPTION_LIMIT)


def alias(text: str) -> str | None:
    """The image's name, as any volume of it may remember it."""
    return _text(_members(text) or {}, _ALIAS)


def write(
    text: str = "", *, name: str | None = None, description: str | None = None, snapshot: str | None = None
) -> str:
    """``text`` with what is given changed; an empty description removes it."""
    members = _members(text)
    if members is None:
        members = {_TEXT: text} if text else {}
    for key, value in ((_ALIAS, name), (_TEXT, description), (_SNAPSHOT, snapshot)):
        if value is not None:
            members[key] = value
    members = {key: value for key, value in members.items() if value != ""}
    plain = str(members.get(_TEXT, ""))
    if members.keys() <= {_TEXT} and not plain.startswith("{") and not _UNFIT.search(plain):
        written = plain
    else:
        written = json.dumps(members, ensure_ascii=False, separators=(",", ":"))
        if _HALVES.search(written):
            written = json.dumps(members, separators=(",", ":"))
    if len(written) > DESCRIPTION_LIMIT or len(written.encode()) > BYTES_LIMIT:
        msg = (
            f"names and description take {len(written)} characters in {len(written.encode())} bytes as they are "
            f"stored, and {DESCRIPTION_LIMIT} characters in {BYTES_LIMIT} bytes are the limit"
        )
        raise TooLong(msg)
    return written
