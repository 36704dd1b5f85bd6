# SPDX-License-Identifier: Apache-2.0
"""Several threads that move ranges, each with a connection of its own; and how far all of them have come."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable, Iterable, Iterator

from hsmctl.transfer.data import Carry, DataConnection
from libvdsm.api.transfer import TransferInfo
from libvdsm.threads import Thread

WORKERS = 4
_STEP = 8 * 2**20
"""Bytes that are asked for, or sent, at once."""
_TICK = 0.2


def split(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The same in steps."""
    for offset, length in ranges:
        for begin in range(offset, offset + length, _STEP):
            yield begin, min(_STEP, offset + length - begin)


class Work:
    """Ranges in their order, taken by whoever is free."""

    def __init__(self, ranges: Iterable[tuple[int, int]], end: int) -> None:
        self._ranges = split(ranges)
        self._end = end
        self._changed = threading.Condition()
        self._pending: set[int] = set()
        self._following = next(self._ranges, None)
        self._running = 0
        self._stopped = False
        self.error: Exception | None = None

    @property
    def reached(self) -> int:
        """Everything before this is moved."""
        with self._changed:
            return min(self._pending | {self._following[0] if self._following else self._end})

    def run(self, transfer: TransferInfo, carry: Carry, tick: Callable[[], None]) -> None:
        """Move all of it; ``tick`` is called some times a second.  Raises what a thread met."""
        self._running = WORKERS
        threads = [Thread(f"mover-{number}", self._move, transfer, carry) for number in range(WORKERS)]
        for thread in threads:
            thread.start()
        try:
            while self._wait():
                tick()
        finally:
            self._stopped = True
            for thread in threads:
                thread.join()
        if self.error is not None:
            raise self.error

    def _wait(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: not self._running, _TICK)
            return self._running > 0

    def _move(self, transfer: TransferInfo, carry: Carry) -> None:
        try:
            with contextlib.closing(DataConnection(transfer)) as connection:
                while (taken := self._take()) is not None:
                    carry(connection, *taken)
                    with self._changed:
                        self._pending.discard(taken[0])
        except (OSError, http.client.HTTPException) as error:
            self._stopped = True
            self.error = self.error or error
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _take(self) -> tuple[int, int] | None:
        with self._changed:
            taken = self._following
            if taken is None or self._stopped:
                return None
            self._following = next(self._ranges, None)
            self._pending.add(taken[0])
            return taken
