# SPDX-License-Identifier: Apache-2.0
"""A bound on how long something may take that cannot be told to hurry."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def within(seconds: float, work: Callable[[], T]) -> T:
    """The result of some work, or its exception; ``TimeoutError`` when it takes longer.

    The work then goes on in a thread that nobody waits for and that ends with the process.
    """
    answers: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((work(), None))
        except BaseException as error:  # noqa: BLE001  handed to whoever waits
            answers.put((None, error))

    threading.Thread(target=run, name="bounded work", daemon=True).start()
    try:
        result, error = answers.get(timeout=seconds)
    except queue.Empty:
        msg = f"no answer within {seconds:g} s"
        raise TimeoutError(msg) from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]
