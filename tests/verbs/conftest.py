# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests of verbs, and the proof that they provoke the errors that they claim to."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from hsm.app import App
from hsm.domains.base import NewVolume
from libvdsm.api import VERBS
from libvdsm.api.errors import COMMON, InternalError
from libvdsm.api.types import Allocation, DomainId, ImageId, ImageInfo, VolumeFormat, VolumeId
from libvdsm.client import Client
from tests import service
from tests.formats import qemu
from tests.verbs.scene import MIB, Heard, Scene, client_of

Restart = Callable[..., Scene]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "provokes(verb, *errors): the test shows these errors of the verb")


@pytest.fixture
def heard(request: pytest.FixtureRequest) -> Iterator[Heard]:
    """Every error that comes over the wire.  Afterwards: the claimed ones came, and none that was not declared."""
    errors: Heard = []
    yield errors
    for verb, error in errors:
        declared = {cls.__name__ for cls in (*VERBS[verb].declaration.errors, *COMMON)}
        if VERBS[verb].descriptors:
            declared.add("NotSupported")
        assert error in declared, f"{verb} answered {error}, which it does not declare"
        assert error != InternalError.__name__, f"{verb} answered an internal error"
    claimed = [mark.args for mark in request.node.iter_markers("provokes")]
    missing = [(verb, error) for verb, *names in claimed for error in names if (verb, error) not in errors]
    assert not missing, f"the test claims to provoke {missing}, and does not"


@pytest.fixture
def client(app: App, heard: Heard) -> Client:
    """A client of the service with all rights, and the default domain there."""
    made = client_of(app, heard)
    for task in made.task.list().items:
        made.wait(task, timeout=10)
    return made


@pytest.fixture
def scene(app: App, client: Client, domain: DomainId, heard: Heard) -> Iterator[Scene]:
    yield Scene(app, client, domain, heard)
    for keeper in app.context.keepers.all():
        app.context.keepers.end(keeper)


@pytest.fixture
def restart(tmp_path: Path, app: App, heard: Heard) -> Iterator[Restart]:
    """Ends the service and starts it again, with settings that may differ."""
    with ExitStack() as stack:

        def again(domain: DomainId, **settings: str) -> Scene:
            app.stop()
            running = stack.enter_context(service.in_process(tmp_path / "home", **settings))
            client = client_of(running, heard)
            for task in client.task.list().items:
                client.task.wait(task=task.id, timeout=10)
            root = Path(running.config.service.default_domain) / str(domain)
            return Scene(running, client, domain, heard, root)

        yield again


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A folder where nobody waits for a disk, for tests of many cases that are not about the disk."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="hsm-test-", dir=place))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def common_place() -> Iterator[Path]:
    """A folder that every user of this machine can reach; pytest's own only its user."""
    folder = Path(tempfile.mkdtemp(prefix="hsm-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def holder() -> Callable[[Path], AbstractContextManager[None]]:
    """Holds a lease file exclusively, as another service of this host would."""

    @contextmanager
    def hold(lease: Path) -> Iterator[None]:
        with lease.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    return hold


@pytest.fixture
def maker(scene: Scene) -> Callable[[ImageId, VolumeId], AbstractContextManager[None]]:
    """Makes a volume and does not come to its end, as another service of this host would."""

    @contextmanager
    def make(image: ImageId, volume: VolumeId) -> Iterator[None]:
        opened = scene.app.context.registry.get(scene.domain)
        new = NewVolume(image, volume, 2**20, VolumeFormat.RAW, Allocation.SPARSE, first=True)
        with opened.lease(1.0):
            held = opened.begin_volume(new)
        yield
        held.release()

    return make


@pytest.fixture
def other(scene: Scene, tmp_path: Path) -> DomainId:
    """Another domain."""
    (tmp_path / "other").mkdir()
    return scene.wait(scene.client.domain.create(name="other", path=str(tmp_path / "other"))).id


@pytest.fixture
def chain(scene: Scene) -> ImageInfo:
    """4 MiB in three volumes, the base raw: each has a MiB of its own, and the newest hides half of the first."""
    image = scene.raw(4 * MIB, name="web01", description="the shop")
    qemu.write(scene.data(image), "raw", 0x11, 0, MIB)
    image = scene.snapshot(image, name="first")
    qemu.write(scene.data(image), "qcow2", 0x22, MIB, MIB)
    image = scene.snapshot(image, name="second")
    qemu.write(scene.data(image), "qcow2", 0x33, 2 * MIB, MIB)
    qemu.write(scene.data(image), "qcow2", 0x44, 0, MIB // 2)
    return scene.look(image)
