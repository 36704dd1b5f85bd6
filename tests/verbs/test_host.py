# SPDX-License-Identifier: Apache-2.0
"""Host: what the service says of itself."""

from __future__ import annotations

import os
import re
import time
from importlib.metadata import version
from pathlib import Path

from libvdsm.api import VERBS, VERSION
from libvdsm.api.host import DriverInfo
from tests.service import Daemon
from tests.verbs.scene import Scene


def test_ping_tells_the_time(scene: Scene) -> None:
    before = time.time()
    assert before <= scene.client.host.ping().time <= time.time()


def test_ping_touches_no_storage(scene: Scene) -> None:
    scene.root.parent.rename(scene.root.parent.with_name("gone"))
    assert scene.client.host.ping().time > 0
    assert scene.client.host.get_capabilities().api == VERSION


def test_capabilities_tell_versions_verbs_drivers_and_tools(scene: Scene) -> None:
    found = scene.client.host.get_capabilities()
    assert (found.version, found.api) == (version("hsm"), VERSION)
    assert found.verbs == list(VERBS)
    assert found.drivers == [
        DriverInfo(
            type="local",
            driver_api="1.1",
            shared=False,
            block=False,
            preallocation=True,
            description="a folder of this host",
        )
    ]
    assert found.task_modes == ["nonTransparent", "transparent", "default"]
    assert found.wires == []
    tools = {tool.name: tool for tool in found.tools}
    assert tools.keys() == {"qemu-img", "qemu-nbd", "setpriv", "ovirt-imageio"}
    assert re.match(r"qemu-img version \d+\.\d+", tools["qemu-img"].version or "")
    for tool in tools.values():
        assert tool.path is not None
        assert Path(tool.path).name == tool.name
        assert tool.missing is None


def test_a_daemon_tells_its_wires(daemon: Daemon) -> None:
    with daemon.client() as client:
        assert client.host.get_capabilities().wires == [f"unix:{daemon.socket}", f"http+unix:{daemon.http_socket}"]
        stats = client.host.get_stats()
    assert stats.connections == 1
    assert stats.domains == 1
    assert 2**24 < stats.memory < 2**28
    assert 0 < stats.start_duration < 10
    assert 0 < stats.cpu < 10


def test_stats_tell_of_tasks_domains_and_children(scene: Scene) -> None:
    image = scene.image()
    before = scene.client.host.get_stats()
    assert (before.tasks_queued, before.tasks_running, before.domains, before.children) == (0, 0, 1, [])
    assert before.threads > 1
    assert before.memory > 2**20
    prepared = scene.client.image.prepare(domain=scene.domain, image=image.id)
    after = scene.client.host.get_stats()
    assert [(child.pid, child.name) for child in after.children] == [(prepared.keeper, f"keeper of {image.id}")]
    assert 0 < after.children[0].memory < 2**24
    assert after.calls == before.calls + 2
    assert after.started == before.started < time.time()
    assert after.uptime >= before.uptime > 0
    assert after.cpu >= before.cpu > 0
    assert abs(after.started + after.uptime - time.time()) < 1
    assert os.path.exists(f"/proc/{prepared.keeper}")
