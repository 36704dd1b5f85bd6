# SPDX-License-Identifier: Apache-2.0
"""A filter's text as tokens."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass

from libvdsm.api.errors import InvalidFilter

_SHOWN = 40
_TOKEN = re.compile(
    r"""(?P<operator> != | <= | >= | [=<>~(),] )
      | (?P<quoted> "[^"]*(?:""[^"]*)*"(?!") | '[^']*(?:''[^']*)*'(?!') )
      | (?P<word> [^\s()'",=!<>~]+ )""",
    re.VERBOSE,
)


class Sort(enum.Enum):
    """What a token is."""

    OPERATOR = enum.auto()
    QUOTED = enum.auto()
    WORD = enum.auto()
    END = enum.auto()


@dataclass(frozen=True)
class Token:
    """A piece of the text, without quotes; ``position`` counts characters from 1."""

    sort: Sort
    text: str
    position: int

    def __str__(self) -> str:
        """As errors show it."""
        if self.sort is Sort.END:
            return "the end"
        return repr(self.text if len(self.text) <= _SHOWN else f"{self.text[:_SHOWN]}…")

    def is_word(self, *words: str) -> bool:
        """Whether it is one of these words, and not in quotes."""
        return self.sort is Sort.WORD and self.text in words

    def is_operator(self, *operators: str) -> bool:
        return self.sort is Sort.OPERATOR and self.text in operators


def tokens(text: str) -> Iterator[Token]:
    """The tokens, and one that stands for the end."""
    place = 0
    while place < len(text):
        if text[place].isspace():
            place += 1
            continue
        match = _TOKEN.match(text, place)
        if match is None:
            what = "this quote is not closed" if text[place] in "'\"" else f"{text[place]!r} stands for nothing here"
            raise InvalidFilter(position=place + 1, reason=what)
        found = match[0]
        sort = Sort[str(match.lastgroup).upper()]
        if sort is Sort.QUOTED:
            quote = found[0]
            found = found[1:-1].replace(quote * 2, quote)
        yield Token(sort, found, place + 1)
        place = match.end()
    yield Token(Sort.END, "", len(text) + 1)
