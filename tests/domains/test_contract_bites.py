# SPDX-License-Identifier: Apache-2.0
"""The contract is complete, and a driver that breaks it does not pass."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import hsm.contract
from hsm.domains.base import Domain

BROKEN = """
import uuid
from contextlib import contextmanager
import pytest
from hsm.contract.attributes import AttributesContract
from hsm.contract.garbage import GarbageContract
from hsm.contract.glances import GlanceContract
from hsm.contract.leases import LeaseContract
from hsm.contract.templates import TemplateContract
from hsm.contract.volumes import VolumeContract
from hsm.contract.whole import WholeContract
from hsm.domains import file_garbage
from hsm.domains.flocks import HeldFlocks
from hsm.domains.local import LocalDomain
from libvdsm.api.types import DomainId

def driver(**methods):
    return type("Broken", (LocalDomain,), methods)

class Made:
    driver = LocalDomain

    @pytest.fixture
    def make_domain(self, tmp_path):
        return lambda: self.driver.create(DomainId(uuid.uuid4()), str(tmp_path), "broken")

class TestLeasesThatNobodyHolds(Made, LeaseContract):
    driver = driver(acquire_files=lambda self, wanted: HeldFlocks())

class TestADomainLeaseThatNobodyHolds(Made, LeaseContract):
    @contextmanager
    def lease(self, wait):
        yield
    driver = driver(lease=lease)

class TestLeasesThatAreAlwaysExclusive(Made, LeaseContract):
    driver = driver(
        acquire_files=lambda self, wanted: LocalDomain.acquire_files(self, [(v, p, False) for v, p, _ in wanted])
    )

class TestVolumesThatAreNeverPublished(Made, VolumeContract):
    driver = driver(publish=lambda self, image, volume, metadata: None)

class TestVolumesThatNobodyFinds(Made, VolumeContract):
    driver = driver(find_volume=lambda self, volume: None)

class TestACollectorThatAsksForNoLease(Made, GarbageContract):
    driver = driver(
        reclaim=lambda self, garbage: file_garbage.reclaim(self.root, garbage, lambda wanted: HeldFlocks())
    )

class TestACollectorThatKeepsEverything(Made, GarbageContract):
    driver = driver(reclaim=lambda self, garbage: None)

class TestClonesThatAreNotCounted(Made, TemplateContract):
    driver = driver(clones=lambda self, image: 0)

class TestAttributesThatNobodyKeeps(Made, AttributesContract):
    driver = driver(set_attributes=lambda self, image, attributes: None)

class TestADomainThatOnlyRemembers(Made, GlanceContract):
    def glance(self, image):
        return self.__dict__.setdefault(image, self.image(image))
    driver = driver(glance=glance)

class TestDataThatIsNotCut(Made, AttributesContract):
    driver = driver(shrink_data=lambda self, image, volume, length: None)

class TestADomainThatForgets(Made, WholeContract):
    driver = driver(set_metadata=lambda self, metadata: None)

class TestADomainThatStays(Made, WholeContract):
    driver = driver(destroy=lambda self: None)
"""


def test_every_method_of_a_driver_is_in_the_contract() -> None:
    source = "".join(path.read_text() for path in Path(hsm.contract.__file__).parent.glob("*.py"))
    assert {name for name in Domain.__abstractmethods__ if f".{name}(" not in source} == set()


def test_a_driver_that_breaks_the_contract_does_not_pass(tmp_path: Path) -> None:
    module = tmp_path / "test_broken.py"
    module.write_text(textwrap.dedent(BROKEN))
    argv = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-rf", "-p", "no:cacheprovider", str(module)]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, timeout=240, check=False)
    classes = {line.split("::")[1] for line in done.stdout.splitlines() if line.startswith("FAILED")}
    expected = {line.split("(")[0].split()[1] for line in BROKEN.splitlines() if line.startswith("class Test")}
    assert classes == expected, done.stdout[-4000:]
    assert "error" not in done.stdout.rpartition("\n=")[2]
