# SPDX-License-Identifier: Apache-2.0
"""Config: the settings in force."""

from __future__ import annotations

from pathlib import Path

from libvdsm.api.config import Setting
from libvdsm.api.errors import InvalidParameter
from tests.service import daemon
from tests.verbs.conftest import Restart
from tests.verbs.provoked import provokes
from tests.verbs.scene import Scene, raised


def test_get_tells_every_setting_with_its_default_and_meaning(scene: Scene) -> None:
    found = scene.client.config.get()
    assert found.file is None
    names = [(setting.section, setting.key) for setting in found.items]
    assert len(set(names)) == len(names)
    sections = {"service", "listen", "limits", "rights", "tasks", "storage", "transfer", "log", "audit"}
    assert sections == {section for section, _ in names}
    assert all(setting.description for setting in found.items)
    state = next(setting for setting in found.items if setting.key == "state_dir")
    assert state.section == "service"
    assert (state.value, state.default) == (str(scene.root.parent.parent / "state"), "/var/lib/hsm")


def test_get_tells_one_section(scene: Scene, restart: Restart) -> None:
    whole = scene.client.config.get()
    storage = scene.client.config.get(section="storage")
    assert storage.items == [setting for setting in whole.items if setting.section == "storage"]
    changed = restart(scene.domain, storage__lease_wait="2.5").client.config.get(section="storage")
    assert changed.items[0] == Setting(
        section="storage",
        key="lease_wait",
        value="2.5",
        default="10.0",
        description="How long to wait while somebody else changes a domain's metadata. (seconds)",
    )


@provokes("Config.get", "InvalidParameter")
def test_there_is_no_section_of_another_name(scene: Scene) -> None:
    error = raised(InvalidParameter, lambda: scene.client.config.get(section="colours"))
    assert "storage" in error.reason


def test_get_tells_the_file(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "hsm.conf").write_text("[tasks]\nworkers = 3\n")
    with daemon(home) as running, running.client() as client:
        found = client.config.get(section="tasks")
    assert found.file == str(home / "hsm.conf")
    assert {setting.key: setting.value for setting in found.items}["workers"] == "3"
