# SPDX-License-Identifier: Apache-2.0
"""``hsmctl image upload`` and ``download``: the same command again goes on, and ends with the right data."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from hsm.transfers.states import ENDED
from hsmctl.transfer import downloading, work
from hsmctl.transfer.patience import Service
from libvdsm.api.transfer import Content, TransferInfo, TransferState
from libvdsm.api.types import TransferId
from libvdsm.client import Client
from tests import service
from tests.ctl.conftest import Ctl, address, process
from tests.formats import qemu

MIB = 2**20
PATIENCE = 30.0


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file with data at both ends, a hole between, and an end that is no whole sector."""
    path = tmp_path / "source.raw"
    with path.open("wb") as file:
        file.write(os.urandom(3 * MIB))
        file.seek(40 * MIB)
        file.write(os.urandom(2 * MIB + 100))
    return path


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.raw"
    with path.open("wb") as file:
        for _ in range(3):
            file.write(os.urandom(64 * MIB))
    return path


def alike(one: Path, other: Path, format_: str = "raw") -> bool:
    argv = ["qemu-img", "compare", "-f", "raw", "-F", format_, str(one), str(other)]
    return subprocess.run(argv, stdout=subprocess.DEVNULL, check=False).returncode == 0


def transfers(client: Client) -> list[TransferInfo]:
    return list(client.transfer.list().items)


