# SPDX-License-Identifier: Apache-2.0
"""What the parts of the contract share: a domain, a second view of it, and the usual way to make a volume."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hsm.domains.base import Domain, NewVolume
from hsm.formats import qcow2
from hsm.formats.volume import VolumeMetadata
from libvdsm.api.types import (
    Allocation,
    ImageId,
    Legality,
    VolumeFormat,
    VolumeId,
    VolumeRole,
)

MakeDomain = Callable[[], Domain]
MIB = 2**20
WAIT = 10.0
"""Seconds in which everything has to be possible."""


class Contract:
    """Base of the parts."""

    @pytest.fixture
    def make_domain(self) -> MakeDomain:
        """Makes an empty domain, another one at each call.  Drivers override this."""
        raise NotImplementedError

    @pytest.fixture
    def domain(self, make_domain: MakeDomain) -> Domain:
        return make_domain()

    @pytest.fixture
    def other(self, domain: Domain) -> Domain:
        """The same domain as another service on this host sees it."""
        return again(domain)

    def stored(self, domain: Domain, image: ImageId, volume: VolumeId) -> bytes:
        """A volume's metadata as its bytes lie on storage.  Drivers that have no such file override this."""
        return Path(domain.path, str(domain.id), "images", str(image), f"{volume}.meta").read_bytes()


def again(domain: Domain) -> Domain:
    """Open a domain once more."""
    return type(domain).open(domain.id, domain.path)


def ids() -> tuple[ImageId, VolumeId]:
    """An image and a volume that are not there yet."""
    return ImageId(uuid.uuid4()), VolumeId(uuid.uuid4())


def new_raw(image: ImageId | None = None, volume: VolumeId | None = None, **changed: Any) -> NewVolume:
    """A raw volume of a MiB to be made, the first of its image."""
    chosen = ids()
    values = {
        "image": image or chosen[0],
        "volume": volume or chosen[1],
        "length": MIB,
        "format": VolumeFormat.RAW,
        "allocation": Allocation.SPARSE,
        "first": True,
        **changed,
    }
    return NewVolume(**values)


def metadata_of(domain: Domain, new: NewVolume, parent: VolumeId | None = None, **changed: Any) -> VolumeMetadata:
    """Metadata that fit a new volume."""
    plain = VolumeMetadata(
        domain=domain.id,
        image=new.image,
        parent=parent,
        capacity=MIB,
        format=new.format,
        allocation=new.allocation,
        role=VolumeRole.LEAF,
        legality=Legality.LEGAL,
        created=1_700_000_000,
    )
    return msgspec.structs.replace(plain, **changed)


def make(
    domain: Domain, new: NewVolume, metadata: VolumeMetadata | None = None, content: Sequence[tuple[int, bytes]] = ()
) -> NewVolume:
    """Make and publish a volume as operations do, and let go of it."""
    with domain.lease(WAIT):
        held = domain.begin_volume(new)
        domain.make_data(new, content)
        domain.publish(new.image, new.volume, metadata or metadata_of(domain, new))
    held.release()
    return new


def make_overlay(domain: Domain, below: NewVolume, **changed: Any) -> NewVolume:
    """Make a qcow2 volume on top of another one, of the same image or, if that is a template's, of a new one."""
    template = (below.image, below.volume) if changed.pop("clone", False) else None
    length, content = qcow2.new(MIB, str(below.volume), below.format.value)
    new = new_raw(
        None if template else below.image,
        format=VolumeFormat.QCOW2,
        length=length,
        first=template is not None,
        template=template,
    )
    return make(domain, new, metadata_of(domain, new, below.volume, **changed), content)


def make_template(domain: Domain) -> NewVolume:
    """Make a volume that others may stand on."""
    new = new_raw()
    return make(domain, new, metadata_of(domain, new, role=VolumeRole.TEMPLATE), [(0, b"template")])


def content_of(domain: Domain, new: NewVolume, count: int = 16, offset: int = 0) -> bytes:
    """What lies in a volume's data."""
    with open(domain.data_path(new.image, new.volume), "rb") as file:
        file.seek(offset)
        return file.read(count)


def write(domain: Domain, new: NewVolume, data: bytes, offset: int = 0) -> None:
    """Write into a volume's data as a program would."""
    with open(domain.data_path(new.image, new.volume), "r+b") as file:
        file.seek(offset)
        file.write(data)


def eventually(is_so: Callable[[], bool]) -> None:
    """What happens when a process is gone, which may take a moment."""
    until = time.monotonic() + WAIT
    while not is_so():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.005)
