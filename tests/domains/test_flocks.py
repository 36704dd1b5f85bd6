# SPDX-License-Identifier: Apache-2.0
"""Leases by flock: what our own programs inherit for a moment is nobody's use."""

from __future__ import annotations

import os
import threading
import uuid
from pathlib import Path

import pytest

from hsm.domains import flocks
from hsm.domains.base import LeaseBusy
from libvdsm.api.types import VolumeId


def _wanted(path: Path) -> list[tuple[VolumeId, str, bool]]:
    return [(VolumeId(uuid.uuid4()), str(path), False)]


def test_a_copy_that_a_program_closes_at_its_start_does_not_look_like_use(tmp_path: Path) -> None:
    held = flocks.acquire(_wanted(tmp_path / "lease"))
    copy = os.dup(held.descriptors[0])
    held.release()
    closing = threading.Timer(0.004, os.close, [copy])
    closing.start()
    flocks.acquire(_wanted(tmp_path / "lease")).release()
    closing.join()


def test_use_is_use_all_the_same(tmp_path: Path) -> None:
    held = flocks.acquire(_wanted(tmp_path / "lease"))
    with pytest.raises(LeaseBusy, match=str(os.getpid())):
        flocks.acquire(_wanted(tmp_path / "lease"))
    held.release()
