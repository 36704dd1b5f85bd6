# SPDX-License-Identifier: Apache-2.0
"""What a witness of the dispatcher sees: every call that changes something, whatever becomes of it, and no other."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from libvdsm.api import CLASSES, VERBS
from libvdsm.api.errors import NoSuchTask
from libvdsm.api.types import TaskId
from libvdsm.declare import ApiError, Right, Verb
from libvdsm.server.caller import Connection, SessionRecord
from libvdsm.server.dispatch import Dispatcher, Sessions
from libvdsm.wire.messages import Call
from tests.server.samples import good_params
from tests.server.test_dispatch import Stub, connection, raising

TASK = TaskId(uuid.uuid4())


@dataclass
class Sight:
    """One call, and what was told of it, in order."""

    verb: str
    params: Any
    request: str
    told: list[Any] = field(default_factory=list)

    def begins(self, session: SessionRecord | None) -> None:
        self.told.append("begins")

    def answered(self, error: ApiError | None) -> None:
        self.told.append(type(error).__name__ if error else "succeeded")


class Witness:
    def __init__(self) -> None:
        self.seen: list[Sight] = []

    def called(
        self, verb: Verb, params: msgspec.Raw | Mapping[str, Any], connection: Connection, request: str
    ) -> Sight:
        self.seen.append(Sight(verb.full, params, request))
        return self.seen[-1]


def seen(call: Call, does: Any = lambda: None, right: Right = Right.ADMINISTER) -> list[Sight]:
    witness = Witness()
    dispatcher = Dispatcher(dict.fromkeys(CLASSES, Stub(does)), {}, Sessions(60), witness=witness)
    dispatcher.answer(call, connection(right))
    return witness.seen


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_it_sees_the_verbs_that_change_something_and_no_other(verb: Verb) -> None:
    found = seen(Call(verb.full, good_params(verb), request="mine"))
    assert [(sight.verb, sight.request, sight.told) for sight in found] == (
        [(verb.full, "mine", ["begins", "succeeded"])] if verb.changes else []
    )


def test_what_needs_more_than_the_right_to_read_changes_something_unless_it_says_so() -> None:
    only_looking = {name for name, verb in VERBS.items() if verb.declaration.right > Right.READ and not verb.changes}
    assert only_looking == {"Audit.list"}
    assert not [name for name, verb in VERBS.items() if verb.declaration.right is Right.READ and verb.changes]


def test_an_error_is_told() -> None:
    [sight] = seen(Call("Task.stop", {"task": str(TASK)}), raising(NoSuchTask(task=TASK)))
    assert sight.told == ["begins", "NoSuchTask"]


def test_so_is_one_that_nobody_declared_as_what_the_caller_hears() -> None:
    [sight] = seen(Call("Task.stop", {"task": str(TASK)}), raising(ZeroDivisionError()))
    assert sight.told == ["begins", "InternalError"]


@pytest.mark.parametrize(
    ("call", "right", "error"),
    [
        (Call("Task.stop", {"task": str(TASK)}), Right.READ, "AccessDenied"),
        (Call("Task.stop", {"task": 1}), Right.ADMINISTER, "InvalidParameter"),
        (Call("Task.stop", msgspec.Raw(b"{")), Right.ADMINISTER, "InvalidParameter"),
        (Call("Task.stop", {"task": str(TASK)}, session=str(TASK)), Right.ADMINISTER, "NoSuchSession"),
    ],
)
def test_a_call_that_is_turned_away_never_begins(call: Call, right: Right, error: str) -> None:
    [sight] = seen(call, right=right)
    assert (sight.told, sight.params) == ([error], call.params)


def test_what_is_no_verb_is_not_seen() -> None:
    assert seen(Call("Task.nonsense", {})) == []
