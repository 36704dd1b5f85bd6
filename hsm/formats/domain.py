# SPDX-License-Identifier: Apache-2.0
"""A domain's own metadata: ``KEY=VALUE`` lines sealed by a checksum.

The checksum is SHA-1 over the sorted ``key=value`` texts without separators, characters beyond ASCII as XML character
references.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from uuid import UUID

from hsm.formats.volume import BadMetadata

_CHECKSUM = "_SHA_CKSUM"


def _checksum(fields: Mapping[str, str]) -> str:
    digest = hashlib.sha1(usedforsecurity=False)
    for key in sorted(fields):
        digest.update(f"{key}={fields[key]}".encode("ascii", "xmlcharrefreplace"))
    return digest.hexdigest()


class DomainMetadata:
    """The fields as stored, with the few that we use by name."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.fields = MappingProxyType(dict(fields))

    @property
    def id(self) -> UUID:
        return UUID(self.fields["SDUUID"])

    @property
    def version(self) -> int:
        return int(self.fields["VERSION"])

    @property
    def type(self) -> str:
        return self.fields["TYPE"]

    @property
    def description(self) -> str:
        return self.fields.get("DESCRIPTION", "")

    @property
    def block_size(self) -> int:
        return int(self.fields.get("BLOCK_SIZE", "512"))

    @property
    def alignment(self) -> int:
        return int(self.fields.get("ALIGNMENT", str(2**20)))

    def with_description(self, description: str) -> DomainMetadata:
        return DomainMetadata({**self.fields, "DESCRIPTION": description})


def new(domain: UUID, type_: str, description: str, remote_path: str) -> DomainMetadata:
    """Metadata of a new V5 domain, with the timing that oVirt gives to all."""
    return DomainMetadata(
        {
            "ALIGNMENT": str(2**20),
            "BLOCK_SIZE": "512",
            "CLASS": "Data",
            "DESCRIPTION": description,
            "IOOPTIMEOUTSEC": "10",
            "LEASERETRIES": "3",
            "LEASETIMESEC": "60",
            "LOCKPOLICY": "",
            "LOCKRENEWALINTERVALSEC": "5",
            "POOL_UUID": "",
            "REMOTE_PATH": remote_path,
            "ROLE": "Regular",
            "SDUUID": str(domain),
            "TYPE": type_,
            "VERSION": "5",
        }
    )


def parse(data: bytes) -> DomainMetadata:
    """Read a domain's metadata, and prove it by its checksum."""
    try:
        lines = [line for line in data.decode("utf-8").split("\n") if line]
        fields = dict(line.split("=", 1) for line in lines)
    except UnicodeDecodeError as error:
        msg = f"not UTF-8: {error}"
        raise BadMetadata(msg) from None
    except ValueError:
        msg = "a line without '='"
        raise BadMetadata(msg) from None
    sealed = fields.pop(_CHECKSUM, None)
    if sealed != _checksum(fields):
        msg = "the checksum is missing" if sealed is None else "the checksum does not match: it was changed or cut off"
        raise BadMetadata(msg)
    missing = [key for key in ("SDUUID", "VERSION", "TYPE") if key not in fields]
    if missing:
        msg = f"key {missing[0]} is missing"
        raise BadMetadata(msg)
    metadata = DomainMetadata(fields)
    try:
        _ = metadata.id, metadata.version, metadata.block_size, metadata.alignment
    except ValueError as error:
        raise BadMetadata(str(error)) from None
    return metadata


def write(metadata: DomainMetadata) -> bytes:
    """The bytes of a domain's metadata."""
    fields = {**metadata.fields, _CHECKSUM: _checksum(metadata.fields)}
    return "".join(f"{key}={fields[key]}\n" for key in sorted(fields)).encode()
