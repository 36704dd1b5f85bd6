# SPDX-License-Identifier: Apache-2.0
"""Full information of all volumes in one call, against one ``qemu-img info`` for each."""

from __future__ import annotations

import json
import os
import random
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import programs, volumes
from benchmarks.rounds import Sides
from libvdsm.api.types import DomainId
from libvdsm.client import Client

_choose = random.Random(1).sample
_VOLUMES = 2000
_CALLS = 3
"""At a time; the figure is their median."""
_SAMPLE = 100
"""So many volumes are asked the tool for at a time, other ones each time, and the time is scaled up to all."""


@contextmanager
def volume_list(folder: Path) -> Iterator[Sides]:
    """Volume.list over the Unix socket, all of it in the client's structures when the clock stops.

    The worst case, each volume in an image of its own: a chain of several shares a folder.  Each file is touched before
    each call, outside of the clock, so that all of them are read: nothing is known from the call before.
    """
    files = _filled(folder)
    with programs.serving(folder) as (_, client, domain):

        def once() -> float:
            for path in files:
                os.utime(path)
                os.utime(f"{path}.meta")
            return _listed(client, domain)

        yield Sides(lambda: statistics.median(once() for _ in range(_CALLS)), lambda: _bare(files))


@contextmanager
def unchanged_list(folder: Path) -> Iterator[Sides]:
    """The same again and again, as agents ask, while nothing changes."""
    files = _filled(folder)
    with programs.serving(folder) as (_, client, domain):
        yield Sides(lambda: statistics.median(_listed(client, domain) for _ in range(_CALLS)), lambda: _bare(files))


def _filled(folder: Path) -> list[str]:
    return list(volumes.data_files(volumes.fill(folder, _VOLUMES)))


def _listed(client: Client, domain: DomainId) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    page = client.volume.list(domain=domain)
    took = time.perf_counter() - began
    if len(page.items) != _VOLUMES or any(item.damage for item in page.items):
        raise RuntimeError(f"{len(page.items)} volumes were listed, or damaged ones")
    return took * 1000


def _bare(files: list[str]) -> float:
    """Milliseconds."""
    sample = _choose(files, _SAMPLE)
    began = time.perf_counter()
    for path in sample:
        found = json.loads(programs.run(["qemu-img", "info", "--output=json", path]))
        if found["virtual-size"] != volumes.CAPACITY:
            raise RuntimeError(f"{path}: {found}")
    return (time.perf_counter() - began) * 1000 * _VOLUMES / _SAMPLE
