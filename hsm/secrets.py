# SPDX-License-Identifier: Apache-2.0
"""The secrets of this host: one file for each, which nobody but the service's user may read.

A file appears and goes in one step, on stable storage when that is told.  What a crash leaves of one that was not
defined is taken away at the next start.  The value leaves this module in a ``Key`` alone, which programs are handed.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
import uuid
from pathlib import Path

import msgspec

from hsm.domains import durable
from hsm.tools.keys import Key
from libvdsm.log import Log

log = Log("hsm.secrets")

_VERSION = 1
_NEW = ".new"
_BITS = 256


class SecretsFailed(Exception):
    """The secrets of this host cannot be read or written; the reason tells nothing of their values."""


class Secret(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, repr_omit_defaults=True):
    """One secret, as its file has it."""

    version: int = _VERSION
    id: uuid.UUID
    value: str
    created: float
    generated: bool
    name: str | None = None
    description: str | None = None

    def __repr__(self) -> str:
        return f"Secret({self.id})"


_decode = msgspec.json.Decoder(Secret).decode


class Secrets:
    """All of them.  Methods raise ``SecretsFailed``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._turn = threading.Lock()
        """of those that change something"""
        if folder.is_dir():
            self._clear()

    def find(self, secret: uuid.UUID) -> Secret | None:
        """The secret with this id."""
        return self._read(str(secret))

    def all(self) -> list[Secret]:
        """Every secret, in the order of their ids."""
        try:
            names = sorted(os.listdir(self._folder))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise SecretsFailed(_reason(error)) from None
        found = [self._read(name) for name in names if not name.endswith(_NEW)]
        return [secret for secret in found if secret is not None]

    def key(self, secret: uuid.UUID) -> Key | None:
        """The secret with this id, for programs."""
        found = self.find(secret)
        return None if found is None else Key(found.id, found.value.encode(), found.generated)

    def define(
        self, secret: uuid.UUID, value: str | None, *, name: str | None, description: str | None
    ) -> tuple[Secret, bool]:
        """The secret with this id, and whether it is as it is asked for; made, if there was none.

        ``value``: None for one that is made here.
        """
        with self._turn:
            if (found := self.find(secret)) is not None:
                same = (
                    found.generated if value is None else secrets.compare_digest(found.value.encode(), value.encode())
                )
                return found, same
            made = Secret(
                id=secret,
                value=secrets.token_urlsafe(_BITS // 8) if value is None else value,
                created=time.time(),
                generated=value is None,
                name=name,
                description=description,
            )
            self._write(made)
            return made, True

    def delete(self, secret: uuid.UUID) -> None:
        """Forget one; what is gone stays so."""
        with self._turn:
            try:
                os.unlink(self._folder / str(secret))
                durable.sync_folders(str(self._folder))
            except FileNotFoundError:
                return
            except OSError as error:
                raise SecretsFailed(_reason(error)) from None

    def _write(self, made: Secret) -> None:
        try:
            if not self._folder.is_dir():
                self._folder.mkdir(mode=0o700)
                durable.sync_folders(str(self._folder.parent))
            durable.replace(str(self._folder / str(made.id)), msgspec.json.encode(made), suffix=_NEW, mode=0o600)
        except OSError as error:
            raise SecretsFailed(_reason(error)) from None

    def _read(self, name: str) -> Secret | None:
        try:
            found = _decode((self._folder / name).read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SecretsFailed(_reason(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            # What is in it is nobody's business, not even where it is broken.
            raise SecretsFailed(f"the file of secret {name} is damaged") from None
        if found.version > _VERSION:
            raise SecretsFailed(f"the file of secret {name} was written by a newer version (layout {found.version})")
        return found

    def _clear(self) -> None:
        for left in self._folder.glob(f"*{_NEW}"):
            try:
                left.unlink()
            except OSError as error:
                log.warning("what a crash left of a secret stays", error=_reason(error))


def _reason(error: OSError) -> str:
    return f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}"
