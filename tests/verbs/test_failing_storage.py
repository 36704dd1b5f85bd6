# SPDX-License-Identifier: Apache-2.0
"""What every verb answers when its domain is gone, broken, full, busy or not to be written, and when it is stopped."""

from __future__ import annotations

import errno
import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hsm.domains import durable
from hsm.formats import domain as domain_format
from hsm.operations.base import lock_domain
from hsm.tasks.locks import Lock
from libvdsm.api import VERBS
from libvdsm.api.errors import (
    DomainBusy,
    DomainDamaged,
    DomainReadOnly,
    Interrupted,
    NoSpace,
    NoSuchDomain,
    StorageFailed,
    TaskStopped,
)
from libvdsm.api.types import DomainId, TaskInfo, TaskState
from libvdsm.client.client import to_exception
from tests.domains.tree import fingerprint
from tests.verbs.conftest import Restart
from tests.verbs.provoked import provokes
from tests.verbs.samples import Samples, declaring
from tests.verbs.scene import MIB, Scene, raised

UNKNOWN = DomainId(uuid.UUID("00000000-0000-4000-8000-00000000dead"))


def each(error: str, *, without: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    """A case for each verb that declares an error, with the claim that it shows it."""
    verbs = declaring(error, without=without)
    return pytest.mark.parametrize("verb", [pytest.param(verb, marks=provokes(verb, error)) for verb in verbs])


@pytest.fixture
def tmp_path(in_memory: Path) -> Path:
    return in_memory


@pytest.fixture
def samples(scene: Scene, tmp_path: Path) -> Samples:
    return Samples(scene, tmp_path)


SAMPLED = [verb for verb in VERBS if verb.partition(".")[0] in ("Domain", "Image", "Volume", "Bitmap")]


@pytest.mark.parametrize("verb", SAMPLED)
def test_the_samples_succeed(samples: Samples, verb: str) -> None:
    samples.call(verb)


@each("NoSuchDomain", without=("Domain.attach",))
def test_a_domain_that_is_not_attached(samples: Samples, verb: str) -> None:
    assert raised(NoSuchDomain, lambda: samples.call(verb, domain=UNKNOWN)).domain == UNKNOWN


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, number: int, below: str) -> Iterator[None]:
    """Every change of a folder, and every look into one, fails below a path, as on a broken storage."""

    def fail(real: Any) -> Any:
        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            if str(path).startswith(below):
                raise OSError(number, os.strerror(number), str(path))
            return real(path, *args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in ("rename", "listdir", "mkdir", "scandir"):
            patch.setattr(os, name, fail(getattr(os, name)))
        patch.setattr(durable, "write_new", fail(durable.write_new))
        yield


def path_of(samples: Samples, verb: str) -> str:
    """The folder whose failure concerns a verb."""
    if verb == "Domain.create":
        return str(samples.empty)
    if verb in ("Domain.detach", "Domain.attach"):
        return str(samples.scene.root.parent.parent / "state" / "domains.json")
    return str(samples.scene.root)


@each("StorageFailed", without=("Domain.attach", "Image.teardown"))
def test_a_storage_that_fails(samples: Samples, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with failing(monkeypatch, errno.EIO, path_of(samples, verb)):
        error = raised(StorageFailed, lambda: samples.call(verb))
    assert "Input/output error" in error.reason


@each("NoSpace", without=("Domain.attach", "Domain.check"))
def test_a_storage_that_is_full(samples: Samples, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(samples.scene.root)
    for number in (errno.ENOSPC, errno.EDQUOT):
        with failing(monkeypatch, number, path_of(samples, verb)):
            error = raised(NoSpace, lambda: samples.call(verb))
        assert os.strerror(number) in error.reason
    assert fingerprint(samples.scene.root) == before


@provokes("Domain.attach", "StorageFailed", "NoSpace")
def test_an_attachment_that_cannot_be_remembered(samples: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    samples.call("Domain.detach")
    for number, error in ((errno.EIO, StorageFailed), (errno.ENOSPC, NoSpace)):
        with failing(monkeypatch, number, path_of(samples, "Domain.attach")):
            raised(error, lambda: samples.call("Domain.attach"))
        raised(NoSuchDomain, lambda: samples.call("Domain.getInfo"))
    assert samples.call("Domain.attach").id == samples.scene.domain


@provokes("Image.create", "NoSpace")
@provokes("Image.import", "NoSpace")
@provokes("Volume.resize", "NoSpace")
@provokes("Image.resize", "NoSpace")
def test_a_file_system_that_is_really_full(scene: Scene, tmp_path: Path, small: Any) -> None:
    with small(tmp_path / "small", 40 * MIB) as folder:
        domain = scene.wait(scene.client.domain.create(name="small", path=str(folder))).id
        create = scene.client.image.create
        taken: dict[str, Any] = {"domain": domain, "format": "raw", "allocation": "preallocated"}
        first = scene.wait(create(**taken, capacity=MIB))
        before = fingerprint(folder)
        source = tmp_path / "source"
        source.write_bytes(os.urandom(MIB) * 48)
        raised(NoSpace, lambda: scene.wait(create(**taken, capacity=64 * MIB)))
        raised(NoSpace, lambda: scene.wait(create(**{**taken, "format": "qcow2"}, capacity=64 * MIB)))
        raised(NoSpace, lambda: scene.wait(scene.client.image.import_(domain=domain, path=str(source))))
        assert fingerprint(folder) == before, "what was begun is given back"
        resize = scene.client.volume.resize
        raised(NoSpace, lambda: scene.wait(resize(domain=domain, volume=first.leaf, capacity=64 * MIB)))
        grow = scene.client.image.resize
        raised(NoSpace, lambda: scene.wait(grow(domain=domain, image=first.id, capacity=64 * MIB)))
        assert scene.client.image.get_info(domain=domain, image=first.id).capacity == MIB
        assert scene.wait(resize(domain=domain, volume=first.leaf, capacity=2 * MIB)).capacity == 2 * MIB
        scene.wait(scene.client.domain.detach(domain=domain))


# What changes nothing on the domain never waits for others who change it.
CHANGE_NOTHING = ("Domain.attach", "Domain.detach", "Domain.check", "Image.export")


@each("DomainBusy", without=(*CHANGE_NOTHING, "Domain.collectGarbage"))
def test_a_domain_that_somebody_else_changes(samples: Samples, verb: str, restart: Restart) -> None:
    samples.scene = restart(samples.scene.domain, storage__lease_wait="0.1")
    before = fingerprint(samples.scene.images)
    with (samples.scene.root / "dom_md" / "ids").open("r+b") as ids:
        fcntl.flock(ids, fcntl.LOCK_EX)
        error = raised(DomainBusy, lambda: samples.call(verb))
    assert (error.domain, error.waited) == (samples.scene.domain, 0.1)
    assert f"process {os.getpid()} " in error.holder
    if verb in ("Volume.resize", "Image.resize"):
        samples.call(verb)  # the data has grown already: asking again brings it to its end
    else:
        assert fingerprint(samples.scene.images) == before


@provokes("Domain.collectGarbage", "DomainBusy")
def test_garbage_in_a_domain_that_somebody_else_changes(samples: Samples, restart: Restart) -> None:
    samples.scene = restart(samples.scene.domain, storage__lease_wait="0.1")
    (samples.scene.images / str(uuid.uuid4())).mkdir()
    with (samples.scene.root / "dom_md" / "ids").open("r+b") as ids:
        fcntl.flock(ids, fcntl.LOCK_EX)
        raised(DomainBusy, lambda: samples.call("Domain.collectGarbage"))


@each("DomainReadOnly", without=(*CHANGE_NOTHING, "Domain.collectGarbage"))
def test_a_domain_of_an_older_layout(samples: Samples, verb: str) -> None:
    make_v4(samples.scene.root)
    before = fingerprint(samples.scene.root)
    error = raised(DomainReadOnly, lambda: samples.call(verb))
    assert error.domain == samples.scene.domain
    assert "version 4" in error.reason
    assert fingerprint(samples.scene.root) == before


@provokes("Domain.collectGarbage", "DomainReadOnly")
def test_garbage_in_a_domain_of_an_older_layout(samples: Samples) -> None:
    make_v4(samples.scene.root)
    for name in (f"_remove_me_{uuid.uuid4()}", str(uuid.uuid4())):
        (samples.scene.images / name).mkdir()
        before = fingerprint(samples.scene.root)
        raised(DomainReadOnly, lambda: samples.call("Domain.collectGarbage"))
        assert fingerprint(samples.scene.root) == before


def make_v4(root: Path) -> None:
    path = root / "dom_md" / "metadata"
    fields = dict(domain_format.parse(path.read_bytes()).fields)
    path.write_bytes(domain_format.write(domain_format.DomainMetadata({**fields, "VERSION": "4"})))


@each("DomainDamaged", without=("Domain.attach", "Domain.detach"))
def test_a_domain_whose_metadata_are_damaged(samples: Samples, verb: str, restart: Restart) -> None:
    path = samples.scene.root / "dom_md" / "metadata"
    path.write_bytes(path.read_bytes().replace(b"default", b"edited!"))
    samples.scene = restart(samples.scene.domain)
    before = fingerprint(samples.scene.root)
    error = raised(DomainDamaged, lambda: samples.call(verb))
    assert error.domain == samples.scene.domain
    assert "checksum" in error.reason
    assert fingerprint(samples.scene.root) == before


def hold_back(samples: Samples, verb: str) -> Any:
    """Keeps a verb's task in the queue."""
    params = samples.params(verb)
    lock = Lock(f"path/{params['path']}") if verb in ("Domain.create", "Domain.attach") else None
    return samples.scene.app.tasks.hold((lock or lock_domain(samples.scene.domain, shared=False),), 1.0)


@each("TaskStopped")
def test_a_task_that_is_stopped_before_it_begins(samples: Samples, verb: str) -> None:
    before = fingerprint(samples.scene.root)
    with hold_back(samples, verb):
        task = samples.start(verb)
        stopped = samples.scene.client.task.stop(task=task.id)
        assert stopped.state is TaskState.STOPPED
    raised(TaskStopped, lambda: samples.scene.wait(task))
    assert fingerprint(samples.scene.root) == before


RESUMED = (
    *("Domain.create", "Domain.format", "Volume.resize", "Image.resize", "Image.snapshotMany", "Image.deleteMany"),
    *("Image.merge", "Image.deleteSnapshot", "Image.revert", "Image.flatten", "Image.rebase"),
    *("Bitmap.add", "Bitmap.remove", "Bitmap.clear"),
)
"""What a restart takes up again and finishes, instead of telling that it was interrupted."""


@each("Interrupted", without=(*RESUMED, "Domain.attach", "Domain.setDescription"))
def test_a_task_that_a_restart_finds_undone(samples: Samples, verb: str, restart: Restart) -> None:
    ended = interrupt(samples, verb, restart)
    assert ended.state is TaskState.FAILED
    assert ended.error is not None
    assert type(to_exception(ended.error)) is Interrupted


@pytest.mark.parametrize("verb", RESUMED)
def test_a_task_that_a_restart_takes_up_again(samples: Samples, verb: str, restart: Restart) -> None:
    ended = interrupt(samples, verb, restart)
    assert (ended.state, ended.error) == (TaskState.SUCCEEDED, None)


def interrupt(samples: Samples, verb: str, restart: Restart) -> TaskInfo[Any]:
    before = fingerprint(samples.scene.root)
    with hold_back(samples, verb):
        task: TaskInfo[Any] = samples.start(verb)
        assert fingerprint(samples.scene.root) == before
        after = restart(samples.scene.domain)
    return after.client.task.wait(task=task.id, timeout=10)
