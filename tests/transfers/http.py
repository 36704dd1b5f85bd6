# SPDX-License-Identifier: Apache-2.0
"""A client of the data's way that knows nothing of ours: the standard library's."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request

from libvdsm.api.transfer import TransferInfo


def put(transfer: TransferInfo, offset: int, data: bytes, *, flush: bool = True) -> None:
    request = urllib.request.Request(f"{transfer.url}?flush={'y' if flush else 'n'}", data=data, method="PUT")
    request.add_header("Content-Range", f"bytes {offset}-{offset + len(data) - 1}/*")
    with urllib.request.urlopen(request, timeout=30) as reply:
        assert reply.status == 200


def get(transfer: TransferInfo, offset: int, length: int) -> bytes:
    request = urllib.request.Request(transfer.url or "", headers={"Range": f"bytes={offset}-{offset + length - 1}"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        data: bytes = reply.read()
        return data


def refuses(transfer: TransferInfo) -> bool:
    """Whether no data can be read, nor written."""
    for method, data in (("GET", None), ("PUT", b"x")):
        request = urllib.request.Request(transfer.url or "", data=data, method=method)
        try:
            urllib.request.urlopen(request, timeout=30).close()
        except (urllib.error.URLError, ConnectionError):
            continue
        return False
    return True


def checksum(data: bytes) -> str:
    """As the API says it is made."""
    whole = hashlib.blake2b(digest_size=32)
    for offset in range(0, len(data), 4 * 2**20):
        whole.update(hashlib.blake2b(data[offset : offset + 4 * 2**20], digest_size=32).digest())
    return whole.hexdigest()
