# SPDX-License-Identifier: Apache-2.0
"""What a program is told of a volume: where it is, its format, what it stands on, and the keys that open it.

A chain of which nothing is encrypted is found by its headers, and a program gets a path, or a node that says no more
than the format.  As soon as anything in a chain is encrypted every layer is spelled out, each with the name of its key.
"""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass, replace

from hsm.tools.keys import Key


@dataclass(frozen=True)
class Source:
    """A volume to be opened.  ``alone``: without what lies below it.  ``below`` is given where anything is encrypted."""

    path: str
    format: str
    alone: bool = False
    key: Key | None = None
    below: Source | None = None

    @property
    def keys(self) -> tuple[Key, ...]:
        """All that open it needs."""
        own = () if self.key is None else (self.key,)
        return own if self.alone or self.below is None else own + self.below.keys

    @property
    def itself(self) -> Source:
        """The same without what lies below it."""
        return replace(self, alone=True)

    def on(self, below: Source) -> Source:
        """The same, as if it stood on another one."""
        return replace(self, alone=False, below=below)

    @property
    def argument(self) -> str:
        return self._argument({})

    @property
    def direct_argument(self) -> str:
        """The same, read past the page cache where the file system can."""
        return self._argument({"cache": {"direct": True}} if takes_direct(self.path) else {})

    @property
    def target(self) -> str:
        """For a program that takes the format apart: a path, where that says all."""
        return self.argument if self.keys else self.path

    @property
    def target_with_format(self) -> tuple[str, ...]:
        """For a program that takes a format with ``-f``; the words that come before all others."""
        return () if self.keys else ("-f", self.format)

    def _argument(self, more: dict[str, object]) -> str:
        return "json:" + json.dumps(self._node(more))

    def _node(self, more: dict[str, object]) -> dict[str, object]:
        file = {"driver": "file", "filename": self.path, **more}
        node: dict[str, object] = {"driver": self.format, "file": file, **more}
        if self.key is not None:
            node["encrypt"] = {"format": "luks", "key-secret": self.key.name}
        if self.alone and self.format == "qcow2":
            node["backing"] = None
        elif self.below is not None and self.keys:
            node["backing"] = self.below._node(more)  # noqa: SLF001  of the same class
        return node


def takes_direct(path: str) -> bool:
    """Whether a file can be read and written past the page cache; some file systems know no such thing."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    return True
