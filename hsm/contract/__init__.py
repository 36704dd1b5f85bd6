# SPDX-License-Identifier: Apache-2.0
"""The contract of domain drivers, as tests that any driver must pass; needs pytest.

A driver's own tests derive a class and say how to make an empty domain:

    from hsm.contract import DomainContract

    class TestMyDomain(DomainContract):
        @pytest.fixture
        def make_domain(self, tmp_path):
            def make():
                return MyDomain.create(DomainId(uuid.uuid4()), str(tmp_path), "a test")
            return make

Each test is one sentence of the contract.  They work on the storage as operations do, through nothing but the
protocol, and see what others see by opening the domain once more.
"""

from __future__ import annotations

import pytest

# A failed assertion is to tell the values, here as in a file of tests.
pytest.register_assert_rewrite(
    "hsm.contract.base",
    "hsm.contract.whole",
    "hsm.contract.leases",
    "hsm.contract.volumes",
    "hsm.contract.templates",
    "hsm.contract.garbage",
    "hsm.contract.attributes",
    "hsm.contract.glances",
)

from hsm.contract.attributes import AttributesContract  # noqa: E402
from hsm.contract.garbage import GarbageContract  # noqa: E402
from hsm.contract.glances import GlanceContract  # noqa: E402
from hsm.contract.leases import LeaseContract  # noqa: E402
from hsm.contract.templates import TemplateContract  # noqa: E402
from hsm.contract.volumes import VolumeContract  # noqa: E402
from hsm.contract.whole import WholeContract  # noqa: E402


class DomainContract(
    WholeContract, LeaseContract, VolumeContract, TemplateContract, GarbageContract, AttributesContract, GlanceContract
):
    """Everything that a driver must do.  Derive, and override ``make_domain``."""


__all__ = ["DomainContract"]
