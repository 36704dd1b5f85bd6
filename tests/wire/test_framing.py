# SPDX-License-Identifier: Apache-2.0
"""Frames: however the stream is cut, the same messages come out, and no peer makes us hold more than the limit."""

from __future__ import annotations

import itertools
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libvdsm.wire.framing import HEADER, Framer, frame
from libvdsm.wire.messages import BadMessage
from tests.wire.generated import some

LIMIT = 1000
messages = st.lists(st.binary(max_size=60), max_size=12)


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [stream[begin:end] for begin, end in itertools.pairwise(places)]


@some
@given(messages, st.lists(st.integers(0, 10_000), max_size=40))
def test_however_a_stream_is_cut_the_same_messages_come_out(sent: list[bytes], cuts: list[int]) -> None:
    framer = Framer(LIMIT)
    received = [message for piece in pieces(b"".join(map(frame, sent)), cuts) for message in framer.feed(piece)]
    assert received == sent
    assert framer.pending == 0


def test_a_stream_may_come_byte_by_byte() -> None:
    framer = Framer(LIMIT)
    stream = frame(b"one") + frame(b"") + frame(b"three")
    assert [m for byte in stream for m in framer.feed(bytes([byte]))] == [b"one", b"", b"three"]


def test_a_header_is_the_length_in_eight_bytes_most_significant_first() -> None:
    assert frame(b"abc") == b"\0\0\0\0\0\0\0\x03abc"


def test_what_is_not_whole_yet_is_pending() -> None:
    framer = Framer(LIMIT)
    assert list(framer.feed(frame(b"abc")[:-1])) == []
    assert framer.pending == HEADER + 2


def test_a_message_of_the_largest_size_is_taken() -> None:
    assert list(Framer(LIMIT).feed(frame(b"x" * LIMIT))) == [b"x" * LIMIT]


@pytest.mark.parametrize("length", [LIMIT + 1, 2**31, 2**32 + 5, 2**63, 2**64 - 1])
def test_a_length_beyond_the_limit_is_refused_before_any_of_its_bytes_come(length: int) -> None:
    framer = Framer(LIMIT)
    with pytest.raises(BadMessage) as caught:
        list(framer.feed(length.to_bytes(HEADER, "big")))
    assert caught.value.too_large
    assert str(LIMIT) in caught.value.reason


def test_messages_before_one_that_is_too_large_still_come_out() -> None:
    feed = Framer(LIMIT).feed(frame(b"good") + (LIMIT + 1).to_bytes(HEADER, "big"))
    assert next(feed) == b"good"
    with pytest.raises(BadMessage):
        next(feed)


@some
@given(st.binary(max_size=200))
def test_any_bytes_give_messages_or_are_refused(stream: bytes) -> None:
    received: list[bytes] = []
    with suppress(BadMessage):
        for message in Framer(LIMIT).feed(stream):
            received += [message]
    assert b"".join(map(frame, received)) == stream[: sum(HEADER + len(message) for message in received)]
