# SPDX-License-Identifier: Apache-2.0
"""The life of a transfer: one table.  The picture in the guide is drawn from it."""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType

from libvdsm.api.transfer import TransferState as State


class Event(Enum):
    """What can happen to a transfer."""

    OPEN = "its data can move"
    PAUSE = "somebody pauses it, or nobody moves data, or finishing fails"
    BREAK = "a program that it needs ends, or the service does"
    FINISH = "its client says that all is sent"
    COMPLETE = "all is checked, and an upload is published as legal"
    CANCEL = "somebody cancels it"
    EXPIRE = "its time is over"
    FAIL = "its image is gone, or cannot be used"


_LIVE = {Event.CANCEL: State.CANCELLED, Event.FAIL: State.FAILED}

TABLE = MappingProxyType(
    {
        State.STARTING: {Event.OPEN: State.RUNNING, Event.BREAK: State.INTERRUPTED, Event.FAIL: State.FAILED},
        State.RUNNING: {
            Event.PAUSE: State.PAUSED,
            Event.BREAK: State.INTERRUPTED,
            Event.FINISH: State.FINISHING,
            **_LIVE,
        },
        State.PAUSED: {
            Event.OPEN: State.RUNNING,
            Event.FINISH: State.FINISHING,
            Event.EXPIRE: State.EXPIRED,
            **_LIVE,
        },
        State.INTERRUPTED: {
            Event.OPEN: State.RUNNING,
            Event.FINISH: State.FINISHING,
            Event.EXPIRE: State.EXPIRED,
            **_LIVE,
        },
        State.FINISHING: {
            Event.COMPLETE: State.FINISHED,
            Event.PAUSE: State.PAUSED,
            Event.BREAK: State.INTERRUPTED,
            Event.FAIL: State.FAILED,
        },
        State.FINISHED: {},
        State.CANCELLED: {},
        State.EXPIRED: {},
        State.FAILED: {},
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
        msg = f"a transfer that is {state.value} cannot go on from {event.name}"
        raise ImpossibleTransition(msg) from None


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.STARTING.value}"]
    for state, moves in TABLE.items():
        lines += [f"    {state.value} --> {after.value}: {event.value}" for event, after in moves.items()]
        if state in ENDED:
            lines.append(f"    {state.value} --> [*]")
    return "\n".join(lines) + "\n"
