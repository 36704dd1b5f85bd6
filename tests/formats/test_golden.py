# SPDX-License-Identifier: Apache-2.0
"""What VDSM wrote is read to the same values, and written back to the same bytes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from hsm.formats import domain, volume
from libvdsm.api.types import Allocation, Legality, VolumeFormat, VolumeRole

GOLDEN = Path(__file__).parents[1] / "golden"
FACTS: dict[str, dict[str, Any]] = json.loads((GOLDEN / "golden.json").read_text())

FORMATS = {"RAW": VolumeFormat.RAW, "COW": VolumeFormat.QCOW2}
TYPES = {"SPARSE": Allocation.SPARSE, "PREALLOCATED": Allocation.PREALLOCATED}
ROLES = {"LEAF": VolumeRole.LEAF, "INTERNAL": VolumeRole.INTERNAL, "SHARED": VolumeRole.TEMPLATE}
LEGALITIES = {"LEGAL": Legality.LEGAL, "ILLEGAL": Legality.ILLEGAL, "FAKE": Legality.FAKE}


def of_kind(kind: str) -> list[str]:
    return [name for name, facts in FACTS.items() if facts["kind"] == kind]


VOLUMES, DOMAINS = of_kind("volume metadata"), of_kind("file domain metadata")


def test_there_is_something_of_each_kind() -> None:
    assert len(VOLUMES) == 6
    assert {FACTS[name]["domain_version"] for name in VOLUMES} == {4, 5}
    assert DOMAINS == ["domain-v5-nfs.metadata"]
    assert {path.name for path in GOLDEN.iterdir()} == {*VOLUMES, *DOMAINS, "golden.json", "README.txt"}


@pytest.mark.parametrize("name", [*VOLUMES, *DOMAINS])
def test_the_copies_are_true(name: str) -> None:
    data = (GOLDEN / name).read_bytes()
    assert len(data) == FACTS[name]["bytes"]
    assert hashlib.sha256(data).hexdigest() == FACTS[name]["sha256"]


@pytest.mark.parametrize("name", VOLUMES)
def test_volume_metadata_are_read(name: str) -> None:
    facts = FACTS[name]["fields"]
    parent = UUID(facts["parent"])
    assert volume.parse((GOLDEN / name).read_bytes()) == volume.VolumeMetadata(
        domain=UUID(facts["domain"]),
        image=UUID(facts["image"]),
        parent=parent if parent.int else None,
        capacity=facts["capacity"],
        format=FORMATS[facts["format"]],
        allocation=TYPES[facts["type"]],
        role=ROLES[facts["voltype"]],
        legality=LEGALITIES[facts["legality"]],
        created=facts["ctime"],
        description=facts["description"],
        disk_type=facts["disktype"],
        generation=facts["generation"],
        sequence=facts["sequence"],
        version=FACTS[name]["domain_version"],
    )


@pytest.mark.parametrize("name", VOLUMES)
def test_volume_metadata_are_written_back(name: str) -> None:
    data = (GOLDEN / name).read_bytes()
    assert volume.write(volume.parse(data)) == data


@pytest.mark.parametrize("name", DOMAINS)
def test_domain_metadata_are_read_and_written_back(name: str) -> None:
    data = (GOLDEN / name).read_bytes()
    found = domain.parse(data)
    facts = FACTS[name]["fields"]
    assert dict(found.fields) == facts
    assert (str(found.id), found.version, found.type) == (facts["SDUUID"], 5, "NFS")
    assert (found.description, found.block_size, found.alignment) == ("nfs-data", 512, 2**20)
    assert domain.write(found) == data
