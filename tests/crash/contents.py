# SPDX-License-Identifier: Apache-2.0
"""What a guest sees of a volume, and whether qemu-img finds it sound.

Both depend on nothing but the bytes of the files, so what was found for the same bytes is found no second time: most
volumes are the same in all runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from pathlib import Path

LEAKS = "clusters without use"
"""How the check's complaint begins when it found nothing worse."""
_BLOCK = 64 * 2**10
_ZEROS = bytes(_BLOCK)


def digest(file: Path) -> str:
    """Of a file's length and of all in it that is not zero, wherever there are holes."""
    found = hashlib.sha256()
    with file.open("rb", buffering=0) as opened:
        end = os.fstat(opened.fileno()).st_size
        found.update(end.to_bytes(8, "big"))
        offset = 0
        while offset < end:
            try:
                offset = os.lseek(opened.fileno(), offset, os.SEEK_DATA) // _BLOCK * _BLOCK
            except OSError:  # nothing but a hole follows
                break
            _add(found, offset, os.pread(opened.fileno(), _BLOCK, offset))
            offset += _BLOCK
    return found.hexdigest()[:16]


def digest_of(data: bytes) -> str:
    """The same of bytes in memory."""
    found = hashlib.sha256(len(data).to_bytes(8, "big"))
    for offset in range(0, len(data), _BLOCK):
        _add(found, offset, data[offset : offset + _BLOCK])
    return found.hexdigest()[:16]


def digest_of_zeros(length: int) -> str:
    return hashlib.sha256(length.to_bytes(8, "big")).hexdigest()[:16]


def _add(found: hashlib._Hash, offset: int, block: bytes) -> None:
    if block != _ZEROS[: len(block)]:
        found.update(offset.to_bytes(8, "big") + block.ljust(_BLOCK, b"\0"))


def is_encrypted(file: Path) -> bool:
    """Whether a qcow2 file says so."""
    with file.open("rb") as opened:
        start = opened.read(36)
    return start[:4] == b"QFI\xfb" and start[32:] not in (b"", bytes(4))


def keys_of(file: Path) -> list[Path]:
    """Files with the values of the secrets of the home that a volume is in."""
    return sorted((file.parents[4] / "outside" / "keys").iterdir())


class Contents:
    """Remembers what was found."""

    def __init__(self) -> None:
        self._opening: dict[str, Path] = {}
        self._seen: dict[tuple[str, ...], str] = {}
        self._checked: dict[str, str | None] = {}

    def guest(self, chain: list[Path], format_: str) -> str:
        """What a guest sees of a volume; ``chain``: its file and those that it stands on, the newest first."""
        key = (format_, *(digest(file) for file in chain))
        if format_ == "raw":
            return key[1]
        if key not in self._seen:
            with tempfile.NamedTemporaryFile(suffix=".raw") as flat:
                source = self._source(chain, format_)
                done = _run("qemu-img", "convert", "-U", *source, "-O", "raw", flat.name)
                if done.returncode != 0 or done.stderr:
                    raise Unreadable(_said(done))
                self._seen[key] = digest(Path(flat.name))
        return self._seen[key]

    def trouble(self, file: Path) -> str | None:
        """What ``qemu-img check`` says against a qcow2 file."""
        key = digest(file)
        if key not in self._checked:
            done = _run("qemu-img", "check", "-U", *self._source([file], "qcow2"))
            self._checked[key] = None if done.returncode == 0 else _said(done)
        return self._checked[key]

    def _source(self, chain: list[Path], format_: str) -> list[str]:
        """A volume as QEMU takes it; with every layer spelled out, and its key, where any is encrypted."""
        if not any(is_encrypted(file) for file in chain):
            return ["-f", format_, str(chain[0])]
        arguments: list[str] = []
        node: dict[str, object] | None = None
        for number, file in enumerate(reversed(chain)):
            made: dict[str, object] = {"driver": "qcow2", "file": {"driver": "file", "filename": str(file)}}
            made["backing"] = node
            if is_encrypted(file):
                made["encrypt"] = {"format": "luks", "key-secret": f"k{number}"}
                arguments += ["--object", f"secret,id=k{number},file={self._key(file)}"]
            node = made
        # Who serves an upload has the file open; what was told to have arrived is written down by then.
        return ["-U", *arguments, "json:" + json.dumps(node)]

    def _key(self, file: Path) -> Path:
        """What opens a volume, found by trying."""
        key = digest(file)
        if key not in self._opening:
            encrypt = {"format": "luks", "key-secret": "k"}
            node = {"driver": "qcow2", "file": {"driver": "file", "filename": str(file)}, "backing": None}
            image = "json:" + json.dumps(node | {"encrypt": encrypt})
            for value in keys_of(file):
                key_argument = f"secret,id=k,file={value}"
                opens = ["qemu-img", "map", "-U", "--output=json", "--max-length=512", "--object", key_argument, image]
                if _run(*opens).returncode == 0:
                    self._opening[key] = value
                    break
            else:
                raise Unreadable(f"no key opens {file}")
        return keys_of(file)[0].parent / self._opening[key].name


class Unreadable(Exception):
    """A tool could not read a volume."""


def _run(*argv: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(argv, capture_output=True, timeout=60, check=False)


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    said = (done.stderr + done.stdout).decode(errors="replace").strip().replace("\n", "; ")
    only_leaks = done.args[1] == "check" and done.returncode == 3
    return f"{LEAKS if only_leaks else done.args[1]} ({done.returncode}): {said[:300]}"
