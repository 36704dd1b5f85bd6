# SPDX-License-Identifier: Apache-2.0
"""Everything that a transfer needs is killed in the middle of it, and it ends with the right data."""

from __future__ import annotations

import os
import socket
import urllib.error
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from hsm.formats import attributes
from libvdsm.api.errors import ChecksumMismatch, ImageInUse, NoSuchImage, TransferStateWrong
from libvdsm.api.transfer import Content, TransferState
from libvdsm.api.types import ImageId, Legality, TransferId, VolumeFormat, VolumeId
from tests.transfers import http
from tests.transfers.conftest import MIB, World, end

SIZE = 8 * MIB
FORMATS = pytest.mark.parametrize("format_", [VolumeFormat.RAW, VolumeFormat.QCOW2])


@FORMATS
def test_an_upload_goes_on_after_the_service_was_killed(world: World, format_: VolumeFormat) -> None:
    content = os.urandom(SIZE)
    transfer = world.upload(SIZE, format=format_, name="up")
    # Not flushed: what comes after the checkpoint may be lost with the server.
    http.put(transfer, 0, content[: 2 * MIB], flush=False)
    world.client.transfer.checkpoint(transfer=transfer.id, arrived=2 * MIB)
    http.put(transfer, 2 * MIB, content[2 * MIB : 5 * MIB], flush=False)
    world.restart()
    found = world.look(transfer)
    assert (found.state, found.arrived, found.url) == (TransferState.INTERRUPTED, 2 * MIB, None)
    assert http.refuses(transfer)
    assert world.image(transfer).pending == "upload"
    with pytest.raises(TransferStateWrong):
        world.finish(transfer)
    resumed = world.client.transfer.resume(transfer=transfer.id)
    assert resumed.url == transfer.url, "a client that retries finds it where it was"
    http.put(resumed, resumed.arrived, content[resumed.arrived :])
    world.finish(transfer, checksum=http.checksum(content))
    assert world.content(transfer) == content


def test_a_download_goes_on_by_itself_after_the_service_was_killed(world: World) -> None:
    content = os.urandom(SIZE)
    image = _uploaded(world, content)
    transfer = world.download(image)
    assert http.get(transfer, 0, MIB) == content[:MIB]
    world.restart()
    running = world.until(transfer, TransferState.RUNNING)
    assert running.url == transfer.url
    assert http.get(transfer, MIB, SIZE - MIB) == content[MIB:]
    world.finish(transfer)


@FORMATS
def test_an_upload_whose_nbd_server_was_killed_is_interrupted(world: World, format_: VolumeFormat) -> None:
    content = os.urandom(SIZE)
    transfer = world.upload(SIZE, format=format_)
    http.put(transfer, 0, content[: 3 * MIB], flush=False)
    world.client.transfer.checkpoint(transfer=transfer.id, arrived=MIB)
    (pid,) = world.children("qemu-nbd")
    end(pid)
    found = world.until(transfer, TransferState.INTERRUPTED)
    assert (found.arrived, "qemu-nbd" in (found.problem or "")) == (MIB, True)
    assert http.refuses(transfer)
    assert world.children("qemu-nbd") == []
    resumed = world.client.transfer.resume(transfer=transfer.id)
    assert resumed.problem is None
    http.put(resumed, MIB, content[MIB:])
    world.finish(transfer, checksum=http.checksum(content))
    assert world.content(transfer) == content


def test_a_download_whose_nbd_server_was_killed_goes_on_by_itself(world: World) -> None:
    content = os.urandom(SIZE)
    transfer = world.download(_uploaded(world, content))
    (pid,) = world.children("qemu-nbd")
    after = world.client.event.poll().next
    end(pid)
    told: list[str] = []
    while told[-1:] != ["running"]:
        page = world.client.event.poll(after=after, timeout=30)
        assert page.items, f"it does not go on: {told}"
        after = page.next
        told += [event.data["state"] for event in page.items if event.name == "TransferChanged"]
    assert told == ["interrupted", "running"]
    assert http.get(transfer, 0, SIZE) == content


