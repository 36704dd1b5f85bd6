# SPDX-License-Identifier: Apache-2.0
"""Orders of a list, and the text of places in them."""

from __future__ import annotations

import functools
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libvdsm.api.errors import InvalidSort
from libvdsm.query import order
from libvdsm.query.fields import fields_of
from libvdsm.query.order import CUT, FIELDS, Order, parse
from tests.query.test_filter_property import value_of
from tests.query.things import Colour, Part, Thing, thing, things

SORTABLE = [field.name for field in fields_of(Thing).values() if field.sortable]
orders = st.lists(
    st.tuples(st.sampled_from(SORTABLE), st.booleans()), min_size=1, max_size=FIELDS, unique_by=lambda one: one[0]
)


def text_of(columns: list[tuple[str, bool]]) -> str:
    return ",".join(("-" if descending else "") + name for name, descending in columns)


def numbers(text: str, items: list[Thing]) -> list[int]:
    wanted = list(items)
    parse(text, Thing).sort(wanted)
    return [item.id.int for item in wanted]


@pytest.mark.parametrize(
    ("text", "sorted_"),
    [
        ("name", [3, 1, 2, 4]),
        ("-name", [2, 1, 3, 4]),
        ("count", [2, 4, 1, 3]),
        ("-count", [1, 3, 2, 4]),
        ("count,-name", [2, 4, 1, 3]),
        (" -count , name ", [3, 1, 2, 4]),
        ("id", [1, 2, 3, 4]),
        ("-id", [4, 3, 2, 1]),
        ("colour,-id", [4, 2, 3, 1]),
        ("-good,-id", [3, 2, 1, 4]),
        ("used", [4, 2, 1, 3]),
        ("-used", [2, 4, 1, 3]),
        ("title", [1, 2, 3, 4]),
    ],
)
def test_sorting(text: str, sorted_: list[int]) -> None:
    items = [
        thing(1, name="b", count=3),
        thing(2, name="c", count=1, colour=Colour.GREEN, used=9),
        thing(3, name="B", count=3),
        thing(4, count=1, colour=Colour.GREEN, good=False, used=1),
    ]
    assert numbers(text, items) == sorted_
    assert numbers(text, items[::-1]) == sorted_


def test_what_is_absent_may_come_first() -> None:
    items = [thing(1, name="b"), thing(2), thing(3, name="a")]
    made = parse("name", Thing, absent_first=True)
    made.sort(items)
    assert [item.name for item in items] == [None, "a", "b"]
    assert [made.is_after(item, made.mark(items[1])) for item in items] == [False, False, True]
    assert [made.is_after(item, made.mark(items[0])) for item in items] == [False, True, True]


def test_a_text_counts_by_its_beginning() -> None:
    same = "x" * CUT
    assert numbers("name", [thing(2, name=same + "a"), thing(1, name=same + "b")]) == [1, 2]
    assert numbers("name", [thing(2, name=same[1:] + "a"), thing(1, name=same[1:] + "b")]) == [2, 1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nmae", "'nmae' is no field; the fields are id, title, size"),
        ("", "'' is no field; the fields are"),
        ("name,", "'' is no field; the fields are"),
        ("--name", "'-name' is no field; the fields are"),
        ("name desc", "'name desc' is no field; the fields are"),
        ("tags", "'tags' cannot be sorted by; the fields are"),
        ("-inner", "'inner' cannot be sorted by; the fields are"),
        ("parts", "'parts' is no field; the fields are"),
        ("name,-name", "name is named twice"),
        ("name,size,count,good", "4 fields are named, and at most 3 can be"),
    ],
)
def test_what_is_no_order_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidSort) as caught:
        parse(text, Thing)
    assert caught.value.reason.startswith(reason)


def test_a_refusal_names_all_that_can_be_sorted_by() -> None:
    with pytest.raises(InvalidSort) as caught:
        parse("tags", Thing)
    assert f"the fields are {', '.join(SORTABLE)}, and a - before one sorts downwards" in caught.value.reason


def comparable(value: Any) -> Any:
    if isinstance(value, Colour):
        return value.value
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, str):
        return value[:CUT].replace("\n", " ")
    return value


def compared(columns: list[tuple[str, bool]], one: Thing, other: Thing) -> int:
    """Which comes first, asked in the plainest way."""
    for name, descending in columns:
        a, b = comparable(value_of(one, name)), comparable(value_of(other, name))
        if a == b:
            continue
        if a is None or b is None:
            return 1 if a is None else -1
        return -1 if (a < b) != descending else 1
    return (str(one.id) > str(other.id)) - (str(one.id) < str(other.id))


@settings(max_examples=300, deadline=None)
@given(orders, st.lists(things, max_size=8))
def test_any_order_is_that_of_plain_comparisons(columns: list[tuple[str, bool]], items: list[Thing]) -> None:
    made = parse(text_of(columns), Thing)
    wanted = list(items)
    made.sort(wanted)

    def compare(one: Thing, other: Thing) -> int:
        return compared(columns, one, other)

    assert wanted == sorted(items, key=functools.cmp_to_key(compare))
    for one in items:
        for other in items:
            assert made.is_after(one, made.mark(other)) == (compared(columns, one, other) > 0)


@settings(max_examples=300, deadline=None)
@given(orders, things)
def test_a_mark_is_read_as_it_was_written(columns: list[tuple[str, bool]], item: Thing) -> None:
    made = parse(text_of(columns), Thing)
    mark = made.mark(item)
    assert made.read(made.write(mark)) == mark


def test_a_mark_is_short_and_can_be_sent_whatever_it_holds() -> None:
    made = Order(
        tuple(order.Column(fields_of(Thing)[name], descending=False) for name in ("title", "name", "inner.label")),
        fields_of(Thing)["id"],
    )
    awkward = "\n\x00\U0001f600\ud800\uffff:-" * 20
    item = thing(2**128 - 1, title=awkward, name=awkward, inner=Part(size=1, ready=True, label=awkward))
    text = made.write(made.mark(item))
    assert len(text) <= 256 - len("12345678 "), "a cursor has at most 256 characters, and a digest before the mark"
    assert not set(text) & set("\n\x00\ud800\uffff")


@pytest.mark.parametrize(
    "text", ["", "5:web01", "5:web011:1x", "5:web", "x:web1:1", "-", "5:web011:", ":", "1:11:11:1"]
)
def test_what_is_no_mark_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse("name", Thing).read(text)


@given(st.text("0123456789:-abc", max_size=20))
def test_any_text_is_a_mark_or_refused(text: str) -> None:
    made = parse("name,-count", Thing)
    try:
        mark = made.read(text)
    except ValueError:
        return
    assert made.is_after(thing(), mark) in (True, False)
