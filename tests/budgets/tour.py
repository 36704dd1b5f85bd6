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

from libvdsm.api.transfer import Direction
from libvdsm.api.types import (
    Allocation,
    ImageId,
    ImageInfo,
    Legality,
    TaskInfo,
    TransferId,
    VolumeFormat,
    VolumeId,
)
from libvdsm.client import Client
from tests.budgets.counting import marked

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
        self.tasks()
        self.events()
        self.transfers()

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
        described = partial(verbs.set_description, domain=domain, image=image, volume=leaf, description="text")
        self.task("Volume.setDescription", described)
        self.task("Volume.setDescription:again", described)
        illegal = partial(verbs.set_legality, legality=Legality.ILLEGAL)
        self.task("Volume.setLegality", lambda: illegal(domain=domain, image=image, volume=leaf))
        self.task("Volume.delete", lambda: verbs.delete(domain=domain, image=image, volume=leaf))
        self.task("Volume.delete:last", lambda: verbs.delete(domain=domain, image=image, volume=base.id))

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
