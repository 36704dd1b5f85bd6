# SPDX-License-Identifier: Apache-2.0
"""Random filters, compared with an evaluator that does what the guide says, one thing after the other; and fuzz."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from libvdsm.api.errors import InvalidFilter
from libvdsm.query.fields import fields_of
from libvdsm.query.filter import parse
from tests.query.things import NOW, Colour, Thing, ids, sizes, texts, thing, things, times

Verdict = Callable[[Thing], bool]


@dataclass(frozen=True)
class Said:
    """A filter, and what it means; ``binds`` is how closely: or, and, not, a term."""

    text: str
    means: Verdict
    binds: int

    def within(self, binds: int) -> str:
        return self.text if self.binds >= binds else f"({self.text})"


def value_of(item: Any, path: str) -> Any:
    for name in path.split("."):
        item = None if item is None else getattr(item, {"madeAt": "made_at", "seenAt": "seen_at"}.get(name, name))
    return item


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Colour):
        return value.value
    return quoted(value) if isinstance(value, str) else str(value)


def fits(pattern: str, text: str) -> bool:
    """File name patterns by recursion over both."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return fits(pattern[1:], text) or (text != "" and fits(pattern, text[1:]))
    end = pattern.find("]", 3 if pattern[1:2] == "!" else 2)
    if pattern[0] == "[" and end > 0:
        inside = pattern[1:end]
        negated, chosen = inside[0] == "!", inside.removeprefix("!") if inside[0] == "!" else inside
        return text != "" and ((text[0] in chosen) != negated) and fits(pattern[end + 1 :], text[1:])
    return text != "" and pattern[0] in ("?", text[0]) and fits(pattern[1:], text[1:])


EQUALS: dict[str, st.SearchStrategy[Any]] = {
    "title": texts,
    "name": texts,
    "inner.label": texts,
    "id": ids,
    "twin": ids,
    "colour": st.sampled_from([Colour.RED, Colour.GREEN]),
    "shade": st.sampled_from([Colour.RED, Colour.GREEN]),
    "size": sizes,
    "used": sizes,
    "inner.size": sizes,
    "madeAt": times,
    "seenAt": times,
    "count": st.integers(0, 3),
}
ORDERED = ("size", "used", "inner.size", "madeAt", "seenAt", "count")
OPTIONAL = ("name", "used", "seenAt", "twin", "shade", "tags", "inner", "inner.size", "inner.ready", "inner.label")
patterns = st.text("ab*?ü", max_size=5) | st.sampled_from(["[ab]*", "[!a]", "*[*]*", "[", "[!", "[]", "a[b"])


@st.composite
def comparisons(draw: st.DrawFn) -> Said:
    path = draw(st.sampled_from(sorted(EQUALS)))
    wanted = draw(EQUALS[path])
    sign = draw(st.sampled_from(["=", "!=", "<", "<=", ">", ">="] if path in ORDERED else ["=", "!="]))

    def means(item: Thing) -> bool:
        value = value_of(item, path)
        if sign == "!=":
            return bool(value != wanted)
        if value is None:
            return False
        return bool(
            (sign in ("=", "<=", ">=") and value == wanted)
            or (sign in ("<", "<=") and value < wanted)
            or (sign in (">", ">=") and value > wanted)
        )

    return Said(f"{path} {sign} {written(wanted)}", means, 3)


@st.composite
def memberships(draw: st.DrawFn) -> Said:
    path = draw(st.sampled_from(sorted(EQUALS)))
    wanted = draw(st.lists(EQUALS[path], min_size=1, max_size=3))
    negated = draw(st.booleans())
    text = f"{path} {'not ' if negated else ''}in ({', '.join(map(written, wanted))})"
    return Said(text, lambda item: any(value_of(item, path) == one for one in wanted) != negated, 3)


