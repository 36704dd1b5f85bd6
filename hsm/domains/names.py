# SPDX-License-Identifier: Apache-2.0
"""The names that files have in a domain that is a folder."""

from __future__ import annotations

import re
from uuid import UUID

import msgspec

META = ".meta"
LEASE = ".lease"
ATTRIBUTES = ".hsm"
"""Ends the name of an image's attributes, which begins with the image's id."""
NEW = ".new"
"""Ends the name of a file that is to be renamed into place."""
REMOVED = "_remove_me_"
WIPED = "_remove_me_ZERO_"

_is_canonical = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch


def as_id(text: str) -> UUID | None:
    """The id that a file's name is, or None: only the canonical form is one."""
    # Long lists spend much of their time here, and msgspec makes an id twice as fast as its own class does.
    return msgspec.convert(text, UUID) if _is_canonical(text) else None


def volume_of(name: str) -> UUID | None:
    """The volume that a file in an image's folder belongs to, or None if we would not have made it."""
    found = as_id(name[:36])
    rest = name[36:]
    if rest in ("", META, LEASE) or (rest.startswith(f"{META}.") and rest.endswith(NEW)):
        return found
    return None


def attributes_of(name: str) -> UUID | None:
    """The image whose attributes a file holds, or is to hold once it is renamed, or None."""
    rest = name[36:]
    if rest == ATTRIBUTES or (rest.startswith(f"{ATTRIBUTES}.") and rest.endswith(NEW)):
        return as_id(name[:36])
    return None


def removed(name: str) -> tuple[UUID, bool] | None:
    """(id, whether to be wiped) of a name that was renamed away, else None."""
    if not name.startswith(REMOVED):
        return None
    wipe = name.startswith(WIPED)
    found = as_id(name[len(WIPED if wipe else REMOVED) :].removesuffix(META))
    return (found, wipe) if found else None
