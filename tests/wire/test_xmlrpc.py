# SPDX-License-Identifier: Apache-2.0
"""XML-RPC: as the standard library speaks it, with integers of 64 bits, and without what makes XML dangerous."""

from __future__ import annotations

import time
import xmlrpc.client
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libvdsm.api.types import ErrorInfo
from libvdsm.wire import xmlrpc as wire
from libvdsm.wire.messages import BadMessage, Call, Reply
from tests.wire import generated
from tests.wire.generated import some

texts = generated.xml_texts


def document(value: str, *, head: str = "<?xml version='1.0'?>") -> bytes:
    """A call whose only parameter is this value."""
    inner = f"<params><param><value>{value}</value></param></params>"
    return f"{head}<methodCall><methodName>Host.ping</methodName>{inner}</methodCall>".encode()


def member(value: str) -> bytes:
    """A call with a parameter ``x``."""
    return document(f"<struct><member><name>x</name><value>{value}</value></member></struct>")


def refused(message: bytes) -> BadMessage:
    with pytest.raises(BadMessage) as caught:
        wire.decode_call(message)
    assert caught.value.reason
    return caught.value


@some
@given(generated.xml_calls)
def test_a_call_arrives_as_it_was_sent(sent: Call) -> None:
    got = wire.decode_call(wire.encode_call(sent))
    assert (got.verb, got.params) == (sent.verb, sent.params)


@some
@given(generated.xml_replies)
def test_a_reply_arrives_as_it_was_sent(sent: Reply) -> None:
    got = wire.decode_reply(wire.encode_reply(sent))
    assert got.error == sent.error
    if sent.error is None:
        assert got.result == sent.result


@some
@given(generated.words, generated.members(texts))
def test_the_standard_library_reads_our_calls(verb: str, params: dict[str, Any]) -> None:
    values, method = xmlrpc.client.loads(wire.encode_call(Call(verb, params)))
    assert method == verb
    assert values == ((params,) if params else ())


@some
@given(generated.members(texts))
def test_the_standard_library_reads_our_replies(result: dict[str, Any]) -> None:
    assert xmlrpc.client.loads(wire.encode_reply(Reply(None, result=result)))[0] == (result,)


@some
@given(generated.errors(texts))
def test_the_standard_library_reads_our_errors_as_faults(error: ErrorInfo) -> None:
    with pytest.raises(xmlrpc.client.Fault) as caught:
        xmlrpc.client.loads(wire.encode_reply(Reply(None, error=error)))
    assert caught.value.faultCode == error.code
    assert caught.value.faultString.startswith(error.message)


# The standard library writes no integers beyond 32 bits, and no carriage returns that survive.
_small = st.recursive(
    st.booleans() | st.integers(-(2**31), 2**31 - 1) | generated.floats | texts.filter(lambda text: "\r" not in text),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(generated.words, inner, max_size=4),
    max_leaves=12,
)


@some
@given(generated.words, st.dictionaries(generated.words, _small, max_size=4))
def test_we_read_the_standard_librarys_calls(verb: str, params: dict[str, Any]) -> None:
    got = wire.decode_call(xmlrpc.client.dumps((params,), verb).encode())
    assert (got.verb, got.params) == (verb, params)


@some
@given(st.dictionaries(generated.words, _small, max_size=4))
def test_we_read_the_standard_librarys_replies(result: dict[str, Any]) -> None:
    got = wire.decode_reply(xmlrpc.client.dumps((result,), methodresponse=True).encode())
    assert got.result == result


def test_we_read_faults_that_are_not_ours() -> None:
    fault = xmlrpc.client.dumps(xmlrpc.client.Fault(7, "two\nlines"), methodresponse=True).encode()
    assert wire.decode_reply(fault).error == ErrorInfo(name="Fault", code=7, message="two\nlines", data={})


def test_an_error_travels_with_its_name_and_attributes() -> None:
    error = ErrorInfo(name="NoSuchImage", code=301, message="There is none.", data={"image": "i"})
    assert wire.decode_reply(wire.encode_reply(Reply(None, error=error))).error == error


@pytest.mark.parametrize("number", [2**31 - 1, -(2**31), 0])
def test_what_fits_32_bits_is_an_int(number: int) -> None:
    assert f"<int>{number}</int>" in wire.encode_value(number)


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1, 2**63 - 1, -(2**63)])
def test_what_does_not_is_an_i8(number: int) -> None:
    assert f"<i8>{number}</i8>" in wire.encode_value(number)
    assert wire.decode_call(member(f"<i8>{number}</i8>")).params == {"x": number}


