# SPDX-License-Identifier: Apache-2.0
"""Pages of filtered and sorted lists: put together they are the list, whatever comes and goes meanwhile."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsm.paging import Listing
from libvdsm.api.errors import InvalidCursor, InvalidFilter, InvalidSort
from libvdsm.api.types import ImageInfo
from libvdsm.query.filter import parse
from tests.query.test_order import orders, text_of
from tests.query.things import NOW, Part, Thing, thing, things

CURSOR = 256
"""As long as a cursor may be, by its declaration."""


def listing(**given: Any) -> Listing[Thing]:
    return Listing("Thing.list", Thing, **({"default": "name", "filter": None, "sort": None, "start": None} | given))


filters = st.sampled_from([None, "count > 0", "name is present", "not good or size > 1K"])
sorts = st.none() | orders.map(text_of)
several = st.lists(things, max_size=12, unique_by=lambda item: item.id)
changes = st.lists(st.tuples(several, st.sets(st.integers(1, 4))), max_size=8)


@settings(max_examples=300, deadline=None)
@given(several, filters, sorts, st.integers(1, 5))
def test_pages_put_together_are_the_list(items: list[Thing], filter_: str, sort: str, limit: int) -> None:
    whole, following = listing(filter=filter_, sort=sort).page(list(items), 1000)
    assert following is None
    assert sorted(item.id for item in whole) == sorted(
        item.id for item in items if filter_ is None or parse(filter_, Thing, NOW).holds(item)
    )
    seen: list[Thing] = []
    start: str | None = None
    pages = 0
    while True:
        found, start = listing(filter=filter_, sort=sort, start=start).page(list(items), limit)
        assert len(found) <= limit
        seen += found
        pages += 1
        if start is None:
            break
        assert len(start) <= CURSOR
    assert seen == whole
    assert pages == max(1, -(-len(whole) // limit)), "no page is empty but that of an empty list"


@settings(max_examples=300, deadline=None)
@given(several, filters, sorts, st.integers(1, 3), changes)
def test_what_comes_and_goes_between_pages_neither_repeats_nor_hides_others(
    items: list[Thing], filter_: str, sort: str, limit: int, coming: list[tuple[list[Thing], set[int]]]
) -> None:
    present = {item.id: item for item in items}
    always = set(present)
    seen: list[Thing] = []
    start: str | None = None
    while True:
        found, start = listing(filter=filter_, sort=sort, start=start).page(list(present.values()), limit)
        seen += found
        if start is None:
            break
        come, go = coming.pop() if coming else ([], set[int]())
        for item in [item for item in present.values() if item.id.int >> 64 in go]:
            del present[item.id]
        # What is gone does not come back as another: an id is given once.
        present |= {item.id: item for item in come if item.id not in always and item not in seen}
        always &= set(present)
    first, _ = listing(filter=filter_, sort=sort).page(list(seen), 1000)
    assert seen == first, "in order, and nothing twice"
    wanted, _ = listing(filter=filter_, sort=sort).page([present[id_] for id_ in always], 1000)
    assert {item.id for item in wanted} <= {item.id for item in seen}, "what was there all the time was seen"


def a_cursor(**given: Any) -> str:
    _, following = listing(**given).page([thing(1, name="a"), thing(2, name="b")], 1)
    assert following is not None
    return following


@pytest.mark.parametrize(
    "other",
    [
        {"filter": "good"},
        {"filter": "count = 4"},
        {"filter": "good", "sort": "name"},
        {"sort": "name"},
        {"sort": "-name"},
        {"filter": "count = 3", "sort": "-name"},
        {"scope": ("that",)},
    ],
)
def test_a_cursor_of_another_list_is_refused(other: dict[str, Any]) -> None:
    mine: dict[str, Any] = {"filter": "count = 3"}
    start = a_cursor(**mine)
    assert [
        item.id.int for item in listing(**mine, start=start).page([thing(1, name="a"), thing(2, name="c")], 9)[0]
    ] == [2]
    with pytest.raises(InvalidCursor, match="of another list, or of one with another filter or order"):
        listing(**other, start=start)


def test_a_cursor_of_another_verb_is_refused() -> None:
    start = a_cursor()
    with pytest.raises(InvalidCursor, match="of another list"):
        Listing("Image.list", ImageInfo, default="name", filter=None, sort=None, start=start)


def test_a_cursor_that_was_cut_off_or_changed_is_refused() -> None:
    start = a_cursor(sort="name")
    for broken in (start[:-1], start + "x", re.sub(" .*", " ", start)):
        with pytest.raises(InvalidCursor, match="cut off or changed"):
            listing(sort="name", start=broken)
    for broken in ("", "web01", "x" + start, start[1:], " "):
        with pytest.raises(InvalidCursor, match="of another list"):
            listing(sort="name", start=broken)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_a_cursor_or_refused(text: str) -> None:
    start = f"{a_cursor(sort='size,name').partition(' ')[0]} {text}"
    try:
        made = listing(sort="size,name", start=start)
    except InvalidCursor:
        return
    made.page([thing()], 1)


def test_the_longest_cursor_can_be_sent() -> None:
    long = thing(2**128 - 1, name="n" * 300, title="t" * 300, part=Part(size=1, ready=True, label="l" * 300))
    _, start = listing(sort="name,title,part.label").page([long, thing(1, name="z")], 1)
    assert start is not None
    assert len(start) <= CURSOR
    found, _ = listing(sort="name,title,part.label", start=start).page([long, thing(1, name="z")], 1)
    assert [item.name for item in found] == ["z"]


def test_a_bad_query_is_refused_before_anything_is_read() -> None:
    with pytest.raises(InvalidFilter):
        listing(filter="nothing = 1")
    with pytest.raises(InvalidSort):
        listing(sort="nothing")


def test_who_reads_items_is_told_which_can_be_left_out() -> None:
    assert listing(filter="name in (a, b) and good").pinned("name") == frozenset("ab")
    assert listing(filter="good").pinned("name") is None
    assert listing().pinned("name") is None
