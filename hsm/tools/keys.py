# SPDX-License-Identifier: Apache-2.0
"""How a program gets a key: this is the one place.

The key lies in a sealed file in memory, which the program inherits; its command line names the file by number, and the
key by a name that is made of the secret's id.  So the value is on no command line, in no environment and on no disk.
The file is closed here as soon as the program has begun or ended.

A key that does not open what it is to open is told apart from every other failure: ``KeyRefused``.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from uuid import UUID

from libvdsm.run import CommandError

_REFUSED = ("Invalid password, cannot unlock any keyslot",)
_LOWEST = 16
"""Below are numbers that programs expect to find something else at."""
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


@dataclass(frozen=True, repr=False)
class Key:
    """The value of a secret, for programs.  ``generated``: nobody can guess it, however fast a guess is."""

    secret: UUID
    value: bytes
    generated: bool

    @property
    def name(self) -> str:
        """What a program knows it by."""
        return f"key-{self.secret}"

    def __repr__(self) -> str:
        return f"Key({self.secret})"


class KeyRefused(CommandError):
    """A key does not open a volume.  ``secret``: the one that was tried; of several, one of them."""

    def __init__(self, error: CommandError, secret: UUID) -> None:
        super().__init__(error.program, "the secret does not open it", error.status)
        self.secret = secret


@dataclass(frozen=True)
class Handed:
    """``arguments`` that introduce the keys, and the open files that these name."""

    arguments: tuple[str, ...] = ()
    descriptors: tuple[int, ...] = ()


@contextmanager
def handed(keys: Sequence[Key]) -> Iterator[Handed]:
    """Keys for one program; without any nothing is done."""
    different = list({key.name: key for key in keys}.values())
    with ExitStack() as files:
        descriptors = []
        for key in different:
            descriptors.append(_in_memory(key))
            files.callback(os.close, descriptors[-1])
        pairs = zip(different, descriptors, strict=True)
        named = [("--object", f"secret,id={key.name},file=/dev/fd/{number}") for key, number in pairs]
        try:
            yield Handed(tuple(word for words in named for word in words), tuple(descriptors))
        except CommandError as error:
            if different and any(text in error.reason for text in _REFUSED):
                raise KeyRefused(error, different[0].secret) from None
            raise


def _in_memory(key: Key) -> int:
    made = os.memfd_create("key", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(made, key.value)
        fcntl.fcntl(made, fcntl.F_ADD_SEALS, _SEALS)
        return fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, _LOWEST)
    finally:
        os.close(made)
