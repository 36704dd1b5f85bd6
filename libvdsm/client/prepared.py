# SPDX-License-Identifier: Apache-2.0
"""Reading answers into types, by many threads.

msgspec examines a type when it is first needed, and while one thread is at that, another that needs the same type
sees it half examined: the process ends with a segmentation fault (0.22).  So here one thread at a time examines, and
what has been examined is used by all.
"""

from __future__ import annotations

import functools
import threading
from typing import Any, Literal

import msgspec

from libvdsm.api import EVENTS, VERBS

Kind = Literal["result", "task", "event"]
"""What a verb answers, what its task ends with, what an event says."""

_lock = threading.Lock()


@functools.cache
def _examined(kind: Kind, name: str) -> msgspec.json.Decoder[Any]:
    if kind == "event":
        return msgspec.json.Decoder(EVENTS[name])
    return msgspec.json.Decoder(VERBS[name].result if kind == "result" else VERBS[name].task_result)


def decoder(kind: Kind, name: str) -> msgspec.json.Decoder[Any]:
    """Reads JSON.  Made when first needed: a command line needs one of many."""
    with _lock:
        return _examined(kind, name)


def read(kind: Kind, name: str, value: Any) -> Any:
    """From plain values."""
    return msgspec.convert(value, decoder(kind, name).type)