def test_text_without_a_type_is_text() -> None:
    assert wire.decode_call(member("plain")).params == {"x": "plain"}


def test_absent_members_are_left_out() -> None:
    assert wire.decode_call(wire.encode_call(Call("a", {"x": None, "y": 1}))).params == {"y": 1}


def test_nil_is_read() -> None:
    assert wire.decode_call(member("<nil/>")).params == {"x": None}


def test_a_call_may_have_no_parameters() -> None:
    for params in ("", "<params/>", "<params></params>"):
        call = wire.decode_call(f"<methodCall><methodName>a</methodName>{params}</methodCall>".encode())
        assert call.params == {}


def test_parameters_given_by_position_are_refused() -> None:
    assert "by name" in refused(xmlrpc.client.dumps((1, 2), "Host.ping").encode()).reason
    assert "by name" in refused(xmlrpc.client.dumps(("x",), "Host.ping").encode()).reason
    assert "by name" in refused(xmlrpc.client.dumps(({}, {}), "Host.ping").encode()).reason


def test_the_system_methods_take_them_by_position() -> None:
    call = wire.decode_call(xmlrpc.client.dumps(("Host.ping",), "system.methodHelp").encode())
    assert call.params == {"args": ["Host.ping"]}


@pytest.mark.parametrize(
    "text", ["a\0b", "\x1b[2J", "\x08", "\ufffe", "\uffff", b"\xff".decode(errors="surrogateescape")]
)
def test_what_xml_cannot_carry_is_replaced_in_replies(text: str) -> None:
    got = wire.decode_reply(wire.encode_reply(Reply(None, result={text: [text]})))
    [(name, [value])] = got.result.items()
    assert "\ufffd" in name
    assert "\ufffd" in value


@pytest.mark.parametrize("text", ["a\rb", "a\r\nb", " a ", "\n", "]]>", "<&>\"'", "&amp;", "\u2028", "\U0010ffff"])
def test_text_that_xml_would_change_arrives_unchanged(text: str) -> None:
    assert wire.decode_call(wire.encode_call(Call("a", {"x": text}))).params == {"x": text}


LAUGHS = "<!DOCTYPE x [<!ENTITY a 'ha'>" + "".join(
    f"<!ENTITY {chr(97 + n)} '{f'&{chr(96 + n)};' * 10}'>" for n in range(1, 10)
)
DOCTYPES = {
    "bare": "<!DOCTYPE x>",
    "external": "<!DOCTYPE x SYSTEM 'file:///etc/passwd'>",
    "public": "<!DOCTYPE x PUBLIC '-//W3C//DTD XHTML 1.0//EN' 'http://localhost/x.dtd'>",
    "internal entity": "<!DOCTYPE x [<!ENTITY a 'b'>]>",
    "external entity": "<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>",
    "parameter entity": "<!DOCTYPE x [<!ENTITY % a SYSTEM 'http://localhost/'> %a;]>",
    "a billion laughs": LAUGHS + "]>",
    "one large entity": "<!DOCTYPE x [<!ENTITY a '" + "x" * 100_000 + "'>]>",
}


@pytest.mark.parametrize("doctype", DOCTYPES.values(), ids=DOCTYPES.keys())
def test_a_document_type_declaration_is_refused(doctype: str) -> None:
    attack = document("<string>&a;</string>", head=f"<?xml version='1.0'?>{doctype}")
    assert "document type" in refused(attack).reason
    with pytest.raises(BadMessage, match="document type"):
        wire.decode_reply(attack)


def test_it_is_refused_in_other_encodings_too() -> None:
    attack = document("<string>&a;</string>", head="<?xml version='1.0' encoding='utf-16'?><!DOCTYPE x>")
    assert "document type" in refused(attack.decode().encode("utf-16")).reason


