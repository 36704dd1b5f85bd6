# SPDX-License-Identifier: Apache-2.0
"""One JSON-RPC message answered: the same code behind every framed transport, and in-process."""

from __future__ import annotations

from collections.abc import Sequence

from libvdsm.api.errors import InvalidRequest, TooLarge
from libvdsm.server.caller import Connection
from libvdsm.server.dispatch import Dispatcher, error_info
from libvdsm.wire import jsonrpc
from libvdsm.wire.messages import BadMessage, Call, Reply


def answer(
    dispatcher: Dispatcher,
    message: bytes,
    connection: Connection,
    *,
    descriptors: Sequence[int] = (),
    nesting: int = 64,
) -> bytes | None:
    """The answer to a message, or None if its sender wants none."""
    try:
        calls, batch = jsonrpc.decode_calls(message, nesting=nesting)
    except BadMessage as error:
        return jsonrpc.encode_reply(refusal(error))
    replies = []
    for call in calls:
        if isinstance(call, BadMessage):
            replies.append(refusal(call))
            continue
        reply = _answer_one(dispatcher, call, connection, descriptors)
        if call.wants_reply:
            replies.append(reply)
    if not replies:
        return None
    return jsonrpc.encode_replies(replies) if batch else jsonrpc.encode_reply(replies[0])


def _answer_one(dispatcher: Dispatcher, call: Call, connection: Connection, descriptors: Sequence[int]) -> Reply:
    call.descriptors = list(descriptors)
    return dispatcher.answer(call, connection)


def refusal(error: BadMessage) -> Reply:
    """What is answered to something that is no call."""
    declared = TooLarge(reason=error.reason) if error.too_large else InvalidRequest(reason=error.reason)
    return Reply(None, error=error_info(declared))
