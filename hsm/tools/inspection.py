# SPDX-License-Identifier: Apache-2.0
"""Inspection of disk images that come from outside, before any tool opens them.

A disk image is a small program for whoever opens it: a backing file, an external data file or a VMDK extent
in its header makes qemu read any file of the host into the guest's disk (CVE-2024-32498 and its elders). So
whoever takes an image in asks here first. This module holds the question, `inspect`, and its two answers,
`Inspected` and `Refused`.

The bytes are not parsed in this process. `judgement` does it in a child that holds the descriptor, can open
nothing else and dies at its limits; `headers`, `vhd` and `vmdk` know the formats. Whatever the child does
besides answering counts as a damaged image.

What this cannot do, and the caller must:

* Keep others from writing to the file between the answer and its use.
* Tell the tools the format that came back (`-f`), never let them probe: the guest's own data may begin like
  any format, also after a conversion to raw.
* Hand the file over by descriptor or absolute path: names like `json:{...}` or `nbd://...` are programs too.
"""

import enum
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

from libvdsm.run import CommandError, Runner

FORMATS = frozenset({"raw", "qcow2", "vmdk", "vdi", "vhdx", "vpc"})

# With -I neither the environment nor the working directory says where modules come from, so the child is told
# where this very package lies: a checkout, an editable install and an ordinary one all work, and none stands
# in for another. The place is on the path for that one import only: nothing else in a checkout is a module.
_PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import hsm
del sys.path[0]
from hsm.tools.judgement import main
main(sys.argv[2])
"""
_ROOT = str(Path(__file__).resolve().parents[2])


class Kind(enum.StrEnum):
    """Why an image is refused."""

    BACKING_FILE = "backing-file"  # it is the difference to another image
    DATA_FILE = "data-file"  # its data is in another file
    EXTENTS = "extents"  # its data is in a list of other files
    FORMAT_MISMATCH = "format-mismatch"  # not what was declared, or two things at once
    UNSUPPORTED = "unsupported"  # a format, version or feature that is not taken in
    DAMAGED = "damaged"  # contradicts itself or its format
    ENCRYPTED = "encrypted"


_KINDS = frozenset(kind.value for kind in Kind)


@dataclass(frozen=True)
class Inspected:
    """An image that refers to nothing but itself."""

    format: str
    capacity: int  # bytes, the size that the guest sees


@dataclass(eq=False)
class Refused(Exception):
    """The image must not be opened."""

    kind: Kind
    detail: str  # plain words; what comes from the image is quoted and cut
    found: str | None = None  # the format found, where one was

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


def inspect(descriptor: int, declared: str | None, *, runner: Runner, deadline: float = 30) -> Inspected:
    """Say what the open file is and how large its guest would find it, or raise `Refused`.

    `descriptor` is open for reading; its offset is neither used nor moved. `declared` is the format that
    somebody says it has; with None, content that no format claims is raw. `deadline` in seconds.
    """
    order = json.dumps([descriptor, declared, math.ceil(deadline)])
    # Nothing of the image is in the arguments.
    argv = [sys.executable, "-I", "-c", _PROGRAM, _ROOT, order]
    try:
        said = runner.run(argv, deadline=deadline, descriptors=[descriptor])
    except CommandError as error:
        if "ModuleNotFoundError" in error.reason or "ImportError" in error.reason:
            # This installation is damaged, not the image.
            raise
        raise Refused(Kind.DAMAGED, f"its inspection broke off: {error.reason[-300:]!r}") from None
    return _answer(said)


def _answer(said: bytes) -> Inspected:
    try:
        answer = json.loads(said)
    except (ValueError, RecursionError):
        answer = None
    match answer:
        case {"format": str(found), "capacity": int(capacity)} if found in FORMATS and capacity >= 0:
            return Inspected(found, capacity)
        case {"kind": str(kind), "detail": str(detail), "found": str() | None as found} if kind in _KINDS:
            raise Refused(Kind(kind), detail, found)
    raise Refused(Kind.DAMAGED, "its inspection gave no answer")
