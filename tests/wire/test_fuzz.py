# SPDX-License-Identifier: Apache-2.0
"""Whatever bytes come: a message, or ``BadMessage``.  Both ways, since a client trusts a service no more."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from libvdsm.wire import jsonrpc, xmlrpc
from libvdsm.wire.framing import Framer, frame
from libvdsm.wire.messages import BadMessage
from tests.wire import generated
from tests.wire.generated import broken

fuzz = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])

json_calls = generated.json_calls.map(jsonrpc.encode_call)
json_batches = st.lists(json_calls, max_size=3).map(lambda calls: b"[" + b",".join(calls) + b"]")
json_replies = generated.json_replies.map(jsonrpc.encode_reply)
json_events = generated.notifications.map(jsonrpc.encode_event)
xml_calls = generated.xml_calls.map(xmlrpc.encode_call)
xml_replies = generated.xml_replies.map(xmlrpc.encode_reply)


@fuzz
@given(st.binary(max_size=300) | broken(json_calls) | broken(json_batches))
def test_a_service_reads_any_json_or_refuses_it(message: bytes) -> None:
    with suppress(BadMessage):
        jsonrpc.decode_calls(message, nesting=16, batch=3)


@fuzz
@given(st.binary(max_size=300) | broken(json_replies) | broken(json_events))
def test_a_client_reads_any_json_or_refuses_it(message: bytes) -> None:
    with suppress(BadMessage):
        jsonrpc.decode_reply(message)


@fuzz
@given(st.binary(max_size=300) | broken(xml_calls))
@example(b"<?xml version='1.0' encoding='hex'?><methodCall/>")
def test_a_service_reads_any_xml_or_refuses_it(message: bytes) -> None:
    with suppress(BadMessage):
        xmlrpc.decode_call(message, nesting=16)


@fuzz
@given(st.binary(max_size=300) | broken(xml_replies))
def test_a_client_reads_any_xml_or_refuses_it(message: bytes) -> None:
    with suppress(BadMessage):
        xmlrpc.decode_reply(message)


@fuzz
@given(broken(st.lists(st.binary(max_size=40), max_size=5).map(lambda sent: b"".join(map(frame, sent)))))
def test_any_stream_gives_messages_or_is_refused(stream: bytes) -> None:
    framer = Framer(10_000)
    with suppress(BadMessage):
        for begin in range(0, len(stream), 7):
            for message in framer.feed(stream[begin : begin + 7]):
                assert len(message) <= 10_000
