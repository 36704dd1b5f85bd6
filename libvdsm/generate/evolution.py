# SPDX-License-Identifier: Apache-2.0
"""How the API may change: the rules of evolution, applied to two schema documents.

A document is taken apart into *elements* (a verb, a parameter, a field, a value, ...), each with *facts* (its
type, its bounds, whether it may be left out).  Within a major version no element goes away, a fact changes
only where a rule here allows it, and whatever is new or allowed raises the minor version.  Texts are free.

Which way a value flows decides what is allowed.  What clients send may be accepted more widely, never more
narrowly; what the service answers may become narrower, never wider.  What is added to something that exists
is optional on both ways: old clients do not send it, and new clients read the answers of old services, and
results of tasks that were kept over an upgrade.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from libvdsm.declare import Right
from libvdsm.generate.schema import Document, Schema, fields_of, render, verbs_of

Facts: TypeAlias = Mapping[str, Any]

RELEASED = "schema/released"
_TEXTS = {"title", "description", "enumDescriptions"}
_ELSEWHERE = {"default", "properties", "required", "order", "enum"}  # facts and elements of their own
_REQUIRED, _OPTIONAL = "required", "optional"


class Flow(enum.Flag):
    """Which way a value goes, seen from the service."""

    IN = enum.auto()
    OUT = enum.auto()


@dataclass(frozen=True)
class Element:
    """Something that clients may rely upon.  ``owner`` is the name of the element that it is part of, if
    any."""

    flow: Flow
    facts: Facts = field(default_factory=dict)
    owner: str = ""


@dataclass(frozen=True)
class Change:
    """A difference between two documents.  Even an allowed one has to raise the version."""

    what: str
    allowed: bool


def compare(old: Document, new: Document) -> list[str]:
    """What the rules forbid of the way from a released document to a new one, in words.  Empty: it may be
    released."""
    was, now = _version(old["version"]), _version(new["version"])
    if was[0] != now[0]:
        return []
    changes = list(_changes(elements(old), elements(new)))
    violations = [change.what for change in changes if not change.allowed]
    if now < was:
        violations.append(f"version {new['version']} is lower than {old['version']}, which is released")
    if now == was:
        too_low = f"the version must be raised above {old['version']}"
        violations += [f"{change.what}: {too_low}" for change in changes if change.allowed]
    return violations + list(_bad_since(old, new)) + list(_bad_deprecations(new))


def elements(document: Document) -> dict[str, Element]:
    """Everything that clients may rely upon, by a name to be read by people."""
    flows = _flows(document)
    return dict(
        [
            *_verbs(document),
            *((f"common error {name}", Element(Flow.OUT)) for name in document["common"]),
            *_records(document["errors"], "error", "attributes", ("code",)),
            *_records(document["events"], "event", "members", ()),
            *(item for name, schema in document["types"].items() for item in _type(name, schema, flows[name])),
        ]
    )


def _verbs(document: Document) -> Iterator[tuple[str, Element]]:
    for group in document["classes"]:
        yield f"class {group['name']}", Element(Flow.IN)
    for name, verb in verbs_of(document).items():
        about = {key: verb.get(key) for key in ("since", "right", "blocking", "makesTask", "deprecated")}
        results: Schema = {key: verb[key] for key in ("result", "taskResult") if key in verb}
        yield name, Element(Flow.OUT, about | dict(_flat(results)), f"class {name.partition('.')[0]}")
        for member in verb["params"]:
            facts = _member(member) | {"position": _position(member["name"], verb["positional"])}
            yield f"parameter {member['name']} of {name}", Element(Flow.IN, facts, name)
        for error in verb["errors"]:
            yield f"error {error} of {name}", Element(Flow.OUT, {}, name)


def _position(parameter: str, positional: list[str]) -> int | None:
    return positional.index(parameter) if parameter in positional else None


def _records(records: list[Document], kind: str, members: str, keys: tuple[str, ...]) -> Iterator[tuple[str, Element]]:
    for record in records:
        name = f"{kind} {record['name']}"
        yield name, Element(Flow.OUT, {key: record[key] for key in keys})
        for member in record[members]:
            yield f"{members[:-1]} {member['name']} of {name}", Element(Flow.OUT, _member(member), name)


def _type(name: str, schema: Schema, flow: Flow) -> Iterator[tuple[str, Element]]:
    owner = f"type {name}"
    yield owner, Element(flow, dict(_flat(schema)))
    for value in schema.get("enum", []):
        yield f"value {value} of {name}", Element(flow, owner=owner)
    for member in fields_of(schema):
        yield f"field {member['name']} of {name}", Element(flow, _member(member), owner)


def _member(member: Document) -> dict[str, Any]:
    """The facts of a parameter, field or attribute.  Whether it may be left out, and what then, is one
    fact."""
    absent = {"default": member["schema"]["default"]} if "default" in member["schema"] else _OPTIONAL
    return dict(_flat(member["schema"])) | {"presence": _REQUIRED if member["required"] else absent}


def _flat(schema: Schema, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in schema.items():
        if key in _TEXTS | _ELSEWHERE:
            continue
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _flows(document: Document) -> dict[str, Flow]:
    """Which ways each named type goes: what a type refers to goes where it goes."""
    types = document["types"]
    flows = dict.fromkeys(types, Flow(0))

    def spread(value: Any, flow: Flow) -> None:
        for name in _references(value):
            if flow not in flows[name]:
                flows[name] |= flow
                spread(types[name], flow)

    for verb in verbs_of(document).values():
        spread(verb["params"], Flow.IN)
        spread([verb["result"], verb.get("taskResult")], Flow.OUT)
    spread([document["errors"], document["events"]], Flow.OUT)
    return flows


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _references(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == "$ref":
                yield item.rpartition("/")[2]
            else:
                yield from _references(item)


def _changes(old: Mapping[str, Element], new: Mapping[str, Element]) -> Iterator[Change]:
    """What differs.  Of something that came or went as a whole, its parts are not named."""
    for name, element in old.items():
        if name not in new and (not element.owner or element.owner in new):
            yield Change(f"{name} was removed", allowed=False)
    for name, element in new.items():
        if name in old:
            yield from _differences(name, old[name], element)
        elif not element.owner:
            yield Change(f"{name} was added", allowed=True)
        elif element.owner in old:
            yield _addition(name, element, new[element.owner])


def _addition(name: str, element: Element, owner: Element) -> Change:
    if element.facts.get("presence") == _REQUIRED:
        return Change(f"{name} was added and is required", allowed=False)
    if Flow.OUT in element.flow and owner.facts.get("open") is False:
        return Change(f"{name} was added to what clients take for complete", allowed=False)
    return Change(f"{name} was added", allowed=True)


def _differences(name: str, old: Element, new: Element) -> Iterator[Change]:
    flow = old.flow | new.flow
    for fact in sorted(old.facts.keys() | new.facts.keys()):
        was, now = old.facts.get(fact), new.facts.get(fact)
        if was != now:
            allowed = _RULES.get(fact.rpartition(".")[2], _never)(was, now, flow)
            yield Change(f"{fact} of {name} changed from {_say(was)} to {_say(now)}", allowed)


def _say(value: Any) -> str:
    if value is None:
        return "nothing"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _never(_was: Any, _now: Any, _flow: Flow) -> bool:
    return False


def _always(_was: Any, _now: Any, _flow: Flow) -> bool:
    return True


def _floor(was: float | None, now: float | None, flow: Flow) -> bool:
    """A lower bound: without one, everything is allowed."""
    rises = was is None or (now is not None and now > was)
    return flow == (Flow.OUT if rises else Flow.IN)


def _ceiling(was: float | None, now: float | None, flow: Flow) -> bool:
    falls = was is None or (now is not None and now < was)
    return flow == (Flow.OUT if falls else Flow.IN)


def _pattern(was: str | None, now: str | None, flow: Flow) -> bool:
    """Nobody can tell which of two regular expressions accepts more; but none accepts everything."""
    return (now is None and flow == Flow.IN) or (was is None and flow == Flow.OUT)


def _presence(was: Any, now: Any, flow: Flow) -> bool:
    """Required or not: a parameter may be let off, an answer may be promised.  A default never changes."""
    return (flow == Flow.IN and was == _REQUIRED) or (flow == Flow.OUT and now == _REQUIRED)


def _right(was: str, now: str, _flow: Flow) -> bool:
    return Right[now.upper()] <= Right[was.upper()]


_RULES: Mapping[str, Callable[[Any, Any, Flow], bool]] = {
    "minimum": _floor,
    "exclusiveMinimum": _floor,
    "minLength": _floor,
    "minItems": _floor,
    "maximum": _ceiling,
    "exclusiveMaximum": _ceiling,
    "maxLength": _ceiling,
    "maxItems": _ceiling,
    "pattern": _pattern,
    "presence": _presence,
    "right": _right,
    "deprecated": _always,
    "secret": _always,
}
"""Which changes of a fact are allowed; of every other fact: none."""


def _bad_since(old: Document, new: Document) -> Iterator[str]:
    """What is new says since when: later than what is released, and not later than now."""
    before = verbs_of(old)
    for name, verb in verbs_of(new).items():
        if name not in before and not _is_between(old["version"], verb["since"], new["version"]):
            yield f"{name} is new in {new['version']}, and says since {verb['since']}"
    known = elements(old)
    for name, element in elements(new).items():
        since = element.facts.get("since", "")
        is_member = name.startswith(("parameter ", "field "))
        if is_member and since and name not in known and not _is_between(old["version"], since, new["version"]):
            yield f"{name} is new in {new['version']}, and says since {since}"


def _is_between(released: str, since: str, now: str) -> bool:
    return _version(released) < _version(since) <= _version(now)


def _bad_deprecations(new: Document) -> Iterator[str]:
    """Who is told to leave a verb is told where to."""
    verbs = verbs_of(new)
    for name, verb in verbs.items():
        deprecated = verb.get("deprecated")
        if deprecated is None:
            continue
        if _version(deprecated["since"]) > _version(new["version"]):
            yield f"{name} is deprecated since {deprecated['since']}, which is not there yet"
        if deprecated["replacedBy"] not in verbs:
            yield f"{name} is deprecated, and its replacement {_say(deprecated['replacedBy'])} does not exist"


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)


def latest_released(root: Path, version: str) -> Document | None:
    """The highest released document of this major version, if there is any."""
    major = version.partition(".")[0]
    documents = [json.loads(file.read_text()) for file in (root / RELEASED).glob(f"libvdsm-{major}.*.json")]
    return max(documents, key=lambda document: _version(document["version"]), default=None)


def release(root: Path, document: Document, *, before_release: bool = False) -> Path:
    """Keep a document as released.  What is released never changes; before the first release, it may."""
    file = root / RELEASED / f"libvdsm-{document['version']}.json"
    text = render(document)
    if file.exists() and file.read_text() != text and not before_release:
        msg = f"{file} is released and differs; raise the version in libvdsm/api/__init__.py"
        raise FileExistsError(msg)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file
