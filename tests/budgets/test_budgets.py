# SPDX-License-Identifier: Apache-2.0
"""Each verb takes exactly what the table of budgets says, however busy the machine is."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import fields

import pytest

from libvdsm.api import VERBS
from tests import service
from tests.budgets.counting import Counts, Traced
from tests.budgets.table import BUDGETS
from tests.budgets.tour import Tour


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Counts]:
    """Every verb called once, at a service with strace around it."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    if subprocess.run(["strace", "-f", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("strace may not trace here")
    home = tmp_path_factory.mktemp("budgets")
    traced = Traced(home)
    try:
        with traced.daemon.wait().client() as client:
            Tour(client, home).everything()
    finally:
        service.end_keepers(home)
        counts = traced.stop()
    return counts


def test_every_verb_has_a_budget() -> None:
    assert {label.partition(":")[0] for label in BUDGETS} == VERBS.keys()


def test_every_budget_is_measured(counted: dict[str, Counts]) -> None:
    assert counted.keys() == BUDGETS.keys()


@pytest.mark.parametrize("label", BUDGETS)
def test_a_verb_takes_what_its_budget_says(counted: dict[str, Counts], label: str) -> None:
    budget = BUDGETS[label]
    allowed = Counts(**{field.name: getattr(budget, field.name) for field in fields(Counts)})
    assert counted[label] == allowed, f"allowed: {budget.why}"
