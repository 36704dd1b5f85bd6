# SPDX-License-Identifier: Apache-2.0
"""The settings of hsmd: their defaults, and the file that explains them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hsm.config import HEADING, HsmConfig, embedded
from libvdsm.config import ConfigError, Key, keys, load, template, write_value

KEYS = list(keys(HsmConfig))
DOTTED = [f"{key.section}.{key.name}" for key in KEYS]


def test_hsmd_listens_where_clients_expect_it() -> None:
    listen = HsmConfig().listen
    assert (listen.address, listen.http_port, listen.jsonrpc_port) == ("127.0.0.1", 54330, 54331)


def test_callers_who_cannot_be_known_may_only_read() -> None:
    assert HsmConfig().rights.anonymous == "read"
    assert HsmConfig().rights.other_users == "read"


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.0.1", "localhost"])
def test_no_address_but_loopback_can_be_listened_on(address: str) -> None:
    with pytest.raises(ConfigError):
        load(HsmConfig, None, {"listen.address": address})


@pytest.mark.parametrize("key", KEYS, ids=DOTTED)
def test_every_key_is_explained(key: Key) -> None:
    assert key.description[0].isupper() or key.description.startswith("text for people")
    assert key.description.endswith(".")


@pytest.mark.parametrize("key", KEYS, ids=DOTTED)
def test_every_default_can_be_written_into_the_file(key: Key, tmp_path: Path) -> None:
    """The line that the template shows, without its ``#``, parses to the default."""
    file = tmp_path / "hsm.conf"
    text = template(HsmConfig, HEADING)
    line = f"{key.name} = {write_value(key.default)}".rstrip()
    assert f"\n#{line}\n" in text
    file.write_text(text.replace(f"\n#{line}\n", f"\n{line}\n"))
    assert load(HsmConfig, file) == HsmConfig()


def test_the_whole_template_uncommented_is_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "hsm.conf"
    lines = template(HsmConfig, HEADING).splitlines()
    file.write_text("\n".join(line[1:] if line[:1] == "#" and line[:2] != "# " else line for line in lines))
    assert load(HsmConfig, file) == HsmConfig()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("listen.http_port", "65536"),
        ("listen.http_port", "-1"),
        ("listen.unix_mode", "0999"),
        ("listen.unix_mode", "666x"),
        ("limits.message", "1K"),
        ("limits.message", "2G"),
        ("limits.nesting", "7"),
        ("limits.nesting", "501"),
        ("limits.connections", "0"),
        ("limits.idle", "0"),
        ("limits.idle", "nan"),
        ("limits.idle", "inf"),
        ("rights.anonymous", "root"),
        ("rights.other_users", "READ"),
        ("tasks.workers", "0"),
        ("service.host_id", "0"),
        ("service.host_id", "2001"),
        ("log.level", "trace"),
        ("log.style", "xml"),
    ],
)
def test_values_that_cannot_work_are_refused(setting: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"--set {setting}: "):
        load(HsmConfig, None, {setting: value})


def test_a_service_in_one_folder_keeps_everything_there_and_is_reached_by_its_user_alone(tmp_path: Path) -> None:
    config = load(HsmConfig, None, embedded(tmp_path))
    folders = (config.service.state_dir, config.service.run_dir, config.service.default_domain)
    assert all(Path(folder).parent == tmp_path for folder in folders)
    assert not config.listen.tcp
    assert config.listen.unix_mode == "0600"


def hsmd(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "hsm.daemon", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False)


def test_hsmd_does_not_start_with_a_file_that_it_does_not_understand(tmp_path: Path) -> None:
    (tmp_path / "hsm.conf").write_text("[listen]\ntcp = maybe\n")
    ended = hsmd("--home", str(tmp_path))
    assert ended.returncode == 1
    assert ended.stderr == f"hsmd: {tmp_path}/hsm.conf:2: [listen] tcp = maybe: expected yes or no\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["hsm.conf"]


def test_hsmd_says_where_it_cannot_keep_its_sockets(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = hsmd("--home", str(tmp_path / "file"))
    assert ended.returncode == 1
    assert "Not a directory" in ended.stderr
    assert "Traceback" not in ended.stderr
