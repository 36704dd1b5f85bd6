# SPDX-License-Identifier: Apache-2.0
"""The life of a task: one table.  The picture in the guide is drawn from it."""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType

from libvdsm.api.types import TaskState as State


class Event(Enum):
    """What can happen to a task."""

    START = "a worker takes it, and it has its locks"
    STOP = "somebody asks it to stop, or the client that owns it is gone"
    SUCCEED = "its work is done"
    FAIL = "an error ends it"
    YIELD = "it has stopped as asked, and given back what it had made"
    RESUME = "the service starts again, and takes it up"


TABLE = MappingProxyType(
    {
        State.QUEUED: {
            Event.START: State.RUNNING,
            Event.STOP: State.STOPPED,
            Event.FAIL: State.FAILED,
            Event.SUCCEED: State.SUCCEEDED,
            Event.RESUME: State.QUEUED,
        },
        State.RUNNING: {
            Event.STOP: State.STOPPING,
            Event.SUCCEED: State.SUCCEEDED,
            Event.FAIL: State.FAILED,
            Event.RESUME: State.QUEUED,
        },
        State.STOPPING: {
            Event.YIELD: State.STOPPED,
            Event.SUCCEED: State.SUCCEEDED,
            Event.FAIL: State.FAILED,
            Event.RESUME: State.QUEUED,
        },
        State.SUCCEEDED: {},
        State.FAILED: {},
        State.STOPPED: {},
    }
)

ENDED = frozenset(state for state, moves in TABLE.items() if not moves)


class ImpossibleTransition(Exception):
    """A programming error: the table has no such move."""


def move(state: State, event: Event) -> State:
    """The state after an event."""
    try:
        return TABLE[state][event]
    except KeyError:
        msg = f"a task that is {state.value} cannot go on from {event.name}"
        raise ImpossibleTransition(msg) from None


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.QUEUED.value}"]
    for state, moves in TABLE.items():
        lines += [f"    {state.value} --> {after.value}: {event.value}" for event, after in moves.items()]
        if state in ENDED:
            lines.append(f"    {state.value} --> [*]")
    return "\n".join(lines) + "\n"
