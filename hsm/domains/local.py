# SPDX-License-Identifier: Apache-2.0
"""Local domains: a folder of this host, in oVirt's V5 layout.

Leases are ``flock`` on ``dom_md/ids`` for the domain and on each ``.lease`` for its volume.  Where a VDSM is the pool
manager of such a domain it holds ``ids`` all the time, so the domain can only be read here.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

from hsm.domains import flocks
from hsm.domains.base import Capabilities, DomainMissing, Held, ImageRecord, LeaseBusy
from hsm.domains.files import FileDomain
from hsm.domains.remembered import Remembered
from hsm.formats import domain as domain_format
from libvdsm.api.types import DomainId, ImageId, VolumeId


class LocalDomain(FileDomain):
    """A domain in a folder of this host."""

    type: ClassVar[str] = "local"
    capabilities: ClassVar[Capabilities] = Capabilities(
        shared=False, block=False, preallocation=True, description="a folder of this host"
    )

    def __init__(self, domain: DomainId, path: str, host_id: int = 1) -> None:
        super().__init__(domain, path, host_id)
        self._ids = os.path.join(self.root, "dom_md", "ids")
        self._turn = threading.Lock()
        self._remembered = Remembered(self.images)

    @classmethod
    def create(cls, domain: DomainId, path: str, name: str) -> LocalDomain:
        cls.make_tree(domain, path, domain_format.new(domain, "LOCALFS", name, path))
        return cls(domain, path)

    @classmethod
    def open(cls, domain: DomainId, path: str) -> LocalDomain:
        opened = cls(domain, path)
        found = opened.metadata()
        if found.type != "LOCALFS":
            msg = f"it is a domain of type {found.type}, not a local one"
            raise DomainMissing(msg)
        return opened

    @classmethod
    def remains(cls, domain: DomainId, path: str) -> LocalDomain:
        found = cls(domain, path)
        found.refuse_unless_unpublished()
        return found

    @contextmanager
    def lease(self, wait: float) -> Iterator[None]:
        # Threads of this service take turns without touching the file: waiting there is polling.
        if not self._turn.acquire(timeout=wait):
            raise LeaseBusy(None, "another task of this service")
        try:
            held = flocks.acquire_waiting(self._ids, wait)
            try:
                yield
            finally:
                held.release()
        finally:
            self._turn.release()

    def image_ids(self) -> list[ImageId]:
        found = super().image_ids()
        self._remembered.keep(found)
        return found

    def glance(self, image: ImageId) -> ImageRecord | None:
        return self._remembered.image(image, self.image)

    def acquire_files(self, wanted: Sequence[tuple[VolumeId, str, bool]]) -> Held:
        return flocks.acquire(wanted)
