# SPDX-License-Identifier: Apache-2.0
"""The reference in ``docs/api``: pages of Markdown, made from the schema document and from nothing else.

One page for each class, and one each for types, errors and events; what holds for all of them is in
``overview``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from libvdsm.api import types
from libvdsm.generate import examples, schema
from libvdsm.generate.examples import Examples
from libvdsm.generate.markdown import Links, code, first_sentence, page, table
from libvdsm.generate.overview import Overview
from libvdsm.generate.schema import Document, Schema, fields_of, verbs_of

FOLDER = "docs/api"
_HUGE = 10**9
"""An upper bound from here on is there for computers only."""
_PATTERNS: dict[str, str] = {
    schema.schema_of(types.Line)["pattern"]: "in one line",
    schema.schema_of(types.Word)["pattern"]: "of letters, digits and `_ . : -`",
    schema.schema_of(types.Path)["pattern"]: "an absolute path",
}
"""What the regular expressions mean.  One that is not here is shown as it is."""

_ERRORS = """\
An error has a name and a number, which never change, attributes, and a message that says what to do. How it
travels is told in [the overview](index.md#errors)."""
_EVENTS = """\
Each event travels as an `EventInfo`: a sequence number that only grows, the time, the event's name, and its
members as `data`. Clients pass over names that they do not know. `Event.poll` works on every wire;
`Event.subscribe` has events sent as they happen, where the wire can."""
_DESCRIPTORS = """\
is the place of the open file among the descriptors that come with the message, which only a Unix socket
carries; on other wires, give `path`."""
_QUERIES = """\
These fields can be asked for by `filter` and sorted by with `sort`, in the language of
[queries](../../docs/guide/queries.md):"""
_KINDS = {"choice": "one of its type's values", "boolean": "true or false", "list": "a list of texts"}
"""Kinds of fields whose own word does not tell."""


def files() -> Mapping[str, str]:
    """What ``python -m libvdsm.generate docs`` writes: path -> text."""
    return {f"{FOLDER}/{name}": text for name, text in Reference(schema.document()).pages().items()}


class Reference:
    """The pages that describe one schema document."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._examples = Examples(document)
        self._verbs = verbs_of(document)
        self._links = Links(document)

    def pages(self) -> dict[str, str]:
        """Every page by its file name."""
        pages = {
            "index.md": Overview(self._document).page(),
            "types.md": self._types(),
            "errors.md": self._errors(),
            "events.md": self._events(),
        }
        return pages | {f"{group['name'].lower()}.md": self._class(group) for group in self._document["classes"]}

    # Pages of classes

    def _class(self, group: Document) -> str:
        names = [f"{group['name']}.{verb['name']}" for verb in group["verbs"]]
        blocks = [block for name in names for block in self._verb(name, self._verbs[name])]
        return page(
            f"# {group['name']}",
            self._links.text(group["doc"]),
            table(("Verb", "Right", "What it does"), [self._summary(name) for name in names]),
            *blocks,
            "[All of the API](index.md)",
        )

    def _summary(self, name: str) -> tuple[str, str, str]:
        verb = self._verbs[name]
        return self._links.to(name), verb["right"], self._brief(verb)

    def _verb(self, name: str, verb: Document) -> Iterator[str]:
        yield f"## {name}"
        if "deprecated" in verb:
            deprecated = verb["deprecated"]
            instead = self._links.to(deprecated["replacedBy"])
            yield f"**Deprecated since {deprecated['since']}**: use {instead}."
        yield self._links.text(verb["doc"])
        yield f"Right: {verb['right']}. Since: {verb['since']}. {self._answer(verb)}"
        columns = ("Parameter", "Type", "If absent", "Meaning")
        yield (table(columns, [self._parameter(member) for member in verb["params"]]) or "It has no parameters.")
        if "fields" in verb:
            yield _QUERIES
            columns = ("Field", "Is", "Compared by", "Sorts")
            yield table(columns, [_queried(field) for field in verb["fields"]])
        yield self._declared(verb)
        yield from self._calls(name, verb)

    def _answer(self, verb: Document) -> str:
        if verb["makesTask"]:
            return f"Starts a [task](index.md#tasks), whose result is {self._type(verb['taskResult'])}."
        blocking = " It may wait before it answers." if verb["blocking"] else ""
        return f"Answers {self._type(verb['result'])}.{blocking}"

    def _parameter(self, member: Document) -> tuple[str, str, str, str]:
        about = member["schema"]
        absent = "**required**" if member["required"] else "-"
        if "default" in about:
            absent = f"`{examples.pretty(about['default'])}`".replace('"', "")
        secret = "; not shown in the audit log" if about.get("secret") else ""
        meaning = self._links.text(about["description"]) + secret + _since(about)
        return f"`{member['name']}`", self._type(about, bounds=True), absent, meaning

    def _declared(self, verb: Document) -> str:
        common = "[those that every verb may answer](errors.md#errors-of-every-verb)"
        if not verb["errors"]:
            return f"Errors: {common}."
        return f"Errors: {self._links.to_all(verb['errors'])}, and {common}."

    def _calls(self, name: str, verb: Document) -> Iterator[str]:
        yield "On the command line:"
        yield code("sh", self._examples.command(name))
        yield "As JSON-RPC:"
        yield code("json", examples.json_rpc(name, self._examples.params(name)))
        if verb["descriptors"]:
            names = " and ".join(f"`{member}`" for member in verb["descriptors"])
            yield f"{names} {_DESCRIPTORS}"
        yield "As XML-RPC:"
        yield code("xml", examples.xml_rpc(name, self._examples.params(name, descriptors=False)))
        yield "The answer, as JSON-RPC:"
        yield code("json", examples.json_reply(self._examples.result(name)))
        if verb["makesTask"] and self._examples.task_result(name):
            yield "What the task holds as its `result` once it has succeeded:"
            yield code("json", examples.pretty(self._examples.task_result(name)))

    # What a value may be, in words

    def _type(self, about: Schema, *, bounds: bool = False) -> str:
        """The type; the bounds of text are told only where a caller has to keep them."""
        if "$ref" in about:
            return self._links.to(about["$ref"].rpartition("/")[2])
        kind = about.get("type")
        if kind == "array":
            return f"list of {self._type(about['items'], bounds=bounds)}"
        if kind == "object":
            return "map of names to values"
        if kind in ("integer", "number"):
            return _number(about)
        if kind == "string":
            return _text(about) if bounds else "text"
        return "true or false" if kind == "boolean" else "any structure"

    # Types, errors, events

    def _types(self) -> str:
        kinds = sorted(self._document["types"].items())
        ids = [(name, kind) for name, kind in kinds if kind.get("format") == "uuid"]
        enums = [(name, kind) for name, kind in kinds if "enum" in kind]
        structures = [(name, kind) for name, kind in kinds if kind["type"] == "object"]
        return page(
            "# Types",
            "Absent members are left out: there is no null. Clients pass over those that they do not know.",
            "## Ids",
            f"Each is a UUID, written as text: `{self._examples.value({'$ref': 'ImageId'}, '', '')}`.",
            *(block for name, kind in ids for block in (f"### {name}", kind["description"])),
            "## Enumerations",
            "They may grow: a client that meets a value it does not know treats it as unknown, and goes on.",
            *(block for name, kind in enums for block in self._enumeration(name, kind)),
            "## Structures",
            *(block for name, kind in structures for block in self._structure(name, kind)),
        )

    def _enumeration(self, name: str, kind: Schema) -> Iterator[str]:
        yield f"### {name}"
        yield self._links.text(kind["description"])
        values = zip(kind["enum"], kind["enumDescriptions"], strict=True)
        yield table(("Value", "Meaning"), [(f"`{value}`", self._links.text(words)) for value, words in values])

    def _structure(self, name: str, kind: Schema) -> Iterator[str]:
        yield f"### {name}"
        yield self._links.text(kind["description"])
        yield self._members("Member", fields_of(kind)) or "It has no members."

    def _members(self, column: str, members: list[Document]) -> str:
        rows = [
            (
                f"`{member['name']}`",
                self._type(member["schema"]),
                "always" if member["required"] else "may be absent",
                self._links.text(member["schema"]["description"]) + _since(member["schema"]),
            )
            for member in members
        ]
        return table((column, "Type", "Present", "Meaning"), rows)

    def _errors(self) -> str:
        errors = sorted(self._document["errors"], key=lambda error: error["code"])
        rows = [(str(error["code"]), self._links.to(error["name"]), self._brief(error)) for error in errors]
        return page(
            "# Errors",
            _ERRORS,
            table(("Number", "Name", "Meaning"), rows),
            "## Errors of every verb",
            f"Whatever a verb declares, it may also answer {self._links.to_all(self._document['common'])}.",
            "## Errors one by one",
            *(block for error in errors for block in self._error(error)),
        )

    def _error(self, error: Document) -> Iterator[str]:
        yield f"### {error['name']}"
        yield f"Number {error['code']}. {self._links.text(error['doc'])}"
        yield f"> {error['template']}"
        yield self._members("Attribute", error["attributes"])
        if error["name"] in self._document["common"]:
            yield "Any verb may answer it."
            return
        verbs = [name for name, verb in self._verbs.items() if error["name"] in verb["errors"]]
        yield (f"Answered by {self._links.to_all(verbs)}." if verbs else "No verb answers it: clients raise it.")

    def _events(self) -> str:
        events = self._document["events"]
        rows = [(self._links.to(event["name"]), self._brief(event)) for event in events]
        return page(
            "# Events",
            self._links.text(_EVENTS),
            table(("Event", "What happened"), rows),
            *(block for event in events for block in self._event(event)),
        )

    def _brief(self, record: Document) -> str:
        return self._links.text(first_sentence(record["doc"]))

    def _event(self, event: Document) -> Iterator[str]:
        yield f"## {event['name']}"
        yield self._links.text(event["doc"])
        yield self._members("Member", event["members"])
        yield code("json", examples.json_event(self._examples.event(event["name"])))


def _since(about: Schema) -> str:
    """When a member came, if that was later than what it is part of."""
    return f" (since {about['since']})" if "since" in about else ""


def _queried(field: Document) -> tuple[str, str, str, str]:
    signs = " ".join(f"`{sign}`" for sign in field["operators"])
    kind: str = field["kind"]
    return f"`{field['name']}`", _KINDS.get(kind, kind), signs, "yes" if field["sortable"] else "-"


def _number(about: Schema) -> str:
    if about.get("descriptor"):
        return "an open file"
    unit = str(about.get("unit") or about["type"])
    lowest, highest = about.get("minimum", 0), about.get("maximum", _HUGE)
    if highest >= _HUGE:
        return f"{unit}, {lowest:,} or more" if lowest else unit
    return f"{unit}, {lowest:,} to {highest:,}"


def _text(about: Schema) -> str:
    shortest, longest = about.get("minLength", 0), about.get("maxLength", 0)
    length = f"{shortest} to {longest:,} characters" if shortest else f"up to {longest:,} characters"
    pattern: str = about.get("pattern", "")
    if not pattern:
        return f"text, {length}"
    return f"text, {length}, {_PATTERNS.get(pattern, f'matching `{pattern}`')}"
