# SPDX-License-Identifier: Apache-2.0
"""Config: the settings in force."""

from __future__ import annotations

from hsm.config import HsmConfig
from hsm.services.base import Service
from libvdsm import config
from libvdsm.api.config import Config, Setting, Settings
from libvdsm.api.errors import InvalidParameter


class ConfigService(Service, Config):
    def get(self, *, section: str | None = None) -> Settings:
        items = []
        sections = set()
        for key in config.keys(HsmConfig):
            sections.add(key.section)
            if section in (None, key.section):
                value = getattr(getattr(self.context.config, key.section), key.name)
                unit = f" ({key.unit})" if key.unit else ""
                items.append(
                    Setting(
                        section=key.section,
                        key=key.name,
                        value=config.write_value(value),
                        default=config.write_value(key.default),
                        description=f"{key.description}{unit}",
                    )
                )
        if not items:
            known = ", ".join(sorted(sections))
            raise InvalidParameter(
                verb="Config.get", reason=f"there is no section {section!r}; the sections are {known}"
            )
        return Settings(items=items, file=self.parts.config_file)