def test_a_killed_daemon_is_started_again_and_nothing_is_lost(world: World) -> None:
    content = os.urandom(SIZE)
    first, second = world.upload(SIZE), world.upload(SIZE)
    for transfer in (first, second):
        http.put(transfer, 0, content[:MIB], flush=False)
    (pid,) = world.children("ovirt-imageio")
    end(pid)
    # A checkpoint needs it, and so sees to it.
    for transfer in (first, second):
        assert world.client.transfer.checkpoint(transfer=transfer.id, arrived=MIB).arrived == MIB
        assert world.look(transfer).url == transfer.url
        http.put(transfer, MIB, content[MIB:])
        world.finish(transfer, checksum=http.checksum(content))
    assert world.content(first) == world.content(second) == content
    assert world.children("ovirt-imageio") == []


def test_a_connection_that_is_cut_changes_nothing_that_was_not_answered(world: World) -> None:
    content = os.urandom(SIZE)
    transfer = world.upload(SIZE, format=VolumeFormat.RAW)
    parts = urlsplit(transfer.url or "")
    with socket.create_connection((parts.hostname or "", parts.port)) as cut:
        head = f"PUT {parts.path} HTTP/1.1\r\nHost: x\r\nContent-Length: {SIZE}\r\n\r\n"
        cut.sendall(head.encode() + content[: 3 * MIB])
        # What stalls holds up nobody who wants to end it.
        world.client.transfer.pause(transfer=transfer.id)
    resumed = world.client.transfer.resume(transfer=transfer.id)
    assert resumed.arrived == 0
    http.put(resumed, 0, content)
    world.finish(transfer, checksum=http.checksum(content))
    assert world.content(transfer) == content


def test_a_late_writer_cannot_change_what_was_checked(world: World) -> None:
    content = bytes(SIZE)
    transfer = world.upload(SIZE, format=VolumeFormat.RAW)
    parts = urlsplit(transfer.url or "")
    with socket.create_connection((parts.hostname or "", parts.port)) as late:
        head = f"PUT {parts.path} HTTP/1.1\r\nHost: x\r\nContent-Length: {2 * MIB}\r\n\r\n"
        late.sendall(head.encode() + b"x" * 4096)
        world.finish(transfer, checksum=http.checksum(content))
        try:
            late.sendall(b"x" * (2 * MIB - 4096))
            late.recv(100)
        except OSError:
            pass
    assert world.content(transfer) == content


def test_lost_data_is_noticed_by_the_checksum(world: World) -> None:
    content = os.urandom(SIZE)
    transfer = world.upload(SIZE)
    http.put(transfer, MIB, content[MIB:])
    with pytest.raises(ChecksumMismatch):
        world.finish(transfer, checksum=http.checksum(content))
    assert world.image(transfer).legality is Legality.ILLEGAL
    resumed = world.client.transfer.resume(transfer=transfer.id)
    http.put(resumed, 0, content[:MIB])
    world.finish(transfer, checksum=http.checksum(content))
    assert world.content(transfer) == content


def test_a_start_that_was_not_answered_is_asked_again(world: World) -> None:
    ids = {"id": TransferId(uuid.uuid4()), "image": ImageId(uuid.uuid4()), "volume": VolumeId(uuid.uuid4())}
    first = world.upload(SIZE, **ids)
    world.restart()
    again = world.upload(SIZE, **ids)
    assert (again.id, again.image, again.state) == (first.id, first.image, TransferState.INTERRUPTED)
    assert world.client.transfer.resume(transfer=first.id).url == first.url


def test_a_start_whose_transfer_was_forgotten_begins_anew(world: World) -> None:
    ids = {"image": ImageId(uuid.uuid4()), "volume": VolumeId(uuid.uuid4())}
    lost = world.upload(SIZE, **ids)
    with pytest.raises(ImageInUse):
        world.upload(SIZE, **ids)
    world.kill()
    for file in (world.home / "state").glob("transfers.db*"):
        file.unlink()
    world.serve()
    again = world.upload(SIZE, **ids)
    assert (again.image, again.id != lost.id) == (lost.image, True)
    http.put(again, 0, b"x" * SIZE)
    world.finish(again)
    assert world.content(again) == b"x" * SIZE


