# SPDX-License-Identifier: Apache-2.0
"""What lies in a folder, down to the last byte, to tell whether somebody changed it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_CHUNK = 2**20


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        end = os.fstat(file.fileno()).st_size
        offset = 0
        while offset < end:
            try:
                offset = os.lseek(file.fileno(), offset, os.SEEK_DATA)
            except OSError:  # only a hole is left
                break
            data = os.pread(file.fileno(), _CHUNK, offset)
            if data.count(0) != len(data):
                digest.update(f"{offset}:".encode() + data)
            offset += len(data)
    return digest.hexdigest()


def fingerprint(folder: Path) -> dict[str, str]:
    """Path -> everything about it but the times at which it was read, and at which something came and went."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        facts = f"{status.st_mode:o}"
        if path.is_file() and not path.is_symlink():
            facts += f" {status.st_nlink} {status.st_mtime_ns} {status.st_size} {_digest(path)}"
        found[str(path.relative_to(folder))] = facts
    return found
