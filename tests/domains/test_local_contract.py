# SPDX-License-Identifier: Apache-2.0
"""Local domains keep the contract of drivers."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from hsm.contract import DomainContract
from hsm.contract.base import MakeDomain
from hsm.domains.base import Domain
from hsm.domains.local import LocalDomain
from libvdsm.api.types import DomainId


class TestLocalDomain(DomainContract):
    @pytest.fixture
    def make_domain(self, tmp_path: Path) -> MakeDomain:
        def make() -> Domain:
            return LocalDomain.create(DomainId(uuid.uuid4()), str(tmp_path), "a test")

        return make
