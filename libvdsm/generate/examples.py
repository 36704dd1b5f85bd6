# SPDX-License-Identifier: Apache-2.0
"""Example values for everything that the schema describes, and the forms in which a call is written.

An example follows from the schema alone: from the kind of id, the unit, the bounds.  Only where a value of
the right type would tell a reader nothing is one written down, in ``_VALUES``.  The same values come back
everywhere, so that the image in a call is the image in its answer.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection
from typing import Any
from xml.etree import ElementTree

from libvdsm.api.types import ErrorInfo
from libvdsm.generate.schema import Document, Schema, fields_of, verbs_of
from libvdsm.wire import xmlrpc
from libvdsm.wire.messages import Call, Reply

_WIDTH = 100
_GIB = 2**30
_TIME = 1767225600.0
_UNITS: dict[str, float] = {"bytes": 64 * _GIB, "seconds since the epoch": _TIME, "seconds": 30.0}
_IDS = {
    "DomainId": "5c0a3d2e-9d5b-4f0e-8a53-6f1f0c2b7e11",
    "ImageId": "b7e1c9a4-2f63-4c57-9a0d-3d8e5f6a1b22",
    "VolumeId": "e94d7b16-70c8-4b1f-8e2a-914c0a5d3f33",
    "TaskId": "0f6b2c8d-1a3e-4d95-b7c4-58e9d2a6c444",
    "SessionId": "d31e8f57-6b4a-4829-a1f0-c7b05e9d4555",
    "TransferId": "3f2a9c1e-58d4-4e0b-9b76-2a1c7d0e8777",
    "SecretId": "5b0e7c21-93f4-4d1a-8c26-7e1f0a9d8b43",
}
_NAMES = {"DomainId": "fast", "ImageId": "web01"}
"""What people write on a command line instead of an id."""
_TEMPLATE = ("8a2f4e6c-0b1d-4359-9c7e-2e4d6f8a0c66", "debian13")
_FILE = "web01.qcow2"
"""What people write on a command line where the wire has an open file."""
_INSTEAD = "path"
"""Where a wire carries no open files, a verb that takes one takes this."""

_VALUES: dict[str, Any] = {
    "Audit.list.outcome": "failed",
    "AuditRecord.domain": _IDS["DomainId"],
    "AuditRecord.ended": _TIME + 2,
    "AuditRecord.error": "NoSpace",
    "AuditRecord.number": 4711,
    "AuditRecord.outcome": "failed",
    "AuditRecord.params": {"domain": _IDS["DomainId"], "name": "web01", "path": "/srv/import/web01.qcow2"},
    "AuditRecord.peer": "pid 12345",
    "AuditRecord.pid": 12345,
    "AuditRecord.task": _IDS["TaskId"],
    "AuditRecord.uid": 0,
    "AuditRecord.wire": "unix",
    "Capabilities.api": "1.0",
    "Capabilities.taskModes": ["nonTransparent", "transparent", "default"],
    "Capabilities.verbs": ["Host.ping", "Image.create"],
    "Capabilities.version": "0.1.0",
    "Capabilities.wires": ["http:127.0.0.1:54330"],
    "CheckReport.healthy": True,
    "CheckReport.problems": [],
    "ChildInfo.memory": 4 * 2**20,
    "ChildInfo.pid": 12345,
    "Domain.create.name": "fast",
    "Domain.setDescription.description": "fast: NVMe, not backed up",
    "DomainAttached.name": "fast",
    "DomainDump.damaged": [],
    "DomainDump.facts": {},
    "DomainDump.garbage": [],
    "DomainDump.metadata": {"VERSION": "5", "DESCRIPTION": "fast"},
    "DomainInfo.alignment": 2**20,
    "DomainInfo.blockSize": 512,
    "DomainInfo.name": "fast",
    "DomainInfo.version": 5,
    "DomainStats.capacity": 2048 * _GIB,
    "DomainStats.free": 1536 * _GIB,
    "DomainStats.garbage": 0,
    "DomainStats.promised": 640 * _GIB,
    "DriverInfo.description": "a folder of this host",
    "DriverInfo.driverApi": "1.0",
    "DriverInfo.preallocation": True,
    "Event.poll.after": 4711,
    "EventInfo.sequence": 4712,
    "EventPage.next": 4712,
    "GarbageReport.kept": [],
    "GarbageReport.removed": [],
    "HostStats.cpu": 12.5,
    "HostStats.memory": 48 * 2**20,
    "HostStats.startDuration": 0.4,
    "HostStats.threads": 12,
    "HostStats.uptime": 86400.0,
    "Image.export.path": "/srv/export/web01.qcow2",
    "Image.import.path": "/srv/import/web01.qcow2",
    "Image.list.domain": _IDS["DomainId"],
    "Image.makeTemplate.name": "debian13",
    "Image.prepare.readOnly": True,
    "Image.setTags.tags": ["backup", "env=prod"],
    "Image.snapshot.name": "before the upgrade",
    "ImageInfo.name": "web01",
    "ImageInfo.snapshots": 0,
    "Measure.required": 9 * _GIB,
    "NoSpace.reason": "the image needs 64 GiB, and 12 GiB are free",
    "PreparedInfo.path": "/srv/vm/fast/{DomainId}/images/{ImageId}/{VolumeId}".format(**_IDS),
    "PreparedInfo.readOnly": True,
    "Progress.done": 16 * _GIB,
    "Progress.percent": 25.0,
    "Session.open.name": "backup",
    "SessionInfo.id": _IDS["SessionId"],
    "SessionInfo.name": "backup",
    "SessionInfo.right": "operate",
    "SessionInfo.verbs": ["Host.ping", "Image.create"],
    "SessionInfo.wire": "http",
    "Setting.default": "600",
    "Setting.description": "a session over HTTP that is silent for this many seconds ends",
    "Setting.key": "session_idle",
    "Setting.value": "600",
    "Settings.file": "/etc/hsm/hsm.conf",
    "Subscription.after": 4711,
    "Task.list.state": "running",
    "TaskChanged.state": "running",
    "TaskInfo.started": _TIME + 1,
    "TaskInfo.state": "running",
    "Secret.define.name": "shop-key",
    "Secret.define.value": "correct horse battery staple",
    "Secret.generate.name": "web-key",
    "SecretInfo.name": "web-key",
    "Transfer.start.size": 64 * _GIB,
    "TransferChanged.state": "running",
    "TransferInfo.arrived": 16 * _GIB,
    "TransferInfo.state": "running",
    "TransferInfo.url": "http://127.0.0.1:54334/images/dGhpcyBpcyBhbiBleGFtcGxl",
    "ToolInfo.path": "/usr/bin/qemu-img",
    "ToolInfo.version": "10.0.2",
    "Volume.create.capacity": 64 * _GIB,
    "Volume.resize.capacity": 128 * _GIB,
    "Volume.setTags.tags": ["consistent"],
    "VolumeInfo.name": "web01",
    "SparsifyInfo.freed": 3 * _GIB,
    "Volume.amend.compat": "v3",
    "actualSize": 9 * _GIB,
    "description": "web server, blue",
    "format": "qcow2",
    "freed": 0,
    "generation": 0,
    "keeper": 12345,
    "length": 9 * _GIB,
    "name": "qemu-img",
    "Image.create.name": "web01",
    "Image.clone.name": "web01",
    "Image.import.name": "web01",
    "owner": "root",
    "path": "/srv/vm/fast",
    "request": "9f2c61",
    "section": "limits",
    "step": "copying data",
    "type": "local",
    "user": "root",
    "verb": "Image.import",
}
"""What a reader understands: by owner and member, or by member alone.

