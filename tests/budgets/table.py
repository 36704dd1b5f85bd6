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
    "Volume.setLegality": Budget("the metadata, under two leases", domain=METADATA, state=TASK, leases=2),
    "Volume.delete": Budget(
        "unpublished; the one below becomes the leaf; given back", domain=2 * FOLDER + METADATA, state=TASK, leases=3
    ),
    "Volume.delete:last": Budget("as Image.delete of one layer", domain=2 * FOLDER, state=TASK, leases=3),
    "Task.list": _READS,
    "Task.getInfo": _READS,
    "Task.wait": _READS,
    "Task.stop": Budget("one that was queued: its end is recorded", state=1),
    "Task.clear": Budget("it is forgotten", state=1),
    "Event.poll": _READS,
    "Event.subscribe": _READS,
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
        "the folder above, the image's before its attributes go, and the folder above again; the lease of what is "
        "given back",
        domain=3 * FOLDER,
        state=1,
        leases=2,
    ),
}