def begun(client: Client, name: str | None = None) -> TransferInfo:
    """The newest transfer, once data moves."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found = [item for item in transfers(client) if name in (None, item.name)]
        if found and found[0].moved:
            return found[0]
        time.sleep(0.005)
    raise AssertionError("no data moves")


def moves(*words: str | Path) -> None:
    """A command that runs to its end."""
    with process(*words) as running:
        _, complaint = running.communicate(timeout=PATIENCE * 2)
    assert running.returncode == 0, complaint


@pytest.mark.parametrize("format_", ["raw", "qcow2"])
def test_a_file_goes_up_and_comes_down(ctl: Ctl, source: Path, tmp_path: Path, name: str, format_: str) -> None:
    said = ctl.ok("image", "upload", source, name, "--format", format_, "--description", "mine")
    assert said.startswith(f"Uploaded {name}, 42M, id ")
    image = ctl.json("image", "info", name)
    assert (image["legality"], image["description"], image["capacity"]) == ("legal", "mine", 42 * MIB + 512)
    assert image["actualSize"] < 8 * MIB
    for target, kind in (("out.raw", "raw"), ("out.qcow2", "qcow2")):
        out = tmp_path / target
        said = ctl.ok("image", "download", name, out, "--format", kind)
        assert said.startswith(f"Downloaded {name}: {kind}, ")
        assert out.stat().st_blocks * 512 < 8 * MIB
        padded = source.read_bytes().ljust(42 * MIB + 512, b"\0")
        assert qemu.content(out, kind) == padded
    assert sorted(path.name for path in tmp_path.iterdir() if "part" in path.name) == []
    assert "exists already" in ctl.refused("image", "download", name, tmp_path / "out.raw")
    ctl.ok("image", "download", name, tmp_path / "out.raw", "--format", "raw", "--force")


def test_qcow2_travels_as_it_is_and_a_chain_as_what_a_guest_sees(
    ctl: Ctl, shared_daemon: service.Daemon, source: Path, tmp_path: Path, name: str
) -> None:
    packed = tmp_path / "packed.qcow2"
    subprocess.run(["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", source, packed], check=True)
    overlay = qemu.create(tmp_path / "overlay", "qcow2", 64 * MIB, "-u", "-b", str(packed), "-F", "qcow2")
    qemu.write(overlay, "qcow2", 0x77, 50 * MIB, MIB)
    ctl.ok("image", "upload", packed)
    ctl.ok("image", "upload", overlay, name, "--format", "raw")
    with shared_daemon.client() as client:
        contents = {item.name: item.content for item in transfers(client)}
        assert (contents["packed"], contents[name]) == (Content.FILE, Content.DATA)
    for uploaded, original in (("packed", packed), (name, overlay)):
        out = tmp_path / f"{uploaded}.out"
        ctl.ok("image", "download", uploaded, out, "--format", "raw")
        assert out.read_bytes() == qemu.content(original, "qcow2")


def test_a_snapshot_s_state_comes_down(ctl: Ctl, source: Path, tmp_path: Path, name: str) -> None:
    ctl.ok("image", "upload", source, name)
    ctl.ok("image", "snapshot", name, "kept")
    ctl.ok("image", "download", name, tmp_path / "kept.raw", "--volume", "kept", "--format", "raw")
    assert (tmp_path / "kept.raw").read_bytes()[: 3 * MIB] == source.read_bytes()[: 3 * MIB]


def test_what_is_refused(ctl: Ctl, source: Path, tmp_path: Path, name: str) -> None:
    ctl.ok("image", "create", name, "--size", "1M")
    assert "already" in ctl.refused("image", "upload", source, name)
    assert "No such file" in ctl.refused("image", "upload", tmp_path / "none").replace("no such", "No such")
    assert "folder" in ctl.refused("image", "upload", tmp_path)
    assert "folder" in ctl.refused("image", "download", name, tmp_path)
    assert "there is no image" in ctl.refused("image", "download", "nothing-of-this-name", tmp_path / "x")
    ctl.ok("image", "prepare", name)
    assert "in use" in ctl.refused("image", "download", name, tmp_path / "x")
    assert not (tmp_path / "x.part").exists()


def test_an_upload_goes_on_after_its_client_was_killed(
    ctl: Ctl, shared_daemon: service.Daemon, large: Path, tmp_path: Path, name: str
) -> None:
    words = ("--connect", address(shared_daemon), "image", "upload", large, name)
    with shared_daemon.client() as client:
        for _ in range(2):
            killed = process(*words)
            transfer = begun(client, name)
            killed.send_signal(signal.SIGKILL)
            killed.communicate()
        ctl.ok("image", "upload", large, name)
        mine = [item for item in transfers(client) if item.name == name]
        assert [(item.id, item.state) for item in mine] == [(transfer.id, TransferState.FINISHED)], (
            "it was one transfer"
        )
    ctl.ok("image", "download", name, tmp_path / "out", "--format", "raw")
    assert alike(large, tmp_path / "out")


def test_a_file_that_was_changed_meanwhile_begins_anew(
    ctl: Ctl, shared_daemon: service.Daemon, large: Path, tmp_path: Path, name: str
) -> None:
    killed = process("--connect", address(shared_daemon), "image", "upload", large, name)
    with shared_daemon.client() as client:
        begun(client, name)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    with large.open("r+b") as file:
        file.write(b"other")
    assert "already" in ctl.refused("image", "upload", large, name)
    ctl.ok("image", "upload", large, f"{name}-new")
    ctl.ok("image", "download", f"{name}-new", tmp_path / "out", "--format", "raw")
    assert alike(large, tmp_path / "out")


@pytest.mark.parametrize("format_", ["raw", "qcow2"])
def test_a_download_goes_on_after_its_client_was_killed(
    ctl: Ctl, shared_daemon: service.Daemon, large: Path, tmp_path: Path, name: str, format_: str
) -> None:
    ctl.ok("image", "upload", large, name)
    out = tmp_path / "out"
    words = ("--connect", address(shared_daemon), "image", "download", name, out, "--format", format_)
    with shared_daemon.client() as client:
        before = len(transfers(client))
        for _ in range(2):
            killed = process(*words)
            until = time.monotonic() + PATIENCE
            while len(transfers(client)) == before or not transfers(client)[0].moved:
                assert time.monotonic() < until
                time.sleep(0.005)
            killed.send_signal(signal.SIGKILL)
            killed.communicate()
        assert not out.exists()
        ctl.ok(*map(str, words[2:]))
        assert len(transfers(client)) == before + 1, "it was one transfer"
    assert alike(large, out, format_)
    assert list(tmp_path.glob("out.part*")) == []


@pytest.mark.parametrize("command", ["upload", "download"])
def test_a_running_command_goes_on_when_the_service_is_killed(
    own_daemon: service.Daemon, large: Path, tmp_path: Path, command: str
) -> None:
    where = address(own_daemon)
    out = tmp_path / "out"
    with own_daemon.client() as client:
        if command == "download":
            moves("--connect", where, "image", "upload", large, "big")
        words = (large, "big") if command == "upload" else ("big", out, "--format", "raw")
        running = process("--connect", where, "image", command, *words)
        until = time.monotonic() + PATIENCE
        while not any(item.direction.value == command and item.moved for item in transfers(client)):
            assert time.monotonic() < until
            time.sleep(0.005)
    own_daemon.kill()
    again = service.Daemon(own_daemon.home, "listen.tcp=yes", "listen.http_port=0", "listen.jsonrpc_port=0").wait()
    try:
        said, complaint = running.communicate(timeout=120)
        assert running.returncode == 0, complaint
        assert "going on" in complaint
        assert f"{command.title()}ed big" in said
        if command == "upload":
            moves("--connect", where, "image", "download", "big", out, "--format", "raw")
        assert alike(large, out)
    finally:
        again.stop()


def test_an_upload_that_finds_no_room_says_so_and_can_be_given_up(
    own_daemon: service.Daemon, capsys: pytest.CaptureFixture[str], large: Path, tmp_path: Path, small: Any
) -> None:
    ctl = Ctl(capsys, address(own_daemon))
    with small(tmp_path / "small", 96 * MIB) as folder:
        ctl.ok("domain", "create", "little", folder)
        refused = ctl("image", "upload", large, "big", "--domain", "little")
        assert refused.status == 1
        assert "The domain is full" in refused.err
        assert "unfinished upload" in ctl.ok("image", "list", "--domain", "little")
        ctl.ok("transfer", "cancel", refused.err.split("transfer cancel ")[1].split("`")[0])
        assert "big" not in ctl.ok("image", "list", "--domain", "little")
        ctl.ok("domain", "detach", "little")


def test_a_download_that_is_interrupted_before_anything_is_kept_is_given_up(
    ctl: Ctl, shared_daemon: service.Daemon, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = ctl.json("image", "create", name, "--size", "1M")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(downloading._Part, "begin", interrupt)
    wanted = downloading.Wanted(tmp_path / "out", image["domain"], image["id"], None, "raw")
    found = Service(address(shared_daemon), shared_daemon.client())
    with pytest.raises(KeyboardInterrupt):
        downloading.download(found, wanted)
    with found.client as client:
        last = transfers(client)[0]
        assert (str(last.image), last.state) == (image["id"], TransferState.CANCELLED)
    assert list(tmp_path.iterdir()) == []


def test_two_commands_do_not_move_one_file(ctl: Ctl, shared_daemon: service.Daemon, large: Path, name: str) -> None:
    first = process("--connect", address(shared_daemon), "image", "upload", large, name)
    with shared_daemon.client() as client:
        begun(client, name)
    assert "another program" in ctl.refused("image", "upload", large, name)
    assert first.wait(PATIENCE * 2) == 0
    first.communicate()


def test_a_range_that_failed_is_not_counted_as_moved() -> None:
    ranges = [(0, 100), (1000, 50)]
    moved = work.Work(ranges, 2000)
    assert moved.reached == 0
    first = moved._take()
    second = moved._take()
    assert (first, second, moved._take()) == ((0, 100), (1000, 50), None)
    moved._pending.discard(1000)
    assert moved.reached == 0, "what comes first is still under way"
    moved._pending.discard(0)
    assert moved.reached == 2000
    assert list(work.split([(0, 20 * MIB)])) == [(0, 8 * MIB), (8 * MIB, 8 * MIB), (16 * MIB, 4 * MIB)]


@pytest.mark.parametrize("command", ["upload", "download"])
def test_what_came_before_an_interrupt_is_kept(
    ctl: Ctl, shared_daemon: service.Daemon, large: Path, tmp_path: Path, name: str, command: str
) -> None:
    out = tmp_path / "out"
    if command == "download":
        ctl.ok("image", "upload", large, name)
    words = (large, name) if command == "upload" else (name, out, "--format", "raw")
    with shared_daemon.client() as client:
        known = {item.id for item in transfers(client)}
        interrupted = process("--connect", address(shared_daemon), "image", command, *words)
        until = time.monotonic() + PATIENCE
        while not any((item.moved or 0) > 32 * MIB for item in _moving(client, command, known)):
            assert time.monotonic() < until
            time.sleep(0.005)
        interrupted.send_signal(signal.SIGINT)
        _, complaint = interrupted.communicate(timeout=PATIENCE)
        assert interrupted.returncode == 130
        assert "the same command again goes on" in complaint
        [left] = [item for item in transfers(client) if item.id not in known and item.state not in ENDED]
        assert f"hsmctl transfer cancel {left.id}" in complaint
        if command == "upload":
            assert _moving(client, command, known)[0].arrived > 0
        else:
            assert json.loads((tmp_path / "out.part.json").read_bytes())["done"] > 0
        ctl.ok("image", command, *words)
        assert _moving(client, command, known) == []


def test_a_download_that_begins_anew_holds_its_image_once(
    ctl: Ctl, shared_daemon: service.Daemon, large: Path, tmp_path: Path, name: str
) -> None:
    """What was left cannot be gone on with: it was to be of another format."""
    ctl.ok("image", "upload", large, name)
    out = tmp_path / "out"
    with shared_daemon.client() as client:
        known = {item.id for item in transfers(client)}
        interrupted = process("--connect", address(shared_daemon), "image", "download", name, out, "--format", "raw")
        until = time.monotonic() + PATIENCE
        while not any((item.moved or 0) > 32 * MIB for item in _moving(client, "download", known)):
            assert time.monotonic() < until
            time.sleep(0.005)
        interrupted.send_signal(signal.SIGINT)
        interrupted.communicate(timeout=PATIENCE)
        ctl.ok("image", "download", name, out, "--format", "qcow2")
        assert [item for item in transfers(client) if item.id not in known and item.state not in ENDED] == []
    ctl.ok("image", "delete", name)


@pytest.mark.parametrize("format_", ["vmdk", "vdi", "vhdx", "vpc"])
def test_what_would_be_no_disk_as_it_is_is_not_uploaded(ctl: Ctl, tmp_path: Path, name: str, format_: str) -> None:
    path = qemu.create(tmp_path / "image", format_, "1M")
    complaint = ctl.refused("image", "upload", path, name)
    assert "image import" in complaint
    assert "qemu-img convert" in complaint


def test_an_encrypted_file_is_refused_before_it_is_sent(ctl: Ctl, tmp_path: Path, name: str) -> None:
    secret = ("--object", "secret,id=key,data=secret")
    options = ("-o", "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10")
    path = qemu.create(tmp_path / "image", "qcow2", MIB, *secret, *options)
    assert "decrypt it first" in ctl.refused("image", "upload", path, name)
    assert "no image" in ctl.refused("image", "info", name)


def _moving(client: Client, command: str, known: set[TransferId]) -> list[TransferInfo]:
    """The transfers in a direction that run, without those that were there before."""
    running = client.transfer.list(state=TransferState.RUNNING).items
    return [item for item in running if item.direction.value == command and item.id not in known]
