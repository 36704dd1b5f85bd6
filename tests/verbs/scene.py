# SPDX-License-Identifier: Apache-2.0
"""A service, its default domain, and the files beneath: what most tests of verbs play on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import pytest

from hsm.app import App
from hsm.formats import volume as volume_format
from hsm.formats.volume import VolumeMetadata
from libvdsm.api.types import DomainId, ErrorInfo, ImageId, ImageInfo, TaskInfo, VolumeFormat, VolumeId
from libvdsm.client import Client
from libvdsm.client.client import Transport
from libvdsm.client.framed import LocalTransport
from libvdsm.declare import ApiError, Right, Verb
from libvdsm.server import jsonrpc
from libvdsm.server.caller import Connection

T = TypeVar("T")
MIB, GIB = 2**20, 2**30
NIL = UUID(int=0)

Heard = list[tuple[str, str]]
"""(verb, error) as they came over the wire, also as the end of a task."""


class Listening:
    """A transport that writes down every error that comes over it."""

    def __init__(self, transport: LocalTransport, heard: Heard) -> None:
        self._transport = transport
        self._heard = heard
        self.events = transport.events
        self.close = transport.close

    def call(
        self, verb: Verb, params: dict[str, Any], descriptors: list[int], request: str | None, task: str | None = None
    ) -> Any:
        try:
            result = self._transport.call(verb, params, descriptors, request, task)
        except ApiError as error:
            self._heard.append((verb.full, type(error).__name__))
            raise
        if isinstance(result, TaskInfo) and isinstance(result.error, ErrorInfo):
            self._heard.append((result.verb, result.error.name))
        return result


def client_of(
    app: App, heard: Heard, *, uid: int | None = 0, right: Right = Right.ADMINISTER, wire: str = "local"
) -> Client:
    """A client in this process, as somebody calling over a wire; ``uid`` None: over TCP."""
    connection = Connection(wire, "a test", right, uid, uid, None, carries_descriptors=uid is not None)

    def answer(message: bytes, descriptors: Sequence[int]) -> bytes | None:
        return jsonrpc.answer(app.dispatcher, message, connection, descriptors=descriptors)

    transport: Transport = Listening(LocalTransport(answer), heard)
    return Client(transport)


class Scene:
    """The service, its domain, and short ways to the usual things."""

    def __init__(self, app: App, client: Client, domain: DomainId, heard: Heard, root: Path | None = None) -> None:
        self.app = app
        self.client = client
        self.domain = domain
        self.heard = heard
        self.root = root or Path(app.context.registry.find(domain).path) / str(domain)
        self.images = self.root / "images"

    def wait(self, task: TaskInfo[T]) -> T:
        """A task's result, or its error."""
        return self.client.wait(task, timeout=60)

    # ---- things

    def image(self, capacity: int = GIB, **params: Any) -> ImageInfo:
        return self.wait(self.client.image.create(domain=self.domain, capacity=capacity, **params))

    def raw(self, capacity: int = MIB, **params: Any) -> ImageInfo:
        return self.image(capacity, format=VolumeFormat.RAW, **params)

    def snapshot(self, image: ImageInfo, **params: Any) -> ImageInfo:
        return self.wait(self.client.image.snapshot(domain=self.domain, image=image.id, **params))

    def template(self, capacity: int = GIB, **params: Any) -> ImageInfo:
        made = self.image(capacity, **params)
        return self.wait(self.client.image.make_template(domain=self.domain, image=made.id))

    def clone(self, template: ImageInfo, **params: Any) -> ImageInfo:
        return self.wait(self.client.image.clone(domain=self.domain, template=template.id, **params))

    def look(self, image: ImageInfo | ImageId) -> ImageInfo:
        """The image as it is now."""
        id_ = image if isinstance(image, UUID) else image.id
        return self.client.image.get_info(domain=self.domain, image=id_)

    # ---- files

    def folder(self, image: ImageInfo | ImageId) -> Path:
        return self.images / str(image if isinstance(image, UUID) else image.id)

    def data(self, image: ImageInfo, volume: VolumeId | None = None) -> Path:
        return self.folder(image) / str(volume or image.leaf)

    def meta(self, image: ImageInfo, volume: VolumeId | None = None) -> Path:
        return self.folder(image) / f"{volume or image.leaf}.meta"

    def lease(self, image: ImageInfo, volume: VolumeId | None = None) -> Path:
        return self.folder(image) / f"{volume or image.leaf}.lease"

    def metadata(self, image: ImageInfo, volume: VolumeId | None = None) -> VolumeMetadata:
        """A volume's metadata as it lies on storage."""
        return volume_format.parse(self.meta(image, volume).read_bytes())

    def edit(self, image: ImageInfo, volume: VolumeId | None = None, **fields: str) -> None:
        """Change a volume's metadata in place, as no service would."""
        path = self.meta(image, volume)
        lines = path.read_text().splitlines()
        changed = [f"{key}={fields[key]}" if (key := line.partition("=")[0]) in fields else line for line in lines]
        path.write_text("\n".join(changed) + "\n")

    # ---- others

    def as_caller(self, **caller: Any) -> Client:
        """A client of the same service who is somebody else."""
        return client_of(self.app, self.heard, **caller)


def raised(error: type[ApiError], call: Callable[[], object]) -> Any:
    """The error that a call ends with, to look at its attributes."""
    with pytest.raises(ApiError) as caught:
        call()
    assert type(caught.value) is error, f"{type(caught.value).__name__}: {caught.value}"
    return caught.value
