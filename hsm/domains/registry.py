# SPDX-License-Identifier: Apache-2.0
"""The domains that this service serves, and the drivers that are installed.

Which domains are attached is kept in one file below the state directory, replaced as a whole, so that whoever serves
next serves the same.
"""

from __future__ import annotations

import errno
import os
import threading
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path

import msgspec

from hsm.domains import durable
from hsm.domains.base import Domain, DomainMissing
from hsm.domains.names import NEW
from hsm.formats.volume import BadMetadata
from libvdsm.api.errors import (
    DomainDamaged,
    NoSuchDomain,
    StorageFailed,
    UnknownDomainType,
)
from libvdsm.api.types import DomainId
from libvdsm.log import Log

log = Log("hsm.domains")

_GROUP = "hsm.domains"


class Attached(msgspec.Struct, frozen=True, rename="camel"):
    """A domain to be served, as it is remembered."""

    id: DomainId
    type: str
    path: str


def installed_drivers() -> dict[str, type[Domain]]:
    """Every driver that can be loaded, by type; one that cannot is logged and left out."""
    drivers: dict[str, type[Domain]] = {}
    for point in entry_points(group=_GROUP):
        try:
            drivers[point.name] = point.load()
        except (ImportError, AttributeError) as error:
            log.error("a driver cannot be loaded", driver=point.value, error=error)
    return drivers


class Registry:
    """Attached domains, by id."""

    def __init__(self, drivers: dict[str, type[Domain]], file: Path) -> None:
        self.drivers = drivers
        self._file = file
        self._lock = threading.Lock()
        self._attached: dict[DomainId, Attached]
        self._open: dict[DomainId, Domain] = {}
        with suppress(FileNotFoundError):
            os.unlink(str(file) + NEW)
        self.remembers = file.exists()
        """Whether a domain has been served before, even if none is now."""
        self._attached = self._read()

    def driver(self, type_: str) -> type[Domain]:
        found = self.drivers.get(type_)
        if found is None:
            raise UnknownDomainType(type=type_, installed=", ".join(sorted(self.drivers)) or "none")
        return found

    def all(self) -> list[Attached]:
        with self._lock:
            return list(self._attached.values())

    def find(self, domain: DomainId) -> Attached:
        with self._lock:
            found = self._attached.get(domain)
        if found is None:
            raise NoSuchDomain(domain=domain)
        return found

    def get(self, domain: DomainId) -> Domain:
        """An attached domain, opened anew if it could not be before.  Raises declared errors."""
        attached = self.find(domain)
        opened = self._open.get(domain)
        if opened is not None:
            return opened
        try:
            opened = self.driver(attached.type).open(domain, attached.path)
        except UnknownDomainType as error:
            # Its driver was there when it was attached.
            raise StorageFailed(domain=domain, reason=error.message) from None
        except BadMetadata as error:
            raise DomainDamaged(domain=domain, reason=str(error)) from None
        except (DomainMissing, OSError) as error:
            raise StorageFailed(domain=domain, reason=str(error)) from None
        with self._lock:
            if domain in self._attached:
                self._open[domain] = opened
        return opened

    def attach(self, item: Attached, opened: Domain) -> None:
        """Serve a domain from now on; remembered durably when this returns."""
        with self._lock:
            if self._attached.get(item.id) != item:
                self._write({**self._attached, item.id: item})
            self._attached[item.id] = item
            self._open[item.id] = opened

    def detach(self, domain: DomainId) -> None:
        """Serve it no longer."""
        with self._lock:
            self._write({key: item for key, item in self._attached.items() if key != domain})
            self._attached.pop(domain, None)
            self._open.pop(domain, None)

    def _read(self) -> dict[DomainId, Attached]:
        if not self._file.exists():
            return {}
        try:
            items = msgspec.json.decode(self._file.read_bytes(), type=list[Attached])
        except msgspec.MsgspecError as error:
            reason = f"it cannot be read ({error}); restore it, or move it away and attach the domains again"
            raise OSError(errno.EINVAL, reason, str(self._file)) from None
        return {item.id: item for item in items}

    def _write(self, items: dict[DomainId, Attached]) -> None:
        data = msgspec.json.format(msgspec.json.encode(list(items.values())), indent=2)
        try:
            durable.replace(str(self._file), data + b"\n", suffix=NEW)
        except OSError:
            # The file may have been replaced, and only that not be known to last: what it says is served.
            self._attached = self._read()
            raise
