# SPDX-License-Identifier: Apache-2.0
"""What each verb may cost: the one table, with the reasons.

Processes started; files and folders synchronised on the domain, in the service's own state, and elsewhere; leases
acquired.  The figures are exact: a verb that takes less than here has become better, or has lost a step that it
needs, and either is to be looked at.  A label is a verb, or one of its ways behind a colon.
"""

from __future__ import annotations

from dataclasses import dataclass

TASK = 2
"""A task is recorded when it is taken, and when it has ended."""
REGISTRY = 3
"""The list of attached domains is replaced: the new file, its folder, and the folder again after the rename."""
METADATA = 3
"""Metadata is replaced or published: the new file, its folder with all that was made in it, and after the rename."""
FOLDER = 1
"""A folder that has an entry more, or one less."""
DATA = 1
"""The data of one volume."""


@dataclass(frozen=True)
class Budget:
    """What one call takes."""

    why: str
    processes: int = 0
    domain: int = 0
    state: int = 0
    other: int = 0
    leases: int = 0


_READS = Budget("it only reads")
_SO_ALREADY = Budget("all is so already: only the task is recorded", state=TASK)
_NEW_VOLUME = FOLDER + DATA + METADATA

BUDGETS = {
    "Host.ping": _READS,
    "Host.getCapabilities:first": Budget(
        "qemu-img, qemu-nbd and setpriv are asked for their versions, once", processes=3
    ),
    "Host.getCapabilities": _READS,
    "Host.getStats": _READS,
    "Config.get": _READS,
    "Session.open": _READS,
    "Session.getInfo": _READS,
    "Domain.create": Budget(
        "five special files, three folders, the domain's metadata", domain=5 + 3 + METADATA, state=TASK + REGISTRY
    ),
    "Domain.create:again": _SO_ALREADY,
    "Domain.list": _READS,
    "Domain.getInfo": _READS,
    "Domain.getStats": _READS,
    "Domain.dump": _READS,
    "Domain.setDescription": Budget("the domain's metadata, under its lease", domain=METADATA, state=TASK, leases=1),
    "Domain.check": Budget("it only reads, and is a task", state=TASK),
    "Domain.check:deep": Budget(
        "qemu-img check of the one qcow2 volume, leased for reading", processes=1, state=TASK, leases=1
    ),
    "Domain.collectGarbage": Budget("there is none", state=TASK),
    "Domain.collectGarbage:begun": Budget(
        "one half-made image: the domain's lease and the volume's, and the folder that loses it",
        domain=FOLDER,
        state=TASK,
        leases=2,
    ),
    "Domain.detach": Budget("the list of domains", state=TASK + REGISTRY),
    "Domain.attach": Budget("the list of domains", state=TASK + REGISTRY),
    "Domain.format": Budget(
        "the folder above, when the domain has lost its name and when it is gone",
        domain=2 * FOLDER,
        state=TASK + REGISTRY,
        leases=1,
    ),
    "Image.create": Budget(
        "a folder, the data, the metadata; leases of the domain and the new volume; no program",
        domain=_NEW_VOLUME,
        state=TASK,
        leases=2,
    ),
    "Image.create:again": _SO_ALREADY,
    "Image.create:raw": Budget("as qcow2", domain=_NEW_VOLUME, state=TASK, leases=2),
    "Image.create:preallocated-raw": Budget(
        "the domain's lease is let go of while space is taken, and acquired again",
        domain=_NEW_VOLUME,
        state=TASK,
        leases=3,
    ),
    "Image.create:preallocated-qcow2": Budget(
        "qemu-img lays it out, and does not make it stable: the file as it was begun, and when it is whole",
        processes=1,
        domain=_NEW_VOLUME + DATA,
        state=TASK,
        leases=3,
    ),
    "Image.snapshot": Budget(
        "the new layer's data and metadata, and those of the leaf that it freezes; the leaf's lease too",
        domain=DATA + 2 * METADATA,
        state=TASK,
        leases=3,
    ),
    "Image.snapshotMany": Budget(
        "two times Image.snapshot; a mark and an intent, written and taken away again",
        domain=2 * (DATA + 2 * METADATA) + 2 * METADATA + 2,
        state=TASK,
        leases=2 * 2 + 3,
    ),
    "Image.deleteMany": Budget(
        "two times Image.delete of one layer; a mark and an intent",
        domain=2 * 2 * FOLDER + 2 * METADATA,
        state=TASK,
        leases=2 + 2 + 2,
    ),
    "Image.copy": Budget(
        "two layers: each file begun, filled by a program and made stable, the header of one named anew; what says that "
        "the image is in the making, until it is; the source leased for reading",
        processes=2,
        domain=FOLDER + 2 * (DATA + DATA + METADATA) + DATA + METADATA + FOLDER,
        state=TASK,
        leases=2 + 2 + 2,
    ),
    "Image.copy:again": _SO_ALREADY,
    "Image.copy:collapsed": Budget(
        "as an import; the source's two layers leased for reading",
        processes=1,
        domain=_NEW_VOLUME + DATA,
        state=TASK,
        leases=2 + 1 + 2,
    ),
    "Image.checksum": Budget("qemu-nbd, and two layers leased for reading", processes=1, state=TASK, leases=2),
    "Image.move": Budget(
        "as a copy, whose headers stay; the source's intent, and its deletion",
        processes=2,
        domain=FOLDER + 2 * (DATA + DATA + METADATA) + METADATA + FOLDER + METADATA + 2 * FOLDER,
        state=TASK,
        leases=2 + 2 + 2 + 2 + 2,
    ),
    "Image.move:again": _SO_ALREADY,
    "Volume.copy": Budget(
        "as Image.copy, collapsed", processes=1, domain=_NEW_VOLUME + DATA, state=TASK, leases=2 + 1 + 2
    ),
    "Image.list": _READS,
    "Image.getInfo": _READS,
    "Image.prepare": Budget("a keeper, which holds the leases of two layers", processes=1, leases=2),
    "Image.prepare:again": _READS,
    "Image.teardown": Budget("the keeper is ended, and its leases with it"),
    "Image.teardown:again": _READS,
    "Image.delete": Budget(
        "two layers: leased, unpublished by one rename, leased again as garbage, and given back",
        domain=2 * FOLDER,
        state=TASK,
        leases=2 + 1 + 2,
    ),
    "Image.delete:again": _SO_ALREADY,
    "Image.delete:wipe": Budget(
        "one layer, overwritten before it is given back", domain=2 * FOLDER + DATA, state=TASK, leases=1 + 1 + 1
    ),
    "Image.import": Budget(
        "an inspection, a copy; the data as it was begun, and as the program has left it",
        processes=2,
        domain=_NEW_VOLUME + DATA,
        state=TASK,
        leases=3,
    ),
    "Image.export": Budget(
        "a copy, leased for reading; the file it goes to", processes=1, state=TASK, other=1, leases=1
    ),
    "Image.makeTemplate": Budget("the metadata, under two leases", domain=METADATA, state=TASK, leases=2),
    "Image.makeTemplate:copy": Budget(
        "as an import of what is known already; the source leased for reading",
        processes=1,
        domain=_NEW_VOLUME + DATA,
        state=TASK,
        leases=4,
    ),
    "Image.clone": Budget("as Image.create; the template leased too", domain=_NEW_VOLUME, state=TASK, leases=3),
    "Volume.create": Budget("as Image.create", domain=_NEW_VOLUME, state=TASK, leases=2),
    "Volume.create:on-leaf": Budget("as Image.snapshot", domain=DATA + 2 * METADATA, state=TASK, leases=3),
    "Volume.create:on-template": Budget("as Image.clone", domain=_NEW_VOLUME, state=TASK, leases=3),
    "Volume.getInfo": _READS,
    "Volume.list": _READS,
    "Volume.measure": Budget("qemu-img measures", processes=1),
    "Volume.resize": Budget(
        "qemu-img grows it; the data, then the metadata", processes=1, domain=DATA + METADATA, state=TASK, leases=2
    ),
    "Volume.resize:raw": Budget("the same without a program", domain=DATA + METADATA, state=TASK, leases=2),
    "Volume.setDescription": Budget(
        "the metadata; no data is concerned, so no volume's lease", domain=METADATA, state=TASK, leases=1
    ),
    "Volume.setDescription:again": _SO_ALREADY,
    "Image.setTags": Budget(
        "the attributes, under the domain's lease; no data is concerned", domain=METADATA, state=TASK, leases=1
    ),
    "Image.setTags:again": _SO_ALREADY,
    "Image.setTags:none": Budget("the attributes are taken away", domain=FOLDER, state=TASK, leases=1),
    "Volume.setTags": Budget("as Image.setTags", domain=METADATA, state=TASK, leases=1),
    "Volume.setLegality": Budget("the metadata, under two leases", domain=METADATA, state=TASK, leases=2),
    "Volume.delete": Budget(
        "unpublished; the one below becomes the leaf; given back", domain=2 * FOLDER + METADATA, state=TASK, leases=3
    ),
    "Volume.delete:last": Budget("as Image.delete of one layer", domain=2 * FOLDER, state=TASK, leases=3),
    "Bitmap.add": Budget(
        "qemu-img, which makes nothing stable; under the leaf's lease and the domain's",
        processes=1,
        domain=DATA,
        state=TASK,
        leases=2,
    ),
    "Bitmap.add:again": _SO_ALREADY,
    "Bitmap.list": _READS,
    "Bitmap.getExtents": Budget("it only reads, under leases of both layers", leases=2),
    "Bitmap.clear": Budget(
        "the intent; the newest stops recording, the one below goes, the newest begins anew; the intent goes",
        processes=3,
        domain=3 * DATA + METADATA + FOLDER,
        state=TASK,
        leases=4,
    ),
    "Bitmap.remove": Budget(
        "as Bitmap.add of a second one: between an intent and its end",
        processes=1,
        domain=DATA + METADATA + FOLDER,
        state=TASK,
        leases=3,
    ),
    "Image.snapshot:bitmap": Budget("as Image.snapshot: no program", domain=DATA + 2 * METADATA, state=TASK, leases=3),
    "Task.list": _READS,
    "Task.getInfo": _READS,
    "Task.wait": _READS,
    "Task.stop": Budget("one that was queued: its end is recorded", state=1),
    "Task.clear": Budget("it is forgotten", state=1),
    "Event.poll": _READS,
    "Event.subscribe": _READS,
    "Audit.list": _READS,
    "Image.merge:down": Budget(
        "two layers checked, committed, the header of the one above; the intent written, changed, gone; the base's data; "
        "the metadata of the one that goes, of the base, of the one above and its header; unpublished, given back; the "
        "leases of three layers, the domain's three times, and the one's that is given back",
        processes=4,
        domain=2 * METADATA + FOLDER + DATA + 3 * METADATA + DATA + 2 * FOLDER,
        state=TASK,
        leases=7,
    ),
    "Image.merge:up": Budget(
        "two layers checked, marked, pulled, the mark deleted, each made stable; the intent; the metadata; unpublished, "
        "given back",
        processes=5,
        domain=2 * METADATA + FOLDER + 3 * DATA + METADATA + 2 * FOLDER,
        state=TASK,
        leases=7,
    ),
    "Image.merge:again": _SO_ALREADY,
    "Image.deleteSnapshot": Budget(
        "as merging down, with nothing above",
        processes=3,
        domain=2 * METADATA + FOLDER + DATA + 2 * METADATA + 2 * FOLDER,
        state=TASK,
        leases=6,
    ),
    "Image.revert": Budget(
        "the new layer's data and metadata; the intent; two layers unpublished and given back; no program",
        domain=DATA + 2 * METADATA + FOLDER + 4 * FOLDER,
        state=TASK,
        leases=8,
    ),
    "Image.resize": Budget("as Volume.resize", processes=1, domain=DATA + METADATA, state=TASK, leases=2),
    "Image.resize:again": _SO_ALREADY,
    "Image.flatten": Budget(
        "as merging up, with a template unlinked: its metadata, then the rest",
        processes=4,
        domain=2 * METADATA + FOLDER + 3 * DATA + METADATA + 2 * FOLDER,
        state=TASK,
        leases=5,
    ),
    "Image.rebase": Budget(
        "as flattening",
        processes=4,
        domain=2 * METADATA + FOLDER + 3 * DATA + METADATA + 2 * FOLDER,
        state=TASK,
        leases=5,
    ),
    "Transfer.start": Budget(
        "what an image takes, and its attributes with the expiry; qemu-nbd; written down before it begins, and open",
        processes=1,
        domain=_NEW_VOLUME + METADATA,
        state=2,
        leases=2,
    ),
    "Transfer.start:again": _READS,
    "Transfer.start:download": Budget(
        "the one volume is leased for reading; qemu-nbd; written down before it begins, and open",
        processes=1,
        state=2,
        leases=1,
    ),
    "Transfer.getInfo": _READS,
    "Transfer.list": _READS,
    "Transfer.checkpoint": Budget("the server makes the data stable; then the number is written down", state=1),
    "Transfer.pause": Budget("the state", state=1),
    "Transfer.resume": Budget("qemu-nbd, and the state; the lease was kept", processes=1, state=1),
    "Transfer.finish": Budget(
        "the data, the metadata that say legal, the folder that loses the attributes; the state, twice",
        domain=DATA + METADATA + FOLDER,
        state=TASK + 2,
        leases=1,
    ),
    "Transfer.finish:download": Budget("the state, twice", state=TASK + 2),
    "Transfer.cancel": Budget(
        "the folder above, and again when it is given back; the lease of that",
        domain=2 * FOLDER,
        state=1,
        leases=2,
    ),
    "Image.sparsify": Budget(
        "two layers, each checked by qemu-img, and made stable before and after; under their leases and the domain's",
        processes=2,
        domain=2 * 2 * DATA,
        state=TASK,
        leases=2 + 1,
    ),
    "Volume.amend": Budget(
        "one write into the header, made stable; under two leases; no program", domain=DATA, state=TASK, leases=2
    ),
    "Volume.amend:again": _SO_ALREADY,
}
