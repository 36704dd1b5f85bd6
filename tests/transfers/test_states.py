# SPDX-License-Identifier: Apache-2.0
"""The life of a transfer: which moves there are, and that there are no others."""

from __future__ import annotations

import itertools

import pytest

from hsm.transfers.states import ENDED, TABLE, Event, ImpossibleTransition, diagram, move
from libvdsm.api.transfer import TransferState as State

_GIVEN_UP = {
    (state, event): after
    for state in (State.RUNNING, State.PAUSED, State.INTERRUPTED)
    for event, after in ((Event.CANCEL, State.CANCELLED), (Event.FAIL, State.FAILED))
}
MOVES = {
    **_GIVEN_UP,
    (State.STARTING, Event.OPEN): State.RUNNING,
    (State.STARTING, Event.BREAK): State.INTERRUPTED,
    (State.STARTING, Event.FAIL): State.FAILED,
    (State.RUNNING, Event.PAUSE): State.PAUSED,
    (State.RUNNING, Event.BREAK): State.INTERRUPTED,
    (State.RUNNING, Event.FINISH): State.FINISHING,
    (State.PAUSED, Event.OPEN): State.RUNNING,
    (State.PAUSED, Event.FINISH): State.FINISHING,
    (State.PAUSED, Event.EXPIRE): State.EXPIRED,
    (State.INTERRUPTED, Event.OPEN): State.RUNNING,
    (State.INTERRUPTED, Event.FINISH): State.FINISHING,
    (State.INTERRUPTED, Event.EXPIRE): State.EXPIRED,
    (State.FINISHING, Event.COMPLETE): State.FINISHED,
    (State.FINISHING, Event.PAUSE): State.PAUSED,
    (State.FINISHING, Event.BREAK): State.INTERRUPTED,
    (State.FINISHING, Event.FAIL): State.FAILED,
}
"""Written down a second time: who changes the life of a transfer has to mean it."""


@pytest.mark.parametrize(("state", "event"), list(itertools.product(TABLE, Event)))
def test_every_state_answers_every_event_with_its_move_or_a_refusal(state: State, event: Event) -> None:
    if (state, event) in MOVES:
        assert move(state, event) is MOVES[state, event]
    else:
        with pytest.raises(ImpossibleTransition, match=f"{state.value} cannot go on from {event.name}"):
            move(state, event)


def test_every_state_that_a_client_can_see_is_in_the_table() -> None:
    assert set(TABLE) == set(State) - {State.UNKNOWN}


def test_what_has_ended_stays_so_and_everything_else_can_end() -> None:
    assert {State.FINISHED, State.CANCELLED, State.EXPIRED, State.FAILED} == ENDED
    for state in set(TABLE) - ENDED:
        assert _reached(state) >= ENDED


def test_every_state_is_reached_from_the_start() -> None:
    assert _reached(State.STARTING) == set(TABLE)


def _reached(state: State) -> set[State]:
    reached = {state}
    for _ in TABLE:
        reached |= {after for seen in reached for after in TABLE[seen].values()}
    return reached


def test_the_picture_shows_every_move_and_nothing_else() -> None:
    lines = diagram().splitlines()
    assert lines[:2] == ["stateDiagram-v2", "    [*] --> starting"]
    assert sorted(lines[2:]) == sorted(
        [f"    {before.value} --> {after.value}: {event.value}" for (before, event), after in MOVES.items()]
        + [f"    {state.value} --> [*]" for state in ENDED]
    )
