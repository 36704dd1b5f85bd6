# SPDX-License-Identifier: Apache-2.0
"""A local domain, empty."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from hsm.domains.local import LocalDomain
from libvdsm.api.types import DomainId


@pytest.fixture
def domain(tmp_path: Path) -> LocalDomain:
    return LocalDomain.create(DomainId(uuid.uuid4()), str(tmp_path), "a test")


@pytest.fixture
def images(domain: LocalDomain) -> Path:
    """The folder of its images."""
    return Path(domain.images)
