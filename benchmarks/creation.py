# SPDX-License-Identifier: Apache-2.0
"""Making volumes, against ``qemu-img create`` on the same file system."""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import programs
from benchmarks.rounds import Sides
from benchmarks.volumes import CAPACITY

_VOLUMES = 10
"""At a time; the figure is their median."""


@contextmanager
def create(folder: Path) -> Iterator[Sides]:
    """An empty qcow2 volume, from the call over the Unix socket until its task is done."""
    with programs.serving(folder) as (_, client, domain):

        def ours() -> float:
            return _median(lambda: client.wait(client.volume.create(domain=domain, capacity=CAPACITY)))

        yield Sides(ours, _qemu_img(folder, []))


@contextmanager
def overlay(folder: Path) -> Iterator[Sides]:
    """A volume on top of another.

    Ours is Image.snapshot, the verb that users take; it also freezes the volume below, and proves what the overlay
    will stand on.  The tool's is with ``-u``, its faster way: it does not open the backing file.
    """
    with programs.serving(folder) as (_, client, domain):
        base = folder / "base.qcow2"
        programs.run(["qemu-img", "create", "-q", "-f", "qcow2", str(base), str(CAPACITY)])

        def ours() -> float:
            tasks = [client.image.create(domain=domain, capacity=CAPACITY) for _ in range(_VOLUMES)]
            images = iter([client.wait(task).id for task in tasks])
            return _median(lambda: client.wait(client.image.snapshot(domain=domain, image=next(images))))

        yield Sides(ours, _qemu_img(folder, ["-u", "-b", base.name, "-F", "qcow2"]))


def _qemu_img(folder: Path, options: list[str]) -> Callable[[], float]:
    numbers = itertools.count()

    def create_one() -> None:
        path = folder / f"bare-{next(numbers)}.qcow2"
        programs.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), str(CAPACITY)])

    def bare() -> float:
        figure = _median(create_one)
        for path in folder.glob("bare-*.qcow2"):
            os.unlink(path)
        return figure

    return bare


def _median(make: Callable[[], object]) -> float:
    """Milliseconds for one."""
    figures = []
    for _ in range(_VOLUMES):
        began = time.perf_counter()
        make()
        figures.append(time.perf_counter() - began)
    return statistics.median(figures) * 1000
