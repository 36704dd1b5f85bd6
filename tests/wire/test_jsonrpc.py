# SPDX-License-Identifier: Apache-2.0
"""JSON-RPC 2.0: what is a request, what is none, and that what was sent arrives."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libvdsm.api.event import EventInfo
from libvdsm.api.types import ErrorInfo
from libvdsm.wire import jsonrpc
from libvdsm.wire.messages import BadMessage, Call, Notification, Reply
from tests.wire import generated
from tests.wire.generated import some


def request(**given: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "method": "Host.ping", "id": 1, **given}).encode()


def decode(message: bytes) -> Call:
    calls, batch = jsonrpc.decode_calls(message)
    assert not batch
    [call] = calls
    assert isinstance(call, Call)
    return call


def params(call: Call) -> Any:
    assert isinstance(call.params, msgspec.Raw)
    return msgspec.json.decode(call.params)


@some
@given(generated.json_calls)
def test_a_call_arrives_as_it_was_sent(sent: Call) -> None:
    got = decode(jsonrpc.encode_call(sent))
    assert (got.verb, params(got), got.session, got.request) == (sent.verb, sent.params, sent.session, sent.request)
    assert got.task == sent.task
    assert got.wants_reply == sent.wants_reply
    assert got.id == (sent.id if sent.wants_reply else None)


@some
@given(generated.json_replies)
def test_a_reply_arrives_as_it_was_sent(sent: Reply) -> None:
    got = jsonrpc.decode_reply(jsonrpc.encode_reply(sent))
    assert isinstance(got, Reply)
    assert got.id == sent.id
    assert got.error == sent.error
    if sent.error is None:
        assert msgspec.json.decode(got.result) == sent.result


@some
@given(generated.notifications)
def test_an_event_arrives_as_a_notification(sent: Notification) -> None:
    message = jsonrpc.encode_event(sent)
    assert "id" not in json.loads(message)
    assert json.loads(message)["method"] == "event"
    assert jsonrpc.decode_reply(message) == sent


@some
@given(st.lists(generated.json_calls, min_size=1, max_size=5))
def test_a_batch_is_its_calls_in_order(sent: list[Call]) -> None:
    calls, batch = jsonrpc.decode_calls(b"[" + b",".join(map(jsonrpc.encode_call, sent)) + b"]")
    assert batch
    assert [call.verb for call in calls if isinstance(call, Call)] == [call.verb for call in sent]


def test_the_replies_to_a_batch_are_one_array() -> None:
    message = jsonrpc.encode_replies([Reply(1, result={}), Reply("b", result={"x": 2})])
    assert json.loads(message) == [
        {"jsonrpc": "2.0", "id": 1, "result": {}},
        {"jsonrpc": "2.0", "id": "b", "result": {"x": 2}},
    ]


def test_what_is_no_request_in_a_batch_is_refused_in_its_place() -> None:
    calls, _ = jsonrpc.decode_calls(b"[" + request() + b', 1, {"jsonrpc": "1.0"}, ' + request(method="b") + b"]")
    assert [isinstance(call, BadMessage) for call in calls] == [False, True, True, False]


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(BadMessage, match="empty"):
        jsonrpc.decode_calls(b" [ ] ")


def test_a_batch_has_a_limit() -> None:
    jsonrpc.decode_calls(b"[" + b",".join([request()] * 3) + b"]", batch=3)
    with pytest.raises(BadMessage) as caught:
        jsonrpc.decode_calls(b"[" + b",".join([request()] * 4) + b"]", batch=3)
    assert caught.value.too_large


def test_a_request_without_an_id_wants_no_reply() -> None:
    assert not decode(b'{"jsonrpc": "2.0", "method": "Host.ping"}').wants_reply


def test_a_request_with_the_id_null_wants_one() -> None:
    call = decode(request(id=None))
    assert call.wants_reply
    assert call.id is None


@pytest.mark.parametrize("given_id", [0, -1, 2**63, -(2**63), 2**64, 10**30, 1.5, 1e308, "", "x", "é\u0000\U0001f600"])
def test_an_id_comes_back_as_it_was(given_id: object) -> None:
    call = decode(request(id=given_id))
    assert json.loads(jsonrpc.encode_reply(Reply(call.id, result={})))["id"] == given_id


@pytest.mark.parametrize("given_id", ["true", "[]", "{}", "1" * 5000, "1e400", r'"\ud800"', "NaN"])
def test_what_can_be_no_id_is_refused(given_id: str) -> None:
    with pytest.raises(BadMessage):
        jsonrpc.decode_calls(b'{"jsonrpc": "2.0", "method": "a", "id": %s}' % given_id.encode())


BAD = {
    "empty": b"",
    "blank": b"  \n",
    "cut off": request()[:-1],
    "more behind it": request() + b"x",
    "two requests": request() + request(),
    "a text": b'"Host.ping"',
    "null": b"null",
    "no version": b'{"method": "a", "id": 1}',
    "another version": request(jsonrpc="1.0"),
    "a version that is a number": request(jsonrpc=2.0),
    "no method": b'{"jsonrpc": "2.0", "id": 1}',
    "a method that is no text": request(method=1),
    "a session that is no text": request(session=1),
    "a request id that is no text": request(request={}),
    "invalid UTF-8 in the method": request(method="x").replace(b'"x"', b'"\xff"'),
    "an encoded surrogate": request(method="x").replace(b'"x"', b'"\xed\xa0\x80"'),
    "a lone surrogate": request(method="x").replace(b'"x"', rb'"\ud800"'),
    "a raw NUL in a text": request(method="x").replace(b'"x"', b'"\0"'),
    "a byte order mark": b"\xef\xbb\xbf" + request(),
    "UTF-16": request().decode().encode("utf-16"),
    "NaN": request(params={"x": "@"}).replace(b'"@"', b"NaN"),
    "a comment": b"/* */" + request(),
    "single quotes": b"{'jsonrpc': '2.0', 'method': 'a'}",
    "a comma too many": b'{"jsonrpc": "2.0", "method": "a",}',
    "frames in frames": (5).to_bytes(8, "big") + request(),
}


@pytest.mark.parametrize("message", BAD.values(), ids=BAD.keys())
def test_what_is_no_request_is_refused(message: bytes) -> None:
    with pytest.raises(BadMessage) as caught:
        jsonrpc.decode_calls(message)
    assert not caught.value.too_large
    assert caught.value.reason


def test_of_a_member_given_twice_the_last_counts() -> None:
    call = decode(b'{"jsonrpc": "2.0", "method": "a", "method": "b", "id": 1, "id": 2}')
    assert (call.verb, call.id) == ("b", 2)


def test_unknown_members_of_a_request_are_ignored() -> None:
    assert decode(request(extension={"trace": 1})).verb == "Host.ping"


def test_parameters_are_not_looked_into() -> None:
    """They are decoded once, by the verb's own decoder, which knows their types."""
    call = decode(request(params=[1, 2]))
    assert bytes(call.params) == b"[1, 2]"  # type: ignore[arg-type]


