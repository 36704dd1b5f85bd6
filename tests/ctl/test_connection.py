# SPDX-License-Identifier: Apache-2.0
"""Where the service is looked for, and what is said when it is not there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hsmctl import connection
from tests.ctl.conftest import ROOT, Ctl, address
from tests.service import Daemon


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user who has no service."""
    path = tmp_path / "hsm.sock"
    monkeypatch.setattr(connection, "default_sockets", lambda: [path])
    return path


def test_root_looks_in_the_hosts_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert connection.default_sockets() == [Path("/run/hsm/hsm.sock")]


def test_a_user_looks_in_the_own_folder_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert [str(path) for path in connection.default_sockets()] == [
        "/home/me/.local/state/hsm/run/hsm.sock",
        "/run/hsm/hsm.sock",
    ]


def test_without_a_service_the_error_says_where_it_looked_and_how_to_start_one(nowhere: Path, offline: Ctl) -> None:
    result = offline("host", "ping")
    assert result.status == 3
    assert f"hsmctl: error: No answer from unix:{nowhere}: No such file or directory." in result.err
    assert "hsmd --home FOLDER" in result.err
    assert "--connect" in result.err


@pytest.mark.usefixtures("nowhere")
def test_the_same_as_json(offline: Ctl) -> None:
    result = offline("host", "ping", "--json")
    assert result.status == 3
    assert result.error["name"] == "ConnectionFailed"
    assert result.error["code"] == 111


@pytest.mark.parametrize(
    "address", ["unix:/nonexistent/x", "tcp:127.0.0.1:1", "http://127.0.0.1:1", "exec:/nonexistent/x"]
)
def test_an_address_where_nobody_answers_ends_with_3(address: str, offline: Ctl) -> None:
    result = offline("--connect", address, "host", "ping")
    assert result.status == 3
    assert f"No answer from {address}" in result.err


def test_a_program_that_ends_at_once_is_no_service(offline: Ctl) -> None:
    assert offline("--connect", "exec:true", "host", "ping").status == 3


def test_what_is_no_address_ends_with_2(offline: Ctl) -> None:
    result = offline("--connect", "somewhere", "host", "ping")
    assert result.status == 2
    assert "tcp:HOST:PORT" in result.err


def test_the_environment_gives_the_address(
    shared_daemon: Daemon, monkeypatch: pytest.MonkeyPatch, offline: Ctl
) -> None:
    monkeypatch.setenv("HSM_CONNECT", address(shared_daemon))
    assert offline.ok("host", "ping") == "The service answers.\n"


def test_a_socket_in_a_default_place_is_found(
    shared_daemon: Daemon, monkeypatch: pytest.MonkeyPatch, offline: Ctl
) -> None:
    monkeypatch.setattr(connection, "default_sockets", lambda: [Path("/nonexistent/x"), shared_daemon.socket])
    assert offline.ok("host", "ping") == "The service answers.\n"


def test_a_quick_command_loads_no_libraries_for_looks(shared_daemon: Daemon) -> None:
    code = (
        "import sys; from hsmctl.main import run; status = run(sys.argv[1:]);"
        "print(sorted({'rich', 'argcomplete', 'pygments'} & set(sys.modules)), status)"
    )
    words = [sys.executable, "-c", code, "--connect", address(shared_daemon), "host", "ping"]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    assert ended.stdout == "The service answers.\n[] 0\n"


def test_over_tcp_a_stranger_may_look_and_not_touch(own_daemon: Daemon, ctl: Ctl, tmp_path: Path) -> None:
    ctl.address = address(own_daemon)
    wires = ctl.json("host", "capabilities")["wires"]
    for scheme in ("tcp:", "http:"):
        wire = next(wire for wire in wires if wire.startswith(scheme))
        ctl.address = wire
        assert ctl.ok("image", "list").startswith("There are no images yet.")
        message = ctl.refused("image", "create", "web01", "--size", "1M")
        assert "needs the right to operate" in message
        assert "(AccessDenied)" in message
        assert "run hsmctl on the host of the service" in ctl.refused("image", "export", "web01", tmp_path / "out")
        assert not (tmp_path / "out").exists()
        assert "may only read" in ctl.ok("doctor")
