# SPDX-License-Identifier: Apache-2.0
"""Whatever is wrong with a message, for every verb and on both wires: a declared error, and nothing is changed."""

from __future__ import annotations

import json
import xmlrpc.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hsm.app import App
from libvdsm.api import ERRORS, VERBS
from libvdsm.declare import Right, Verb
from libvdsm.server import jsonrpc
from libvdsm.server import xmlrpc as xmlrpc_server
from libvdsm.server.caller import Connection
from libvdsm.wire import xmlrpc as xml_wire
from libvdsm.wire.messages import Call
from tests import service
from tests.server.raw import outcome, request, xml
from tests.server.samples import bad_params, good_params
from tests.wire import test_jsonrpc, test_xmlrpc
from tests.wire.generated import broken

WORD = {"InvalidRequest", "InvalidParameter", "TooLarge", "NoSuchVerb"}


class Target:
    """A service with something on it, and what there is to change about it."""

    def __init__(self, app: App, home: Path) -> None:
        self.app = app
        self._home = home
        self.connection = Connection("test", "a test", Right.ADMINISTER, uid=0, carries_descriptors=True)
        self.untouched = self.state()

    def json(self, message: bytes) -> Any:
        answer = jsonrpc.answer(self.app.dispatcher, message, self.connection)
        return None if answer is None else json.loads(answer)

    def xml(self, document: bytes) -> Any:
        return outcome(xmlrpc_server.answer(self.app.dispatcher, document, self.connection))

    def state(self) -> tuple[dict[str, Any], Any]:
        """All that a bad message must leave alone; a file's change time tells of every write and every renaming."""
        tree = {}
        for path in sorted((self._home / "domains").rglob("*")):
            found = path.lstat()
            tree[str(path)] = (found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        return tree, self.json(request("Task.list"))["result"]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    home = tmp_path_factory.mktemp("home")
    with service.in_process(home) as app:
        client = app.client()
        for task in client.task.list().items:
            client.wait(task, timeout=20)
        domain = client.domain.list().items[0].id
        client.wait(client.image.create(domain=domain, name="kept", capacity=2**20), timeout=20)
        yield Target(app, home)


@pytest.fixture(autouse=True)
def unchanged(target: Target) -> Iterator[None]:
    """After each test, everything is as it was."""
    yield
    assert target.state() == target.untouched


def carried(value: Any) -> bool:
    """Whether XML can carry the values."""
    texts = [text for given in value.values() for text in (given if isinstance(given, list) else [given])]
    return not any(isinstance(text, str) and ("\0" in text or "\x1b" in text) for text in texts)


def document(verb: str, params: dict[str, Any]) -> bytes:
    """The standard library's, which sends nil and what XML forbids; ours, which sends integers of any size."""
    wide = any(isinstance(value, int) and abs(value) >= 2**31 for value in params.values())
    return xml_wire.encode_call(Call(verb, params)) if wide else xml(verb, params)


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_parameters_that_are_wrong_are_refused_by_name_on_json_rpc(verb: Verb, target: Target) -> None:
    for bad in bad_params(verb):
        error = target.json(request(verb.full, bad.params))["error"]
        assert error["data"]["name"] == "InvalidParameter", (bad, error)
        assert error["data"]["data"]["verb"] == verb.full
        assert bad.named in error["message"], bad
        assert len(error["message"]) < 2000


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_parameters_that_are_wrong_are_refused_on_xml_rpc(verb: Verb, target: Target) -> None:
    for bad in bad_params(verb):
        refused = "InvalidParameter" if carried(bad.params) else "InvalidRequest"
        if bad.what.endswith("far beyond"):
            # The standard library's parser knows no such number.
            refused = "InvalidParameter"
        assert target.xml(document(verb.full, bad.params)) == refused, bad


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_parameters_by_position_are_refused(verb: Verb, target: Target) -> None:
    values = list(good_params(verb).values())
    for params in (values, [good_params(verb)], [None], "x", 1, True):
        error = target.json(request(verb.full, params))["error"]
        assert error["data"]["name"] == "InvalidParameter"
    positionals: list[list[Any]] = [[*values, 1], [1], ["x"], [[]], [good_params(verb), {}]]
    for positional in positionals:
        assert target.xml(xml(verb.full, *positional)) == "InvalidRequest"


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_parameters_nested_without_end_are_refused(verb: Verb, target: Target) -> None:
    # Below the limit for messages, and above what a parameter is.
    deep = b'{"x":' * 50 + b"1" + b"}" * 50
    message = b'{"jsonrpc":"2.0","id":1,"method":"%s","params":%s}' % (verb.full.encode(), deep)
    assert target.json(message)["error"]["data"]["name"] == "InvalidParameter"
    deeper = message.replace(deep, b'{"x":' * 100_000)
    assert target.json(deeper)["error"]["data"]["name"] == "TooLarge"


@pytest.mark.parametrize("message", test_jsonrpc.BAD.values(), ids=test_jsonrpc.BAD.keys())
def test_what_is_no_json_rpc_is_answered_with_an_error(message: bytes, target: Target) -> None:
    answered = target.json(message)
    assert answered["id"] is None
    assert answered["error"]["data"]["name"] == "InvalidRequest"


@pytest.mark.parametrize("message", test_xmlrpc.BAD.values(), ids=test_xmlrpc.BAD.keys())
def test_what_is_no_xml_rpc_is_answered_with_an_error(message: bytes, target: Target) -> None:
    assert target.xml(message) == "InvalidRequest"


@pytest.mark.parametrize("doctype", test_xmlrpc.DOCTYPES.values(), ids=test_xmlrpc.DOCTYPES.keys())
def test_a_document_type_declaration_is_answered_with_an_error(doctype: str, target: Target) -> None:
    good = xml_wire.encode_call(Call("Host.ping", {})).decode()
    assert isinstance(target.xml(good.encode()), dict)
    assert target.xml(good.replace("<methodCall>", f"{doctype}<methodCall>").encode()) == "InvalidRequest"


@pytest.mark.parametrize(
    ("session", "name"),
    [("x", "InvalidParameter"), ("0" * 10_000, "InvalidParameter"), (f"{0:032}", "NoSuchSession")],
)
def test_a_session_that_is_none_is_refused(session: str, name: str, target: Target) -> None:
    error = target.json(request("Domain.list", session=session))["error"]
    assert error["data"]["name"] == name
    assert len(error["message"]) < 500


def test_a_batch_is_answered_call_by_call(target: Target) -> None:
    answered = target.json(
        b"["
        + b",".join([request("Host.ping"), b"1", request("Nothing.at", call_id=2), request("Image.create", {})])
        + b"]"
    )
    assert [reply["id"] for reply in answered] == [1, None, 2, 1]
    errors = [reply["error"]["data"]["name"] if "error" in reply else None for reply in answered]
    assert errors == [None, "InvalidRequest", "NoSuchVerb", "InvalidParameter"]


def test_a_batch_that_is_too_long_is_refused_whole(target: Target) -> None:
    answered = target.json(b"[" + b",".join([request("Host.ping")] * 1001) + b"]")
    assert answered["error"]["data"]["name"] == "TooLarge"


def test_notifications_are_not_answered_even_when_they_are_wrong(target: Target) -> None:
    notification = b'{"jsonrpc": "2.0", "method": "Image.create", "params": {}}'
    assert target.json(notification) is None
    assert target.json(b"[" + notification + b"," + notification + b"]") is None


_json_good = st.sampled_from([request(verb.full, good_params(verb)) for verb in VERBS.values()])
_xml_good = st.sampled_from([xml(verb.full, good_params(verb)) for verb in VERBS.values()])
# Of what is named, nothing is there: a message that stays good by chance still changes nothing.
_harmless = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def quick(message: bytes) -> bool:
    """Whether it asks for no waiting and makes nothing; a broken ``timeout`` may be a long one."""
    words = (b"Domain.create", b"Domain.attach", b"Session.open", b"timeout", b".poll", b".wait")
    return not any(word in message for word in words)


@_harmless
@given(st.one_of(st.binary(max_size=200), broken(_json_good)).filter(quick))
def test_any_bytes_are_answered_on_json_rpc(target: Target, message: bytes) -> None:
    answered = target.json(message)
    for reply in answered if isinstance(answered, list) else [answered] if answered else []:
        if "error" in reply:
            assert reply["error"]["data"]["name"] in ERRORS
            assert reply["error"]["data"]["name"] != "InternalError"


@_harmless
@given(st.one_of(st.binary(max_size=200), broken(_xml_good)).filter(quick))
def test_any_bytes_are_answered_on_xml_rpc(target: Target, message: bytes) -> None:
    answered = target.xml(message)
    if isinstance(answered, str):
        assert answered in ERRORS
        assert answered != "InternalError"


MULTICALLS = {
    "no calls": ((), "InvalidParameter"),
    "two arrays": (([], []), "InvalidParameter"),
    "no array": (("x",), "InvalidParameter"),
    "too many": (([{"methodName": "Host.ping", "params": []}] * 1001,), "InvalidParameter"),
}


@pytest.mark.parametrize(("args", "name"), MULTICALLS.values(), ids=MULTICALLS.keys())
def test_a_multicall_that_is_none_is_refused(args: Any, name: str, target: Target) -> None:
    assert target.xml(xml("system.multicall", *args)) == name


@pytest.mark.parametrize(
    ("member", "name"),
    [
        (1, "InvalidRequest"),
        ([], "InvalidRequest"),
        ("Host.ping", "InvalidRequest"),
        ({}, "InvalidRequest"),
        ({"params": []}, "InvalidRequest"),
        ({"methodName": 1, "params": []}, "InvalidRequest"),
        ({"methodName": "Host.ping", "params": {}}, "InvalidRequest"),
        ({"methodName": "Host.ping", "params": ["x"]}, "InvalidRequest"),
        ({"methodName": "Host.ping", "params": [{}, {}]}, "InvalidRequest"),
        ({"methodName": "system.multicall", "params": [[]]}, "InvalidRequest"),
        ({"methodName": "No.such", "params": []}, "NoSuchVerb"),
        ({"methodName": "Image.create", "params": [{}]}, "InvalidParameter"),
    ],
)
def test_a_bad_call_among_many_fails_alone(member: Any, name: str, target: Target) -> None:
    good = {"methodName": "Host.ping", "params": []}
    first, bad, last = target.xml(xml("system.multicall", [good, member, good]))
    assert isinstance(first[0]["time"], float)
    assert isinstance(last[0]["time"], float)
    assert outcome(xmlrpc.client.dumps(xmlrpc.client.Fault(**bad), methodresponse=True).encode()) == name
