# SPDX-License-Identifier: Apache-2.0
"""Open files that come with a call: whose they are, what happens to those that nobody wants, and that none stay open."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libvdsm.wire.framing import frame
from tests import service
from tests.server.conftest import ANY_PORTS
from tests.server.raw import Framed, Served, request, until

CAPACITY = 2**20


@pytest.fixture
def domain(framed: Framed) -> str:
    return str(framed.result("Domain.list")["items"][0]["id"])


@pytest.fixture
def source(tmp_path: Path) -> Iterator[int]:
    """A raw image, open for reading."""
    file = tmp_path / "source.raw"
    file.write_bytes(os.urandom(4096) + bytes(CAPACITY - 4096))
    descriptor = os.open(file, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def others() -> Iterator[list[int]]:
    """Files that nobody asked for."""
    descriptors = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
    yield descriptors
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.fixture(autouse=True)
def nothing_stays_open(served: Served, framed: Framed) -> Iterator[None]:
    """After each test the service has as much open as before."""
    # The connections of the tests before are gone: each closes its socket before it is counted out.
    assert until(lambda: framed.result("Host.getStats")["connections"] == 1)
    before = served.descriptors()
    yield
    assert until(lambda: framed.result("Host.getStats")["connections"] == 1)
    assert served.descriptors() == before


def params(domain: str, index: int, **more: Any) -> dict[str, Any]:
    return {"domain": domain, "source": index, "sourceFormat": "raw", **more}


def imported(framed: Framed, task: Any) -> str:
    """The image that an import made; it is deleted again."""
    ended = framed.finish(task)
    assert ended["state"] == "succeeded", ended
    image = str(ended["result"]["id"])
    framed.finish(framed.result("Image.delete", {"domain": task["domain"], "image": image}))
    return image


def test_a_file_comes_with_the_call_that_names_its_index(framed: Framed, domain: str, source: int) -> None:
    imported(framed, framed.result("Image.import", params(domain, 0), [source]))


def test_several_may_come_and_the_index_tells_them_apart(
    framed: Framed, domain: str, source: int, others: list[int]
) -> None:
    imported(framed, framed.result("Image.import", params(domain, 2), [*others[:2], source]))


def test_each_call_of_a_batch_may_name_one(framed: Framed, domain: str, source: int) -> None:
    batch = b",".join(request("Image.import", params(domain, 0), call_id) for call_id in (1, 2))
    framed.send(b"[" + batch + b"]", [source])
    for reply in framed.receive():
        imported(framed, reply["result"])


@pytest.mark.parametrize("index", [1, 7, 1023])
def test_an_index_without_a_file_is_refused(framed: Framed, domain: str, source: int, index: int) -> None:
    assert framed.error("Image.import", params(domain, index), [source]) == "InvalidParameter"


def test_so_is_one_when_no_file_came(framed: Framed, domain: str) -> None:
    assert framed.error("Image.import", params(domain, 0)) == "InvalidParameter"


@pytest.mark.parametrize("index", [-1, 1024, 2**31, "0", 0.5, True])
def test_a_number_of_the_services_own_cannot_be_given(framed: Framed, domain: str, index: Any) -> None:
    """Whatever is open in the service itself is out of a client's reach."""
    assert framed.error("Image.import", params(domain, index)) == "InvalidParameter"


def test_the_file_of_an_earlier_call_is_gone(framed: Framed, domain: str, source: int) -> None:
    framed.result("Host.ping", {}, [source])
    assert framed.error("Image.import", params(domain, 0)) == "InvalidParameter"


def test_files_that_nobody_named_are_closed(framed: Framed, served: Served, others: list[int]) -> None:
    before = served.descriptors()
    for verb in ("Host.ping", "No.such", "Image.create"):
        framed.call(verb, {}, others[:8])
        assert served.descriptors() == before
    framed.send(b"no json", others[:3])
    assert framed.receive()["error"]
    assert served.descriptors() == before


def test_so_are_those_of_a_message_that_never_ends(served: Served, framed: Framed, others: list[int]) -> None:
    with Framed(served.unix) as other:
        other.send_bytes(frame(request("Host.ping"))[:-5], others[:4])
        other.send_bytes(b" ", others[4:8])
        other.sock.shutdown(socket.SHUT_WR)
        assert other.is_closed()


