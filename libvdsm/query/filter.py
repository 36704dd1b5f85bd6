# SPDX-License-Identifier: Apache-2.0
"""From a filter's text to a condition.

    expression   = conjunction { "or" conjunction }
    conjunction  = negation { "and" negation }
    negation     = { "not" } ( "(" expression ")" | term )
    term         = field                                        of true or false
                 | field operator value
                 | field [ "not" ] "in" "(" value { "," value } ")"
                 | field "has" value
                 | field "is" [ "not" ] ( "present" | "absent" )

Recursion is bounded, and so is the number of terms; the length is bounded by the parameter's declaration.
"""

from __future__ import annotations

import time
from typing import Any, NoReturn

import msgspec

from libvdsm.api.errors import InvalidFilter
from libvdsm.query import conditions, values
from libvdsm.query.conditions import Condition
from libvdsm.query.fields import Field, Kind, fields_of
from libvdsm.query.tokens import Sort, Token, tokens

NESTING = 32
"""How deep parentheses may stand in each other."""
TERMS = 256
"""How many values may be compared with."""
PATTERN = 256
"""How long a pattern may be."""

_SIGNS = ("=", "!=", "<", "<=", ">", ">=", "~")
_WORDS = ("and", "or", "not", "in", "has", "is")


def parse(text: str, struct: type[msgspec.Struct], now: float | None = None) -> Condition:
    """The condition that a filter's text means for items of this structure; ``InvalidFilter`` if it means none."""
    return _Parser(text, struct, time.time() if now is None else now).whole()


class _Parser:
    """Reads one text from its beginning to its end, one token ahead."""

    def __init__(self, text: str, struct: type[msgspec.Struct], now: float) -> None:
        self._fields = fields_of(struct)
        self._now = now
        self._tokens = tokens(text)
        self._next = next(self._tokens)
        self._depth = 0
        self._terms = 0

    def whole(self) -> Condition:
        found = self._expression()
        if self._next.sort is not Sort.END:
            self._refuse("and, or, or the end")
        return found

    def _expression(self) -> Condition:
        parts = [self._conjunction()]
        while self._next.is_word("or"):
            self._take()
            parts.append(self._conjunction())
        return conditions.any_of(parts)

    def _conjunction(self) -> Condition:
        parts = [self._negation()]
        while self._next.is_word("and"):
            self._take()
            parts.append(self._negation())
        return conditions.all_of(parts)

    def _negation(self) -> Condition:
        negated = False
        while self._next.is_word("not"):
            self._take()
            negated = not negated
        found = self._group() if self._next.is_operator("(") else self._term()
        return conditions.negation(found) if negated else found

    def _group(self) -> Condition:
        opening = self._take()
        self._depth += 1
        if self._depth > NESTING:
            self._fail(opening, f"parentheses stand in each other more than {NESTING} deep")
        found = self._expression()
        self._depth -= 1
        self._expect(")", "and, or, or )")
        return found

    def _term(self) -> Condition:
        field = self._field()
        sign = self._next
        if sign.is_word("in"):
            return self._one_of(field)
        if sign.is_word("not"):
            self._take()
            if not self._next.is_word("in"):
                self._refuse("in")
            return conditions.negation(self._one_of(field))
        if sign.is_word("is"):
            return self._presence(field)
        if sign.is_word("has") or sign.is_operator(*_SIGNS):
            return self._comparison(field)
        if field.kind is not Kind.BOOLEAN:
            self._refuse(f"how to compare {field.name} ({_told(field)})")
        self._count(sign)
        return conditions.is_true(field)

    def _field(self) -> Field:
        if self._next.sort is not Sort.WORD or self._next.text in _WORDS:
            self._refuse(f"a field ({self._known()})")
        token = self._take()
        if token.text not in self._fields:
            self._fail(token, f"there is no field {token}; the fields are {self._known()}")
        return self._fields[token.text]

    def _known(self) -> str:
        return ", ".join(self._fields)

    def _comparison(self, field: Field) -> Condition:
        token = self._take()
        sign = token.text
        self._allow(field, sign, token)
        if sign == "~":
            return conditions.like(field, self._pattern())
        wanted = self._value(field)
        return conditions.has(field, wanted) if sign == "has" else conditions.compare(field, sign, wanted)

    def _one_of(self, field: Field) -> Condition:
        self._allow(field, "in", self._take())
        self._expect("(", "( and values")
        wanted = [self._value(field)]
        while self._next.is_operator(","):
            self._take()
            wanted.append(self._value(field))
        self._expect(")", "a comma or )")
        return conditions.one_of(field, frozenset(wanted))

    def _presence(self, field: Field) -> Condition:
        token = self._take()
        if not field.optional:
            self._fail(token, f"{field.name} is always present; it is compared with {_told(field)}")
        negated = self._next.is_word("not")
        if negated:
            self._take()
        if not self._next.is_word("present", "absent"):
            self._refuse("present or absent")
        self._count(self._next)
        found = conditions.is_present(field)
        return conditions.negation(found) if negated != (self._take().text == "absent") else found

    def _allow(self, field: Field, sign: str, token: Token) -> None:
        if sign not in field.operators:
            self._fail(token, f"{field.name} cannot be compared with {sign}, only with {_told(field)}")

    def _value(self, field: Field) -> Any:
        token = self._literal(values.expected(field))
        try:
            return values.read(field, token.text, self._now)
        except ValueError as error:
            self._fail(token, f"{field.name} is compared with {error}, not with {token}")

    def _pattern(self) -> str:
        token = self._literal("a pattern, such as web*")
        if len(token.text) > PATTERN:
            self._fail(token, f"a pattern has at most {PATTERN} characters")
        return token.text

    def _literal(self, expected: str) -> Token:
        if self._next.is_word(*_WORDS):
            self._fail(self._next, f"expected {expected}; if {self._next} is meant, put it in quotes")
        if self._next.sort not in (Sort.WORD, Sort.QUOTED):
            self._refuse(expected)
        self._count(self._next)
        return self._take()

    def _count(self, token: Token) -> None:
        self._terms += 1
        if self._terms > TERMS:
            self._fail(token, f"more than {TERMS} values are compared with")

    def _take(self) -> Token:
        token, self._next = self._next, self._next if self._next.sort is Sort.END else next(self._tokens)
        return token

    def _expect(self, operator: str, expected: str) -> None:
        if not self._next.is_operator(operator):
            self._refuse(expected)
        self._take()

    def _refuse(self, expected: str) -> NoReturn:
        self._fail(self._next, f"expected {expected}, found {self._next}")

    def _fail(self, token: Token, reason: str) -> NoReturn:
        raise InvalidFilter(position=token.position, reason=reason)


def _told(field: Field) -> str:
    """How a field can be compared, for errors."""
    words = ", ".join((*field.operators[:-1], "is present, is absent") if field.optional else field.operators)
    return f"{words}; or one of its own fields, such as {field.name}.…" if field.kind is Kind.STRUCTURE else words
