# SPDX-License-Identifier: Apache-2.0
"""Which view a result has."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import msgspec

from hsmctl import about
from hsmctl.backup import bitmaps, extents
from hsmctl.commands import Argument, arguments
from hsmctl.fields import facts
from hsmctl.history import UNRECORDED, history
from hsmctl.output import Table, View
from hsmctl.secrets import secrets
from hsmctl.sentences import SENTENCES
from hsmctl.shown import Shown
from hsmctl.tables import LOOKS
from libvdsm.api.audit import AuditPage
from libvdsm.api.bitmap import BitmapPage, ExtentPage
from libvdsm.api.secret import SecretPage
from libvdsm.api.types import Nothing

_LOOKS: dict[type, Callable[[Any, Shown], View]] = {
    **LOOKS,
    **about.LOOKS,
    AuditPage: history,
    BitmapPage: bitmaps,
    ExtentPage: extents,
    SecretPage: secrets,
}


def view(result: Any, shown: Shown) -> View:
    """The view of a verb's result: the verb's own sentence, or the type's own look, or the general one."""
    sentence = SENTENCES.get(shown.verb.full)
    if sentence is not None:
        return sentence(result, shown)
    for type_, look in _LOOKS.items():
        if isinstance(result, type_):
            return _filtered(look(result, shown), shown)
    if isinstance(result, Nothing) or not isinstance(result, msgspec.Struct):
        return "Done."
    return facts(result)


def _filtered(made: View, shown: Shown) -> View:
    """A list that a filter left empty does not say that there is nothing."""
    if not isinstance(made, Table):
        return made
    if "filter" in shown.given:
        return dataclasses.replace(made, empty="Nothing fits the filter.")
    narrowing = [a.shown for a in arguments(shown.verb) if a.parameter.name in shown.given and _narrows(a)]
    if narrowing and made.empty != UNRECORDED:
        return dataclasses.replace(made, empty=f"None fits; without {' and '.join(narrowing)} there may be some.")
    return made


def _narrows(argument: Argument) -> bool:
    return not argument.required and argument.parameter.name not in ("domain", "limit", "sort", "start")
