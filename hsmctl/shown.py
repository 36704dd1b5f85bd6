# SPDX-License-Identifier: Apache-2.0
"""What is known of a call when its result is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hsmctl.names import Names
from libvdsm.declare import Verb


@dataclass(frozen=True)
class Shown:
    """What a view may need beside the result: the verb, what it was given, and names."""

    verb: Verb
    given: Mapping[str, Any]
    names: Names
    taken_raw: bool = False
    """Whether a local file was taken for raw data because nothing in it says otherwise."""

    def name(self, parameter: str) -> str:
        """What the user called the thing that a parameter means."""
        value = self.given.get(parameter)
        return self.names.known.get(value, "") or str(value) if value is not None else ""
