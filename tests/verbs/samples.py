# SPDX-License-Identifier: Apache-2.0
"""One call of every verb that would succeed, to see how each fails when its surroundings do."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from libvdsm.api import VERBS
from libvdsm.api.types import Compat, DomainId, ImageInfo, Legality, TaskInfo
from libvdsm.client import Client
from tests.formats import qemu
from tests.verbs.scene import MIB, Scene


class Samples:
    """A scene with an image of two volumes, a template, and files to read and write."""

    def __init__(self, scene: Scene, folder: Path) -> None:
        self.scene = scene
        self.base: ImageInfo = scene.image(MIB, name="sample")
        self.image: ImageInfo = scene.snapshot(self.base)
        self.template: ImageInfo = scene.template(MIB)
        self.single: ImageInfo = scene.image(MIB)
        marked = scene.image(MIB)
        scene.wait(scene.client.bitmap.add(domain=scene.domain, image=marked.id, bitmap="sample"))
        self.marked: ImageInfo = scene.snapshot(marked)
        self.old: ImageInfo = scene.image(MIB)
        qemu.create(scene.data(self.old), "qcow2", MIB, "-o", "compat=0.10")
        self.source = folder / "source"
        self.source.write_bytes(b"x" * 4096)
        self.target = folder / "target"
        self.empty = folder / "empty"
        self.empty.mkdir()
        self.secret: Any = None
        """what they are encrypted with, where somebody has them be so"""

    def params(self, verb: str) -> dict[str, Any]:
        """Parameters of a call that changes something, or reads."""
        domain = {"domain": self.scene.domain}
        leaf = {**domain, "volume": self.image.leaf}
        of_image = {**domain, "image": self.image.id}
        of_marked = {**domain, "image": self.marked.id}
        known: dict[str, dict[str, Any]] = {
            "Domain.create": {"name": "new", "path": str(self.empty)},
            "Domain.attach": {"path": str(self.scene.root.parent), "id": self.scene.domain},
            "Domain.setDescription": {**domain, "description": "new"},
            "Domain.format": {**domain, "force": True},
            "Image.create": {**domain, "capacity": MIB},
            "Image.clone": {**domain, "template": self.template.id},
            "Image.makeTemplate": {**domain, "image": self.single.id},
            "Image.list": domain,
            "Image.import": {**domain, "path": str(self.source)},
            "Image.snapshotMany": {**domain, "images": [self.image.id, self.single.id]},
            "Image.deleteMany": {**domain, "images": [self.image.id, self.single.id]},
            "Image.export": {**of_image, "path": str(self.target)},
            "Volume.create": {**domain, "capacity": MIB},
            "Volume.list": domain,
            "Volume.resize": {**leaf, "capacity": 2 * MIB},
            "Image.resize": {**of_image, "capacity": 2 * MIB},
            "Volume.setDescription": {**leaf, "description": "new"},
            "Volume.setLegality": {**leaf, "legality": Legality.ILLEGAL},
            "Image.setTags": {**of_image, "tags": ["new"]},
            "Volume.setTags": {**leaf, "tags": ["new"]},
            "Volume.getInfo": leaf,
            "Volume.measure": leaf,
            "Volume.delete": leaf,
            "Image.merge": {**of_image, "base": self.base.leaf, "top": self.image.leaf},
            "Image.deleteSnapshot": {**of_image, "volume": self.base.leaf},
            "Image.revert": {**of_image, "volume": self.base.leaf},
            "Image.flatten": {**of_image, "discard_snapshots": True},
            "Image.rebase": {**of_image, "template": self.template.id},
            "Volume.copy": leaf,
            "Bitmap.add": {**of_marked, "bitmap": "new"},
            "Bitmap.remove": {**of_marked, "bitmap": "sample"},
            "Bitmap.clear": {**of_marked, "bitmap": "sample"},
            "Bitmap.list": of_marked,
            "Bitmap.getExtents": {**of_marked, "bitmap": "sample"},
            "Volume.amend": {**domain, "volume": self.old.leaf, "compat": Compat.V3},
            "Transfer.finish": {"transfer": uuid.uuid4()},
        }
        if verb in known:
            return known[verb]
        if verb == "Image.move":
            return {**of_image, "to": self.elsewhere()}
        takes = {parameter.name for parameter in VERBS[verb].parameters}
        return {name: value for name, value in of_image.items() if name in takes}

    def elsewhere(self) -> DomainId:
        """Another domain."""
        path = str(self.empty)
        for info in self.scene.client.domain.list().items:
            if info.path == path:
                return info.id
        return self.scene.wait(self.scene.client.domain.create(name="elsewhere", path=path)).id

    def start(self, verb: str, client: Client | None = None, **changed: Any) -> Any:
        """Make the call: its answer, which of a verb that changes something is a task."""
        record = VERBS[verb]
        method = getattr(getattr(client or self.scene.client, record.cls.lower()), record.method)
        return method(**{**self.params(verb), **changed})

    def call(self, verb: str, **changed: Any) -> Any:
        """Make the call, and wait for the end of its task."""
        answer = self.start(verb, **changed)
        return self.scene.wait(answer) if isinstance(answer, TaskInfo) else answer


def declaring(error: str, *, without: tuple[str, ...] = ()) -> list[str]:
    """The verbs that declare an error; those of transfers and secrets, most of which name no domain, have tests of their own."""
    return [
        verb.full
        for verb in VERBS.values()
        if verb.full not in without
        and verb.cls not in ("Transfer", "Secret")
        and any(cls.__name__ == error for cls in verb.declaration.errors)
    ]


Build = Callable[[], Samples]
