# SPDX-License-Identifier: Apache-2.0
"""Lists in pages: a page ends with the place of its last item, and the next begins after it."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from libvdsm.api.errors import InvalidCursor
from libvdsm.query import filter as filters
from libvdsm.query import order as orders
from libvdsm.query.conditions import EVERYTHING

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

_DIGEST = 4


def page(items: Sequence[T], key: Callable[[T], str], limit: int, start: str | None) -> tuple[list[T], str | None]:
    """The items after ``start``, at most ``limit``, and where the next page starts.

    ``items`` are sorted by ``key``; so what appears or goes between two pages neither repeats nor hides others.
    """
    first = 0 if start is None else bisect_right(items, start, key=key)
    chosen = list(items[first : first + limit])
    more = first + limit < len(items)
    return chosen, key(chosen[-1]) if more and chosen else None


class Listing(Generic[S]):
    """One call of a verb that lists: which items are wanted, in which order, from where on.

    Made before anything is read, so that a bad filter, order or cursor costs nothing.  A cursor names the list that it
    is of, by a digest of the verb, its filter, its order and ``scope``, which is what else chooses the items; then the
    place of an item in that order.
    """

    def __init__(
        self,
        verb: str,
        struct: type[S],
        *,
        default: str,
        filter: str | None,
        sort: str | None,
        start: str | None,
        scope: Sequence[Any] = (),
    ) -> None:
        """``default`` is the order of a caller who names none; in it, what has no name comes before what has."""
        self._is_filtered = filter is not None
        self._condition = EVERYTHING if filter is None else filters.parse(filter, struct)
        self._order = orders.parse(sort or default, struct, absent_first=sort is None)
        about = json.dumps([verb, filter, sort, *(None if part is None else str(part) for part in scope)])
        self._digest = hashlib.blake2b(about.encode(), digest_size=_DIGEST).hexdigest()
        self._after = None if start is None else self._mark(start)

    def pinned(self, field: str) -> frozenset[Any] | None:
        """The values that the filter leaves to a field, if it names them: items with others need not be read."""
        return self._condition.pins.get(field)

    def page(self, items: list[S], limit: int) -> tuple[list[S], str | None]:
        """The wanted ones among the items, from the cursor on, at most ``limit``; and the next page's cursor."""
        wanted = list(filter(self._condition.holds, items)) if self._is_filtered else items
        self._order.sort(wanted)
        mark = self._after
        first = 0 if mark is None else bisect_left(wanted, True, key=lambda item: self._order.is_after(item, mark))
        chosen = wanted[first : first + limit]
        more = first + limit < len(wanted)
        return chosen, self._cursor(chosen[-1]) if more else None

    def _cursor(self, item: S) -> str:
        return f"{self._digest} {self._order.write(self._order.mark(item))}"

    def _mark(self, cursor: str) -> orders.Mark:
        digest, _, mark = cursor.partition(" ")
        if digest != self._digest:
            raise InvalidCursor(reason="it is of another list, or of one with another filter or order")
        try:
            return self._order.read(mark)
        except ValueError:
            raise InvalidCursor(reason="it is cut off or changed") from None
