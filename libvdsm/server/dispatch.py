# SPDX-License-Identifier: Apache-2.0
"""From a call to a service's method and back: check, authorize, call, answer.

The only way into a service: every transport, the one inside a process too, goes through here with bytes, so that
nothing reaches a service which was not checked against the declarations.
"""

from __future__ import annotations

import itertools
import re
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from libvdsm.api import CLASSES, VERBS
from libvdsm.api.errors import (
    COMMON,
    AccessDenied,
    InternalError,
    InvalidParameter,
    NoSuchSession,
    NoSuchVerb,
    NotSupported,
)
from libvdsm.api.types import ErrorInfo, OpenEnum, SessionId
from libvdsm.declare import ApiError, Right, Verb, bare, camel, compare_signatures
from libvdsm.log import Log, new_request_id, request_id
from libvdsm.server.caller import Caller, Connection, SessionRecord
from libvdsm.wire.messages import Call, Reply

log = Log("libvdsm.dispatch")

_SESSIONS_PER_USER = 1000
"""Opening one more ends the one of the same user that was silent for longest."""
_ECHO = 100
"""How much of what a caller sent is repeated to it, and in the log."""
_REQUEST = re.compile(r"[A-Za-z0-9_.:-]{1,64}\Z")

Factory = Callable[[Caller], Any]
"""Makes the service that answers one call; a service is an implementation of an API class."""


class Sight(Protocol):
    """One call, as a witness sees it."""

    def begins(self, session: SessionRecord | None) -> None:
        """It was checked and let in; the service is called next, in this thread."""

    def answered(self, error: ApiError | None) -> None:
        """It has succeeded, or ends with an error; the caller has not been told yet."""


class Witness(Protocol):
    """Sees the calls of all verbs that change something, also those that are refused.

    It keeps its own troubles to itself: no call fails because of a witness.
    """

    def called(
        self, verb: Verb, params: msgspec.Raw | Mapping[str, Any], connection: Connection, request: str
    ) -> Sight:
        """A call has come; nothing about it is checked yet."""


def error_info(error: ApiError) -> ErrorInfo:
    """An error as it travels."""
    return ErrorInfo(name=type(error).__name__, code=error.code, message=error.message, data=error.data())


class _Entry:
    """A verb with all that can be made ready before its first call."""

    def __init__(self, verb: Verb, factory: Factory, witness: Witness | None) -> None:
        self.verb = verb
        self.witness = witness if verb.changes else None
        self.factory = factory
        self.decode = msgspec.json.Decoder(verb.params).decode
        self.right = verb.declaration.right
        self.allowed = frozenset((*verb.declaration.errors, *COMMON))
        self.enums = tuple(
            p.name for p in verb.parameters if isinstance(kind := bare(p.type), type) and issubclass(kind, OpenEnum)
        )


class Sessions:
    """The sessions of wires on which a connection is no session."""

    def __init__(self, idle: float) -> None:
        self._idle = idle
        self._records: dict[SessionId, SessionRecord] = {}

    def add(self, record: SessionRecord) -> None:
        now = time.time()
        for old in list(self._records.values()):
            if now - old.last_used > self._idle:
                self._records.pop(old.id, None)
        theirs = [old for old in list(self._records.values()) if old.user == record.user]
        if len(theirs) >= _SESSIONS_PER_USER:
            self._records.pop(min(theirs, key=lambda old: old.last_used).id, None)
        record.last_used = now
        self._records[record.id] = record

    def find(self, text: str, user: str) -> SessionRecord:
        """The session with this id, if it is this user's."""
        try:
            key = SessionId(uuid.UUID(text))
        except ValueError:
            raise InvalidParameter(verb="session", reason=f"{text[:_ECHO]!r} is not a session's id") from None
        record = self._records.get(key)
        now = time.time()
        if record is None or record.user != user or now - record.last_used > self._idle:
            raise NoSuchSession(session=key)
        record.last_used = now
        return record


