# SPDX-License-Identifier: Apache-2.0
"""Chains that are read: proved fit for it, and leased."""

from __future__ import annotations

from hsm.domains.base import Domain, Held, ImageRecord, VolumeRecord, Wanted
from hsm.formats.attributes import Intent
from hsm.operations import chains
from libvdsm.api.errors import NoSuchVolume
from libvdsm.api.types import VolumeId


def readable_chain(
    domain: Domain, record: ImageRecord, volume: VolumeId | None, mine: Intent | None = None
) -> list[VolumeRecord]:
    """The chain below a volume, or below the leaf, fit to be read.  ``mine``: a change in place of the caller's own."""
    top = chains.leaf_of(record) if volume is None else record.volumes.get(volume)
    if top is None:
        # It may be what cannot be read.
        chains.intact(record)
        raise NoSuchVolume(domain=domain.id, volume=volume or VolumeId(record.id))
    chain = chains.chain_of(record, top)
    chains.usable(domain, record, chain, mine=mine)
    return chain


def lease_for_reading(domain: Domain, image: ImageRecord, chain: list[VolumeRecord]) -> Held:
    """Shared leases of a whole chain."""
    return domain.acquire([Wanted(volume.id, image.id, shared=True) for volume in chain])
