# SPDX-License-Identifier: Apache-2.0
"""A service that is being started is waited for; one that cannot come is not."""

from __future__ import annotations

import io
import os
import socket
import stat
import time
from pathlib import Path

import pytest

from hsmctl import connection, waiting
from tests.ctl.conftest import Ctl, address, process
from tests.service import Daemon

LONG = "60"
"""Seconds that no test here takes, unless something waits that should not."""


def quick(began: float) -> bool:
    return time.monotonic() - began < 20


def test_a_command_waits_for_a_service_that_is_starting(offline: Ctl, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    starting = Daemon(tmp_path / "home")
    try:
        said = offline("--connect", address(starting), "--connect-timeout", LONG, "host", "ping")
    finally:
        starting.stop()
    assert (said.status, said.out, said.err) == (0, "The service answers.\n", "")


def test_a_command_waits_for_a_service_that_starts_again_after_a_kill(
    offline: Ctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Daemon(tmp_path / "home").wait()
    first.kill()
    assert first.socket.exists()
    monkeypatch.setenv("HSM_CONNECT_TIMEOUT", LONG)
    command = process("--connect", address(first), "host", "ping")
    second = Daemon(tmp_path / "home")
    try:
        out, err = command.communicate(timeout=60)
    finally:
        second.stop()
    assert (out, err, command.returncode) == ("The service answers.\n", "", 0)


def test_the_doctor_waits_too(offline: Ctl, tmp_path: Path) -> None:
    starting = Daemon(tmp_path / "home")
    try:
        said = offline("--connect", address(starting), "--connect-timeout", LONG, "doctor")
    finally:
        starting.stop()
    assert "API 1." in said.out


def test_zero_seconds_say_at_once_whether_a_service_is_there(offline: Ctl, tmp_path: Path) -> None:
    began = time.monotonic()
    result = offline("--connect", f"unix:{tmp_path}/run/x", "--connect-timeout", "0", "host", "ping")
    assert result.status == 3
    assert quick(began)


def test_a_wait_ends_when_its_time_is_over(offline: Ctl, tmp_path: Path) -> None:
    began = time.monotonic()
    assert offline("--connect", f"unix:{tmp_path}/x", "--connect-timeout", "0.2", "host", "ping").status == 3
    assert 0.2 <= time.monotonic() - began < 20


@pytest.mark.parametrize("where", ["unix:/nonexistent/run/x", "tcp:192.0.2.1:1", "exec:/nonexistent/x"])
def test_what_cannot_come_is_not_waited_for(where: str) -> None:
    began = time.monotonic()
    waiting.until_one_listens([where], float(LONG))
    assert quick(began)


def test_without_any_folder_of_sockets_nothing_is_waited_for(
    offline: Ctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "default_sockets", lambda: [tmp_path / "run" / "hsm.sock"])
    began = time.monotonic()
    assert offline("--connect-timeout", LONG, "host", "ping").status == 3
    assert quick(began)


@pytest.mark.parametrize("form", ["tcp:127.0.0.1:{}", "http://127.0.0.1:{}", "tcp:localhost:{}", "tcp:[::1]:{}"])
def test_loopback_is_waited_for(form: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        where = form.format(taken.getsockname()[1])
        began = time.monotonic()
        failures = waiting.until_one_listens([where], 0.15)
    assert isinstance(failures[where], OSError)
    if isinstance(failures[where], ConnectionRefusedError):  # a host without IPv6 says something else
        assert time.monotonic() - began >= 0.15


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_is_told_what_is_waited_for_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_TELL", 0.1)
    for stream, told in ((Terminal(), f"hsmctl: waiting for hsmd at unix:{tmp_path}/x\n"), (io.StringIO(), "")):
        monkeypatch.setattr("sys.stderr", stream)
        waiting.until_one_listens([f"unix:{tmp_path}/x"], 0.3)
        assert stream.getvalue() == told


def test_a_wrong_time_in_the_environment_is_named(
    offline: Ctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HSM_CONNECT_TIMEOUT", "soon")
    result = offline("--connect", f"unix:{tmp_path}/x", "host", "ping")
    assert result.status == 2
    assert "$HSM_CONNECT_TIMEOUT: 'soon' is not a time" in result.err


@pytest.mark.parametrize("given", [True, False])
def test_a_socket_of_another_user_is_told_as_such(
    given: bool, offline: Ctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "hsm.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0)
        if os.getuid() == 0:  # root may use any socket: the kernel's answer to others is put in its place
            monkeypatch.setattr(waiting, "_refusal", lambda _: PermissionError(13, "Permission denied"))
        monkeypatch.setattr(connection, "default_sockets", lambda: [path])
        words = ["--connect", f"unix:{path}"] if given else []
        result = offline(*words, "--connect-timeout", LONG, "host", "ping")
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert result.status == 3
    assert "runs for another user" in result.err
    assert "Is hsmd running?" not in result.err
