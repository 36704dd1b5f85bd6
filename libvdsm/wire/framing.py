# SPDX-License-Identifier: Apache-2.0
"""Frames: eight bytes of length, most significant first, then that many bytes of message."""

from __future__ import annotations

from collections.abc import Iterator

from libvdsm.wire.messages import BadMessage

HEADER = 8


def frame(message: bytes) -> bytes:
    """A message as it goes over the wire."""
    return len(message).to_bytes(HEADER, "big") + message


class Framer:
    """Cuts a stream of bytes into messages.

    A length beyond the limit is refused before any of its bytes are kept, so that a bad peer cannot make us hold
    more than one message of the largest size.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes received that are not a whole message yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take bytes from the stream, and give the messages that they complete."""
        self._buffer += data
        while len(self._buffer) >= HEADER:
            length = int.from_bytes(self._buffer[:HEADER], "big")
            if length > self._limit:
                msg = f"a message of {length} bytes, and {self._limit} are the limit"
                raise BadMessage(msg, too_large=True)
            end = HEADER + length
            if len(self._buffer) < end:
                return
            message = bytes(self._buffer[HEADER:end])
            del self._buffer[:end]
            yield message
