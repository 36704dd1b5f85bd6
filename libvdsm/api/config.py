# SPDX-License-Identifier: Apache-2.0
"""Config: the settings that the service runs with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated

from msgspec import Meta

from libvdsm.api.types import Text, Word
from libvdsm.declare import Info, Right, verb


class Setting(Info, frozen=True, kw_only=True):
    """One setting."""

    section: Annotated[Word, Meta(description="its section in the configuration file")]
    key: Annotated[Word, Meta(description="its name")]
    value: Annotated[Text, Meta(description="its value, written as in the file")]
    default: Annotated[Text, Meta(description="the value it has when nobody sets it")]
    description: Annotated[Text, Meta(description="what it does, with its unit")]


class Settings(Info, frozen=True, kw_only=True):
    """Settings, in the order of the file."""

    items: Annotated[list[Setting], Meta(description="the settings")]
    file: Annotated[Text, Meta(description="the file they were read from")] | None = None


class Config(ABC):
    """The settings that the service runs with."""

    @verb(since="1.0", right=Right.READ, positional=("section",))
    @abstractmethod
    def get(
        self, *, section: Annotated[Word, Meta(description="only this section; absent: all")] | None = None
    ) -> Settings:
        """Tell the settings in force, with their defaults and meanings."""