An optional member appears in examples where it stands here with its owner, or is positional on the command
line. """


_TOLD = {"Task.getInfo": "running", "Task.wait": "succeeded", "Task.stop": "stopping"}
"""The state in which the verbs that tell of a task find it."""
_EVENT = "ImagePrepared"
"""The event of which is told where any would do."""


class Examples:
    """Examples of what one schema document describes."""

    def __init__(self, document: Document) -> None:
        self._types: dict[str, Schema] = document["types"]
        self._members = {
            **{f"error {error['name']}": error["attributes"] for error in document["errors"]},
            **{f"event {event['name']}": event["members"] for event in document["events"]},
        }
        self._errors = {error["name"]: error for error in document["errors"]}
        self._verbs = verbs_of(document)

    def params(self, verb: str, *, descriptors: bool = True) -> dict[str, Any]:
        """Parameters for a call: what is required, and what most callers give.

        Of a verb that takes an open file: the file, or for a wire that carries none, what is given instead.
        """
        record = self._verbs[verb]
        hidden = record["descriptors"]
        if descriptors and hidden:
            hidden = [_INSTEAD]
        members = self._members_of(verb, record["params"], record["positional"])
        return {name: value for name, value in members.items() if name not in hidden}

    def result(self, verb: str) -> Any:
        """What the verb answers."""
        if self._verbs[verb]["makesTask"]:
            return self._task("queued", verb)
        if verb in _TOLD:
            return self._task(_TOLD[verb])
        return self.value(self._verbs[verb]["result"], verb, "")

    def task_result(self, verb: str) -> Any:
        """What the task that the verb makes holds in the end."""
        return self.value(self._verbs[verb]["taskResult"], verb, "")

    def event(self, name: str) -> dict[str, Any]:
        """An event as it is told."""
        members = self._members_of(name, self._members[f"event {name}"])
        return self._structure("EventInfo") | {"name": name, "data": members}

    def error(self, name: str) -> dict[str, Any]:
        """An error as data."""
        data = self._members_of(name, self._members[f"error {name}"])
        record = self._errors[name]
        return {
            "name": name,
            "code": record["code"],
            "message": record["template"].format(**data),
            "data": data,
        }

    def value(self, schema: Schema, owner: str, member: str) -> Any:
        """A value for a schema that stands at this place."""
        if f"{owner}.{member}" in _VALUES:
            return _VALUES[f"{owner}.{member}"]
        if member in _VALUES:
            return _VALUES[member]
        if "$ref" in schema:
            return self._named(schema["$ref"].rpartition("/")[2], member)
        if schema.get("descriptor"):
            return 0
        if schema.get("type") == "array":
            return [self.value(schema["items"], owner, "")]
        return _plain(schema, member)

    def command(self, verb: str) -> str:
        """The call as a command line."""
        record = self._verbs[verb]
        group, _, name = verb.partition(".")
        values = self.params(verb)
        schemas = {member["name"]: member["schema"] for member in record["params"]}
        # The name of an image tells its domain.
        if any(schemas[name].get("$ref", "").endswith("/ImageId") for name in record["positional"]):
            values.pop("domain", None)
        words = ["hsmctl", group.lower(), kebab(name)]
        for name in record["positional"]:
            several = isinstance(values[name], list)
            words += values[name] if several else [_word(schemas[name], name, values[name])]
        for option, value in values.items():
            if option not in record["positional"]:
                words += _option(schemas[option], option, value)
        return shlex.join(words)

    def _named(self, name: str, member: str) -> Any:
        if name in _IDS:
            return _TEMPLATE[0] if member == "template" else _IDS[name]
        if name == "EventInfo":
            return self.event(_EVENT)
        return self._types[name]["enum"][0] if "enum" in self._types[name] else self._structure(name)

    def _structure(self, name: str) -> dict[str, Any]:
        return self._members_of(name, fields_of(self._types[name]))

    def _members_of(self, owner: str, members: list[Document], shown: Collection[str] = ()) -> dict[str, Any]:
        return {
            member["name"]: self.value(member["schema"], owner, member["name"])
            for member in members
            if member["required"] or member["name"] in shown or f"{owner}.{member['name']}" in _VALUES
        }

    def _task(self, state: str, verb: str = _VALUES["verb"]) -> dict[str, Any]:
        task = self._structure("TaskInfo") | {"verb": verb, "state": state}
        if state == "queued":
            del task["started"]
            task["progress"] = {"done": 0, "total": 0, "percent": 0.0, "step": "waiting"}
        if state == "succeeded":
            task["progress"] |= {"done": task["progress"]["total"], "percent": 100.0, "step": "done"}
            task |= {"ended": _TIME + 60, "result": self.task_result(verb)}
        return task


def _plain(schema: Schema, member: str) -> Any:
    kind = schema.get("type")
    if kind in ("integer", "number"):
        number = _bounded(_UNITS.get(schema.get("unit", ""), 1), schema)
        return int(number) if kind == "integer" else float(number)
    return {"string": member or "text", "boolean": False}.get(str(kind), {})


def _bounded(number: float, schema: Schema) -> float:
    lowest: float = schema.get("minimum", number)
    highest: float = schema.get("maximum", number)
    return max(lowest, min(number, highest))


def kebab(name: str) -> str:
    """``makeTemplate`` as a command line has it: ``make-template``."""
    return re.sub("(?<=[a-z0-9])([A-Z])", r"-\1", name).lower()


def human_size(size: int) -> str:
    """A number of bytes as people write it: ``64G``."""
    for letter, unit in (("T", 2**40), ("G", _GIB), ("M", 2**20), ("K", 2**10)):
        if size and size % unit == 0:
            return f"{size // unit}{letter}"
    return str(size)


def _option(schema: Schema, name: str, value: Any) -> list[str]:
    option = schema.get("option") or kebab(name)
    if schema.get("secret"):
        return [f"--{option}-file", f"{option}.txt"]
    if isinstance(value, bool):
        return [f"--{option}" if value else f"--no-{option}"]
    return [f"--{option}", _word(schema, name, value)]


def _word(schema: Schema, name: str, value: Any) -> str:
    kind = schema.get("$ref", "").rpartition("/")[2]
    if schema.get("descriptor"):
        return _FILE
    if kind in _NAMES:
        return _TEMPLATE[1] if name == "template" else _NAMES[kind]
    if schema.get("unit") == "bytes":
        return human_size(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def json_rpc(verb: str, params: dict[str, Any]) -> str:
    """The call as a JSON-RPC message, to be read by people."""
    return _message({"jsonrpc": "2.0", "id": 1, "method": verb}, "params", params)


def json_reply(result: Any) -> str:
    """The answer as a JSON-RPC message."""
    return _message({"jsonrpc": "2.0", "id": 1}, "result", result)


def json_event(event: dict[str, Any]) -> str:
    """The event as a JSON-RPC notification."""
    return _message({"jsonrpc": "2.0", "method": "event"}, "params", event)


def json_error(error: dict[str, Any]) -> str:
    """The error as a JSON-RPC message."""
    about = {"name": error["name"], "data": error["data"]}
    body = {"code": error["code"], "message": error["message"], "data": about}
    return _message({"jsonrpc": "2.0", "id": 1}, "error", body)


def xml_fault(error: dict[str, Any]) -> str:
    """The error as an XML-RPC document."""
    return pretty_xml(xmlrpc.encode_reply(Reply(None, error=ErrorInfo(**error))))


def _message(head: dict[str, Any], name: str, body: dict[str, Any]) -> str:
    """What all messages have on the first line, and below it what this one has."""
    whole = pretty(head | {name: body})
    if "\n" not in whole:
        return whole
    return f"{json.dumps(head)[:-1]}, {json.dumps(name)}: {_broken(body, '')}}}"


def xml_reply(result: Any) -> str:
    """The answer as an XML-RPC document."""
    return pretty_xml(xmlrpc.encode_reply(Reply(None, result=result)))


def xml_rpc(verb: str, params: dict[str, Any]) -> str:
    """The call as an XML-RPC document, to be read by people: made by the wire itself, then broken into
    lines."""
    return pretty_xml(xmlrpc.encode_call(Call(verb=verb, params=params)))


def pretty(value: Any, indent: str = "") -> str:
    """JSON in as few lines as can be read."""
    flat = json.dumps(value, ensure_ascii=False)
    fits = len(indent) + len(flat) <= _WIDTH
    return flat if fits or not isinstance(value, dict | list) else _broken(value, indent)


def _broken(value: dict[str, Any] | list[Any], indent: str) -> str:
    deeper = indent + "  "
    if isinstance(value, dict):
        lines = [f"{deeper}{json.dumps(name)}: {pretty(member, deeper)}" for name, member in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    return "[\n" + ",\n".join(deeper + pretty(item, deeper) for item in value) + f"\n{indent}]"


def pretty_xml(document: bytes) -> str:
    """XML with a line for each member of a structure."""
    root = ElementTree.fromstring(document)
    for element in root.iter():
        element.tail = None
        if element.tag not in ("string", "name"):
            element.text = (element.text or "").strip()
    return "\n".join(["<?xml version='1.0'?>", *_xml_lines(root, "")])


def _xml_lines(element: ElementTree.Element, indent: str) -> list[str]:
    flat = indent + ElementTree.tostring(element, encoding="unicode", short_empty_elements=False)
    if indent and element.find(".//member") is None:
        return [flat]
    # What only wraps one thing shares its line: params, param, value, struct.
    chain = [element]
    while len(chain[-1]) == 1 and chain[-1].tag not in ("struct", "data"):
        chain.append(chain[-1][0])
    inner = [line for child in chain[-1] for line in _xml_lines(child, indent + "  ")]
    opening = "".join(f"<{link.tag}>" for link in chain)
    closing = "".join(f"</{link.tag}>" for link in reversed(chain))
    return [indent + opening, *inner, indent + closing]
