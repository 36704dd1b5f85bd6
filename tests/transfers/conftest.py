# SPDX-License-Identifier: Apache-2.0
"""Transfers with a service that is a program, so that everything can be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from libvdsm.api.transfer import Direction, TransferInfo, TransferState
from libvdsm.api.types import DomainId, ImageId, ImageInfo, Legality
from libvdsm.client import Client
from tests import service
from tests.formats import qemu

MIB = 2**20
_PATIENCE = 30.0


@dataclass
class World:
    """A home, and whichever service serves it now."""

    home: Path
    settings: tuple[str, ...]
    daemon: service.Daemon
    client: Client
    domain: DomainId

    def kill(self) -> None:
        """The service, as a power cut of the process."""
        self.client.close()
        self.daemon.kill()

    def serve(self) -> None:
        self.daemon = service.Daemon(self.home, *self.settings).wait()
        self.client = self.daemon.client()

    def restart(self) -> None:
        self.kill()
        self.serve()

    def upload(self, size: int, **params: Any) -> TransferInfo:
        return self.client.transfer.start(domain=self.domain, direction=Direction.UPLOAD, size=size, **params)

    def download(self, image: ImageId, **params: Any) -> TransferInfo:
        return self.client.transfer.start(domain=self.domain, direction=Direction.DOWNLOAD, image=image, **params)

    def finish(self, transfer: TransferInfo, **params: Any) -> TransferInfo:
        return self.client.wait(self.client.transfer.finish(transfer=transfer.id, **params), timeout=60)

    def look(self, transfer: TransferInfo) -> TransferInfo:
        return self.client.transfer.get_info(transfer=transfer.id)

    def until(self, transfer: TransferInfo, state: TransferState) -> TransferInfo:
        """The transfer once it is in a state; each change of it is an event."""
        until = time.monotonic() + _PATIENCE
        after = self.client.event.poll().next
        while (found := self.look(transfer)).state is not state:
            assert time.monotonic() < until, f"it stays {found.state.value}: {found.problem}"
            after = self.client.event.poll(after=after, timeout=1).next
        return found

    def children(self, name: str) -> list[int]:
        return [child.pid for child in self.client.host.get_stats().children if child.name == name]

    def image(self, transfer: TransferInfo) -> ImageInfo:
        return self.client.image.get_info(domain=self.domain, image=transfer.image)

    def content(self, transfer: TransferInfo) -> bytes:
        """What a guest sees of an upload that was finished, which is whole and sound."""
        image = self.image(transfer)
        assert (image.legality, image.pending, image.damage) == (Legality.LEGAL, None, None)
        report = self.client.wait(self.client.domain.check(domain=self.domain, deep=True))
        assert report.problems == []
        path = self.home / "domains" / str(self.domain) / "images" / str(image.id) / str(image.leaf)
        return qemu.content(path, transfer.format.value)

    def files(self) -> list[str]:
        root = self.home / "domains" / str(self.domain) / "images"
        return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield from _world(tmp_path / "home")


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[World]:
    """Transfers that nobody touches are paused, and given up, within seconds."""
    yield from _world(tmp_path / "home", "transfer.inactivity=1", "transfer.expiry=3")


def _world(home: Path, *settings: str) -> Iterator[World]:
    daemon = service.Daemon(home, *settings).wait()
    client = daemon.client()
    for task in client.task.list().items:
        client.wait(task, timeout=10)
    made = World(home, settings, daemon, client, client.domain.list().items[0].id)
    try:
        yield made
    finally:
        made.client.close()
        made.daemon.stop()
        service.end_keepers(home)


@pytest.fixture
def source(tmp_path: Path) -> Callable[..., Path]:
    """A file with data at both ends and in the middle, and holes between."""

    def make(size: int = 96 * MIB, name: str = "source.raw") -> Path:
        path = tmp_path / name
        with path.open("wb") as file:
            for offset in (0, size // 2, size - MIB - 512):
                file.seek(offset)
                file.write(os.urandom(MIB + 512))
        assert path.stat().st_size == size
        return path

    return make


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def alike(one: Path, other: Path) -> bool:
    return subprocess.run(["cmp", str(one), str(other)], check=False).returncode == 0
