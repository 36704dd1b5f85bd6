# SPDX-License-Identifier: Apache-2.0
"""Lists in pages: a page ends with the key of its last item, and the next begins after it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def page(items: Sequence[T], key: Callable[[T], str], limit: int, start: str | None) -> tuple[list[T], str | None]:
    """The items after ``start``, at most ``limit``, and where the next page starts.

    ``items`` are sorted by ``key``; so what appears or goes between two pages neither repeats nor hides others.
    """
    first = 0 if start is None else bisect_right(items, start, key=key)
    chosen = list(items[first : first + limit])
    more = first + limit < len(items)
    return chosen, key(chosen[-1]) if more and chosen else None