def test_a_paused_upload_stays_paused_and_leased_over_a_restart(world: World) -> None:
    transfer = world.upload(SIZE, format=VolumeFormat.RAW)
    content = os.urandom(SIZE)
    http.put(transfer, 0, content)
    world.client.transfer.pause(transfer=transfer.id)
    world.restart()
    assert world.look(transfer).state is TransferState.PAUSED
    world.finish(transfer, checksum=http.checksum(content))
    assert world.content(transfer) == content


def test_what_nobody_touches_is_paused_and_then_given_up(hasty: World) -> None:
    before = hasty.files()
    transfer = hasty.upload(SIZE)
    http.put(transfer, 0, b"x" * MIB)
    hasty.until(transfer, TransferState.PAUSED)
    assert hasty.image(transfer).pending == "upload"
    assert hasty.children("qemu-nbd") == hasty.children("ovirt-imageio") == []
    hasty.until(transfer, TransferState.EXPIRED)
    assert hasty.files() == before
    with pytest.raises(NoSuchImage):
        hasty.image(transfer)


def test_an_expired_upload_that_no_service_remembers_is_garbage_and_before_it_is_none(world: World) -> None:
    transfer = world.upload(SIZE)
    world.kill()
    for file in (world.home / "state").glob("transfers.db*"):
        file.unlink()
    world.serve()
    assert world.client.transfer.list().items == []

    def collected() -> list[str]:
        report = world.client.wait(world.client.domain.collect_garbage(domain=world.domain))
        return list(report.removed)

    assert collected() == []
    assert world.image(transfer).pending == "upload"
    path = next((world.home / "domains").rglob(f"{transfer.image}.hsm"))
    kept = attributes.Attributes(volumes={transfer.volume: attributes.VolumeAttributes(expires=1.0)})
    path.write_bytes(attributes.write(kept, transfer.image))
    assert collected() == [f"images/{transfer.image}"]
    assert world.files() == []


def test_a_legal_volume_is_never_given_up_whatever_is_kept_of_it(world: World) -> None:
    transfer = world.upload(SIZE, format=VolumeFormat.RAW)
    http.put(transfer, 0, b"x" * SIZE)
    world.finish(transfer)
    folder = next((world.home / "domains").rglob(str(transfer.image)))
    kept = attributes.Attributes(volumes={transfer.volume: attributes.VolumeAttributes(expires=1.0)})
    (folder / f"{transfer.image}.hsm").write_bytes(attributes.write(kept, transfer.image))
    client, domain = world.client, world.domain
    for legality in (Legality.ILLEGAL, Legality.LEGAL):
        assert client.wait(client.domain.collect_garbage(domain=domain)).removed == []
        assert not (folder / f"{transfer.image}.hsm").exists(), "it means nothing, and goes"
        client.wait(client.volume.set_legality(domain=domain, volume=transfer.volume, legality=legality))
    assert world.content(transfer) == b"x" * SIZE


def test_a_file_that_is_only_half_there_is_opened_by_nobody(world: World) -> None:
    transfer = world.upload(SIZE, content=Content.FILE)
    http.put(transfer, 0, b"QFI\xfb" + b"\xff" * 4096)
    client = world.client
    image = world.image(transfer)
    assert (image.pending, image.damage) == ("upload", None)
    report = client.wait(client.domain.check(domain=world.domain, deep=True))
    assert [problem.kind for problem in report.problems] == ["unfinished"]
    assert report.healthy


def test_a_request_that_is_too_large_is_refused_and_the_rest_goes_on(world: World) -> None:
    transfer = world.upload(MIB, format=VolumeFormat.RAW)
    with pytest.raises(urllib.error.HTTPError):
        http.put(transfer, MIB, b"x" * 512)
    http.put(transfer, 0, b"y" * MIB)
    world.finish(transfer)
    assert world.content(transfer) == b"y" * MIB


def _uploaded(world: World, content: bytes) -> ImageId:
    transfer = world.upload(len(content))
    http.put(transfer, 0, content)
    world.finish(transfer)
    return transfer.image


def test_the_record_is_made_by_the_first_transfer(world: World) -> None:
    record: Path = world.home / "state" / "transfers.db"
    assert not record.exists()
    world.upload(MIB)
    assert record.exists()
