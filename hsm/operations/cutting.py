# SPDX-License-Identifier: Apache-2.0
"""Making a volume's data end earlier."""

from __future__ import annotations

from hsm.domains.base import Domain, Held, VolumeRecord
from hsm.operations import chains
from hsm.operations.base import Context
from hsm.operations.encryption import source_of
from hsm.operations.making import qemu_img, qemu_io
from libvdsm.api.types import VolumeFormat


def cut(context: Context, domain: Domain, volume: VolumeRecord, capacity: int, held: Held) -> None:
    """Make a volume's data end at ``capacity`` where it goes on beyond that, and have that stable."""
    if volume.metadata.format is VolumeFormat.RAW:
        domain.shrink_data(volume.folder, volume.id, capacity)
        return
    if volume.header is not None and volume.header.capacity > capacity:
        # qemu-img alone cuts the file while its tables still name what is cut off (seen: killed between the two, the
        # file is corrupt).  So what is beyond the new end is given back first, and is stable.
        first = -(-capacity // volume.header.cluster_size) * volume.header.cluster_size
        source = source_of(context, domain, chains.image_of(domain, volume.folder), volume)
        qemu_io(context).discard(source, first, volume.header.capacity, descriptors=held.descriptors)
        domain.sync_data(volume.folder, volume.id)
        qemu_img(context).resize(source, capacity, descriptors=held.descriptors, shrink=True)
    domain.sync_data(volume.folder, volume.id)
