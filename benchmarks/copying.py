# SPDX-License-Identifier: Apache-2.0
"""Copying 4 GiB, half of them holes, against ``qemu-img convert`` and ``nbdcopy`` with their best flags; and a copy
that changes nothing on a file system that can share space."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from benchmarks import programs
from benchmarks.rounds import NotHere, Side, Sides
from libvdsm.api.types import FileFormat, VolumeFormat

_CAPACITY = 4 * 2**30
_STRIPE = 16 * 2**20
_XFS = 8 * 2**30


def between(source: VolumeFormat, target: VolumeFormat) -> Callable[[Path], AbstractContextManager[Sides]]:
    """From the call until the task is done; the tools with an fsync in their time.  What is read lies in no cache."""

    @contextmanager
    def prepare(folder: Path) -> Iterator[Sides]:
        with programs.serving(folder) as (_, client, domain):
            raw = folder / "source.raw"
            _fill(raw)
            image = client.wait(
                client.image.import_(domain=domain, path=str(raw), source_format=FileFormat.RAW, format=source)
            )
            raw.unlink()
            path = next(folder.glob(f"**/images/{image.id}/{image.leaf}"))

            def ours() -> float:
                _forget(path)
                began = time.perf_counter()
                made = client.wait(client.image.copy(domain=domain, image=image.id, format=target)).image
                took = time.perf_counter() - began
                client.wait(client.image.delete(domain=domain, image=made.id))
                return took

            yield Sides(ours, _best(path, source.value, folder / "bare", target.value))

    return prepare


def _fill(path: Path) -> None:
    """Stripes of noise and of nothing."""
    noise = os.urandom(_STRIPE)
    with path.open("wb") as file:
        file.truncate(_CAPACITY)
        for offset in range(0, _CAPACITY, 2 * _STRIPE):
            os.pwrite(file.fileno(), noise, offset)
        os.fsync(file.fileno())


def _forget(path: Path) -> None:
    """Have nothing of a file in the page cache."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _best(source: Path, source_format: str, target: Path, target_format: str) -> Side:
    """The fastest of the ways: all are tried in the first round, and the best of them is measured from then on."""
    best: list[list[list[str]]] = []

    def bare() -> float:
        if best:
            return _run(best[0], source, target)
        took = {}
        for number, commands in enumerate(ways := _ways(source, source_format, target, target_format)):
            took[number] = _run(commands, source, target)
        first = min(took, key=lambda number: took[number])
        best.append(ways[first])
        return took[first]

    return bare


def _ways(source: Path, source_format: str, target: Path, target_format: str) -> list[list[list[str]]]:
    convert = ["qemu-img", "convert", "-f", source_format, "-O", target_format]
    direct = ["-t", "none", "-T", "none"]
    flags = [[], direct, [*direct, "-W", "-m", "4"], [*direct, "-W", "-m", "16"]]
    ways = [[[*convert, *more, str(source), str(target)]] for more in flags]
    if shutil.which("nbdcopy"):
        ends = [_end(source, source_format, reading=True), _end(target, target_format, reading=False)]
        copy = ["nbdcopy", "--flush", "--destination-is-zero", "--request-size=1048576", "--connections=4", "--"]
        create = ["qemu-img", "create", "-q", "-f", target_format, str(target), str(_CAPACITY)]
        ways.append([create, [*copy, *ends[0], *ends[1]]])
    return ways


def _end(path: Path, format_: str, *, reading: bool) -> list[str]:
    if format_ == "raw":
        return [str(path)]
    serve = ["qemu-nbd", "-f", format_, "--cache=none", "--aio=native", "-e", "8"]
    return ["[", *serve, *(["-r"] if reading else []), str(path), "]"]


def _run(commands: list[list[str]], source: Path, target: Path) -> float:
    _forget(source)
    began = time.perf_counter()
    for command in commands:
        programs.run(command)
    with target.open("r+b") as file:
        os.fsync(file.fileno())
    took = time.perf_counter() - began
    target.unlink()
    return took


@contextmanager
def shared(folder: Path) -> Iterator[Sides]:
    """2 GiB of data in a qcow2 volume, on XFS in a file: nothing is copied, all of it is shared.  Milliseconds."""
    with _xfs(folder) as place, programs.serving(place) as (_, client, domain):
        raw = folder / "source.raw"
        _fill(raw)
        image = client.wait(client.image.import_(domain=domain, path=str(raw), source_format=FileFormat.RAW))
        raw.unlink()

        def ours() -> float:
            began = time.perf_counter()
            made = client.wait(client.image.copy(domain=domain, image=image.id)).image
            took = time.perf_counter() - began
            client.wait(client.image.delete(domain=domain, image=made.id))
            return took * 1000

        yield Sides(ours)


@contextmanager
def _xfs(folder: Path) -> Iterator[Path]:
    """Such a file system; making it needs root."""
    folder.mkdir(parents=True, exist_ok=True)
    disk, place = folder / "xfs.img", folder / "xfs"
    place.mkdir()
    with disk.open("wb") as file:
        file.truncate(_XFS)
    run = partial(subprocess.run, check=True, capture_output=True)
    if os.geteuid() != 0 or not shutil.which("mkfs.xfs"):
        raise NotHere("an XFS in a file needs root and mkfs.xfs (xfsprogs)")
    run(["mkfs.xfs", "-q", "-m", "reflink=1", str(disk)])
    run(["mount", "-o", "loop", str(disk), str(place)])
    try:
        yield place
    finally:
        run(["umount", "--lazy", str(place)])
