# SPDX-License-Identifier: Apache-2.0
"""XML-RPC: one parameter, a structure of named members.

Marshalling is the standard library's, with what its users expect of a storage service: integers of 64 bits travel as
``<i8>``, absent members are left out, and documents with a DOCTYPE are refused, since entities are a way to make a
small document huge.  A fault's string is the message, and on the next line the error's name, number and attributes as
JSON, because a fault has no place for them.
"""

from __future__ import annotations

import re
import xmlrpc.client
from collections.abc import Mapping
from typing import Any
from xml.parsers import expat

import msgspec

from libvdsm.api.types import ErrorInfo
from libvdsm.wire.messages import BadMessage, Call, Reply

_error = msgspec.json.Decoder(ErrorInfo)
_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_INT32 = range(-(2**31), 2**31)
_PARSING = (
    expat.ExpatError,
    xmlrpc.client.Error,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
)
"""What the standard library's unmarshaller raises on documents that are not XML-RPC; the fuzz test found no other."""


def _escape(text: str) -> str:
    """Text as XML can carry it; a carriage return would arrive as a line feed."""
    if _ILLEGAL.search(text):
        text = _ILLEGAL.sub("\ufffd", text)
    return xmlrpc.client.escape(text).replace("\r", "&#13;")


class _Marshaller(xmlrpc.client.Marshaller):
    dispatch: dict[Any, Any] = dict(xmlrpc.client.Marshaller.dispatch)  # noqa: RUF012  the base class has it so

    def dump_int(self, value: int, write: Any) -> None:
        write(f"<value><int>{value}</int></value>\n" if value in _INT32 else f"<value><i8>{value}</i8></value>\n")

    def dump_text(self, value: str, write: Any) -> None:
        write(f"<value><string>{_escape(value)}</string></value>\n")

    def dump_members(self, value: Mapping[str, Any], write: Any) -> None:
        write("<value><struct>\n")
        for name, member in value.items():
            if member is not None:
                write(f"<member>\n<name>{_escape(name)}</name>\n")
                self._Marshaller__dump(member, write)  # type: ignore[attr-defined]
                write("</member>\n")
        write("</struct></value>\n")

    dispatch[int] = dump_int
    dispatch[str] = dump_text
    dispatch[dict] = dump_members


# The base class reaches its own recursion by its mangled name.
_Marshaller._Marshaller__dump = xmlrpc.client.Marshaller._Marshaller__dump  # type: ignore[attr-defined]  # noqa: SLF001


class _Unmarshaller(xmlrpc.client.Unmarshaller):
    """The standard one, for the types that we speak."""

    dispatch: dict[str, Any] = {  # noqa: RUF012  the base class has it so
        name: xmlrpc.client.Unmarshaller.dispatch[name]
        for name in (
            "boolean", "i4", "i8", "int", "double", "string", "name", "array", "struct", "value", "params", "fault",
            "methodName", "nil",
        )
    }  # fmt: skip

    def unknown(self, tag: str, data: str) -> None:
        msg = f"a value of type {tag}"
        raise ValueError(msg)

    def end(self, tag: str) -> None:
        if tag not in self.dispatch and tag not in ("data", "member", "param", "methodCall", "methodResponse"):
            self.unknown(tag, "")
        super().end(tag)


def _parse(document: bytes, nesting: int) -> _Unmarshaller:
    target = _Unmarshaller(use_builtin_types=True)
    parser = expat.ParserCreate(None, None)
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        # Five elements for one level of a structure: value, struct, member, and the document around it.
        if depth > 4 * nesting:
            msg = f"nested deeper than {nesting}"
            raise BadMessage(msg, too_large=True)
        target.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        target.end(tag)

    def doctype(*_: object) -> None:
        msg = "a document type declaration"
        raise BadMessage(msg)

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = target.data
    parser.StartDoctypeDeclHandler = doctype
    parser.buffer_text = True
    target.xml(None, None)  # type: ignore[arg-type]  # text is decoded already: no encoding
    try:
        parser.Parse(document, True)
    except _PARSING as error:
        raise BadMessage(str(error) or type(error).__name__) from None
    return target


def decode_call(document: bytes, *, nesting: int = 64) -> Call:
    """A call as it came: a method name, and no parameter or one structure.

    For ``system.multicall`` and its like, whose parameter is not a structure, ``params`` holds it as ``args``.
    """
    target = _parse(document, nesting)
    try:
        values = target.close()
        method = target.getmethodname()
    except _PARSING as error:
        raise BadMessage(str(error) or type(error).__name__) from None
    if not isinstance(method, str):
        msg = "no method name"
        raise BadMessage(msg)
    return Call(verb=method, params=params_of(method, values))


def params_of(method: str, values: Any) -> Mapping[str, Any]:
    """The named parameters in the positional ones that XML-RPC has."""
    if method.startswith("system."):
        return {"args": list(values)}
    if not values:
        return {}
    if len(values) != 1 or not isinstance(values[0], dict):
        msg = "parameters are given by name, in one structure"
        raise BadMessage(msg)
    named: dict[str, Any] = values[0]
    return named


def encode_value(value: Any) -> str:
    """One value as XML."""
    parts: list[str] = []
    _Marshaller("utf-8", True)._Marshaller__dump(value, parts.append)  # type: ignore[attr-defined]  # noqa: SLF001
    return "".join(parts)


def fault_text(error: ErrorInfo) -> str:
    """The fault string of an error."""
    return f"{error.message}\n{msgspec.json.encode(error).decode()}"


def encode_reply(reply: Reply) -> bytes:
    """One reply as a document."""
    if reply.error is not None:
        fault = encode_value({"faultCode": reply.error.code, "faultString": fault_text(reply.error)})
        return f"<?xml version='1.0'?>\n<methodResponse>\n<fault>\n{fault}</fault>\n</methodResponse>\n".encode()
    value = encode_value(msgspec.to_builtins(reply.result))
    return (
        f"<?xml version='1.0'?>\n<methodResponse>\n<params>\n<param>\n{value}</param>\n</params>\n</methodResponse>\n"
    ).encode()


def encode_call(call: Call) -> bytes:
    """One call as a document; ``params`` may be any structure."""
    params = msgspec.to_builtins(call.params)
    inner = f"<param>\n{encode_value(params)}</param>\n" if params else ""
    return (
        f"<?xml version='1.0'?>\n<methodCall>\n<methodName>{_escape(call.verb)}</methodName>\n"
        f"<params>\n{inner}</params>\n</methodCall>\n"
    ).encode()


def decode_reply(document: bytes) -> Reply:
    """What a client received, its result as plain values."""
    target = _parse(document, 1000)
    try:
        values: Any = target.close()
    except xmlrpc.client.Fault as fault:
        return Reply(None, error=_error_in(fault))
    except _PARSING as error:
        raise BadMessage(str(error) or type(error).__name__) from None
    return Reply(None, result=values[0] if values else {})


def _error_in(fault: xmlrpc.client.Fault) -> ErrorInfo:
    code, text = fault.faultCode, fault.faultString
    if not isinstance(code, int) or not isinstance(text, str):
        msg = "a fault has a number and a text"
        raise BadMessage(msg)
    try:
        return _error.decode(text.rpartition("\n")[2])
    except (msgspec.DecodeError, RecursionError):
        return ErrorInfo(name="Fault", code=code, message=text, data={})
