# SPDX-License-Identifier: Apache-2.0
"""Use of images on this host: prepare and teardown.

Nothing on the domain changes.  The leases go from this service to a keeper, which has them before this service lets
go of its own hold; so there is no moment at which a prepared image has none.
"""

from __future__ import annotations

from contextlib import ExitStack

from hsm.domains.base import Wanted
from hsm.keeper import KeeperFailed
from hsm.operations import chains, describe
from hsm.operations.base import Context, storage_errors, writable
from libvdsm.api.errors import AlreadyPrepared, IsTemplate, StorageFailed
from libvdsm.api.event import ImagePrepared, ImageTornDown
from libvdsm.api.types import DomainId, ImageId, PreparedInfo, VolumeRole


def prepare(context: Context, domain_id: DomainId, image: ImageId, *, read_only: bool) -> PreparedInfo:
    """Make an image ready for use: leaf leased exclusively (shared for reading), all below it shared."""
    domain = context.registry.get(domain_id)
    with storage_errors(context, domain_id, image), ExitStack() as stack:
        record = chains.image_of(domain, image)
        leaf = chains.leaf_of(record)
        keeper = context.keepers.find(domain_id, image)
        if keeper is not None:
            if keeper.read_only != read_only:
                raise AlreadyPrepared(image=image, mode="read-only" if keeper.read_only else "for writing")
            return describe.prepared_info(domain, keeper, leaf.metadata.format, describe.secret_named(record))
        if leaf.metadata.role is VolumeRole.TEMPLATE and not read_only:
            raise IsTemplate(image=image)
        if not read_only:
            writable(domain)
        chain = chains.chain_of(record, leaf)
        wanted = [Wanted(volume.id, image, shared=read_only or volume is not leaf) for volume in chain]
        held = domain.acquire(wanted)
        stack.callback(held.release)
        record = chains.image_of(domain, image)
        leaf = chains.leaf_of(record)
        chains.usable(domain, record, chains.chain_of(record, leaf))
        try:
            keeper = context.keepers.start(domain_id, image, leaf.id, held, read_only=read_only)
        except KeeperFailed as error:
            raise StorageFailed(domain=domain_id, reason=f"the keeper could not be started: {error}") from None
    context.events.emit(ImagePrepared(domain=domain_id, image=image, read_only=read_only))
    return describe.prepared_info(domain, keeper, leaf.metadata.format, describe.secret_named(record))


def teardown(context: Context, domain_id: DomainId, image: ImageId) -> None:
    """End the use of an image on this host."""
    domain = context.registry.get(domain_id)
    keeper = context.keepers.find(domain_id, image)
    if keeper is None:
        with storage_errors(context, domain_id, image):
            chains.image_of(domain, image)
        return
    try:
        context.keepers.end(keeper)
    except KeeperFailed as error:
        raise StorageFailed(domain=domain_id, reason=f"the keeper: {error}") from None
    context.events.emit(ImageTornDown(domain=domain_id, image=image))
