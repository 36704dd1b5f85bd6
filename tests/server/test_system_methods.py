# SPDX-License-Identifier: Apache-2.0
"""XML-RPC as the standard library's client sees it, ``system`` methods included."""

from __future__ import annotations

import http.client
import re
import socket
import time
import xmlrpc.client
from collections.abc import Iterator
from typing import Any

import pytest

from libvdsm.api import VERBS
from tests.server.raw import Framed, Served, fault_name

SYSTEM = ["system.listMethods", "system.methodHelp", "system.methodSignature", "system.multicall"]


class _UnixConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.host)


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: str) -> None:
        super().__init__(use_builtin_types=True)
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        if self._connection and self._connection[1]:
            return self._connection[1]
        self._connection = "unix", _UnixConnection(self._path)
        return self._connection[1]


@pytest.fixture
def proxy(served: Served) -> Iterator[Any]:
    """Over TCP, which may read."""
    host, port = served.http
    with xmlrpc.client.ServerProxy(f"http://{host}:{port}/RPC2") as made:
        yield made


@pytest.fixture
def unix_proxy(served: Served) -> Iterator[Any]:
    """Over the Unix socket, with all rights."""
    transport = _UnixTransport(str(served.daemon.http_socket))
    with xmlrpc.client.ServerProxy("http://localhost/RPC2", transport) as made:
        yield made


def test_a_verb_is_a_method_with_one_structure(proxy: Any) -> None:
    assert abs(proxy.Host.ping()["time"] - time.time()) < 60
    assert proxy.Host.ping({}).keys() == {"time"}
    assert proxy.Task.list({"limit": 1})["items"]


def test_the_path_may_be_left_out(served: Served) -> None:
    host, port = served.http
    with xmlrpc.client.ServerProxy(f"http://{host}:{port}") as proxy:
        assert proxy.Host.ping()


def test_integers_beyond_32_bits_travel_as_i8(unix_proxy: Any, served: Served, framed: Framed) -> None:
    after = unix_proxy.Event.poll()["next"]
    assert after > 2**31
    [domain] = unix_proxy.Domain.list()["items"]
    # The standard library reads them and writes none: a size beyond 32 bits comes from elsewhere.
    made = framed.result("Image.create", {"domain": domain["id"], "capacity": 2**33})
    framed.finish(made)
    info = unix_proxy.Image.getInfo({"domain": domain["id"], "image": made["image"]})
    assert info["capacity"] == 2**33
    framed.finish(framed.result("Image.delete", {"domain": domain["id"], "image": made["image"]}))


def test_methods_are_listed(proxy: Any) -> None:
    assert proxy.system.listMethods() == sorted([*VERBS, *SYSTEM])


@pytest.mark.parametrize("name", [*VERBS, *SYSTEM])
def test_each_method_has_help_and_a_signature(proxy: Any, name: str) -> None:
    assert len(proxy.system.methodHelp(name)) > 20
    if name in VERBS:
        assert proxy.system.methodHelp(name) == VERBS[name].doc
        assert proxy.system.methodSignature(name) == [["struct", "struct"] if VERBS[name].parameters else ["struct"]]
    else:
        assert proxy.system.methodSignature(name) == "undef"


@pytest.mark.parametrize("method", ["methodHelp", "methodSignature"])
@pytest.mark.parametrize(
    ("args", "name"),
    [
        (("No.such",), "NoSuchVerb"),
        ((), "InvalidParameter"),
        ((1,), "InvalidParameter"),
        (("a", "b"), "InvalidParameter"),
    ],
)
def test_what_they_cannot_answer_is_a_fault(proxy: Any, method: str, args: tuple[Any, ...], name: str) -> None:
    with pytest.raises(xmlrpc.client.Fault) as caught:
        getattr(proxy.system, method)(*args)
    assert fault_name(caught.value) == name


def test_there_is_no_other_system_method(proxy: Any) -> None:
    with pytest.raises(xmlrpc.client.Fault) as caught:
        proxy.system.shutdown()
    assert fault_name(caught.value) == "NoSuchVerb"


def test_a_fault_is_a_number_and_a_text_for_people(proxy: Any) -> None:
    with pytest.raises(xmlrpc.client.Fault) as caught:
        proxy.Task.getInfo({"task": "00000000-0000-0000-0000-000000000000"})
    assert caught.value.faultCode == 501
    first, _, data = caught.value.faultString.partition("\n")
    assert re.match(r"There is no task 0+-", first)
    assert '"name":"NoSuchTask"' in data


def test_many_calls_travel_as_one(proxy: Any) -> None:
    many = xmlrpc.client.MultiCall(proxy)
    many.Host.ping()
    many.Task.list({"limit": 1})
    many.Domain.list({})
    results: Any = many()
    ping, tasks, domains = results
    assert ping["time"]
    assert len(tasks["items"]) == len(domains["items"]) == 1


def test_one_that_fails_fails_alone(proxy: Any) -> None:
    many = xmlrpc.client.MultiCall(proxy)
    many.Host.ping()
    many.Host.nonsense()
    many.Host.ping()
    results: Any = many()
    assert results[0]["time"]
    with pytest.raises(xmlrpc.client.Fault):
        results[1]
    assert results[2]["time"]


def test_many_calls_have_no_more_rights_than_one(proxy: Any) -> None:
    many = xmlrpc.client.MultiCall(proxy)
    many.Task.clear({"task": "00000000-0000-0000-0000-000000000000"})
    results: Any = many()
    with pytest.raises(xmlrpc.client.Fault) as caught:
        results[0]
    assert fault_name(caught.value) == "AccessDenied"
