# SPDX-License-Identifier: Apache-2.0
"""Transfer: what its verbs answer.  That data arrives whatever breaks is shown in ``tests/transfers``."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hsm.operations.base import lock_image
from hsm.transfers.transfers import Live
from libvdsm.api.errors import (
    ChecksumMismatch,
    DamagedImage,
    DomainInUse,
    FormatMismatch,
    ImageExists,
    ImageInUse,
    ImageUnfinished,
    Interrupted,
    NoSuchImage,
    TaskStopped,
    TransferExists,
    UnsafeImage,
    UnsupportedImage,
    VolumeDamaged,
    VolumeExists,
)
from libvdsm.api.transfer import Content, Direction, TransferInfo, TransferState
from libvdsm.api.types import (
    Allocation,
    DomainId,
    ImageId,
    ImageInfo,
    Legality,
    TaskState,
    TransferId,
    VolumeFormat,
    VolumeId,
)
from libvdsm.client.client import to_exception
from libvdsm.declare import Right
from tests.domains.tree import fingerprint
from tests.formats import qemu
from tests.transfers import http
from tests.verbs.conftest import Restart
from tests.verbs.provoked import provokes
from tests.verbs.scene import MIB, Scene, raised

NOBODY = TransferId(uuid.UUID("00000000-0000-4000-8000-00000000dead"))
GONE = DomainId(uuid.UUID("00000000-0000-4000-8000-00000000dead"))


def upload(scene: Scene, size: int = MIB, **params: Any) -> TransferInfo:
    return scene.client.transfer.start(domain=scene.domain, direction=Direction.UPLOAD, size=size, **params)


def download(scene: Scene, image: ImageInfo | ImageId, **params: Any) -> TransferInfo:
    id_ = image if isinstance(image, uuid.UUID) else image.id
    return scene.client.transfer.start(domain=scene.domain, direction=Direction.DOWNLOAD, image=id_, **params)


def finish(scene: Scene, transfer: TransferInfo, **params: Any) -> TransferInfo:
    return scene.wait(scene.client.transfer.finish(transfer=transfer.id, **params))


def look(scene: Scene, transfer: TransferInfo) -> TransferInfo:
    return scene.client.transfer.get_info(transfer=transfer.id)


def live(scene: Scene, transfer: TransferInfo) -> Live:
    found = scene.app.context.transfers.find(transfer.id)
    assert found is not None
    return found


def closed(scene: Scene, transfer: TransferInfo) -> Live:
    """A transfer that is paused, and whose lease was lost in a way that no service knows."""
    scene.client.transfer.pause(transfer=transfer.id)
    found = live(scene, transfer)
    assert found.held is not None
    found.held.release()
    found.held = None
    return found


def servers(scene: Scene, name: str) -> list[int]:
    return [child.pid for child in scene.client.host.get_stats().children if child.name == name]


def data_of(scene: Scene, transfer: TransferInfo) -> Path:
    return scene.folder(transfer.image) / str(transfer.volume)


# ---- what goes well


@pytest.mark.parametrize("allocation", [Allocation.SPARSE, Allocation.PREALLOCATED])
@pytest.mark.parametrize("format_", [VolumeFormat.RAW, VolumeFormat.QCOW2])
def test_what_is_sent_is_what_the_image_shows(scene: Scene, format_: VolumeFormat, allocation: Allocation) -> None:
    transfer = upload(scene, 4 * MIB, name="up", description="d", format=format_, allocation=allocation, note="mine")
    assert (transfer.state, transfer.direction, transfer.content) == (
        TransferState.RUNNING,
        Direction.UPLOAD,
        Content.DATA,
    )
    assert (transfer.size, transfer.arrived, transfer.moved, transfer.note) == (4 * MIB, 0, 0, "mine")
    assert transfer.expires is not None
    assert transfer.expires == pytest.approx(transfer.created + 86400, abs=60)
    http.put(transfer, MIB, b"\x5a" * MIB)
    assert scene.client.transfer.checkpoint(transfer=transfer.id, arrived=2 * MIB).arrived == 2 * MIB
    image = scene.look(transfer.image)
    assert (image.legality, image.pending, image.damage, image.name) == (Legality.ILLEGAL, "upload", None, "up")
    expected = (bytes(MIB) + b"\x5a" * MIB).ljust(4 * MIB, b"\0")
    checksum = http.checksum(expected)
    done = finish(scene, transfer, checksum=checksum)
    assert (done.state, done.checksum, done.url, done.expires) == (TransferState.FINISHED, checksum, None, None)
    image = scene.look(transfer.image)
    assert (image.legality, image.pending, image.damage, image.capacity) == (Legality.LEGAL, None, None, 4 * MIB)
    assert (image.description, image.leaf) == ("d", transfer.volume)
    assert qemu.content(scene.data(image), format_.value) == expected
    if allocation is Allocation.PREALLOCATED:
        assert image.actual_size >= 4 * MIB
    assert not (scene.folder(image) / f"{image.id}.hsm").exists()
    assert scene.client.host.get_stats().children == []
    scene.client.image.prepare(domain=scene.domain, image=image.id)


def test_a_qcow2_file_travels_as_it_is(scene: Scene, tmp_path: Path) -> None:
    source = qemu.create(tmp_path / "source", "qcow2", 8 * MIB, "-o", "cluster_size=4k")
    qemu.write(source, "qcow2", 0x11, MIB, MIB)
    content = source.read_bytes()
    transfer = upload(scene, len(content), content=Content.FILE)
    assert transfer.size == -(-len(content) // 512) * 512
    http.put(transfer, 0, content)
    finish(scene, transfer, checksum=http.checksum(content.ljust(transfer.size, b"\0")))
    image = scene.look(transfer.image)
    assert (image.capacity, image.legality, image.damage) == (8 * MIB, Legality.LEGAL, None)
    assert data_of(scene, transfer).read_bytes()[: len(content)] == content
    assert scene.wait(scene.client.domain.check(domain=scene.domain, deep=True)).problems == []


def test_a_snapshot_s_state_is_downloaded(scene: Scene) -> None:
    image = scene.image(MIB)
    qemu.write(scene.data(image), "qcow2", 0x11, 0, MIB)
    upper = scene.snapshot(image, name="kept")
    qemu.write(scene.data(upper), "qcow2", 0x22, 0, 4096)
    present = download(scene, image)
    kept = download(scene, image, volume=image.leaf)
    assert (present.volume, kept.volume, present.size) == (upper.leaf, image.leaf, MIB)
    assert http.get(present, 0, 8192) == b"\x22" * 4096 + b"\x11" * 4096
    assert http.get(kept, 0, 8192) == b"\x11" * 8192
    assert raised(ImageInUse, lambda: scene.client.image.prepare(domain=scene.domain, image=image.id)).holder == (
        f"transfer {present.id}, download, which can be finished or cancelled"
    )
    for transfer in (present, kept):
        assert finish(scene, transfer).state is TransferState.FINISHED
    scene.client.image.prepare(domain=scene.domain, image=image.id)


def test_transfers_are_listed_the_newest_first(scene: Scene) -> None:
    first, second = upload(scene), upload(scene)
    scene.client.transfer.cancel(transfer=first.id)
    listed = scene.client.transfer.list
    assert [item.id for item in listed().items] == [second.id, first.id]
    assert [item.id for item in listed(state=TransferState.CANCELLED).items] == [first.id]
    assert [item.id for item in listed(domain=scene.domain).items] == [second.id, first.id]
    assert listed(domain=GONE).items == []
    page = listed(limit=1)
    assert [item.id for item in listed(limit=1, start=page.next).items] == [first.id]


def test_transfers_are_chosen_and_sorted(scene: Scene) -> None:
    small, large = upload(scene, MIB, note="web01"), upload(scene, 4 * MIB)
    listed = scene.client.transfer.list
    assert [item.id for item in listed(sort="size").items] == [small.id, large.id]
    assert [item.id for item in listed(filter="size > 1M and state = running").items] == [large.id]
    assert [item.id for item in listed(filter='note ~ "web*" and arrived = 0').items] == [small.id]
    page = listed(limit=1, sort="-size", filter="direction = upload")
    assert [item.id for item in page.items] == [large.id]
    following = listed(limit=1, sort="-size", filter="direction = upload", start=page.next)
    assert ([item.id for item in following.items], following.next) == ([small.id], None)


def test_a_filter_does_not_find_the_key(scene: Scene) -> None:
    transfer = upload(scene)
    query = f'url = "{transfer.url}"'
    assert [item.id for item in scene.client.transfer.list(filter=query).items] == [transfer.id]
    reader = scene.as_caller(uid=12345, right=Right.READ)
    assert reader.transfer.list(filter=query).items == []
    assert reader.transfer.list(filter="url is present or socket is present").items == []


def test_the_key_is_told_only_to_those_who_may_operate(scene: Scene) -> None:
    transfer = upload(scene)
    reader = scene.as_caller(uid=12345, right=Right.READ)
    for told in (reader.transfer.get_info(transfer=transfer.id), reader.transfer.list().items[0]):
        assert (told.id, told.url, told.socket) == (transfer.id, None, None)
        key = (transfer.url or "").rpartition("/")[2]
        assert key
        assert key not in repr(told)
    assert look(scene, transfer).url == transfer.url
    control = Path(scene.app.config.service.run_dir, "imageio", "private")
    assert control.stat().st_mode & 0o777 == 0o700


def test_the_same_start_again_answers_the_same(scene: Scene) -> None:
    ids: dict[str, Any] = {
        "id": TransferId(uuid.uuid4()),
        "image": ImageId(uuid.uuid4()),
        "volume": VolumeId(uuid.uuid4()),
    }
    first = upload(scene, **ids)
    assert upload(scene, **ids) == first
    image = scene.image(MIB)
    again = download(scene, image, id=NOBODY)
    assert download(scene, image, id=NOBODY) == again


@provokes("Transfer.start", "TransferExists", "ImageExists", "VolumeExists")
def test_an_id_that_is_taken(scene: Scene) -> None:
    image, first = scene.image(MIB), upload(scene)
    assert raised(TransferExists, lambda: upload(scene, 2 * MIB, id=first.id)).reason == "its size is 1048576"
    raised(TransferExists, lambda: download(scene, image, id=first.id))
    raised(ImageExists, lambda: upload(scene, image=image.id))
    raised(ImageExists, lambda: upload(scene, image=first.image))
    raised(VolumeExists, lambda: upload(scene, volume=image.leaf))


def test_pausing_and_resuming_twice_is_once(scene: Scene) -> None:
    transfer = upload(scene)
    http.put(transfer, 0, b"x" * 4096)
    for _ in range(2):
        paused = scene.client.transfer.pause(transfer=transfer.id)
        assert (paused.state, paused.url) == (TransferState.PAUSED, None)
        assert servers(scene, "qemu-nbd") == []
        assert http.refuses(transfer)
    for _ in range(2):
        resumed = scene.client.transfer.resume(transfer=transfer.id)
        assert resumed.state is TransferState.RUNNING
    assert resumed.url is not None
    assert resumed.url.rpartition("/")[2] == (transfer.url or "").rpartition("/")[2]
    assert http.get(resumed, 0, 4096) == b"x" * 4096


def test_an_upload_can_be_finished_while_it_is_paused(scene: Scene) -> None:
    transfer = upload(scene, format=VolumeFormat.RAW)
    http.put(transfer, 0, b"x" * MIB)
    scene.client.transfer.pause(transfer=transfer.id)
    finish(scene, transfer, checksum=http.checksum(b"x" * MIB))
    assert data_of(scene, transfer).read_bytes() == b"x" * MIB


def test_what_is_cancelled_is_gone(scene: Scene) -> None:
    before = fingerprint(scene.root)
    events = scene.client.event.poll().next
    transfer = upload(scene)
    http.put(transfer, 0, b"x" * MIB)
    for _ in range(2):
        assert scene.client.transfer.cancel(transfer=transfer.id).state is TransferState.CANCELLED
    assert fingerprint(scene.root) == before
    assert http.refuses(transfer)
    told = [event for event in scene.client.event.poll(after=events).items if event.name == "TransferChanged"]
    assert [event.data["state"] for event in told] == ["starting", "running", "cancelled"]
    assert {event.data["transfer"] for event in told} == {str(transfer.id)}
    raised(NoSuchImage, lambda: scene.look(transfer.image))


def test_no_verb_uses_an_image_that_has_not_arrived_and_it_is_no_garbage(scene: Scene) -> None:
    transfer = upload(scene)
    call = scene.client
    here: dict[str, Any] = {"domain": scene.domain, "image": transfer.image}
    wait = scene.wait
    uses: list[Callable[[], object]] = [
        lambda: call.image.prepare(**here),
        lambda: wait(call.image.delete(**here)),
    ]
    for use in uses:
        assert raised(ImageInUse, use).holder == f"transfer {transfer.id}, upload, which can be finished or cancelled"
    report = wait(call.domain.check(domain=scene.domain, deep=True))
    assert [(problem.kind, problem.image) for problem in report.problems] == [("unfinished", transfer.image)]
    assert wait(call.domain.collect_garbage(domain=scene.domain)).removed == []
    raised(DomainInUse, lambda: wait(call.domain.detach(domain=scene.domain)))
    raised(DomainInUse, lambda: wait(call.domain.format(domain=scene.domain, force=True)))
    closed(scene, transfer)
    volume: dict[str, Any] = {**here, "volume": transfer.volume}
    uses = [
        lambda: call.image.prepare(**here),
        lambda: wait(call.volume.set_legality(**volume, legality=Legality.LEGAL)),
        lambda: wait(call.volume.resize(**volume, capacity=2 * MIB)),
        lambda: wait(call.image.snapshot(**here)),
    ]
    for use in uses:
        assert raised(ImageUnfinished, use).work == "upload"
    assert wait(call.domain.collect_garbage(domain=scene.domain)).removed == []
    raised(VolumeDamaged, lambda: call.volume.measure(domain=scene.domain, volume=transfer.volume))
    wait(call.image.delete(**here))
    raised(NoSuchImage, lambda: scene.look(transfer.image))


# ---- finishing


@provokes("Transfer.finish", "ChecksumMismatch")
def test_data_that_is_not_what_was_sent_is_not_used(scene: Scene) -> None:
    transfer = upload(scene, format=VolumeFormat.RAW)
    http.put(transfer, 0, b"x" * MIB)
    scene.client.transfer.checkpoint(transfer=transfer.id, arrived=MIB)
    wrong = http.checksum(b"y" * MIB)
    error = raised(ChecksumMismatch, lambda: finish(scene, transfer, checksum=wrong))
    assert (error.expected, error.found) == (wrong, http.checksum(b"x" * MIB))
    told = look(scene, transfer)
    assert (told.state, told.arrived, scene.look(transfer.image).legality) == (
        TransferState.PAUSED,
        0,
        Legality.ILLEGAL,
    )
    resumed = scene.client.transfer.resume(transfer=transfer.id)
    http.put(resumed, 0, b"y" * MIB)
    finish(scene, transfer, checksum=wrong)
    raised(ChecksumMismatch, lambda: finish(scene, transfer, checksum=error.found))
    assert data_of(scene, transfer).read_bytes() == b"y" * MIB


@provokes("Transfer.finish", "UnsafeImage", "FormatMismatch", "UnsupportedImage", "DamagedImage", "VolumeDamaged")
def test_a_header_that_cannot_be_trusted_is_not_used(scene: Scene, tmp_path: Path) -> None:
    overlay = qemu.create(tmp_path / "overlay", "qcow2", MIB, "-u", "-b", "/etc/passwd", "-F", "raw").read_bytes()
    outside = qemu.create(tmp_path / "outside", "qcow2", MIB, "-o", f"data_file={tmp_path}/data").read_bytes()
    sound = qemu.create(tmp_path / "sound", "qcow2", MIB).read_bytes()
    data = qemu.create(tmp_path / "data.qcow2", "qcow2", MIB)
    qemu.write(data, "qcow2", 0x11, 0, MIB)
    cut_off = data.read_bytes()[: 512 * 1024]
    odd = sound[:24] + (MIB + 7).to_bytes(8, "big") + sound[32:]
    newer = sound[:72] + (1 << 60).to_bytes(8, "big") + sound[80:]
    cases: list[tuple[bytes, Any]] = [
        (overlay, UnsafeImage),
        (outside, UnsafeImage),
        (bytes(65536), FormatMismatch),
        (newer, UnsupportedImage),
        (sound[:70], DamagedImage),
        (cut_off, DamagedImage),
        (odd, VolumeDamaged),
    ]
    for content, error in cases:
        transfer = upload(scene, len(content), content=Content.FILE)
        http.put(transfer, 0, content)
        raised(error, lambda transfer=transfer: finish(scene, transfer))  # type: ignore[misc]
        assert scene.look(transfer.image).legality is Legality.ILLEGAL
        assert look(scene, transfer).problem
        scene.client.transfer.cancel(transfer=transfer.id)
    raw = upload(scene, 65536, format=VolumeFormat.RAW)
    http.put(raw, 0, sound[:65536].ljust(65536, b"\0"))
    raised(FormatMismatch, lambda: finish(scene, raw))


@provokes("Transfer.finish", "TaskStopped")
def test_finishing_can_be_stopped_before_it_begins(scene: Scene) -> None:
    transfer = upload(scene)
    with scene.app.tasks.hold((lock_image(scene.domain, transfer.image),), 1.0):
        task = scene.client.transfer.finish(transfer=transfer.id)
        assert scene.client.task.stop(task=task.id).state is TaskState.STOPPED
    raised(TaskStopped, lambda: scene.wait(task))
    assert look(scene, transfer).state is TransferState.RUNNING


@provokes("Transfer.finish", "Interrupted")
def test_a_restart_before_it_was_finished(scene: Scene, restart: Restart) -> None:
    transfer = upload(scene)
    with scene.app.tasks.hold((lock_image(scene.domain, transfer.image),), 1.0):
        task = scene.client.transfer.finish(transfer=transfer.id)
        after = restart(scene.domain)
    ended = after.client.task.wait(task=task.id, timeout=10)
    assert ended.error is not None
    assert type(to_exception(ended.error)) is Interrupted
    assert look(after, transfer).state is TransferState.INTERRUPTED
    after.client.transfer.resume(transfer=transfer.id)
    finish(after, transfer)
