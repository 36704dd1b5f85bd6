# SPDX-License-Identifier: Apache-2.0
"""Hostile files that are uploaded as they are: refused at the end, and read by nobody before."""

from __future__ import annotations

from pathlib import Path

import pytest

from libvdsm.api.errors import DamagedImage, FormatMismatch, UnsafeImage, UnsupportedImage
from libvdsm.api.transfer import Content, TransferState
from libvdsm.api.types import Legality, VolumeFormat
from libvdsm.declare import ApiError
from tests.tools.hostile import CORPUS, Hostile
from tests.tools.images import CANARY, Lab
from tests.transfers import http
from tests.transfers.conftest import World

REFUSALS = (UnsafeImage, FormatMismatch, UnsupportedImage, DamagedImage)
_MOST = 4 * 2**20


def _handful() -> list[Hostile]:
    """Of each format and kind the first, and of qcow2, which is what is taken, all that lead to other files."""
    chosen: dict[tuple[str, str], Hostile] = {}
    for entry in CORPUS:
        chosen.setdefault((entry.format, entry.kind.value), entry)
    leading = [entry for entry in CORPUS if entry.format == "qcow2" and "file" in entry.kind.value]
    return list(dict.fromkeys([*chosen.values(), *leading]))


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    (tmp_path / "lab").mkdir()
    return Lab(tmp_path / "lab")


def test_hostile_files_never_become_images(world: World, lab: Lab) -> None:
    # It keeps the daemon running meanwhile, which is quicker.
    world.upload(2**20)
    tried = 0
    for entry in _handful():
        content = bytes(entry.build(lab))
        if not 0 < len(content) <= _MOST:
            continue
        tried += 1
        transfer = world.upload(len(content), content=Content.FILE)
        http.put(transfer, 0, content)
        assert CANARY not in http.get(transfer, 0, min(len(content), 65536)).replace(content, b""), entry.name
        with pytest.raises(ApiError) as refused:
            world.finish(transfer, checksum=http.checksum(content.ljust(transfer.size, b"\0")))
        assert isinstance(refused.value, REFUSALS), f"{entry.name}: {refused.value}"
        assert world.look(transfer).state is TransferState.PAUSED
        assert world.image(transfer).legality is Legality.ILLEGAL
        world.client.transfer.cancel(transfer=transfer.id)
    assert tried > 20
    assert len(world.files()) == 5, "all of them were given back"


def test_a_guest_s_data_that_looks_like_an_image_is_no_raw_image(world: World, lab: Lab) -> None:
    entry = next(entry for entry in CORPUS if entry.format == "qcow2" and entry.kind.value == "backing-file")
    content = bytes(entry.build(lab))
    content = content.ljust(-(-len(content) // 512) * 512, b"\0")
    transfer = world.upload(len(content), format=VolumeFormat.RAW)
    http.put(transfer, 0, content)
    with pytest.raises(FormatMismatch):
        world.finish(transfer)
    # In a qcow2 volume it is a guest's data like any other.
    inside = world.upload(len(content))
    http.put(inside, 0, content)
    world.finish(inside, checksum=http.checksum(content))
    world.client.transfer.cancel(transfer=transfer.id)
    assert world.content(inside) == content
