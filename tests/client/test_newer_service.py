# SPDX-License-Identifier: Apache-2.0
"""A service newer than the client: fields, values, errors and verbs that it does not know do not hurt it."""

from __future__ import annotations

import json
import socket
import uuid
import xmlrpc.client
from collections.abc import Iterator
from http import server
from threading import Thread
from typing import Any

import pytest

from libvdsm.api import ERRORS
from libvdsm.api.errors import ConnectionFailed, NoSuchImage
from libvdsm.api.types import ErrorInfo, TaskInfo, TaskState, VolumeFormat
from libvdsm.client import Client, RemoteError, connect
from libvdsm.client.client import to_exception
from libvdsm.client.framed import FramedTransport, SocketStream
from libvdsm.declare import error_fields
from libvdsm.wire.framing import frame

TASK = uuid.UUID(int=7)
PROGRESS = {"done": 1, "total": 2, "percent": 50.0, "step": "s", "rate": 17}


def task(**more: Any) -> dict[str, Any]:
    """A task as a newer service tells of it."""
    fields = {"id": str(TASK), "verb": "Image.create", "state": "running", "created": 1.0, "owner": "o", "request": "r"}
    return {**fields, "progress": PROGRESS, "color": "red", "nested": {"a": [1]}, **more}


class Answered(Client):
    """A client whose service has answered already."""

    def __init__(self, *answers: bytes) -> None:
        ours, self.theirs = socket.socketpair()
        for answer in answers:
            self.theirs.sendall(answer)
        self.theirs.shutdown(socket.SHUT_WR)
        super().__init__(FramedTransport("test:socket", lambda: SocketStream(ours)))

    def close(self) -> None:
        super().close()
        self.theirs.close()


def framed(*answers: dict[str, Any]) -> Client:
    """One that has answered with ids from 1 on."""
    replies = ({"jsonrpc": "2.0", "id": number, **answer} for number, answer in enumerate(answers, 1))
    return Answered(*(frame(json.dumps(reply).encode()) for reply in replies))


