# SPDX-License-Identifier: Apache-2.0
"""Framed JSON-RPC over real sockets: batches, notifications, messages that wait, and what no codec can spoil."""

from __future__ import annotations

import json
import os
import xmlrpc.client
from collections.abc import Iterator

import pytest

from hsm.app import App
from hsm.domains.names import NEW
from libvdsm.api.types import DomainId
from libvdsm.client import Client
from libvdsm.declare import Right
from libvdsm.server import jsonrpc
from libvdsm.server import xmlrpc as xmlrpc_server
from libvdsm.server.caller import Connection
from libvdsm.wire.framing import frame
from tests.server.raw import Framed, Served, request, xml


@pytest.fixture(params=["unix", "tcp"])
def framed(request: pytest.FixtureRequest, served: Served) -> Iterator[Framed]:
    with Framed(served.unix if request.param == "unix" else served.tcp) as connection:
        yield connection


def test_a_batch_is_answered_with_one_message_in_order(framed: Framed) -> None:
    calls = [
        request("Host.ping", call_id="a"),
        request("No.such", call_id="b"),
        request("Task.list", {"limit": 1}, "c"),
    ]
    framed.send(b"[" + b",".join(calls) + b"]")
    replies = framed.receive()
    assert [reply["id"] for reply in replies] == ["a", "b", "c"]
    assert ["error" in reply for reply in replies] == [False, True, False]


def test_what_has_no_id_is_not_answered(framed: Framed) -> None:
    silent = b'{"jsonrpc": "2.0", "method": "Host.ping"}'
    framed.send(silent)
    framed.send(b"[" + silent + b"]")
    framed.send(b"[" + silent + b"," + request("Host.ping", call_id="heard") + b"]")
    assert [reply["id"] for reply in framed.receive()] == ["heard"]


def test_messages_sent_together_are_answered_in_order(framed: Framed) -> None:
    framed.send_bytes(b"".join(frame(request("Host.ping", call_id=number)) for number in range(500)))
    assert [framed.receive()["id"] for _ in range(500)] == list(range(500))


def test_a_message_that_is_none_does_not_end_the_connection(framed: Framed) -> None:
    for message in (b"", b"{", b"[]", b"null", b"\xff\xfe", b"0" * 1000):
        framed.send(message)
        reply = framed.receive()
        assert reply["id"] is None
        assert reply["error"]["data"]["name"] == "InvalidRequest"
    assert framed.result("Host.ping")


def test_an_error_has_number_text_name_and_attributes(framed: Framed) -> None:
    error = framed.call("Task.getInfo", {"task": f"{0:032}"})["error"]
    task = "00000000-0000-0000-0000-000000000000"
    assert error["code"] == 501
    assert error["message"].startswith(f"There is no task {task}")
    assert error["data"] == {"name": "NoSuchTask", "data": {"task": task}}


def test_a_request_id_goes_into_the_log(framed: Framed, served: Served) -> None:
    framed.call("Host.ping", request="from-a-frame")
    assert "[from-a-frame] libvdsm.dispatch: call verb=Host.ping" in served.log


def test_a_file_whose_name_is_no_text_can_be_told_of_on_both_wires(app: App, client: Client, domain: DomainId) -> None:
    folder = client.domain.get_info(domain=domain).path
    name = os.fsencode(NEW)
    with open(os.fsencode(f"{folder}/{domain}/dom_md/metadata-caf") + b"\xe9" + name, "wb"):
        """Left by nobody."""
    caller = Connection("test", "a test", Right.READ)
    params = {"domain": str(domain)}
    answered = jsonrpc.answer(app.dispatcher, request("Domain.dump", params), caller)
    assert answered is not None
    [found] = json.loads(answered)["result"]["garbage"]
    assert found.endswith(f"caf\ufffd{NEW}")
    document = xmlrpc_server.answer(app.dispatcher, xml("Domain.dump", params), caller)
    [dump] = xmlrpc.client.loads(document)[0]
    assert dump["garbage"] == [found]  # type: ignore[index,call-overload]
