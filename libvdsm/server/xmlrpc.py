# SPDX-License-Identifier: Apache-2.0
"""One XML-RPC document answered, with the ``system`` methods that clients of this wire expect."""

from __future__ import annotations

from typing import Any

import msgspec

from libvdsm.api import VERBS
from libvdsm.api.errors import InvalidParameter, InvalidRequest, NoSuchVerb, TooLarge
from libvdsm.api.types import ErrorInfo
from libvdsm.server.caller import Connection
from libvdsm.server.dispatch import Dispatcher, error_info
from libvdsm.wire import xmlrpc
from libvdsm.wire.messages import BadMessage, Call, Reply

_SYSTEM = ("system.listMethods", "system.methodHelp", "system.methodSignature", "system.multicall")
_MULTICALL_LIMIT = 1000


def answer(
    dispatcher: Dispatcher,
    document: bytes,
    connection: Connection,
    *,
    nesting: int = 64,
    session: str | None = None,
    request: str | None = None,
    task: str | None = None,
) -> bytes:
    """The answer to a document; ``session``, ``request`` and ``task`` come from HTTP headers."""
    try:
        call = xmlrpc.decode_call(document, nesting=nesting)
        call.session, call.request, call.task = session, request, task
        if not call.verb.startswith("system."):
            return xmlrpc.encode_reply(dispatcher.answer(call, connection))
        args = call.params["args"]  # type: ignore[call-overload]
        return xmlrpc.encode_reply(Reply(None, result=_system(dispatcher, call, args, connection)))
    except BadMessage as error:
        declared = TooLarge(reason=error.reason) if error.too_large else InvalidRequest(reason=error.reason)
        return xmlrpc.encode_reply(Reply(None, error=error_info(declared)))
    except (InvalidParameter, NoSuchVerb) as error:
        return xmlrpc.encode_reply(Reply(None, error=error_info(error)))


def _system(dispatcher: Dispatcher, call: Call, args: list[Any], connection: Connection) -> Any:
    if call.task is not None:
        raise InvalidParameter(verb=call.verb, reason="a task's id goes with one call; here each has a member taskId")
    if call.verb == "system.listMethods":
        return sorted([*dispatcher.verbs, *_SYSTEM])
    if call.verb == "system.multicall":
        return _multicall(dispatcher, call, args, connection)
    if call.verb not in _SYSTEM:
        raise NoSuchVerb(verb=call.verb)
    if len(args) != 1 or not isinstance(args[0], str):
        raise InvalidParameter(verb=call.verb, reason="one parameter, the name of a method")
    verb = VERBS.get(args[0])
    if verb is None and args[0] not in _SYSTEM:
        raise NoSuchVerb(verb=args[0])
    if call.verb == "system.methodHelp":
        return verb.doc if verb else "see the XML-RPC introspection conventions"
    if verb is None:
        return "undef"
    return [["struct", "struct"] if verb.parameters else ["struct"]]


def _multicall(dispatcher: Dispatcher, call: Call, args: list[Any], connection: Connection) -> list[Any]:
    members = args[0] if len(args) == 1 else None
    if not isinstance(members, list) or len(members) > _MULTICALL_LIMIT:
        raise InvalidParameter(verb=call.verb, reason=f"one parameter, an array of at most {_MULTICALL_LIMIT} calls")
    return [_one_of_many(dispatcher, call, member, connection) for member in members]


def _one_of_many(dispatcher: Dispatcher, outer: Call, member: Any, connection: Connection) -> Any:
    error: ErrorInfo | None
    try:
        method, params = member["methodName"], member.get("params", [])
        if not isinstance(method, str) or not isinstance(params, list) or method.startswith("system."):
            return _fault(
                error_info(InvalidRequest(reason="each call has methodName and params, and is no system method"))
            )
        named = xmlrpc.params_of(method, params)
        task = member.get("taskId")
        if not isinstance(task, str | None):
            return _fault(error_info(InvalidRequest(reason="taskId is text")))
    except (KeyError, TypeError, AttributeError, BadMessage) as bad:
        return _fault(error_info(InvalidRequest(reason=str(bad))))
    call = Call(method, named, session=outer.session, request=outer.request, task=task)
    reply = dispatcher.answer(call, connection)
    error = reply.error
    return _fault(error) if error else [msgspec.to_builtins(reply.result)]


def _fault(error: ErrorInfo) -> dict[str, Any]:
    return {"faultCode": error.code, "faultString": xmlrpc.fault_text(error)}
