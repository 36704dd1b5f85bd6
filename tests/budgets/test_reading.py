# SPDX-License-Identifier: Apache-2.0
"""What lists read, counted by Python's own audit events: a volume costs two opened files, a folder one listing."""

from __future__ import annotations

import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hsm.formats import volume as volume_format
from hsm.formats.volume import VolumeMetadata
from libvdsm.api.types import Allocation, DomainId, Legality, VolumeFormat, VolumeRole
from libvdsm.client import Client

_IMAGES = 10
_counting: list[Counter[str]] = []


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if _counting and event in ("open", "os.listdir"):
        _counting[0][event] += 1


sys.addaudithook(_audit)


@contextmanager
def counting() -> Iterator[Counter[str]]:
    counter: Counter[str] = Counter()
    _counting.append(counter)
    try:
        yield counter
    finally:
        _counting.clear()


@pytest.mark.parametrize(
    "verb",
    [lambda client, domain: client.volume.list(domain=domain), lambda client, domain: client.image.list(domain=domain)],
    ids=["Volume.list", "Image.list"],
)
def test_a_list_looks_at_each_file_once(
    client: Client, domain: DomainId, verb: Callable[[Client, DomainId], Any]
) -> None:
    for _ in range(_IMAGES):
        image = client.wait(client.image.create(domain=domain, capacity=2**20))
        client.wait(client.image.snapshot(domain=domain, image=image.id))
    with counting() as counted:
        verb(client, domain)
    # Metadata and header of two volumes in each image; the folder of images, and each image's.
    assert counted == {"open": 2 * 2 * _IMAGES, "os.listdir": 1 + _IMAGES}


def test_a_list_reads_nothing_that_has_not_changed(client: Client, domain: DomainId) -> None:
    images = [client.wait(client.image.create(domain=domain, capacity=2**20)) for _ in range(_IMAGES)]
    time.sleep(1.2)  # what changed in the last second is not relied on
    first = client.volume.list(domain=domain)
    with counting() as counted:
        assert client.volume.list(domain=domain) == first
        assert len(client.image.list(domain=domain).items) == _IMAGES
    assert counted == {"os.listdir": 2}
    client.wait(client.image.set_tags(domain=domain, image=images[0].id, tags=["gold"]))
    with counting() as counted:
        client.volume.list(domain=domain)
    assert counted == {"open": 3, "os.listdir": 2}


@pytest.mark.parametrize("role", [VolumeRole.LEAF, VolumeRole.INTERNAL, VolumeRole.TEMPLATE])
def test_what_we_write_is_read_the_quick_way(role: VolumeRole) -> None:
    """There is a slow way, for what others may have written; only long lists would feel a fall back to it."""
    metadata = VolumeMetadata(
        domain=uuid.uuid4(),
        image=uuid.uuid4(),
        parent=uuid.uuid4() if role is VolumeRole.LEAF else None,
        capacity=64 * 2**30,
        format=VolumeFormat.QCOW2,
        allocation=Allocation.SPARSE,
        role=role,
        legality=Legality.LEGAL,
        created=1_700_000_000,
        generation=999,
        description='{"DiskAlias":"a = b"}',
    )
    assert volume_format._as_written(volume_format.write(metadata).decode())
