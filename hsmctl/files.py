# SPDX-License-Identifier: Apache-2.0
"""Files that hsmctl opens with its user's rights, and hands to the service as descriptors."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from hsmctl.failure import Refusal
from libvdsm.api.errors import NotSupported


def check_connection(address: str) -> None:
    """Refuse early, before a file is made, where the wire cannot carry open files."""
    if not address.startswith("unix:"):
        raise NotSupported(
            reason="hsmctl opens FILE itself and hands it over, which only a Unix socket can carry, and the "
            f"connection is {address}; run hsmctl on the host of the service"
        )


@contextlib.contextmanager
def reading(text: str) -> Iterator[int]:
    """An existing file, open for reading."""
    descriptor = _open(text, os.O_RDONLY)
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            msg = f"{text} is a folder; give an image file"
            raise Refusal("FileNotUsable", msg)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def writing(text: str, *, force: bool, wait: bool) -> Iterator[int]:
    """A new file, open for writing, which is removed again if the ``with`` block raises.

    With ``force`` an existing file is replaced when all has succeeded, and until then stays as it is; where
    nobody waits for that, it is replaced at once.  A device is written in place, and never removed.
    """
    final = Path(text)
    written = final
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    kind = _mode(final)
    if kind is not None and stat.S_ISDIR(kind):
        msg = f"{text} is a folder; give the name of a file"
        raise Refusal("FileNotUsable", msg)
    if kind is not None and not force:
        msg = f"{text} exists already; take another name, or add --force to replace it"
        raise Refusal("FileExists", msg)
    if kind is not None and not stat.S_ISREG(kind):
        flags = os.O_RDWR
    elif kind is not None:
        final = written = final.resolve()
        if wait:
            written = final.with_name(f".{final.name}.hsmctl-{os.getpid()}")
        else:
            final.unlink()
    descriptor = _open(str(written), flags)
    try:
        yield descriptor
        if written != final:
            written.replace(final)
    except BaseException:
        if flags & os.O_CREAT:
            written.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(str(path), error) from None


def _open(text: str, flags: int) -> int:
    try:
        return os.open(text, flags | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise _unusable(text, error) from None


def _unusable(text: str, error: OSError) -> Refusal:
    return Refusal("FileNotUsable", f"{text} cannot be opened: {(error.strerror or str(error)).lower()}")
