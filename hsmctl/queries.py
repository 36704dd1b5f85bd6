# SPDX-License-Identifier: Apache-2.0
"""What can be filtered and sorted by, for help and for shells that complete it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from libvdsm.declare import Verb
from libvdsm.query.fields import Field, fields_of, listed

PARAMETERS = ("filter", "sort")
"""The parameters of a verb that name fields."""

_LAST_WORD = re.compile(r"[\w.]*\Z")
_WIDTH = 88
_SORT = "--sort"
_DESCENDING = re.compile(r"-[a-z]\w")


def fields(verb: Verb) -> list[Field]:
    """The fields of what a verb lists; none, if it takes no filter."""
    item = listed(verb)
    return [] if item is None else list(fields_of(item).values())


def told(verb: Verb) -> str:
    """The fields, for the help of a command that lists."""
    names = ", ".join(field.name for field in fields(verb))
    shown = textwrap.wrap(names, _WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join(["fields to filter and sort by:", *shown]) if names else ""


def joined(words: Iterable[str]) -> Iterator[str]:
    """The words, ``--sort -name`` as one: to argparse the second would be an option."""
    before = None
    for word in words:
        joins = before == _SORT and _DESCENDING.match(word)
        if before is not None:
            yield f"{before}={word}" if joins else before
        before = None if joins else word
    if before is not None:
        yield before


class Completer:
    """Completes the last word of an expression as a field."""

    def __init__(self, verb: Verb, parameter: str) -> None:
        self._names = [field.name for field in fields(verb) if field.sortable or parameter == "filter"]

    def __call__(self, *, prefix: str, **_: Any) -> Iterable[str]:
        word = _LAST_WORD.findall(prefix)[0]
        before = prefix.removesuffix(word)
        return [before + name for name in self._names if name.startswith(word)]