def test_so_are_those_of_a_message_that_is_too_large(served: Served, others: list[int]) -> None:
    with Framed(served.unix) as other:
        other.send_bytes((2**60).to_bytes(8, "big"), others[:4])
        assert other.receive()["error"]["data"]["name"] == "TooLarge"
        assert other.is_closed()


@pytest.mark.parametrize("count", [9, 20])
def test_too_many_files_end_the_connection_and_none_stays_open(
    served: Served, framed: Framed, others: list[int], count: int
) -> None:
    with Framed(served.unix) as other:
        other.send(request("Host.ping"), others[:count])
        assert other.is_closed()
    assert framed.result("Host.ping")


def test_a_file_belongs_to_the_message_that_it_came_with_when_several_wait(
    framed: Framed, domain: str, source: int
) -> None:
    """The kernel puts together what was sent apart, up to the bytes that files came with."""
    for order in range(4):
        framed.send(request("Host.ping", call_id=f"before {order}"))
        framed.send(request("Image.import", params(domain, 0), f"import {order}"), [source])
        framed.send(request("Host.ping", call_id=f"after {order}"))
    replies = [framed.receive() for _ in range(12)]
    assert [reply["id"].split()[0] for reply in replies] == ["before", "import", "after"] * 4
    for reply in replies[1::3]:
        imported(framed, reply["result"])


def test_it_belongs_to_a_message_that_comes_in_pieces(framed: Framed, domain: str, source: int) -> None:
    pieces = frame(request("Image.import", params(domain, 0), "import"))
    framed.send_bytes(frame(request("Host.ping", call_id="before")) + pieces[:3], [source])
    framed.send_bytes(pieces[3:])
    assert framed.receive()["id"] == "before"
    imported(framed, framed.receive()["result"])


@pytest.mark.parametrize("what", ["a pipe", "a socket", "a folder", "write only", "nothing behind it"])
def test_a_file_that_cannot_be_imported_is_refused(framed: Framed, domain: str, tmp_path: Path, what: str) -> None:
    read, write = os.pipe()
    one, two = socket.socketpair()
    file = tmp_path / "file"
    file.write_bytes(b"x" * 512)
    opened = [os.open(tmp_path, os.O_RDONLY), os.open(file, os.O_WRONLY), os.open(tmp_path, os.O_PATH)]
    kinds = ("a pipe", "a socket", "a folder", "write only", "nothing behind it")
    given = dict(zip(kinds, (read, one.fileno(), *opened), strict=True))[what]
    reply = framed.call("Image.import", params(domain, 0), [given])
    if "error" not in reply:
        ended = framed.finish(reply["result"])
        reply = {"error": {"data": ended["error"]}}
    assert reply["error"]["data"]["name"] in ("FileNotUsable", "UnsupportedImage", "FormatMismatch", "DamagedImage")
    for descriptor in (read, write, *opened):
        os.close(descriptor)
    one.close()
    two.close()


def test_many_good_and_bad_calls_leave_nothing_open(
    served: Served, framed: Framed, domain: str, source: int, others: list[int]
) -> None:
    for round_ in range(3):
        with Framed(served.unix) as other:
            imported(other, other.result("Image.import", params(domain, 0), [source]))
            other.error("Image.import", params(domain, 5), [source])
            other.error("Image.import", params("00000000-0000-0000-0000-000000000000", 0), [source])
            other.error("Image.import", {"source": 0}, [source])
            other.call("Image.import", params(domain, 0, path="/etc/passwd"), [source])
            other.send(request("Host.ping"), others[: 1 + round_ * 2])
            other.receive()
        with Framed(served.unix) as other:
            other.send(request("Host.ping"), others)
            assert other.is_closed()


def test_over_tcp_no_file_can_come(tmp_path: Path) -> None:
    with service.daemon(tmp_path / "home", *ANY_PORTS, "rights.anonymous=operate") as running:
        served = Served.of(running)
        with Framed(served.unix) as framed, Framed(served.tcp) as other:
            domain = framed.result("Domain.list")["items"][0]["id"]
            assert other.error("Image.import", params(domain, 0)) == "NotSupported"