class Dispatcher:
    """Answers calls with services."""

    def __init__(
        self,
        factories: Mapping[str, Factory],
        implementations: Mapping[str, type],
        sessions: Sessions,
        witness: Witness | None = None,
    ) -> None:
        """``factories`` and ``implementations`` by API class name; the latter are compared with the declarations."""
        for name, implementation in implementations.items():
            if troubles := compare_signatures(CLASSES[name], implementation):
                raise TypeError("; ".join(troubles))
        self._entries = {
            full: _Entry(verb, factories[verb.cls], witness) for full, verb in VERBS.items() if verb.cls in factories
        }
        self._sessions = sessions
        self._counter = itertools.count()
        self.calls = 0

    @property
    def verbs(self) -> list[str]:
        return list(self._entries)

    def answer(self, call: Call, connection: Connection) -> Reply:
        """Answer one call.  Never raises: an error that nobody declared becomes ``InternalError``."""
        request = call.request if call.request and _REQUEST.match(call.request) else new_request_id()
        token = request_id.set(request)
        began = time.perf_counter()
        entry = self._entries.get(call.verb)
        sight: Sight | None = None
        error: ApiError | None = None
        result: Any = None
        try:
            if entry is None:
                raise NoSuchVerb(verb=call.verb[:_ECHO])
            if entry.witness is not None:
                sight = entry.witness.called(entry.verb, call.params, connection, request)
            result = self._call(entry, call, connection, request, sight)
        except ApiError as raised:
            error = self._declared(raised, entry, request)
        except Exception:  # the boundary of every call: logged, and told to the caller
            log.exception("call failed", verb=call.verb, user=connection.user)
            error = InternalError(request=request)
        if sight is not None:
            sight.answered(error)
        self.calls = next(self._counter) + 1
        matters = error is not None or (entry is not None and entry.right > Right.READ)
        if matters or log.debugs:
            (log.info if matters else log.debug)(
                "call",
                verb=call.verb[:_ECHO],
                user=connection.user,
                wire=connection.wire,
                ms=round((time.perf_counter() - began) * 1000, 3),
                error=type(error).__name__ if error else None,
            )
        request_id.reset(token)
        return Reply(call.id, error=error_info(error)) if error else Reply(call.id, result=result)

    def _call(self, entry: _Entry, call: Call, connection: Connection, request: str, sight: Sight | None) -> Any:
        if connection.right < entry.right:
            raise AccessDenied(user=connection.user, verb=entry.verb.full, right=entry.right.name.lower())
        params = self._params(entry, call, connection)
        session = self._sessions.find(call.session, connection.user) if call.session else connection.session
        service = entry.factory(Caller(connection, session, request))
        method = getattr(service, entry.verb.method)
        if sight is not None:
            sight.begins(session)
        return method(**{name: getattr(params, name) for name in params.__struct_fields__})

    def _params(self, entry: _Entry, call: Call, connection: Connection) -> msgspec.Struct:
        verb = entry.verb
        try:
            if isinstance(call.params, msgspec.Raw):
                params = entry.decode(call.params)
            else:
                params = msgspec.convert(call.params, verb.params)
        except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidParameter(verb=verb.full, reason=str(error)[: 10 * _ECHO]) from None
        for name in entry.enums:
            value = getattr(params, name)
            if value is not None and value.name == "UNKNOWN":
                known = ", ".join(member.value for member in type(value) if member.name != "UNKNOWN")
                raise InvalidParameter(verb=verb.full, reason=f"{camel(name)} is one of {known}")
        for name in verb.descriptors:
            index = getattr(params, name)
            if index is None:
                continue
            if not connection.carries_descriptors:
                raise NotSupported(reason="open files travel only over a Unix socket")
            if index >= len(call.descriptors):
                raise InvalidParameter(verb=verb.full, reason=f"{name}: no descriptor {index} came with the message")
            params = msgspec.structs.replace(params, **{name: call.descriptors[index]})
        return params

    def _declared(self, error: ApiError, entry: _Entry | None, request: str) -> ApiError:
        if type(error) in COMMON or (entry is not None and type(error) in entry.allowed):
            return error
        # Descriptors over a wire that cannot carry them are refused before the verb is reached.
        if entry is not None and entry.verb.descriptors and isinstance(error, NotSupported):
            return error
        log.error("undeclared error", verb=entry.verb.full if entry else None, error=repr(error), text=str(error))
        return InternalError(request=request)
