# SPDX-License-Identifier: Apache-2.0
"""Pages: put together they are the list, whatever comes and goes meanwhile."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hsm.paging import page

items_of = st.sets(st.text("ab \u00fc", min_size=1, max_size=4), max_size=30)
limits = st.integers(1, 7)


@given(items_of, limits)
def test_pages_put_together_are_the_list(names: set[str], limit: int) -> None:
    items = sorted(names)
    seen: list[str] = []
    start: str | None = None
    pages = 0
    while True:
        found, start = page(items, str, limit, start)
        assert len(found) <= limit
        seen += found
        pages += 1
        if start is None:
            break
    assert seen == items
    assert pages == max(1, -(-len(items) // limit)), "no page is empty but that of an empty list"


@given(items_of, limits, st.lists(st.tuples(items_of, items_of), max_size=10))
def test_what_comes_and_goes_between_pages_neither_repeats_nor_hides_others(
    names: set[str], limit: int, changes: list[tuple[set[str], set[str]]]
) -> None:
    present, always = set(names), set(names)
    seen: list[str] = []
    start: str | None = None
    while True:
        found, start = page(sorted(present), str, limit, start)
        seen += found
        if start is None:
            break
        come, go = changes.pop() if changes else (set(), set())
        present = (present - go) | come
        always -= go
    assert seen == sorted(set(seen)), "in order, and nothing twice"
    assert always <= set(seen), "what was there all the time was seen"


@given(items_of, limits, st.text("ab \u00fc", max_size=5))
def test_a_page_begins_after_any_text_also_one_that_is_gone(names: set[str], limit: int, start: str) -> None:
    found, _ = page(sorted(names), str, limit, start)
    assert found == [name for name in sorted(names) if name > start][:limit]
