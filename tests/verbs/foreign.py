# SPDX-License-Identifier: Apache-2.0
"""Domains as a VDSM leaves them: made of files here, with nothing of ours."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from uuid import UUID

from hsm.formats import domain as domain_format
from tests.formats import qemu

MIB = 2**20
NIL = UUID(int=0)


class Foreign:
    """A local domain of oVirt's, version 5 or 4."""

    def __init__(self, path: Path, version: int = 5, name: str = "local-data") -> None:
        self.id = uuid.uuid4()
        self.path = path
        self.version = version
        self.root = path / str(self.id)
        special = self.root / "dom_md"
        special.mkdir(parents=True)
        (self.root / "images").mkdir()
        for file, length in (("ids", MIB), ("leases", 2 * MIB), ("inbox", 16 * MIB), ("outbox", 16 * MIB)):
            (special / file).touch()
            os.truncate(special / file, length)
        if version == 5:
            (special / "xleases").touch()
            os.truncate(special / "xleases", MIB)
        fields = dict(domain_format.new(self.id, "LOCALFS", name, str(path)).fields)
        if version == 4:
            del fields["ALIGNMENT"], fields["BLOCK_SIZE"]
        fields |= {"VERSION": str(version), "POOL_UUID": str(uuid.uuid4()), "MASTER_VERSION": "1", "ROLE": "Master"}
        (special / "metadata").write_bytes(domain_format.write(domain_format.DomainMetadata(fields)))

    def folder(self, image: UUID) -> Path:
        return self.root / "images" / str(image)

    def volume(
        self,
        image: UUID,
        parent: UUID | None = None,
        *,
        raw: bool = False,
        capacity: int = MIB,
        lease: bool = True,
        volume: UUID | None = None,
        newer: bool = False,
        **fields: str,
    ) -> UUID:
        """A volume with its metadata; on a parent it is an overlay, named as oVirt does."""
        volume = volume or uuid.uuid4()
        self.folder(image).mkdir(exist_ok=True)
        path = self.folder(image) / str(volume)
        if parent is None:
            qemu.create(path, "raw" if raw else "qcow2", capacity)
        else:
            below = self.folder(image) / str(parent)
            format_ = "qcow2" if below.read_bytes()[:4] == b"QFI\xfb" else "raw"
            options = ("-b", f"../{image}/{parent}", "-F", format_)
            qemu.create(path, "qcow2", capacity, *options, cwd=self.folder(image))
        known = {
            "CTIME": "1600000000",
            "DESCRIPTION": "",
            "DISKTYPE": "DATA",
            "DOMAIN": str(self.id),
            "FORMAT": "RAW" if raw else "COW",
            "GEN": "0",
            "IMAGE": str(image),
            "LEGALITY": "LEGAL",
            "PUUID": str(parent or NIL),
            "TYPE": "SPARSE",
            "VOLTYPE": "LEAF",
            **(
                {"CAP": str(capacity), "SEQ": "2" if newer else "1"}
                if self.version == 5
                else {"SIZE": str(capacity // 512), "MTIME": "0"}
            ),
            **fields,
        }
        text = "".join(f"{key}={known[key]}\n" for key in sorted(known)) + "EOF\n"
        path.with_name(f"{volume}.meta").write_text(text)
        if lease:
            path.with_name(f"{volume}.lease").write_bytes(bytes(2048))
        return volume

    def share(self, template: UUID, volume: UUID, image: UUID) -> None:
        """Link a template's volume into another image."""
        self.folder(image).mkdir()
        for suffix in ("", ".meta", ".lease"):
            source = self.folder(template) / f"{volume}{suffix}"
            if source.exists():
                os.link(source, self.folder(image) / source.name)
