# SPDX-License-Identifier: Apache-2.0
"""Checking a domain: damage is found and named, nothing is changed.

``KINDS`` is the list of everything that is looked for; the guide's table is made from it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from types import MappingProxyType

from hsm.domains.base import (
    Damaged,
    Domain,
    DomainMissing,
    ImageRecord,
    LeaseBusy,
    VolumeRecord,
    Wanted,
)
from hsm.formats.volume import BadMetadata
from hsm.operations import chains
from hsm.operations.base import BaseOperation, Context, lock_domain, storage_errors
from hsm.operations.encryption import itself
from hsm.operations.making import qemu_img
from hsm.tasks.locks import Locks
from hsm.tasks.manager import Job, Objects
from hsm.tools.keys import KeyRefused
from libvdsm.api.domain import CheckReport, Problem
from libvdsm.api.errors import NoSuchSecret
from libvdsm.api.types import ImageId, Legality, VolumeFormat, VolumeId
from libvdsm.run import CommandError

ERROR, WARNING = "error", "warning"

KINDS = MappingProxyType(
    {
        "domainMetadata": (ERROR, "the domain's own metadata cannot be read, or its checksum is wrong"),
        "volumeMetadata": (ERROR, "a volume's metadata cannot be read, or is cut off"),
        "attributes": (ERROR, "what is kept of an image beside its metadata, tags among it, cannot be read"),
        "dataMissing": (ERROR, "a volume's metadata is there, and its data is not"),
        "header": (ERROR, "a qcow2 volume has no sound qcow2 header"),
        "dataFile": (ERROR, "a qcow2 header refers to a data file elsewhere"),
        "backing": (ERROR, "a qcow2 header names another parent than the metadata, or a file elsewhere"),
        "capacity": (ERROR, "metadata and qcow2 header disagree on the size that the guest sees"),
        "tooShort": (ERROR, "a raw volume's data is shorter than its capacity"),
        "parentMissing": (ERROR, "a volume stands on one that is not there"),
        "circle": (ERROR, "volumes stand on each other in a circle"),
        "leaves": (ERROR, "an image has no newest volume, or several"),
        "identity": (ERROR, "metadata names another domain or volume than the place where it lies"),
        "templateMissing": (ERROR, "a clone's link to its template leads nowhere, or to other data"),
        "notTemplate": (ERROR, "an image stands on a volume of another image that is no template"),
        "rawParent": (ERROR, "a raw volume has a parent"),
        "unfinished": (WARNING, "a change in place, or an upload, has begun and not ended; see Domain.collectGarbage"),
        "illegal": (WARNING, "a volume is marked illegal"),
        "role": (WARNING, "metadata says leaf or internal, and the chain says otherwise"),
        "encryption": (ERROR, "what is recorded of an image's encryption is not what its volumes say"),
        "secretMissing": (
            WARNING,
            "an encrypted image's data was not looked at: this host does not have its secret, or another value of it (deep check)",
        ),
        "leaseMissing": (WARNING, "a volume has no lease file"),
        "permissions": (WARNING, "this service may not read and write a volume's files"),
        "clusters": (ERROR, "QEMU's tool finds a qcow2 volume's clusters damaged (deep check)"),
        "clustersUnknown": (
            WARNING,
            "a qcow2 volume's clusters were not looked at: QEMU's tool could not be started, or was killed (deep check)",
        ),
        "garbage": (WARNING, "something that nobody published; see Domain.collectGarbage"),
    }
)
"""Kind of damage -> severity, meaning."""


def problem(
    kind: str,
    message: str,
    *,
    path: str | None = None,
    image: ImageId | None = None,
    volume: VolumeId | None = None,
) -> Problem:
    return Problem(kind=kind, severity=KINDS[kind][0], message=message, path=path, image=image, volume=volume)


class CheckDomain(BaseOperation):
    """Domain.check"""

    @property
    def locks(self) -> Locks:
        return (lock_domain(self.params.domain),)

    @property
    def objects(self) -> Objects:
        return Objects(self.params.domain)

    def run(self, job: Job) -> CheckReport:
        domain = self.context.registry.get(self.params.domain)
        problems: list[Problem] = []
        images = volumes = 0
        with storage_errors(self.context, domain.id):
            problems += self._metadata(domain)
            ids = domain.image_ids()
            for done, image in enumerate(ids):
                job.check()
                job.progress("checking", done, len(ids))
                record = domain.image(image)
                if record is None:
                    continue
                problems += check_image(domain, record)
                if not record.published:
                    continue
                images += 1
                volumes += len(record.own)
                if self.params.deep:
                    problems += _deep(self.context, domain, record, job)
            problems += [
                problem("garbage", "nobody published this; collect it", path=garbage.path)
                for garbage in domain.garbage()
            ]
        healthy = not any(found.severity == ERROR for found in problems)
        return CheckReport(domain=domain.id, healthy=healthy, images=images, volumes=volumes, problems=problems)

    def _metadata(self, domain: Domain) -> list[Problem]:
        try:
            domain.metadata()
        except (BadMetadata, DomainMissing) as error:
            return [problem("domainMetadata", f"{error}; restore it from a dump", path="dom_md/metadata")]
        return []


def check_image(domain: Domain, record: ImageRecord) -> list[Problem]:
    """Everything about one image that can be seen without reading its data."""
    problems = [
        problem(_kind_of(bad), bad.reason, path=bad.path, image=bad.image, volume=bad.volume) for bad in record.damaged
    ]
    if record.attributes.intent is not None:
        # Between its steps metadata and data contradict each other, and are told apart by who finishes it.
        work = chains.work_of(record.attributes.intent)
        path = f"images/{record.id}"
        return [*problems, problem("unfinished", f"a {work} has begun", path=path, image=record.id)]
    if record.attributes.making is not None and not record.published:
        return problems
    if chains.arriving(record):
        # Its data is as whole as what has arrived.
        path = f"images/{record.id}"
        return [
            *problems,
            problem(
                "unfinished",
                "its upload has not ended: go on with it, or cancel the transfer",
                path=path,
                image=record.id,
            ),
        ]
    for volume in record.volumes.values():
        problems += _volume(domain, record, volume)
    problems += _chain(record)
    return problems


def _kind_of(bad: Damaged) -> str:
    if bad.volume is None:
        return "attributes"
    return "dataMissing" if bad.reason.startswith("its data") else "volumeMetadata"


def _chain(record: ImageRecord) -> Iterator[Problem]:
    leaves = record.leaves()
    # Of what cannot be read nobody knows what it stands on.
    if len(leaves) != 1 and record.published and not record.damaged:
        names = ", ".join(str(leaf.id) for leaf in leaves) or "none"
        yield problem("leaves", f"newest volumes: {names}; one is right", path=f"images/{record.id}", image=record.id)
    for volume in record.own:
        seen = {volume.id}
        parent = volume.metadata.parent
        while parent is not None and (below := record.volumes.get(VolumeId(parent))) is not None:
            if below.id in seen:
                path = f"images/{record.id}/{volume.id}"
                message = f"stands on itself by way of {parent}"
                yield problem("circle", message, path=path, image=record.id, volume=volume.id)
                break
            seen.add(below.id)
            parent = below.metadata.parent


def _volume(domain: Domain, record: ImageRecord, volume: VolumeRecord) -> Iterator[Problem]:
    path = f"images/{record.id}/{volume.id}"

    def found(kind: str, message: str) -> Problem:
        return problem(kind, message, path=path, image=record.id, volume=volume.id)

    metadata = volume.metadata
    if volume.is_linked:
        if astray := chains.strayed(domain, volume):
            yield found(*astray)
        return
    if metadata.domain != domain.id:
        yield found("identity", f"its metadata names domain {metadata.domain}")
    yield from (found(kind, message) for kind, message in _parent(record, volume))
    yield from (found(kind, message) for kind, message in _data(volume))
    if reason := chains.mismatched(record, volume):
        yield found("encryption", reason)
    if metadata.legality is not Legality.LEGAL:
        yield found("illegal", "it is marked so; a change in place may not have ended")
    derived = record.role(volume)
    if metadata.role is not derived and not record.damaged:
        yield found("role", f"written is {metadata.role.value}, and it is {derived.value}; the next change mends it")
    data = domain.data_path(record.id, volume.id)
    if not os.access(data, os.R_OK | os.W_OK):
        yield found("permissions", "this service may not read and write it")
    if not domain.has_lease(record.id, volume.id):
        yield found("leaseMissing", "it is made when the volume is next used")


def _parent(record: ImageRecord, volume: VolumeRecord) -> Iterator[tuple[str, str]]:
    """What is wrong with what a volume stands on."""
    parent = volume.metadata.parent
    if parent is None:
        return
    below = record.volumes.get(VolumeId(parent))
    if below is None:
        if all(bad.volume != parent for bad in record.damaged):
            yield "parentMissing", f"it stands on {parent}, which is not in this image"
    elif volume.header and (reason := chains.misread(volume, below)):
        yield "backing", reason


def _data(volume: VolumeRecord) -> Iterator[tuple[str, str]]:
    """What the data itself says against the metadata."""
    metadata, header = volume.metadata, volume.header
    if metadata.format is VolumeFormat.RAW:
        if metadata.parent is not None:
            yield "rawParent", f"it is raw, and stands on {metadata.parent}"
        if reason := chains.wrong_size(volume):
            yield "tooShort", f"{reason}: the end is missing"
        return
    if header is None:
        yield "header", volume.damage or "no header"
        return
    if header.data_file:
        yield "dataFile", "its data is said to lie in another file"
    elif reason := chains.contradiction(volume):
        yield "backing", reason
    if reason := chains.wrong_size(volume):
        yield "capacity", reason


def _deep(context: Context, domain: Domain, record: ImageRecord, job: Job) -> Iterator[Problem]:
    """What QEMU's own tool says of the clusters; volumes in use are passed over."""
    if chains.arriving(record):
        return
    for volume in record.own:
        if volume.header is None or chains.contradiction(volume) or chains.mismatched(record, volume):
            continue
        # Where a lease has no place yet it would be made, and a check changes nothing.
        wanted = [Wanted(volume.id, record.id, shared=True)] if domain.has_lease(record.id, volume.id) else []
        try:
            with ExitStack() as leases:
                leases.callback(domain.acquire(wanted).release)
                said = qemu_img(context).check(itself(context, domain, record, volume), stop=job.stop_asked)
        except LeaseBusy:
            continue
        except (NoSuchSecret, KeyRefused) as error:
            kind, said = "secretMissing", str(error)
        except CommandError as error:
            kind, said = "clustersUnknown", str(error)
        else:
            kind = "clusters"
        if said is not None:
            path = f"images/{record.id}/{volume.id}"
            yield problem(kind, said, path=path, image=record.id, volume=volume.id)