class XmlService:
    """Answers XML-RPC over HTTP with what it is told."""

    def __init__(self) -> None:
        self.answer = b""
        outer = self

        class Handler(server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.send_header("Content-Length", str(len(outer.answer)))
                self.end_headers()
                self.wfile.write(outer.answer)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.http = server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def result(self, value: Any) -> None:
        self.answer = xmlrpc.client.dumps((value,), methodresponse=True).encode()

    def fault(self, name: str, code: int, text: str, data: Any) -> None:
        error = {"name": name, "code": code, "message": text, "data": data}
        fault = xmlrpc.client.Fault(code, f"{text}\n{json.dumps(error)}")
        self.answer = xmlrpc.client.dumps(fault, methodresponse=True).encode()


@pytest.fixture
def xml() -> Iterator[XmlService]:
    made = XmlService()
    yield made
    made.http.shutdown()
    made.http.server_close()


def test_fields_that_it_does_not_know_are_passed_over(xml: XmlService) -> None:
    with framed({"result": task()}) as client:
        assert client.task.get_info(task=TASK).progress.done == 1  # type: ignore[arg-type]
    xml.result(task())
    with connect(xml.address) as client:
        assert client.task.get_info(task=TASK).progress.done == 1  # type: ignore[arg-type]


def test_values_that_it_does_not_know_are_unknown(xml: XmlService) -> None:
    with framed({"result": task(state="paused")}) as client:
        assert client.task.get_info(task=TASK).state is TaskState.UNKNOWN  # type: ignore[arg-type]
    xml.result(task(state="paused"))
    with connect(xml.address) as client:
        assert client.task.get_info(task=TASK).state is TaskState.UNKNOWN  # type: ignore[arg-type]


def test_errors_that_it_does_not_know_keep_their_name_number_and_text(xml: XmlService) -> None:
    error = {"code": 777, "message": "The moon is full.", "data": {"name": "MoonFull", "data": {"phase": 1}}}
    xml.fault("MoonFull", 777, "The moon is full.", {"phase": 1})
    for client in (framed({"error": error}), connect(xml.address)):
        with client, pytest.raises(RemoteError) as caught:
            client.host.ping()
        assert (caught.value.name, caught.value.number) == ("MoonFull", 777)
        assert str(caught.value) == "The moon is full."


def test_an_error_with_more_attributes_is_still_that_error() -> None:
    data = {"domain": str(uuid.UUID(int=1)), "image": str(uuid.UUID(int=2)), "hint": "look"}
    error = to_exception(ErrorInfo(name="NoSuchImage", code=301, message="none", data=data))
    assert isinstance(error, NoSuchImage)
    assert error.image == uuid.UUID(int=2)


@pytest.mark.parametrize("data", [{}, {"domain": "x", "image": 1}, {"domain": str(uuid.UUID(int=1))}])
def test_an_error_that_lacks_attributes_keeps_its_text(data: dict[str, Any]) -> None:
    error = to_exception(ErrorInfo(name="NoSuchImage", code=301, message="There is none.", data=data))
    assert isinstance(error, RemoteError)
    assert str(error) == "There is none."


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_survives_the_way_over_a_wire(name: str) -> None:
    cls = ERRORS[name]
    samples = {"UUID": uuid.UUID(int=3), "int": 5, "str": "x", "float": 1.5}
    values = {}
    for field, kind in error_fields(cls).items():
        base = kind.__origin__ if hasattr(kind, "__metadata__") else kind
        while hasattr(base, "__supertype__"):
            base = base.__supertype__
        values[field] = samples.get(getattr(base, "__name__", "str"))
    sent = cls(**values)
    got = to_exception(ErrorInfo(name=name, code=sent.code, message=sent.message, data=sent.data()))
    assert type(got) is cls
    assert {field: getattr(got, field) for field in values} == values
    assert str(got) == str(sent)


def test_the_result_of_a_verb_that_it_does_not_know_stays_as_it_travelled() -> None:
    ended = task(verb="Image.teleport", state="succeeded", result={"where": "mars"})
    with framed({"result": ended}) as client:
        found: TaskInfo[Any] = client.task.get_info(task=TASK)  # type: ignore[arg-type]
        assert client.wait(found) == {"where": "mars"}


def test_a_value_that_it_does_not_know_is_not_sent_back() -> None:
    """It would be refused; and ``unknown`` is no value of the wire."""
    assert VolumeFormat("something new") is VolumeFormat.UNKNOWN


def test_events_and_replies_to_others_are_passed_over() -> None:
    event = {"sequence": 1, "time": 1.0, "name": "MoonRisen", "data": {"x": 1}, "more": 1}
    messages = (
        json.dumps({"jsonrpc": "2.0", "method": "event", "params": event}).encode(),
        b'{"jsonrpc": "2.0", "id": 99, "result": {}}',
        b'{"jsonrpc": "2.0", "id": 1, "result": {"time": 5.0}}',
    )
    with Answered(*map(frame, messages)) as client:
        assert client.host.ping().time == 5.0


def test_a_task_that_does_not_end_is_waited_for_no_longer_than_asked() -> None:
    running = {"result": task()}
    with framed(running, running, running) as client:
        found: TaskInfo[Any] = client.task.get_info(task=TASK)  # type: ignore[arg-type]
        with pytest.raises(TimeoutError, match=f"{TASK} has not ended within 0 s"):
            client.wait(found, timeout=0)


NO_REPLY = {
    "no JSON": frame(b"hello"),
    "no reply": frame(b"{}"),
    "an error that is none": frame(b'{"id": 1, "error": 5}'),
    "a length without end": b"\xff" * 8,
    "the end": b"",
}


@pytest.mark.parametrize("answer", NO_REPLY.values(), ids=NO_REPLY.keys())
def test_what_is_no_reply_is_a_failed_connection(answer: bytes) -> None:
    with Answered(answer) as client, pytest.raises(ConnectionFailed) as caught:
        client.host.ping()
    assert caught.value.address == "test:socket"


@pytest.mark.parametrize("answer", [b"", b"hello", b"<methodResponse>", b"<html><body/></html>"])
def test_so_is_what_is_no_document(xml: XmlService, answer: bytes) -> None:
    xml.answer = answer
    with connect(xml.address) as client, pytest.raises(ConnectionFailed) as caught:
        client.host.ping()
    assert caught.value.address == xml.address


@pytest.mark.parametrize("status", [404, 413, 500])
def test_so_is_a_status_that_is_not_ok(xml: XmlService, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = xml.http.RequestHandlerClass
    send = handler.send_response  # type: ignore[attr-defined]
    monkeypatch.setattr(handler, "send_response", lambda self, _: send(self, status))
    with connect(xml.address) as client, pytest.raises(ConnectionFailed, match=f"HTTP status {status}"):
        client.host.ping()
