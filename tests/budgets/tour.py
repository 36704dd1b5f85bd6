# SPDX-License-Identifier: Apache-2.0
"""Every verb, called once in each of its ways, marked with the label that the table of budgets has for it."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from libvdsm.api import VERBS
from libvdsm.api.image_layers import MergeDirection
from libvdsm.api.transfer import Direction
from libvdsm.api.types import (
    Allocation,
    Compat,
    ImageId,
    ImageInfo,
    Legality,
    TagChange,
    TaskInfo,
    TransferId,
    VolumeFormat,
    VolumeId,
)
from libvdsm.client import Client
from tests.budgets.counting import marked
from tests.formats import qemu

T = TypeVar("T")

_MIB = 2**20
_PATIENCE = 60.0


class Tour:
    """Calls of one client on one domain.  What is called without a label only makes ready."""

    def __init__(self, client: Client, home: Path) -> None:
        self.client = client
        self.home = home
        self.domain = client.domain.list().items[0].id
        # What the service does at its start is done when the tour begins.
        for task in client.task.list().items:
            client.wait(task, timeout=_PATIENCE)

    def call(self, label: str, verb: Callable[[], T]) -> T:
        with marked(label):
            result = verb()
        # A call without a mark: what follows is counted no longer.
        self.client.host.ping()
        return result

    def task(self, label: str, verb: Callable[[], TaskInfo[T]]) -> T:
        """The call, and all that follows until its task has ended."""
        return self.call(label, lambda: self.client.wait(verb(), timeout=_PATIENCE))

    def image(self, format_: VolumeFormat = VolumeFormat.QCOW2) -> ImageInfo:
        return self.client.wait(self.client.image.create(domain=self.domain, capacity=_MIB, format=format_))

    def everything(self) -> None:
        self.host()
        self.domains()
        self.images()
        self.data()
        self.volumes()
        self.bitmaps()
        self.tasks()
        self.events()
        self.copies()
        self.layers()
        self.transfers()
        self.space()
        self.audit()

    def host(self) -> None:
        client = self.client
        self.call("Host.ping", client.host.ping)
        self.call("Host.getCapabilities:first", client.host.get_capabilities)
        self.call("Host.getCapabilities", client.host.get_capabilities)
        self.call("Host.getStats", client.host.get_stats)
        self.call("Config.get", client.config.get)
        self.call("Session.open", client.session.open)
        self.call("Session.getInfo", client.session.get_info)

    def domains(self) -> None:
        verbs = self.client.domain
        path = self.home / "domains" / "second"
        path.mkdir()
        made = self.task("Domain.create", lambda: verbs.create(name="second", path=str(path))).id
        self.task("Domain.create:again", lambda: verbs.create(name="second", path=str(path), id=made))
        self.call("Domain.list", verbs.list)
        self.call("Domain.getInfo", lambda: verbs.get_info(domain=made))
        self.task("Domain.setDescription", lambda: verbs.set_description(domain=made, description="other"))
        self.client.wait(self.client.image.create(domain=made, capacity=_MIB))
        self.call("Domain.getStats", lambda: verbs.get_stats(domain=made))
        self.call("Domain.dump", lambda: verbs.dump(domain=made))
        self.task("Domain.check", lambda: verbs.check(domain=made))
        self.task("Domain.check:deep", lambda: verbs.check(domain=made, deep=True))
        self.task("Domain.collectGarbage", lambda: verbs.collect_garbage(domain=made))
        left = path / str(made) / "images" / str(uuid.uuid4())
        left.mkdir()
        (left / f"{uuid.uuid4()}.lease").touch()
        self.task("Domain.collectGarbage:begun", lambda: verbs.collect_garbage(domain=made))
        self.task("Domain.detach", lambda: verbs.detach(domain=made))
        self.task("Domain.attach", lambda: verbs.attach(path=str(path)))
        self.task("Domain.format", lambda: verbs.format(domain=made, force=True))

    def images(self) -> None:
        domain, verbs = self.domain, self.client.image
        image, volume = ImageId(uuid.uuid4()), VolumeId(uuid.uuid4())
        for label in ("Image.create", "Image.create:again"):
            self.task(label, lambda: verbs.create(domain=domain, capacity=_MIB, id=image, volume=volume))
        self.task("Image.create:raw", lambda: verbs.create(domain=domain, capacity=_MIB, format=VolumeFormat.RAW))
        for format_ in (VolumeFormat.RAW, VolumeFormat.QCOW2):
            preallocated = partial(verbs.create, format=format_, allocation=Allocation.PREALLOCATED)
            self.task(f"Image.create:preallocated-{format_.value}", partial(preallocated, domain=domain, capacity=_MIB))
        self.task("Image.snapshot", lambda: verbs.snapshot(domain=domain, image=image, name="before"))
        self.call("Image.list", lambda: verbs.list(domain=domain))
        self.call("Image.getInfo", lambda: verbs.get_info(domain=domain, image=image))
        self.call("Image.prepare", lambda: verbs.prepare(domain=domain, image=image))
        self.call("Image.prepare:again", lambda: verbs.prepare(domain=domain, image=image))
        self.call("Image.teardown", lambda: verbs.teardown(domain=domain, image=image))
        self.call("Image.teardown:again", lambda: verbs.teardown(domain=domain, image=image))
        self.task("Image.delete", lambda: verbs.delete(domain=domain, image=image))
        self.task("Image.delete:again", lambda: verbs.delete(domain=domain, image=image))
        doomed = self.image().id
        self.task("Image.delete:wipe", lambda: verbs.delete(domain=domain, image=doomed, wipe=True))
        group = [self.image().id, self.image().id]
        self.task("Image.snapshotMany", lambda: verbs.snapshot_many(domain=domain, images=group))
        pair = [self.image().id, self.image().id]
        self.task("Image.deleteMany", lambda: verbs.delete_many(domain=domain, images=pair))

    def data(self) -> None:
        """Verbs that move data, or share it."""
        domain, verbs = self.domain, self.client.image
        source, target = self.home / "source.raw", self.home / "target.qcow2"
        source.write_bytes(os.urandom(4096) * 64)
        # Nobody else may write it, so it is read where it lies.
        source.chmod(0o644)
        imported = self.task("Image.import", lambda: verbs.import_(domain=domain, path=str(source))).id
        self.task("Image.export", lambda: verbs.export(domain=domain, image=imported, path=str(target)))
        self.task("Image.makeTemplate:copy", lambda: verbs.make_template(domain=domain, image=imported, name="copy"))
        template = self.task("Image.makeTemplate", lambda: verbs.make_template(domain=domain, image=imported))
        self.task("Image.clone", lambda: verbs.clone(domain=domain, template=template.id))
        self.task("Volume.create:on-template", lambda: self.client.volume.create(domain=domain, parent=template.leaf))

    def bitmaps(self) -> None:
        domain, verbs, image = self.domain, self.client.bitmap, self.image().id
        for label in ("Bitmap.add", "Bitmap.add:again"):
            self.task(label, lambda: verbs.add(domain=domain, image=image, bitmap="backup"))
        self.task("Image.snapshot:bitmap", lambda: self.client.image.snapshot(domain=domain, image=image))
        self.call("Bitmap.list", lambda: verbs.list(domain=domain, image=image))
        self.call("Bitmap.getExtents", lambda: verbs.get_extents(domain=domain, image=image, bitmap="backup"))
        self.task("Bitmap.clear", lambda: verbs.clear(domain=domain, image=image, bitmap="backup"))
        self.task("Bitmap.remove", lambda: verbs.remove(domain=domain, image=image, bitmap="backup"))

    def volumes(self) -> None:
        domain, verbs = self.domain, self.client.volume
        base = self.task("Volume.create", lambda: verbs.create(domain=domain, capacity=_MIB))
        top = self.task("Volume.create:on-leaf", lambda: verbs.create(domain=domain, image=base.image, parent=base.id))
        image, leaf = base.image, top.id
        raw = self.image(VolumeFormat.RAW)
        self.call("Volume.getInfo", lambda: verbs.get_info(domain=domain, image=image, volume=leaf))
        self.call("Volume.list", lambda: verbs.list(domain=domain))
        self.call("Volume.measure", lambda: verbs.measure(domain=domain, image=image, volume=leaf))
        larger = partial(verbs.resize, domain=domain, capacity=2 * _MIB)
        self.task("Volume.resize", lambda: larger(image=image, volume=leaf))
        self.task("Volume.resize:raw", lambda: larger(image=raw.id, volume=raw.leaf))
        whole = partial(self.client.image.resize, domain=domain, image=image, capacity=4 * _MIB)
        self.task("Image.resize", whole)
        self.task("Image.resize:again", whole)
        described = partial(verbs.set_description, domain=domain, image=image, volume=leaf, description="text")
        self.task("Volume.setDescription", described)
        self.task("Volume.setDescription:again", described)
        tagged = partial(self.client.image.set_tags, domain=domain, image=image)
        self.task("Image.setTags", lambda: tagged(tags=["backup", "gold"]))
        self.task("Image.setTags:again", lambda: tagged(tags=["gold"], change=TagChange.ADD))
        self.task("Image.setTags:none", lambda: tagged(tags=[]))
        self.task("Volume.setTags", lambda: verbs.set_tags(domain=domain, image=raw.id, volume=raw.leaf, tags=["x"]))
        illegal = partial(verbs.set_legality, legality=Legality.ILLEGAL)
        self.task("Volume.setLegality", lambda: illegal(domain=domain, image=image, volume=leaf))
        self.task("Volume.delete", lambda: verbs.delete(domain=domain, image=image, volume=leaf))
        self.task("Volume.delete:last", lambda: verbs.delete(domain=domain, image=image, volume=base.id))

    def copies(self) -> None:
        client, domain, verbs = self.client, self.domain, self.client.image
        path = self.home / "domains" / "third"
        path.mkdir()
        other = client.wait(client.domain.create(name="third", path=str(path))).id
        image = client.wait(verbs.snapshot(domain=domain, image=self.image().id))
        ids = [VolumeId(uuid.uuid4()), VolumeId(uuid.uuid4())]
        kept = partial(verbs.copy, domain=domain, image=image.id, id=ImageId(uuid.uuid4()), volumes=ids)
        self.task("Image.copy", kept)
        self.task("Image.copy:again", kept)
        self.task("Image.copy:collapsed", lambda: verbs.copy(domain=domain, image=image.id, collapse=True))
        self.task("Image.checksum", lambda: verbs.checksum(domain=domain, image=image.id))
        self.task("Volume.copy", lambda: client.volume.copy(domain=domain, image=image.id, volume=image.leaf))
        move = partial(verbs.move, domain=domain, image=image.id, to=other)
        self.task("Image.move", move)
        self.task("Image.move:again", move)

    def tasks(self) -> None:
        client = self.client
        image = self.image()
        with (self.home / "domains" / str(self.domain) / "dom_md" / "ids").open("r+b") as lease:
            # The first waits for the domain's lease, which is held here meanwhile, and the second for the first.
            fcntl.flock(lease, fcntl.LOCK_EX)
            first, second = (
                client.volume.set_description(
                    domain=self.domain, image=image.id, volume=image.leaf, description=description
                )
                for description in ("first", "second")
            )
            self.call("Task.stop", lambda: client.task.stop(task=second.id))
        client.wait(first, timeout=_PATIENCE)
        self.call("Task.list", client.task.list)
        self.call("Task.getInfo", lambda: client.task.get_info(task=first.id))
        self.call("Task.wait", lambda: client.task.wait(task=first.id))
        self.call("Task.clear", lambda: client.task.clear(task=second.id))

    def events(self) -> None:
        self.call("Event.poll", self.client.event.poll)
        self.call("Event.subscribe", self.client.event.subscribe)

    def layers(self) -> None:
        domain, verbs = self.domain, self.client.image

        def chain() -> list[VolumeId]:
            made = self.image()
            for _ in range(2):
                made = self.client.wait(verbs.snapshot(domain=domain, image=made.id))
            return [VolumeId(made.id), *(volume.id for volume in made.chain or [])]

        for direction in (MergeDirection.DOWN, MergeDirection.UP):
            image, low, middle, _ = chain()
            merged = partial(
                verbs.merge, domain=domain, image=ImageId(image), base=low, top=middle, direction=direction
            )
            self.task(f"Image.merge:{direction.value}", merged)
            if direction is MergeDirection.UP:
                self.task("Image.merge:again", merged)
        image, low, _, _ = chain()
        self.task("Image.revert", lambda: verbs.revert(domain=domain, image=ImageId(image), volume=low))
        self.task(
            "Image.deleteSnapshot", lambda: verbs.delete_snapshot(domain=domain, image=ImageId(image), volume=low)
        )
        template = self.client.wait(verbs.make_template(domain=domain, image=self.image().id)).id
        for label in ("Image.rebase", "Image.flatten"):
            clone = self.client.wait(verbs.clone(domain=domain, template=template)).id
            if label == "Image.rebase":
                self.task(label, lambda clone=clone: verbs.rebase(domain=domain, image=clone))  # type: ignore[misc]
            else:
                self.task(label, lambda clone=clone: verbs.flatten(domain=domain, image=clone))  # type: ignore[misc]

    def space(self) -> None:
        domain, client = self.domain, self.client
        image = client.wait(client.image.snapshot(domain=domain, image=self.image().id))
        self.task("Image.sparsify", lambda: client.image.sparsify(domain=domain, image=image.id))
        old = self.image()
        path = self.home / "domains" / str(domain) / "images" / str(old.id) / str(old.leaf)
        qemu.create(path, "qcow2", _MIB, "-o", "compat=0.10")
        for label in ("Volume.amend", "Volume.amend:again"):
            self.task(label, lambda: client.volume.amend(domain=domain, volume=old.leaf, compat=Compat.V3))

    def audit(self) -> None:
        listed = self.call("Audit.list", self.client.audit.list)
        # What the verbs synchronised was counted while all of them were recorded.
        assert {record.verb for record in listed.items} == {verb.full for verb in VERBS.values() if verb.changes}

    def transfers(self) -> None:
        verbs, ids = self.client.transfer, {"id": TransferId(uuid.uuid4())}
        # The record is made by the first, and the daemon started for it; this one keeps it running.
        verbs.start(domain=self.domain, direction=Direction.UPLOAD, size=_MIB)
        start = partial(verbs.start, domain=self.domain, direction=Direction.UPLOAD, size=_MIB)
        up = self.call("Transfer.start", partial(start, **ids)).id
        self.call("Transfer.start:again", partial(start, **ids))
        self.call("Transfer.getInfo", lambda: verbs.get_info(transfer=up))
        self.call("Transfer.list", verbs.list)
        self.call("Transfer.checkpoint", lambda: verbs.checkpoint(transfer=up, arrived=_MIB))
        self.call("Transfer.pause", lambda: verbs.pause(transfer=up))
        self.call("Transfer.resume", lambda: verbs.resume(transfer=up))
        self.task("Transfer.finish", lambda: verbs.finish(transfer=up))
        image = verbs.get_info(transfer=up).image
        read = partial(verbs.start, domain=self.domain, direction=Direction.DOWNLOAD, image=image)
        down = self.call("Transfer.start:download", read).id
        self.task("Transfer.finish:download", lambda: verbs.finish(transfer=down))
        doomed = start().id
        self.call("Transfer.cancel", lambda: verbs.cancel(transfer=doomed))
