# SPDX-License-Identifier: Apache-2.0
"""QEMU's own programs, as judges of what the service makes."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

KIB, MIB, GIB = 2**10, 2**20, 2**30


def _run(*argv: str | Path) -> str:
    return _good(_done(*argv))


def _done(*argv: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in argv]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False, cwd=cwd)


def _good(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, f"{' '.join(done.args)}: {done.stdout}{done.stderr}"
    return done.stdout


def image_tool(*argv: str | Path, cwd: Path | None = None) -> str:
    """``qemu-img`` with these arguments.

    Before it makes a LUKS header it measures, by its thread's processor time, how fast this machine derives keys,
    and gives up where that clock stood still meanwhile: about every twentieth time where it ticks every 10 ms.
    """
    for _ in range(20):
        done = _done("qemu-img", *argv, cwd=cwd)
        if "Unable to get accurate CPU usage" not in done.stderr:
            break
    return _good(done)


def create(path: Path, format_: str, size: int | str, *options: str, cwd: Path | None = None) -> Path:
    """Make an image.  ``options`` as ``qemu-img create`` takes them."""
    image_tool("create", "-q", "-f", format_, *options, path, str(size), cwd=cwd)
    return path


def info(path: Path, format_: str, *, chain: bool = False) -> Any:
    """What ``qemu-img info`` says; with ``chain`` a list from the top down."""
    options = ["--backing-chain"] if chain else []
    return json.loads(_run("qemu-img", "info", "-U", "--output=json", "-f", format_, *options, path))


def check(path: Path) -> None:
    """``qemu-img check`` finds nothing wrong, leaks included."""
    _run("qemu-img", "check", "-U", "-q", "-f", "qcow2", path)


def write(path: str | Path, format_: str, pattern: int, offset: int = 0, length: int = 64 * KIB) -> None:
    """Write a pattern as a guest would."""
    _run("qemu-io", "-f", format_, "-c", f"write -q -P {pattern} {offset} {length}", path)


def zero(path: str | Path, format_: str, offset: int, length: int) -> None:
    """Have a range read as zeros, as a guest would that says so."""
    _run("qemu-io", "-f", format_, "-c", f"write -q -z {offset} {length}", path)


def image_io(path: str | Path, format_: str, command: str) -> None:
    """One of ``qemu-io``'s commands, as a guest's disk would do it; what is discarded is given back."""
    _run("qemu-io", "-f", format_, "-d", "unmap", "-c", command, path)


def content(path: str | Path, format_: str) -> bytes:
    """All that a guest would read, for images that are small."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "content")
        _run("qemu-img", "convert", "-U", "-f", format_, "-O", "raw", path, target)
        return target.read_bytes()


def holds(path: str | Path, format_: str, pattern: int, offset: int = 0, length: int = 64 * KIB) -> bool:
    """Whether a guest would read this pattern."""
    argv = ["qemu-io", "-r", "-U", "-f", format_, "-c", f"read -q -P {pattern} {offset} {length}", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode and "Pattern verification failed" not in done.stdout:
        raise AssertionError(done.stdout + done.stderr)
    return done.returncode == 0
