# SPDX-License-Identifier: Apache-2.0
"""Whatever verbs come in whatever order, and wherever the service ends meanwhile, a domain is what the model says.

``HSM_PROPERTY_EXAMPLES`` and ``HSM_PROPERTY_STEPS`` say how much is tried.  A run's seed is printed; with it as
``HSM_PROPERTY_SEED`` the run is repeated.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.property.bitmaps import Bitmaps
from tests.property.judge import Service
from tests.property.layers import LayerVerbs
from tests.property.space import Space
from tests.property.transfers import Transfers
from tests.service import end_keepers

EXAMPLES = int(os.environ.get("HSM_PROPERTY_EXAMPLES", "10"))
STEPS = int(os.environ.get("HSM_PROPERTY_STEPS", "30"))
SEED = int(os.environ.get("HSM_PROPERTY_SEED", secrets.randbits(32)))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    running = Service(tmp_path / "home")
    try:
        yield running
    finally:
        running.stop()
        end_keepers(tmp_path / "home")


@pytest.mark.timeout(60 + 60 * EXAMPLES)
def test_the_service_and_the_model_agree(service: Service) -> None:
    """Success and error of every verb, the list after each step, and every byte at the end."""
    print(f"to repeat this run: HSM_PROPERTY_SEED={SEED} HSM_PROPERTY_EXAMPLES={EXAMPLES} HSM_PROPERTY_STEPS={STEPS}")

    @hypothesis.seed(SEED)
    class Seeded(Bitmaps, Transfers, LayerVerbs, Space):
        def __init__(self) -> None:
            super().__init__(service)

    run_state_machine_as_test(
        Seeded,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            print_blob=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"verbs: {dict(service.counts)}")
    assert service.counts["done"] > EXAMPLES, "most of what was tried failed: the test says nothing"
