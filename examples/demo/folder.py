# SPDX-License-Identifier: Apache-2.0
"""The folder that everything takes place in."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from examples.demo.narrator import DemoFailed
from hsmctl.values import show_size

_LONGEST_SOCKET = 107
"""Characters that the path of a Unix socket may have."""


@contextmanager
def work_folder(*, keep: bool) -> Iterator[Path]:
    """A folder for large files: /tmp is in memory on many hosts."""
    parent = os.environ.get("TMPDIR") or "/var/tmp"
    try:
        work = Path(tempfile.mkdtemp(prefix="hsm-demo-", dir=parent))
    except OSError as error:
        raise DemoFailed(f"{parent}: {error.strerror}; set TMPDIR to a folder to work in") from None
    try:
        if len(f"{work}/service/run/hsm-http.sock") > _LONGEST_SOCKET:
            raise DemoFailed(f"the path of a socket below {parent} would be too long; set TMPDIR to a shorter one")
        yield work
    finally:
        if not keep:
            shutil.rmtree(work, ignore_errors=True)


def check_space(work: Path, needed: int) -> None:
    """Refuse to begin what could not be ended."""
    free = shutil.disk_usage(work).free
    if free < needed:
        raise DemoFailed(
            f"{work.parent} has {show_size(free)} free, and up to {show_size(needed)} are needed; "
            "set TMPDIR to a folder with more"
        )
