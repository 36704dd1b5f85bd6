# SPDX-License-Identifier: Apache-2.0
"""A sample of the crash tests: every operation with one accident, every kind of accident with some operation.

``python -m tests.crash`` tries all.  The seed is printed at the end of the run; ``HSM_CRASH_SEED`` sets it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from libvdsm.api import VERBS
from tests.crash import accidents, owned, tools
from tests.crash.operations import OPERATIONS
from tests.crash.runner import Choice, Result, at_work, operations

SEED = int(os.environ.get("HSM_CRASH_SEED") or random.randrange(10**6))
_PATIENCE = 240


@pytest.fixture(scope="module")
def results() -> Iterator[dict[str, Future[Result]]]:
    """The results to come; worker processes are at them."""
    with at_work(Choice(SEED, sample=1), operations(), jobs=2) as coming:
        yield coming


@pytest.mark.parametrize("operation", operations())
def test_no_accident_harms(operation: str, results: dict[str, Future[Result]]) -> None:
    """What is published is whole and durable, nothing is lost or left, the task says so, and it works again."""
    result = results[operation].result(_PATIENCE)
    assert not result.violations, "\n".join([f"seed {SEED}", *result.violations])
    assert result.fired == result.accidents


def test_every_kind_of_accident_happens(results: dict[str, Future[Result]]) -> None:
    happened: set[str] = set()
    for coming in results.values():
        happened |= coming.result(_PATIENCE).kinds
    assert happened == {str(kind) for kind in (*accidents.ACCIDENTS, *tools.KINDS, *owned.LOSSES)}


def test_what_is_published_was_looked_at(results: dict[str, Future[Result]]) -> None:
    """The assertions about durability are not empty: these operations publish."""
    publishing = {"sparse qcow2 image created", "snapshot made", "qcow2 file imported", "domain created"}
    for name in publishing:
        assert results[name].result(_PATIENCE).publications > 0, name


def test_every_verb_that_changes_something_is_an_operation() -> None:
    changing = {name for name, verb in VERBS.items() if verb.changes}
    assert changing <= {operation.verb for operation in OPERATIONS}
