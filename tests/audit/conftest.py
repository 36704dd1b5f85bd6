# SPDX-License-Identifier: Apache-2.0
"""A log on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm.audit.recorder import Recorder
from hsm.audit.store import AuditStore

KEEP = 1e12
COUNT = 100_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.db"


@pytest.fixture
def store(path: Path) -> Iterator[AuditStore]:
    made = AuditStore(path, KEEP, COUNT)
    yield made
    made.close()


@pytest.fixture
def recorder(store: AuditStore) -> Recorder:
    return Recorder(store)
