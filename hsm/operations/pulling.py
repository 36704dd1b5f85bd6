# SPDX-License-Identifier: Apache-2.0
"""A volume takes into itself what it shows of those below: the work of merging up, flattening, and rebasing.

A change in place (``hsm.operations.intents``).  What a program has pulled when it or the host ends is not known: the
tables that map it may be on storage without the data, and the header may name the new parent without the tables.  So
the file's state is kept in it first, as an internal snapshot of qcow2, the *mark*, which is stable before anything is
pulled:

- no mark, and the old parent in the header: nothing was pulled;
- a mark: whatever was pulled is undone by returning to it, and pulled again;
- no mark, and the new parent in the header: all is pulled, and stable.

Then the volume's metadata name its new parent, what nobody needs any more is unpublished, and the intent goes.
"""

from __future__ import annotations

from contextlib import ExitStack

import msgspec

from hsm.domains.base import Domain, Held, ImageRecord, VolumeRecord, Wanted
from hsm.formats.attributes import Pull, Rebase
from hsm.operations import chains
from hsm.operations.base import Context, domain_lease
from hsm.operations.encryption import itself, source_of
from hsm.operations.inplace import as_parent, end, let_go, percent_of, tell
from hsm.operations.making import qemu_layers
from hsm.operations.offering import offered
from hsm.tasks.manager import Job
from libvdsm.api.errors import NoSuchImage
from libvdsm.api.types import ImageId, VolumeId


def finish(context: Context, job: Job, domain: Domain, image: ImageId, held: Held, *, fresh: bool = False) -> bool:
    """Do what is left to be done."""
    intent = _intent(domain, image)[1]
    with ExitStack() as leases:
        descriptors = held.descriptors
        if isinstance(intent, Rebase) and intent.template is not None and intent.parent is not None:
            template = ImageId(intent.template)
            more = _reach(context, domain, image, template, VolumeId(intent.parent))
            leases.callback(more.release)
            descriptors += more.descriptors
        if not intent.moved:
            _pull(context, job, domain, image, descriptors, fresh=fresh)
            with domain_lease(context, domain):
                record, intent = _intent(domain, image)
                intent = msgspec.structs.replace(intent, moved=True)
                domain.set_attributes(image, msgspec.structs.replace(record.attributes, intent=intent))
        _publish(context, job, domain, image, held)
    return True


def _intent(domain: Domain, image: ImageId) -> tuple[ImageRecord, Pull]:
    record = chains.image_of(domain, image)
    intent = record.attributes.intent
    assert isinstance(intent, Pull)
    return record, intent


def _reach(context: Context, domain: Domain, image: ImageId, template: ImageId, volume: VolumeId) -> Held:
    """The new parent in the image's folder, and its lease."""
    with domain_lease(context, domain):
        record = domain.image(template)
        if record is None or volume not in record.volumes:
            if volume not in chains.image_of(domain, image).volumes:
                # Deleted after the intent was written and before the link was made, so nothing was done yet.
                _give_up(domain, image)
            raise NoSuchImage(domain=domain.id, image=template)
        held = domain.acquire([Wanted(volume, template, shared=True)])
        try:
            domain.link_template(image, template, volume)
        except BaseException:
            held.release()
            raise
        return held


def _give_up(domain: Domain, image: ImageId) -> None:
    record = chains.image_of(domain, image)
    domain.set_attributes(image, msgspec.structs.replace(record.attributes, intent=None))


def _pull(
    context: Context, job: Job, domain: Domain, image: ImageId, descriptors: tuple[int, ...], *, fresh: bool
) -> None:
    record, intent = _intent(domain, image)
    top = record.volumes[VolumeId(intent.top)]
    source = source_of(context, domain, record, top)
    layers = qemu_layers(context)
    old, new = _parent(record, top.metadata.parent), _parent(record, intent.parent)
    assert top.header is not None
    if top.header.snapshots:
        job.progress("returning to where it began")
        layers.return_to_mark(source, descriptors=descriptors)
        layers.name_parent(source, old, descriptors=descriptors)
    elif fresh or _names(top, old):
        layers.mark(source, descriptors=descriptors)
        domain.sync_data(image, top.id)
    else:
        _mend(context, domain, record, top, descriptors)
        return
    total = below(record, top, intent.parent)
    job.progress("moving data up", 0, total)
    on_percent = percent_of(job, "moving data up", total)
    with offered(context, domain, record, intent.parent, descriptors) as parent:
        layers.rebase(source, parent or new, descriptors=descriptors, on_percent=on_percent)
    if parent is not None:
        layers.name_parent(source, new, descriptors=descriptors)
    job.progress("writing to stable storage", total, total)
    domain.sync_data(image, top.id)
    layers.unmark(source, descriptors=descriptors)
    domain.sync_data(image, top.id)
    if not fresh:
        _mend(context, domain, record, top, descriptors)


def _mend(
    context: Context, domain: Domain, record: ImageRecord, top: VolumeRecord, descriptors: tuple[int, ...]
) -> None:
    qemu_layers(context).mend(itself(context, domain, record, top), descriptors=descriptors)
    domain.sync_data(top.folder, top.id)


def _parent(record: ImageRecord, volume: object) -> tuple[str, str] | None:
    """How the header names a volume of this image."""
    return as_parent(next(found for found in record.volumes.values() if found.id == volume)) if volume else None


def _names(top: VolumeRecord, parent: tuple[str, str] | None) -> bool:
    """Whether a header names this parent; oVirt of different ages wrote the bare id, or a path that ends in it."""
    found = top.header.backing_file if top.header else None
    return (found or "").rpartition("/")[2] == (parent[0] if parent else "")


def below(record: ImageRecord, top: VolumeRecord, parent: object) -> int:
    """How many bytes the layers between a volume and its new parent take, which is all down to nothing for a stranger."""
    total = 0
    under = top.metadata.parent
    while under is not None and under != parent:
        volume = record.volumes[VolumeId(under)]
        total += volume.actual_size
        under = volume.metadata.parent
    return total


def _publish(context: Context, job: Job, domain: Domain, image: ImageId, held: Held) -> None:
    """Say how it is now."""
    with domain_lease(context, domain):
        record, intent = _intent(domain, image)
        top = record.volumes[VolumeId(intent.top)]
        gone = tuple(VolumeId(volume) for volume in intent.gone)
        there = [record.volumes[volume].metadata.created for volume in gone if volume in record.volumes]
        metadata = msgspec.structs.replace(
            top.metadata,
            parent=intent.parent,
            generation=intent.generation,
            created=min([top.metadata.created, *there]),
        )
        if metadata != top.metadata:
            domain.rewrite(image, top.id, metadata)
        if intent.unlink is not None:
            domain.unlink_template(image, VolumeId(intent.unlink))
        left = end(domain, image, gone, wipe=intent.wipe)
    tell(context, domain, image, (top.id,), gone)
    let_go(job, domain, held, left)
