# SPDX-License-Identifier: Apache-2.0
"""What a local file seems to be, before it becomes a disk.

The service looks at it properly; this is for people, who should hear of a file that is taken for what it is not.
"""

from __future__ import annotations

import os

from hsmctl.failure import Refusal

_HEAD = 512
_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"\xfd7zXZ\0": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"BZh": ("bzip2", "bunzip2"),
}
_QCOW2 = b"QFI\xfb"
_ENCRYPTION_AT = 32
_IMAGES = (_QCOW2, b"vhdxfile", b"conectix", b"KDMV", b"COWD", b"# Disk Descriptor")
_VDI = (64, b"\x7f\x10\xda\xbe")


def seems_raw(descriptor: int) -> bool:
    """Whether nothing says that the file is of an image format."""
    head = os.pread(descriptor, _HEAD, 0)
    tail = os.pread(descriptor, _HEAD, max(0, os.fstat(descriptor).st_size - _HEAD))
    at, mark = _VDI
    return not (head.startswith(_IMAGES) or head[at:].startswith(mark) or tail.startswith(b"conectix"))


def refuse_no_disk(descriptor: int, text: str, *, otherwise: str) -> None:
    """Refuse a file that would make a disk which no guest can use; ``otherwise`` says what can be done all the same."""
    head = os.pread(descriptor, _HEAD, 0)
    if not head:
        msg = f"{text} is empty; `hsmctl image create` makes an empty disk{otherwise}"
        raise Refusal("FileNotUsable", msg)
    for mark, (name, unpack) in _COMPRESSED.items():
        if head.startswith(mark):
            msg = f"{text} is compressed with {name}; unpack it first, as with {unpack}{otherwise}"
            raise Refusal("FileNotUsable", msg)


def refuse_what_needs_import(descriptor: int, text: str) -> None:
    """Refuse a file that is sent as it is, and would be no disk then."""
    head = os.pread(descriptor, _HEAD, 0)
    if head.startswith(_QCOW2):
        if any(head[_ENCRYPTION_AT : _ENCRYPTION_AT + 4]):
            msg = f"{text} is encrypted with a key that is none of the service's; decrypt it first, as with qemu-img convert"
            raise Refusal("FileNotUsable", msg)
    elif not seems_raw(descriptor):
        msg = (
            f"{text} is of a format that is not uploaded as it is; convert it first, as with "
            "`qemu-img convert -O qcow2`, or give it to `hsmctl image import` on the service's host"
        )
        raise Refusal("FileNotUsable", msg)
