# SPDX-License-Identifier: Apache-2.0
"""JSON-RPC 2.0, with parameters by name, batches, and events as notifications.

Beyond the standard a request may carry ``request``, an id for the logs of all processes that it goes through,
``session``, and ``task``, the id of a task that the client owns; an error's ``data`` holds the error's name and
attributes.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from libvdsm.api.event import EventInfo
from libvdsm.api.types import ErrorInfo
from libvdsm.wire.messages import BadMessage, Call, CallId, Notification, Reply

_NO_PARAMS = msgspec.Raw(b"{}")
_SURROGATES = re.compile("[\ud800-\udfff]")


class _Request(msgspec.Struct):
    jsonrpc: Literal["2.0"]
    method: str
    id: int | float | str | msgspec.UnsetType | None = msgspec.UNSET
    params: msgspec.Raw = _NO_PARAMS
    session: str | None = None
    request: str | None = None
    task: str | None = None


class _Outgoing(msgspec.Struct, omit_defaults=True):
    method: str
    params: Any
    id: CallId | msgspec.UnsetType = msgspec.UNSET
    session: str | None = None
    request: str | None = None
    task: str | None = None
    jsonrpc: str = ""


class _ErrorData(msgspec.Struct):
    name: str
    data: dict[str, Any]


class _Error(msgspec.Struct):
    code: int
    message: str
    data: _ErrorData


class _Result(msgspec.Struct):
    jsonrpc: str
    id: CallId
    result: Any


class _Failure(msgspec.Struct):
    jsonrpc: str
    id: CallId
    error: _Error


class _Incoming(msgspec.Struct):
    """A reply or an event, as a client gets it."""

    id: CallId | msgspec.UnsetType = msgspec.UNSET
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    method: str | None = None
    params: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_request = msgspec.json.Decoder(_Request)
_requests = msgspec.json.Decoder(list[msgspec.Raw])
_incoming = msgspec.json.Decoder(_Incoming)
_error = msgspec.json.Decoder(_Error)
_event = msgspec.json.Decoder(EventInfo)
_encoder = msgspec.json.Encoder()


def decode_calls(message: bytes, *, nesting: int = 64, batch: int = 1000) -> tuple[list[Call | BadMessage], bool]:
    """The calls in one message, and whether they came as a batch.

    A member of a batch that is no request becomes a ``BadMessage`` in its place; a message that is none at all
    raises it.
    """
    _check_nesting(message, nesting)
    if message.lstrip()[:1] != b"[":
        return [_decode_call(message)], False
    try:
        members = _requests.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessage(str(error)) from None
    if not members:
        msg = "an empty batch"
        raise BadMessage(msg)
    if len(members) > batch:
        msg = f"a batch of {len(members)} calls, and {batch} are the limit"
        raise BadMessage(msg, too_large=True)
    calls: list[Call | BadMessage] = []
    for member in members:
        try:
            calls.append(_decode_call(member))
        except BadMessage as error:
            calls.append(error)
    return calls, True


def _decode_call(message: bytes | msgspec.Raw) -> Call:
    try:
        request = _request.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessage(str(error)) from None
    unanswered = request.id is msgspec.UNSET
    return Call(
        verb=request.method,
        params=request.params,
        id=None if isinstance(request.id, msgspec.UnsetType) else request.id,
        wants_reply=not unanswered,
        session=request.session,
        request=request.request,
        task=request.task,
    )


def _check_nesting(message: bytes, limit: int) -> None:
    """Refuse what would take a decoder deep: cheap for ordinary messages, exact for suspicious ones."""
    if message.count(b"{") + message.count(b"[") <= limit:
        return
    depth = 0
    in_text = escaped = False
    for byte in message:
        if in_text:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_text = False
        elif byte == 0x22:
            in_text = True
        elif byte in b"{[":
            depth += 1
            if depth > limit:
                msg = f"nested deeper than {limit}"
                raise BadMessage(msg, too_large=True)
        elif byte in b"}]":
            depth -= 1


def encode_reply(reply: Reply) -> bytes:
    """One reply as a message."""
    return _encode(_outgoing_reply(reply))


def encode_replies(replies: list[Reply]) -> bytes:
    """The replies to a batch as one message."""
    return _encode([_outgoing_reply(reply) for reply in replies])


def _encode(message: Any) -> bytes:
    try:
        return _encoder.encode(message)
    except UnicodeEncodeError:
        # A file's name may hold bytes that are no text; as on the other wire, U+FFFD stands for them.
        return _encoder.encode(_without_surrogates(msgspec.to_builtins(message)))


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATES.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_without_surrogates(name): _without_surrogates(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_without_surrogates(member) for member in value]
    return value


def _outgoing_reply(reply: Reply) -> _Result | _Failure:
    if reply.error is None:
        return _Result("2.0", reply.id, reply.result)
    error = reply.error
    return _Failure("2.0", reply.id, _Error(error.code, error.message, _ErrorData(error.name, error.data)))


def encode_event(notification: Notification) -> bytes:
    """An event as a notification."""
    return _encode(_Outgoing(method="event", params=notification.event, jsonrpc="2.0"))


def encode_call(call: Call) -> bytes:
    """One call as a message; ``params`` may be any structure."""
    return _encoder.encode(
        _Outgoing(
            jsonrpc="2.0",
            method=call.verb,
            params=call.params,
            id=call.id if call.wants_reply else msgspec.UNSET,
            session=call.session,
            request=call.request,
            task=call.task,
        )
    )


def decode_reply(message: bytes) -> Reply | Notification:
    """What a client received: a reply whose result is JSON not looked into, or an event."""
    try:
        incoming = _incoming.decode(message)
        if incoming.method == "event" and not isinstance(incoming.params, msgspec.UnsetType):
            return Notification(_event.decode(incoming.params))
        call_id = None if isinstance(incoming.id, msgspec.UnsetType) else incoming.id
        if not isinstance(incoming.error, msgspec.UnsetType):
            error = _error.decode(incoming.error)
            return Reply(
                call_id,
                error=ErrorInfo(name=error.data.name, code=error.code, message=error.message, data=error.data.data),
            )
        if not isinstance(incoming.result, msgspec.UnsetType):
            return Reply(call_id, result=incoming.result)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessage(str(error)) from None
    msg = "neither a reply nor an event"
    raise BadMessage(msg)
