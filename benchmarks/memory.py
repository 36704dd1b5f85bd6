# SPDX-License-Identifier: Apache-2.0
"""How much memory the service takes, and its children."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import programs, volumes
from benchmarks.rounds import Sides
from libvdsm.api.types import DomainId, ImageId, TaskState
from libvdsm.client import Client
from tests import service

_VOLUMES = 2000
_CLIENTS = 8
_LISTING = 2
_IMAGES = 30
_IMPORTED = 256 * 2**20
_MB = 1_000_000
_RUNNING = (TaskState.QUEUED, TaskState.RUNNING)


@contextmanager
def resident(folder: Path) -> Iterator[Sides]:
    """Resident memory of a service that has just started and then done some of everything, in MB."""
    volumes.fill(folder, _VOLUMES)
    source = _source(folder)

    def ours() -> float:
        with programs.serving(folder) as (daemon, client, domain):
            _mixture(daemon, client, domain, source)
            return resident_of(daemon.process.pid)

    yield Sides(ours)


@contextmanager
def children(folder: Path) -> Iterator[Sides]:
    """What Host.getStats tells of the children during an import, beside one prepared image, at its highest, in MB."""
    folder.mkdir()
    source = _source(folder)
    with programs.serving(folder) as (_, client, domain):
        image = client.wait(client.image.create(domain=domain, capacity=volumes.CAPACITY))
        client.image.prepare(domain=domain, image=image.id)

        def ours() -> float:
            highest = 0
            task = client.image.import_(domain=domain, path=str(source))
            while client.task.get_info(task=task.id).state in _RUNNING:
                highest = max(highest, sum(child.memory for child in client.host.get_stats().children))
            client.wait(client.image.delete(domain=domain, image=client.wait(task).id))
            return highest / _MB

        yield Sides(ours)
        client.image.teardown(domain=domain, image=image.id)


def _source(folder: Path) -> Path:
    """A raw file with data in every second MiB, on which an import takes some time."""
    path = folder / "import.raw"
    with path.open("wb") as file:
        for offset in range(0, _IMPORTED, 2 * 2**20):
            file.seek(offset)
            file.write(os.urandom(4096) * 256)
    return path


def _mixture(daemon: service.Daemon, client: Client, domain: DomainId, source: Path) -> None:
    """A day in a few seconds: several clients, an import, images made and unmade, long lists."""
    others = [daemon.client() for _ in range(_CLIENTS)]
    importing = client.image.import_(domain=domain, path=str(source))
    made: list[ImageId] = []
    for number in range(_IMAGES):
        other = others[number % _CLIENTS]
        image = other.wait(other.image.create(domain=domain, capacity=volumes.CAPACITY, name=f"made {number}"))
        other.wait(other.image.snapshot(domain=domain, image=image.id, name="before"))
        made.append(image.id)
    client.image.prepare(domain=domain, image=made[0])
    for other in others[:_LISTING]:
        other.volume.list(domain=domain)
        other.image.list(domain=domain)
    client.domain.get_stats(domain=domain)
    client.domain.dump(domain=domain)
    client.wait(client.domain.check(domain=domain))
    client.host.get_capabilities()
    made.append(client.wait(importing).id)
    client.image.teardown(domain=domain, image=made[0])
    for task in [client.image.delete(domain=domain, image=image) for image in made]:
        client.wait(task)
    for other in others:
        other.close()


def resident_of(pid: int) -> float:
    status = Path("/proc", str(pid), "status").read_text(encoding="ascii", errors="replace")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024 / _MB
