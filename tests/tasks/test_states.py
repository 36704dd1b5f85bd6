# SPDX-License-Identifier: Apache-2.0
"""The life of a task: which moves there are, and that there are no others."""

from __future__ import annotations

import itertools

import pytest

from hsm.tasks.states import ENDED, TABLE, Event, ImpossibleTransition, diagram, move
from libvdsm.api.types import TaskState as State

MOVES = {
    (State.QUEUED, Event.START): State.RUNNING,
    (State.QUEUED, Event.STOP): State.STOPPED,
    (State.QUEUED, Event.FAIL): State.FAILED,
    (State.QUEUED, Event.SUCCEED): State.SUCCEEDED,
    (State.QUEUED, Event.RESUME): State.QUEUED,
    (State.RUNNING, Event.STOP): State.STOPPING,
    (State.RUNNING, Event.SUCCEED): State.SUCCEEDED,
    (State.RUNNING, Event.FAIL): State.FAILED,
    (State.RUNNING, Event.RESUME): State.QUEUED,
    (State.STOPPING, Event.YIELD): State.STOPPED,
    (State.STOPPING, Event.SUCCEED): State.SUCCEEDED,
    (State.STOPPING, Event.FAIL): State.FAILED,
    (State.STOPPING, Event.RESUME): State.QUEUED,
}
"""Written down a second time: who changes the life of a task has to mean it."""


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
    assert {State.SUCCEEDED, State.FAILED, State.STOPPED} == ENDED
    for state in set(TABLE) - ENDED:
        reached = {state}
        for _ in TABLE:
            reached |= {after for seen in reached for after in TABLE[seen].values()}
        assert reached >= ENDED


def test_every_state_is_reached_from_the_queue() -> None:
    reached = {State.QUEUED}
    for _ in TABLE:
        reached |= {after for seen in reached for after in TABLE[seen].values()}
    assert reached == set(TABLE)


def test_the_picture_shows_every_move_and_nothing_else() -> None:
    lines = diagram().splitlines()
    assert lines[:2] == ["stateDiagram-v2", "    [*] --> queued"]
    assert sorted(lines[2:]) == sorted(
        [f"    {before.value} --> {after.value}: {event.value}" for (before, event), after in MOVES.items()]
        + [f"    {state.value} --> [*]" for state in ENDED]
    )
