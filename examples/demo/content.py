# SPDX-License-Identifier: Apache-2.0
"""Checksums of what lies on a domain."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fingerprint:
    """The sha256 of every file below a folder, by its path there."""

    sums: dict[str, str]
    size: int

    def differences(self, other: Fingerprint) -> list[str]:
        """Files that were added, removed or changed."""
        names = sorted(self.sums.keys() | other.sums.keys())
        return [name for name in names if self.sums.get(name) != other.sums.get(name)]


def fingerprint(folder: Path) -> Fingerprint:
    """Read every file; one that has several names, as a template's volume has, is read once."""
    names: dict[tuple[int, int], list[Path]] = {}
    size = 0
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            status = path.stat()
            file = (status.st_dev, status.st_ino)
            size += 0 if file in names else status.st_size
            names.setdefault(file, []).append(path)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sums = pool.map(_sha256, [paths[0] for paths in names.values()])
        by_name = {
            str(path.relative_to(folder)): sum_
            for paths, sum_ in zip(names.values(), sums, strict=True)
            for path in paths
        }
    return Fingerprint(by_name, size)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def space(paths: list[Path]) -> int:
    """Bytes that files take on the disk."""
    return sum(path.stat().st_blocks * 512 for path in paths if path.is_file())
