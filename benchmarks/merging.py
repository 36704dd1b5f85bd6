# SPDX-License-Identifier: Apache-2.0
"""Merging a layer with 1 GiB of data into the one below, against bare ``qemu-img commit`` and an fsync."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import programs
from benchmarks.rounds import Sides
from libvdsm.api.image_layers import MergeDirection
from libvdsm.api.types import DomainId, ImageInfo
from libvdsm.client import Client

_CAPACITY = 2 * 2**30
_DATA = 2**30
_STEP = 128 * 2**20


@contextmanager
def down(folder: Path) -> Iterator[Sides]:
    """From the call over the Unix socket until its task is done; both sides end with the data on stable storage."""
    with programs.serving(folder) as (_, client, domain):
        yield Sides(lambda: _ours(folder, client, domain), lambda: _bare(folder))


def _ours(folder: Path, client: Client, domain: DomainId) -> float:
    base = client.wait(client.image.create(domain=domain, capacity=_CAPACITY))
    image = client.wait(client.image.snapshot(domain=domain, image=base.id))
    _fill(_file(folder, image))
    merge = client.image.merge
    began = time.perf_counter()
    task = merge(domain=domain, image=image.id, base=base.leaf, top=image.leaf, direction=MergeDirection.DOWN)
    client.wait(task)
    took = time.perf_counter() - began
    client.wait(client.image.delete(domain=domain, image=image.id))
    return took


def _file(folder: Path, image: ImageInfo) -> Path:
    return next(folder.glob(f"**/images/{image.id}/{image.leaf}"))


def _bare(folder: Path) -> float:
    place = folder / "bare"
    place.mkdir()
    try:
        base, top = place / "base.qcow2", place / "top.qcow2"
        create = ["qemu-img", "create", "-q", "-f", "qcow2"]
        programs.run([*create, str(base), str(_CAPACITY)])
        programs.run([*create, "-b", base.name, "-F", "qcow2", str(top)])
        _fill(top)
        began = time.perf_counter()
        programs.run(["qemu-img", "commit", "-q", "-f", "qcow2", "-d", str(top)])
        _sync(base)
        return time.perf_counter() - began
    finally:
        shutil.rmtree(place)


def _fill(path: Path) -> None:
    writes = itertools.chain(*(("-c", f"write -q -P 7 {offset} {_STEP}") for offset in range(0, _DATA, _STEP)))
    programs.run(["qemu-io", "-f", "qcow2", *writes, str(path)])
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
