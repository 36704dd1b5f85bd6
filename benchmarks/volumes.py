# SPDX-License-Identifier: Apache-2.0
"""Domains full of volumes, made as files directly: thousands of tasks would take a minute, and are not the question."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from hsm.domains.local import LocalDomain
from hsm.formats import qcow2
from hsm.formats import volume as volume_format
from hsm.formats.volume import VolumeMetadata
from libvdsm.api.types import Allocation, DomainId, Legality, VolumeFormat, VolumeRole

CAPACITY = 64 * 2**30


def fill(home: Path, count: int) -> LocalDomain:
    """The default domain of a service that will be started with this home, with images of one qcow2 volume each."""
    path = home / "domains"
    path.mkdir(parents=True)
    domain = LocalDomain.create(DomainId(uuid.uuid4()), str(path), "default")
    for number in range(count):
        _image(domain, number)
    return domain


def _image(domain: LocalDomain, number: int) -> None:
    image, volume = uuid.uuid4(), uuid.uuid4()
    folder = Path(domain.images, str(image))
    folder.mkdir()
    length, content = qcow2.new(CAPACITY)
    data = os.open(folder / str(volume), os.O_RDWR | os.O_CREAT, 0o660)
    try:
        os.ftruncate(data, length)
        for offset, piece in content:
            os.pwrite(data, piece, offset)
    finally:
        os.close(data)
    metadata = VolumeMetadata(
        domain=domain.id,
        image=image,
        parent=None,
        capacity=CAPACITY,
        format=VolumeFormat.QCOW2,
        allocation=Allocation.SPARSE,
        role=VolumeRole.LEAF,
        legality=Legality.LEGAL,
        created=int(time.time()),
        description=f'{{"DiskAlias":"disk-{number:05d}"}}',
    )
    (folder / f"{volume}.lease").touch()
    (folder / f"{volume}.meta").write_bytes(volume_format.write(metadata))


def data_files(domain: LocalDomain) -> Iterator[str]:
    """The volumes' data, as a bare tool is given it."""
    for image in domain.image_ids():
        record = domain.image(image)
        if record is not None:
            yield from (domain.data_path(image, volume) for volume in record.volumes)
