# SPDX-License-Identifier: Apache-2.0
"""Addresses, and what becomes of a client whose service is not there, or goes away."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libvdsm.api.errors import ConnectionFailed, NotSupported
from libvdsm.client import connect
from tests import service
from tests.client.conftest import Reachable, addresses

TIMEOUT = 30.0


NO_ADDRESS = (
    *("", "unix", "unix:", "tcp:", "tcp:host", "tcp:host:", "tcp::1", "tcp:host:x", "exec:", "/run/hsm/hsm.sock"),
    *("http://", "http://host", "http://:1", "http:host:1", "http://host:x", "http+unix:", "https://host:1"),
)


@pytest.mark.parametrize("address", NO_ADDRESS)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError) as caught:
        connect(address)
    assert not isinstance(caught.value, UnicodeError)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("form", ["unix:{path}", "tcp:127.0.0.1:{port}", "tcp:[::1]:{port}", "exec:{path} --stdio"])
def test_where_nobody_answers_the_address_is_named(tmp_path: Path, form: str) -> None:
    address = form.format(path=tmp_path / "nothing", port=free_port())
    with pytest.raises(ConnectionFailed) as caught:
        connect(address)
    assert caught.value.address == address
    assert caught.value.reason in ("No such file or directory", "Connection refused", "Cannot assign requested address")
    assert address in str(caught.value)


@pytest.mark.parametrize("form", ["http+unix:{path}", "http://127.0.0.1:{port}"])
def test_over_http_that_is_noticed_by_the_first_call(tmp_path: Path, form: str) -> None:
    address = form.format(path=tmp_path / "nothing", port=free_port())
    with connect(address) as client, pytest.raises(ConnectionFailed) as caught:
        client.host.ping()
    assert caught.value.address == address


@pytest.mark.parametrize("program", ["false", "true", "echo hello", "cat"])
def test_a_program_that_is_no_service_is_a_failed_connection(program: str) -> None:
    """One that ends, one that says something else, one that says the same."""
    with connect(f"exec:{program}") as client, pytest.raises(ConnectionFailed):
        client.host.ping()


@pytest.fixture
def fleeting(tmp_path: Path) -> Iterator[service.Daemon]:
    """A service that a test may kill."""
    settings = ("listen.tcp=yes", "listen.http_port=0", "listen.jsonrpc_port=0")
    with service.daemon(tmp_path / "home", *settings) as running:
        yield running


def test_a_connection_lost_in_the_middle_of_a_call_is_an_error_that_names_the_address(fleeting: service.Daemon) -> None:
    failures: dict[str, Any] = {}
    waiting = threading.Semaphore(0)
    all_addresses = addresses(fleeting)

    def wait(name: str) -> None:
        with connect(all_addresses[name]) as client:
            after = client.event.poll().next
            waiting.release()
            try:
                while True:
                    after = client.event.poll(after=after, timeout=TIMEOUT).next
            except ConnectionFailed as error:
                failures[name] = error

    threads = [threading.Thread(target=wait, args=(name,)) for name in all_addresses]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert waiting.acquire(timeout=TIMEOUT)
    fleeting.kill()
    for thread in threads:
        thread.join(TIMEOUT)
    assert {name: error.address for name, error in failures.items()} == all_addresses
    assert all(error.reason for error in failures.values())


def test_listening_ends_with_the_connection(fleeting: service.Daemon) -> None:
    clients = [connect(address) for address in addresses(fleeting).values()]
    streams = [client.listen() for client in clients]
    fleeting.kill()
    for stream in streams:
        for _ in stream:
            """What happened before."""
    for client in clients:
        client.close()


def test_over_http_a_client_goes_on_with_the_next_service(fleeting: service.Daemon) -> None:
    with connect(f"http+unix:{fleeting.http_socket}") as client:
        assert client.host.ping()
        fleeting.stop()
        with pytest.raises(ConnectionFailed):
            client.host.ping()
        with service.daemon(fleeting.home):
            assert client.host.ping()


@pytest.mark.parametrize("transport", ["tcp", "http", "http+unix", "exec"])
def test_an_open_file_goes_only_over_the_unix_socket(reachable: Reachable, transport: str) -> None:
    with connect(reachable.addresses[transport]) as client:
        domain = client.domain.list().items[0].id
        with open(os.devnull, "rb") as file, pytest.raises(NotSupported):
            client.image.import_(domain=domain, source=file.fileno())
        assert client.host.ping()


def test_many_files_may_be_given_one_after_the_other(reachable: Reachable, tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(bytes(512))
    with connect(reachable.addresses["unix"]) as client, (tmp_path / "raw").open("rb") as file:
        domain = client.domain.list().items[0].id
        for _ in range(3):
            made = client.wait(client.image.import_(domain=domain, source=file.fileno(), name="raw"), timeout=TIMEOUT)
            client.wait(client.image.delete(domain=domain, image=made.id), timeout=TIMEOUT)
        assert not file.closed


def test_a_program_ends_with_its_client(reachable: Reachable, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = f"import os, pathlib; pathlib.Path({str(pid)!r}).write_text(str(os.getpid())); "
    script += "os.read(0, 1); os._exit(0)"
    client = connect(f'exec:{sys.executable} -c "{script}"')
    client.close()
    # Waited for, so no zombie is left either.
    assert not Path("/proc", pid.read_text()).exists()


def test_what_is_listened_to_needs_no_reader_to_begin(reachable: Reachable) -> None:
    """Listening has begun when ``listen`` returns, whoever reads it and when."""
    for address in reachable.addresses.values():
        with connect(address) as client:
            events = client.listen()
            domain = client.domain.list().items[0].id
            task = client.domain.check(domain=domain)
            client.wait(task, timeout=TIMEOUT)
            ours = (event.data["state"] for event in events if event.data.get("task") == str(task.id))
            assert next(ours) == "queued"