def test_nesting_has_a_limit() -> None:
    def nested(depth: int) -> bytes:
        # The request itself is one level.
        return b'{"jsonrpc": "2.0", "method": "a", "params": ' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"

    jsonrpc.decode_calls(nested(64), nesting=64)
    with pytest.raises(BadMessage) as caught:
        jsonrpc.decode_calls(nested(65), nesting=64)
    assert caught.value.too_large


def test_many_values_side_by_side_are_not_nested() -> None:
    jsonrpc.decode_calls(request(params={"x": [{"a": []}] * 1000}), nesting=8)


def test_brackets_in_texts_do_not_count_as_nesting() -> None:
    jsonrpc.decode_calls(request(params={"x": '[{"\\' * 1000}), nesting=8)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":', b"[" * 7 + b'{"":'])
def test_nesting_without_end_is_refused_on_both_sides(opening: bytes) -> None:
    for message in (opening * 100_000, b'{"jsonrpc": "2.0", "method": "a", "id": 1, "result": ' + opening * 100_000):
        with pytest.raises(BadMessage):
            jsonrpc.decode_calls(message)
        with pytest.raises(BadMessage):
            jsonrpc.decode_reply(message)


def test_a_result_nested_deeper_than_the_limit_for_requests_is_read_by_clients() -> None:
    deep = b'{"id": 1, "result": ' + b"[" * 500 + b"]" * 500 + b"}"
    assert isinstance(jsonrpc.decode_reply(deep), Reply)


@pytest.mark.parametrize(
    "message",
    [
        b'{"id": 1}',
        b"{}",
        b"[]",
        b'{"id": 1, "error": {}}',
        b'{"id": 1, "error": {"code": 1, "message": "m"}}',
        b'{"id": 1, "error": {"code": 1, "message": "m", "data": {"name": 1, "data": {}}}}',
        b'{"id": [], "result": 1}',
        b'{"method": "event"}',
        b'{"method": "event", "params": {"sequence": -1, "time": 0, "name": "A", "data": {}}}',
        b'{"method": "other", "params": {}}',
    ],
)
def test_what_is_no_reply_and_no_event_is_refused(message: bytes) -> None:
    with pytest.raises(BadMessage):
        jsonrpc.decode_reply(message)


def test_unknown_members_of_a_reply_are_ignored() -> None:
    got = jsonrpc.decode_reply(b'{"jsonrpc": "2.0", "id": 1, "result": {}, "took": 3}')
    assert isinstance(got, Reply)


def test_bytes_of_a_file_name_that_are_no_text_do_not_keep_a_reply_from_being_sent() -> None:
    name = b"caf\xe9".decode(errors="surrogateescape")
    error = ErrorInfo(name="X", code=1, message=name, data={name: [name]})
    event = EventInfo(sequence=1, time=0, name="X", data={"path": name})
    for message in (
        jsonrpc.encode_reply(Reply(1, result={"garbage": [name, "good"]})),
        jsonrpc.encode_reply(Reply(1, error=error)),
        jsonrpc.encode_replies([Reply(1, result={name: 1})]),
        jsonrpc.encode_event(Notification(event)),
    ):
        assert "caf\ufffd" in json.dumps(json.loads(message), ensure_ascii=False)


@pytest.mark.parametrize("filler", [b"[]", b"[[],", b'"[",', b'"\\"[",', b"{},"])
def test_a_hostile_message_of_a_megabyte_costs_little_time(filler: bytes) -> None:
    message = b'{"jsonrpc": "2.0", "method": "a", "params": [' + filler * (2**20 // len(filler))
    began = time.process_time()
    with pytest.raises(BadMessage):
        jsonrpc.decode_calls(message)
    assert time.process_time() - began < 2