BAD = {
    "empty": b"",
    "blank": b"   ",
    "NUL": b"\0",
    "JSON": b'{"jsonrpc": "2.0"}',
    "cut off": document("<int>1</int>")[:-20],
    "two documents": document("<struct></struct>") * 2,
    "no method": b"<methodCall><params/></methodCall>",
    "another document": b"<html><body/></html>",
    "a reply": wire.encode_reply(Reply(None, result={})),
    "an unknown entity": member("<string>&lol;</string>"),
    "a reference to NUL": member("<string>&#0;</string>"),
    "a reference to a surrogate": member("<string>&#xd800;</string>"),
    "a raw control character": member("<string>\x01</string>"),
    "invalid UTF-8": member("<string>@</string>").replace(b"@", b"\xff"),
    "an encoded surrogate": member("<string>@</string>").replace(b"@", b"\xed\xa0\x80"),
    "an undeclared namespace": member("<ex:i8>1</ex:i8>"),
    "a date": member("<dateTime.iso8601>20260101T00:00:00</dateTime.iso8601>"),
    "base64": member("<base64>AAAA</base64>"),
    "bad base64": member("<base64>!</base64>"),
    "an unknown type": member("<bigdecimal>1</bigdecimal>"),
    "an unknown type without content": member("<x/>"),
    "an empty int": member("<int/>"),
    "an int with letters": member("<int>twelve</int>"),
    "an int with a fraction": member("<int>1.5</int>"),
    "an i8 with too many digits": member(f"<i8>{'9' * 5000}</i8>"),
    "a boolean that is none": member("<boolean>2</boolean>"),
    "a double that is none": member("<double>1,5</double>"),
    "a member without a name": document("<struct><member><value>1</value></member></struct>"),
    "a member without a value": document("<struct><member><name>x</name></member></struct>"),
    "a number as the parameters": document("<int>1</int>"),
    "an array as the parameters": document("<array><data/></array>"),
    "a structure as a member's name": document(
        "<struct><member><value><struct/></value><value>1</value></member></struct>"
    ),
    "too many closing tags": b"<methodCall></struct></methodCall>",
}


@pytest.mark.parametrize("message", BAD.values(), ids=BAD.keys())
def test_what_is_no_call_is_refused(message: bytes) -> None:
    refused(message)


@pytest.mark.parametrize(
    "encoding", ["hex", "rot13", "nosuch", "utf-7", "idna", "undefined", "base64", "big5", "utf-32"]
)
def test_an_encoding_that_cannot_be_is_refused(encoding: str) -> None:
    refused(document("<struct/>", head=f"<?xml version='1.0' encoding='{encoding}'?>"))


@pytest.mark.parametrize("encoding", ["utf-8", "us-ascii", "iso-8859-1", "utf-16"])
def test_the_encodings_of_xml_are_read(encoding: str) -> None:
    head = f"<?xml version='1.0' encoding='{encoding}'?>"
    call = wire.decode_call(document("<struct/>", head=head).decode().encode(encoding))
    assert call.verb == "Host.ping"


def test_nesting_has_a_limit() -> None:
    def nested(depth: int) -> bytes:
        opening, closing = "<array><data><value>", "</value></data></array>"
        return member(opening * depth + "1" + closing * depth)

    wire.decode_call(nested(64 - 4), nesting=64)
    for depth in (100, 100_000):
        with pytest.raises(BadMessage) as caught:
            wire.decode_call(nested(depth), nesting=64)
        assert caught.value.too_large


def test_nesting_of_a_reply_has_a_limit_too() -> None:
    with pytest.raises(BadMessage):
        wire.decode_reply(b"<methodResponse><params><param>" + b"<value><array><data>" * 100_000)


def fault(code: str, text: str) -> str:
    members = (("faultCode", code), ("faultString", text))
    inner = "".join(f"<member><name>{name}</name><value>{value}</value></member>" for name, value in members)
    return f"<struct>{inner}</struct>"


@pytest.mark.parametrize(
    "value",
    ["<int>1</int>", "<struct/>", fault("x", "x"), fault("<nil/>", "x"), fault("<int>1</int>", "<int>1</int>")],
)
def test_a_fault_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(BadMessage):
        wire.decode_reply(f"<methodResponse><fault><value>{value}</value></fault></methodResponse>".encode())


def test_a_fault_whose_last_line_nests_without_end_is_only_text() -> None:
    fault = xmlrpc.client.Fault(1, "message\n" + '{"a":' * 50_000)
    got = wire.decode_reply(xmlrpc.client.dumps(fault, methodresponse=True).encode())
    assert got.error is not None
    assert got.error.name == "Fault"


@pytest.mark.parametrize(
    "filler", ["<value/>", "<value><int>1</int></value>", "<x/>", "&lt;", "<!-- -->", "<?x?>", "<![CDATA[]]>", "\n"]
)
def test_a_hostile_document_of_a_megabyte_costs_little_time(filler: str) -> None:
    attack = member("<array><data>" + filler * (2**20 // len(filler)))
    began = time.process_time()
    with pytest.raises(BadMessage):
        wire.decode_call(attack)
    assert time.process_time() - began < 3


def test_an_element_with_very_many_attributes_costs_little_time() -> None:
    attack = document("<struct " + " ".join(f"a{n}='1'" for n in range(100_000)) + "/>")
    began = time.process_time()
    wire.decode_call(attack)
    assert time.process_time() - began < 3
