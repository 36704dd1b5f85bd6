# SPDX-License-Identifier: Apache-2.0
"""A new parent for a volume to be pulled onto, where anything is encrypted.

The program that rebases opens a new parent by the very name that it writes into the header: there is no place for a
key, and a chain that is spelled out is longer than a header has room for.  So what the parent shows is served to it
over a socket of this host, and the header is given its right name when all is pulled.  Until then the mark in the file
says that nothing is (``hsm.operations.pulling``).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote
from uuid import UUID

from hsm.domains.base import Domain, ImageRecord
from hsm.operations.base import Context
from hsm.operations.encryption import is_encrypted, source_of
from hsm.tools.nbd_export import Export, QemuNbd
from libvdsm.api.types import VolumeId


@contextmanager
def offered(
    context: Context, domain: Domain, record: ImageRecord, parent: UUID | None, descriptors: tuple[int, ...]
) -> Iterator[tuple[str, str] | None]:
    """The name and format of a volume of an image, for the program; None where its own will do."""
    if parent is None or not is_encrypted(record):
        yield None
        return
    source = source_of(context, domain, record, record.volumes[VolumeId(parent)])
    with tempfile.TemporaryDirectory(prefix="hsm-nbd-") as folder:
        server = QemuNbd(context.runner, Export(source, read_only=True), f"{folder}/socket", descriptors)
        try:
            yield f"nbd+unix:///?socket={quote(server.socket)}", "raw"
        finally:
            server.end(patience=0.0)
