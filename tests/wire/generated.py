# SPDX-License-Identifier: Apache-2.0
"""Messages as hypothesis makes them: valid ones of every kind, and valid ones with something broken."""

from __future__ import annotations

import random
from typing import Any, Literal

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from libvdsm.api.event import EventInfo
from libvdsm.api.types import ErrorInfo
from libvdsm.wire.messages import Call, Notification, Reply

# No deadline: how long an example takes tells more of the machine than of the code.
some = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

WORD_LETTERS = "ABCXYZabcxyz0189_.:-"
XML_FORBIDS = "".join(map(chr, [*range(9), 0xB, 0xC, *range(0xE, 0x20), 0xFFFE, 0xFFFF]))

integers = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)
_surrogates: tuple[Literal["Cs"]] = ("Cs",)
texts = st.text(st.characters(exclude_categories=_surrogates), max_size=40)
xml_texts = st.text(st.characters(exclude_categories=_surrogates, exclude_characters=XML_FORBIDS), max_size=40)
words = st.text(WORD_LETTERS, min_size=1, max_size=30)


def values(text: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """What results and parameters are made of.  None is left out: absent members do not travel."""
    plain = st.booleans() | integers | floats | text
    return st.recursive(
        plain,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
        max_leaves=12,
    )


def members(text: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(text, values(text), max_size=5)


def errors(text: st.SearchStrategy[str]) -> st.SearchStrategy[ErrorInfo]:
    return st.builds(ErrorInfo, name=words, code=st.integers(0, 2**31 - 1), message=text, data=members(text))


def replies(text: st.SearchStrategy[str], ids: st.SearchStrategy[Any]) -> st.SearchStrategy[Reply]:
    good = st.builds(Reply, ids, result=members(text))
    return good | st.builds(Reply, ids, error=errors(text))


json_ids = st.none() | integers | floats | texts
json_calls = st.builds(
    Call,
    verb=texts,
    params=members(texts),
    id=json_ids,
    wants_reply=st.booleans(),
    session=st.none() | texts,
    request=st.none() | texts,
    task=st.none() | texts,
)
json_replies = replies(texts, json_ids)
xml_calls = st.builds(Call, verb=words, params=members(xml_texts))
xml_replies = replies(xml_texts, st.none())
notifications = st.builds(
    Notification,
    st.builds(
        EventInfo,
        sequence=st.integers(0, 2**63 - 1),
        time=st.floats(0, 1e12),
        name=words,
        data=members(texts),
    ),
)


_SCRAPS = (
    *(b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\\u", b"\\ud800", b"null", b"true", b"1e999", b"-", b"0x1"),
    *(b"9" * 400, b"\x00", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"[" * 200, b'{"a":' * 200),
    *(b"<", b">", b"</", b"&", b"&#0;", b"&#55296;", b"&x;", b"<!DOCTYPE x>", b"<![CDATA[", b"]]>", b"<?x?>", b"<!--"),
    *(b"<value>", b"</value>", b"<struct>", b"</struct>", b"<array>", b"<data>", b"<member>", b"<name>", b"<nil/>"),
    *(b"<int>", b"<i8>", b"<double>", b"<boolean>", b"<base64>!</base64>", b"<dateTime.iso8601>", b"<fault>"),
    *(b" encoding='utf-16'", b" encoding='hex'", b" encoding='nosuch'", b"<params/>", b"<methodName/>"),
)


@st.composite
def broken(draw: st.DrawFn, valid: st.SearchStrategy[bytes]) -> bytes:
    """A valid message with some of its bytes changed, lost, repeated, or replaced by scraps of other messages."""
    message = bytearray(draw(valid))
    chance = random.Random(draw(st.integers(0, 2**32)))
    for _ in range(draw(st.integers(1, 4))):
        begin = chance.randrange(len(message) + 1)
        end = min(len(message), begin + chance.choice((0, 1, 2, 8, 40)))
        match chance.randrange(5):
            case 0:
                del message[begin:end]
            case 1:
                message[begin:begin] = message[begin:end] * 3
            case 2:
                message[begin:end] = chance.choice(_SCRAPS)
            case 3:
                message[begin:begin] = chance.choice(_SCRAPS)
            case _ if begin < len(message):
                message[begin] ^= 1 << chance.randrange(8)
    return bytes(message)