@st.composite
def likenesses(draw: st.DrawFn) -> Said:
    path = draw(st.sampled_from(["title", "name", "inner.label", "tags"]))
    pattern = draw(patterns)

    def means(item: Thing) -> bool:
        value = value_of(item, path)
        return (
            any(fits(pattern, text) for text in (value if path == "tags" else [value]) if text is not None)
            if (value is not None)
            else False
        )

    return Said(f"{path} ~ {quoted(pattern)}", means, 3)


holdings = texts.map(lambda text: Said(f"tags has {quoted(text)}", lambda item: text in (item.tags or []), 3))
presences = st.tuples(st.sampled_from(OPTIONAL), st.booleans()).map(
    lambda drawn: Said(
        f"{drawn[0]} is {'present' if drawn[1] else 'absent'}",
        lambda item: (value_of(item, drawn[0]) is not None) == drawn[1],
        3,
    )
)
flags = st.sampled_from(["good", "part.ready", "inner.ready"]).map(
    lambda path: Said(path, lambda item: value_of(item, path) is True, 3)
)
terms = comparisons() | memberships() | likenesses() | holdings | presences | flags


def joined(inner: st.SearchStrategy[Said]) -> st.SearchStrategy[Said]:
    several = st.lists(inner, min_size=2, max_size=3)
    return (
        inner.map(lambda said: Said(f"not {said.within(2)}", lambda item: not said.means(item), 2))
        | several.map(lambda all_: Said(
            " and ".join(said.within(2) for said in all_), lambda item: all(said.means(item) for said in all_), 1))
        | several.map(lambda all_: Said(
            " or ".join(said.within(1) for said in all_), lambda item: any(said.means(item) for said in all_), 0))
    )  # fmt: skip


filters = st.recursive(terms, joined, max_leaves=8)


@settings(max_examples=400, deadline=None)
@given(filters, st.lists(things, min_size=1, max_size=8))
def test_a_filter_means_what_the_guide_says(said: Said, items: list[Thing]) -> None:
    condition = parse(said.text, Thing, NOW)
    for item in items:
        assert condition.holds(item) == said.means(item), said.text
        for path, values in condition.pins.items():
            assert not said.means(item) or value_of(item, path) in values, f"{path} is not pinned by {said.text}"


@settings(max_examples=200, deadline=None)
@given(filters, things)
def test_blanks_between_words_mean_nothing(said: Said, item: Thing) -> None:
    spread = said.text.replace(" (", "  ( ").replace(") ", " )\t ")
    assert parse(f" {spread} ", Thing, NOW).holds(item) == said.means(item)


PIECES = (*fields_of(Thing), "and", "or", "not", "in", "has", "is", "present", "absent", "(", ")", ",", "=", "!=", "<",
          "~", '"', "'", "x", "10G", "now-7d", "true", "red", str(UUID(int=1)), "[", "*", "\u00e4", "\ud800", "-", ".")  # fmt: skip
scrambled = st.lists(st.sampled_from(PIECES), max_size=25).map(" ".join)
broken = st.tuples(filters, st.integers(0, 200), st.text(max_size=3)).map(
    lambda drawn: drawn[0].text[: drawn[1]] + drawn[2] + drawn[0].text[drawn[1] + 1 :]
)


@settings(max_examples=1000, deadline=None)
@given(st.text(max_size=200) | scrambled | broken, things)
def test_any_text_is_a_filter_or_refused(text: str, item: Thing) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with suppress(InvalidFilter):
            assert parse(text, Thing, NOW).holds(item) in (True, False)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(["(", "not ", "not(", "good and ", "good or (", "name in ("]), st.integers(1, 4096))
def test_no_text_is_too_deep(piece: str, times_: int) -> None:
    with suppress(InvalidFilter):
        parse((piece * times_)[:4096] + "good", Thing, NOW)


@settings(max_examples=300, deadline=None)
@given(st.text("ab*?[]!-^\\|&~", max_size=12), texts)
def test_any_pattern_is_one(pattern: str, text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        holds = parse(f"name ~ {quoted(pattern)}", Thing).holds
        assert holds(thing(name=text)) in (True, False)
        assert not holds(thing())
