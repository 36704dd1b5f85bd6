# SPDX-License-Identifier: Apache-2.0
"""One service per folder: whoever holds the lock; and it begins and ends as it is told."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from libvdsm.server.listener import listen_unix
from tests import service
from tests.server.conftest import ANY_PORTS
from tests.server.raw import Framed, Post, Served

TIMEOUT = 60


def test_a_second_service_in_the_same_folder_refuses_and_the_first_goes_on(served: Served, framed: Framed) -> None:
    log = served.daemon.log.stat().st_size
    second = service.Daemon(served.daemon.home)
    assert second.process.wait(TIMEOUT) == 3
    with second.log.open() as file:
        file.seek(log)
        [line] = [line for line in file if line.startswith("hsmd: ")]
    assert line == f"hsmd: another service holds {served.daemon.home}/run\n"
    assert framed.result("Host.ping")
    with Framed(served.unix) as other:
        assert other.result("Host.ping")


@pytest.mark.parametrize("beyond", [0, 1])
def test_a_folder_too_deep_for_sockets_is_refused_at_once(tmp_path: Path, beyond: int) -> None:
    home = tmp_path / ("x" * (107 - len(f"{tmp_path}//run/imageio/private/12345678") + beyond))
    running = service.Daemon(home)
    if not beyond:
        running.wait()
        assert running.stop() == 0
        return
    assert running.process.wait(TIMEOUT) == 1
    assert "too long a path for the sockets" in running.log.read_text()
    assert not (home / "run").exists()


def test_a_killed_service_leaves_nothing_in_the_way_of_the_next(tmp_path: Path) -> None:
    with service.daemon(tmp_path / "home") as first:
        first.kill()
        assert first.socket.exists()
        with service.daemon(tmp_path / "home") as second, Framed(str(second.socket)) as framed:
            assert framed.result("Host.ping")


def test_it_ends_when_it_is_told_to_and_its_connections_with_it(tmp_path: Path) -> None:
    with service.daemon(tmp_path / "home", *ANY_PORTS) as running:
        served = Served.of(running)
        with Framed(served.unix) as one, Framed(served.tcp) as two, Post(served.http) as post:
            one.result("Event.subscribe")
            two.result("Host.ping")
            assert post.call("Host.ping")
            assert running.stop() == 0
            assert one.is_closed()
            assert two.is_closed()
    assert "Traceback" not in running.log.read_text()


@pytest.mark.parametrize("moment", ["lock", "hsm.sock", "hsm-http.sock"])
def test_it_ends_when_it_is_told_to_while_it_starts(tmp_path: Path, moment: str) -> None:
    running = service.Daemon(tmp_path / "home")
    while not (tmp_path / "home" / "run" / moment).exists():
        assert running.process.poll() is None
    assert running.stop() in (0, -15)
    assert "Traceback" not in running.log.read_text()


def test_it_says_so_where_a_port_is_taken(served: Served, tmp_path: Path) -> None:
    second = service.Daemon(tmp_path / "home", "listen.tcp=yes", f"listen.jsonrpc_port={served.tcp[1]}")
    assert second.process.wait(TIMEOUT) == 1
    assert "Address already in use" in second.log.read_text()
    assert "Traceback" not in second.log.read_text()


def test_a_socket_left_behind_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    listen_unix(path, 0o600).close()
    with listen_unix(path, 0o640) as listening, socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        assert stat.S_IMODE(os.lstat(path).st_mode) == 0o640
        assert listening.getsockname() == path


def test_a_file_in_its_place_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "socket").write_text("precious")
    with pytest.raises(OSError, match="Address already in use"):
        listen_unix(str(tmp_path / "socket"), 0o600)
    assert (tmp_path / "socket").read_text() == "precious"
