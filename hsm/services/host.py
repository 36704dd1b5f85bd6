# SPDX-License-Identifier: Apache-2.0
"""Host: what this service is and how it is."""

from __future__ import annotations

import time

from hsm.services.base import Service
from libvdsm.api import VERSION
from libvdsm.api.host import Capabilities, DriverInfo, Host, HostStats, PingInfo
from libvdsm.api.session import TaskMode


class HostService(Service, Host):
    def ping(self) -> PingInfo:
        return PingInfo(time=time.time())

    def get_capabilities(self) -> Capabilities:
        status = self.parts.status
        drivers = [
            DriverInfo(
                type=type_,
                driver_api=driver.capabilities.driver_api,
                shared=driver.capabilities.shared,
                block=driver.capabilities.block,
                preallocation=driver.capabilities.preallocation,
                description=driver.capabilities.description,
            )
            for type_, driver in sorted(self.context.registry.drivers.items())
        ]
        return Capabilities(
            version=status.version,
            api=VERSION,
            verbs=status.verbs(),
            drivers=drivers,
            wires=status.wires(),
            task_modes=[mode.value for mode in TaskMode if mode is not TaskMode.UNKNOWN],
            tools=status.tools(),
        )

    def get_stats(self) -> HostStats:
        queued, running = self.parts.tasks.counts()
        return self.parts.status.stats(queued, running, len(self.context.registry.all()))
