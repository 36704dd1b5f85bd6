# SPDX-License-Identifier: Apache-2.0
"""A program that owns a task: it asks for one operation until it is done, whatever becomes of the service."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from libvdsm.api.types import TaskId, TaskInfo
from libvdsm.client import Client, TaskOwner, connect
from tests.crash.fixture import Home
from tests.crash.hsmd import PATIENCE, Hsmd
from tests.crash.operation import World
from tests.crash.operations import OPERATIONS


@dataclass
class _Reached:
    """The service, as operations call it."""

    given: Client

    def client(self) -> Client:
        return self.given


def main(arguments: Sequence[str]) -> None:
    """``home operation owner task``: ends when the task has, with an error if it did not succeed."""
    home, name, owner, task = arguments
    operation = next(found for found in OPERATIONS if found.name == name)

    def ask(client: Client) -> TaskInfo[Any]:
        asked = operation.call(World(Home(Path(home)), cast("Hsmd", _Reached(client))))
        assert asked is not None, "an operation that clients own makes a task"
        return asked

    # What the repeated call may answer, since the thing is gone and the service has forgotten by what.
    with suppress(*operation.gone), TaskOwner(lambda: connect(f"unix:{home}/run/hsm.sock"), owner) as owning:
        owning.run(ask, TaskId(uuid.UUID(task)), PATIENCE)
