# SPDX-License-Identifier: Apache-2.0
"""Keepers: what is prepared stays prepared, whatever becomes of the service, until somebody tears it down."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hsm.contract.base import eventually, make, new_raw
from hsm.contract.leases import exclusive, is_free, shared
from hsm.domains.base import NewVolume
from hsm.domains.local import LocalDomain
from hsm.keeper import Keeper, KeeperFailed, Keepers
from libvdsm.api.errors import ImageInUse
from libvdsm.api.types import ImageId
from tests import service


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


@pytest.fixture
def keepers(run: Path) -> Iterator[Keepers]:
    made = Keepers(run)
    yield made
    for keeper in made.all():
        made.end(keeper)


@pytest.fixture
def volume(domain: LocalDomain) -> NewVolume:
    return make(domain, new_raw())


def keep(keepers: Keepers, domain: LocalDomain, volume: NewVolume, *, read_only: bool = False) -> Keeper:
    held = domain.acquire(shared(volume) if read_only else exclusive(volume))
    keeper = keepers.start(domain.id, volume.image, volume.volume, held, read_only=read_only)
    held.release()
    return keeper


def command(keeper: Keeper) -> str:
    return Path(f"/proc/{keeper.pid}/cmdline").read_bytes().split(b"\0")[0].decode()


def end_by_force(keeper: Keeper) -> None:
    """As an administrator who does not know better, or the kernel when memory is short."""
    os.kill(keeper.pid, signal.SIGKILL)
    poll = select.poll()
    poll.register(keeper.pidfd, select.POLLIN)
    assert poll.poll(10_000)


def test_a_keeper_holds_the_leases_after_the_service_let_go(
    keepers: Keepers, domain: LocalDomain, volume: NewVolume
) -> None:
    keeper = keep(keepers, domain, volume)
    assert keeper.alive()
    assert not is_free(domain, shared(volume))
    keepers.end(keeper)
    assert not os.path.exists(f"/proc/{keeper.pid}")
    assert is_free(domain, exclusive(volume)), "at once: it was waited for"
    assert keepers.all() == []


def test_a_keeper_for_reading_lets_others_read(keepers: Keepers, domain: LocalDomain, volume: NewVolume) -> None:
    keeper = keep(keepers, domain, volume, read_only=True)
    assert keeper.read_only
    assert is_free(domain, shared(volume))
    assert not is_free(domain, exclusive(volume))


def test_a_keeper_is_its_own_record(keepers: Keepers, domain: LocalDomain, volume: NewVolume, run: Path) -> None:
    keeper = keep(keepers, domain, volume)
    name = f"hsm-keeper {domain.id} {volume.image} {volume.volume} write {keeper.since} {run.resolve()}"
    assert command(keeper) == name, "from the first moment"
    assert keepers.find(domain.id, volume.image) is keeper
    assert keepers.find(domain.id, ImageId(uuid.uuid4())) is None


def open_files(pid: int) -> set[str]:
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.add(os.readlink(entry))
    return found


def test_a_keeper_is_a_session_of_its_own_and_does_next_to_nothing(
    keepers: Keepers, domain: LocalDomain, volume: NewVolume
) -> None:
    keeper = keep(keepers, domain, volume)
    assert os.getsid(keeper.pid) == keeper.pid != os.getsid(0)
    status = Path(f"/proc/{keeper.pid}/status").read_text()
    assert int(status.partition("VmRSS:")[2].split()[0]) < 8 * 1024, "kilobytes"
    # While it starts it reads what every program reads, so files are asked for until those are closed again.
    expected = {"/dev/null", domain.lease_path(volume.image, volume.volume)}
    until = time.monotonic() + 10
    while open_files(keeper.pid) != expected:
        assert time.monotonic() < until, open_files(keeper.pid)
    assert os.readlink(f"/proc/{keeper.pid}/cwd") == "/"


def test_the_next_service_finds_the_keepers_of_the_one_before(keepers: Keepers, domain: LocalDomain, run: Path) -> None:
    volumes = [make(domain, new_raw()) for _ in range(3)]
    kept = [keep(keepers, domain, volume, read_only=number == 1) for number, volume in enumerate(volumes)]
    following = Keepers(run)
    found = following.all()
    assert sorted((k.pid, k.image, k.volume, k.read_only, k.since) for k in found) == sorted(
        (k.pid, k.image, k.volume, k.read_only, k.since) for k in kept
    )
    for keeper in found:
        following.end(keeper)
    assert all(is_free(domain, exclusive(volume)) for volume in volumes)
    assert keepers.all() == []


def test_keepers_of_another_service_are_none_of_ours(
    keepers: Keepers, domain: LocalDomain, volume: NewVolume, tmp_path: Path, run: Path
) -> None:
    keep(keepers, domain, volume)
    (tmp_path / "other").mkdir()
    assert Keepers(tmp_path / "other").all() == []
    linked = tmp_path / "linked"
    linked.symlink_to(run)
    assert len(Keepers(linked).all()) == 1, "the same place by another name"


def test_processes_that_only_look_like_keepers_are_passed_over(run: Path) -> None:

    place = run.resolve()
    ids = [uuid.uuid4() for _ in range(3)]
    names = [
        f"hsm-keeper {place}",
        f"hsm-keeper a b c write 1.0 {place}",
        f"hsm-keeper {ids[0]} {ids[1]} {ids[2]} write never {place}",
        f"hsm-keepers {ids[0]} {ids[1]} {ids[2]} write 1.0 {place}",
    ]
    processes = [subprocess.Popen([name, "600"], executable="/bin/sleep") for name in names]
    try:
        assert Keepers(run).all() == []
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_keeper_that_died_is_noticed_and_its_leases_are_free(
    keepers: Keepers, domain: LocalDomain, volume: NewVolume
) -> None:
    keeper = keep(keepers, domain, volume)
    end_by_force(keeper)
    assert not keeper.alive()
    eventually(lambda: is_free(domain, exclusive(volume)))
    assert keepers.find(domain.id, volume.image) is None
    assert keepers.all() == []
    assert keep(keepers, domain, volume).alive(), "and it can be prepared again"


def test_ending_a_keeper_that_died_is_no_trouble(keepers: Keepers, domain: LocalDomain, volume: NewVolume) -> None:
    keeper = keep(keepers, domain, volume)
    end_by_force(keeper)
    keepers.end(keeper)
    assert keepers.all() == []


def test_a_keeper_that_cannot_be_started_is_told_and_holds_nothing(
    keepers: Keepers, domain: LocalDomain, volume: NewVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keepers, "_sleep", "/no/such/program")
    held = domain.acquire(exclusive(volume))
    with pytest.raises(KeeperFailed, match="No such file"):
        keepers.start(domain.id, volume.image, volume.volume, held, read_only=False)
    held.release()
    assert keepers.all() == []
    assert is_free(domain, exclusive(volume))


def test_what_is_prepared_outlives_the_service_and_is_found_again(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = service.Daemon(home).wait()
    with first.client() as client:
        domain = client.domain.list().items[0].id
        image = client.wait(client.image.create(domain=domain, capacity=2**20))
        prepared = client.image.prepare(domain=domain, image=image.id)
    first.kill()
    assert os.path.exists(f"/proc/{prepared.keeper}")
    with service.daemon(home) as second, second.client() as client:
        assert client.image.get_info(domain=domain, image=image.id).prepared == prepared
        assert client.image.prepare(domain=domain, image=image.id) == prepared
        with pytest.raises(ImageInUse) as caught:
            client.wait(client.image.delete(domain=domain, image=image.id))
        assert f"its keeper, process {prepared.keeper}" in caught.value.holder
        assert caught.value.volume == image.leaf
        client.image.teardown(domain=domain, image=image.id)
        assert client.image.get_info(domain=domain, image=image.id).prepared is None
        client.wait(client.image.delete(domain=domain, image=image.id))


def test_a_keeper_that_died_is_told_as_not_prepared(tmp_path: Path) -> None:
    with service.in_process(tmp_path / "home") as app:
        client = app.client()
        domain = client.domain.list().items[0].id
        image = client.wait(client.image.create(domain=domain, capacity=2**20))
        prepared = client.image.prepare(domain=domain, image=image.id)
        keeper = app.context.keepers.find(domain, image.id)
        assert keeper is not None
        end_by_force(keeper)
        assert client.image.get_info(domain=domain, image=image.id).prepared is None
        again = client.image.prepare(domain=domain, image=image.id)
        assert again.keeper != prepared.keeper
        client.image.teardown(domain=domain, image=image.id)


def test_ending_a_keeper_while_others_look_closes_nobody_s_files(
    keepers: Keepers, domain: LocalDomain, run: Path
) -> None:
    """The descriptor of a keeper is closed once, whoever notices its end first."""
    done = threading.Event()
    failures: list[BaseException] = []

    def look() -> None:
        while not done.is_set():
            try:
                keepers.all()
                os.close(os.open(run, os.O_RDONLY))
            except BaseException as error:  # noqa: BLE001  told below
                failures.append(error)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        keeper = keep(keepers, domain, make(domain, new_raw()))
        keepers.end(keeper)
    done.set()
    for thread in threads:
        thread.join(10)
    assert failures == []
    assert keepers.all() == []
