# SPDX-License-Identifier: Apache-2.0
"""Events as they happen, on a connection of their own: pushed, or asked for again and again."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Self

from libvdsm.api.event import EventInfo


class Events(Iterator[EventInfo]):
    """Events, one after the other, until the connection ends.

    ``after``: the sequence that they follow.  ``missed``: some that would have come by now are lost, as the service no
    longer keeps them, or is another than before: look at everything anew.  It is known as soon as this is there where
    listening began after a sequence; where events are asked for, and more happen between two calls than are kept, it
    becomes true with the event that follows the gap.  Set it back to hear of the next.
    """

    def __init__(self, after: int, *, missed: bool, close: Callable[[], None]) -> None:
        self.after = after
        self.missed = missed
        # Also where nobody took the first, so that nothing of a generator has run.
        self._end = weakref.finalize(self, close)
        self._end.atexit = False
        self._source: Iterator[EventInfo] = iter(())

    def from_(self, source: Iterator[EventInfo]) -> Self:
        """These are they."""
        self._source = source
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> EventInfo:
        return next(self._source)

    def close(self) -> None:
        """End the connection; whoever waits for an event finds that there are no more."""
        self._end()
