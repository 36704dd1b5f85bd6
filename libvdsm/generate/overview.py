# SPDX-License-Identifier: Apache-2.0
"""The first page of the reference: what holds for the whole API.

What no declaration can say stands here in words: how a call is written on each wire, what a session is.
Facts (verbs, states, rights, limits) are taken from the schema document.
"""

from __future__ import annotations

from collections.abc import Iterator

from libvdsm.generate import examples, schema
from libvdsm.generate.examples import Examples
from libvdsm.generate.markdown import Links, code, page, table
from libvdsm.generate.schema import Document, verbs_of

_CALLS = """\
A verb is called by its full name, `Image.create`, with parameters by name.  The answer is one structure, or
an error.  What is called, with what, and what is answered is the same on every wire."""

_JSON_RPC = """\
JSON-RPC 2.0, parameters by name.  On a stream, each message is preceded by its length in bytes: a 64-bit
number, the most significant byte first.  Batches are answered as batches.  A request may have three members
more than the standard: `session`, the id of a session; `request`, an id of your own that the logs of all
processes show; and `task`, the id of a task that you own."""

_XML_RPC = """\
Sent by `POST` to the path `/RPC2`, with the header `Content-Type: text/xml`.  One parameter, a structure of the named parameters; none, if there are none.  Integers beyond 32 bits are
`<i8>`.  What is absent is left out: there is no `<nil/>`.  The answer is one structure."""

_COMMAND_LINE = """\
`hsmctl`, class, verb, then what the verb is mostly about, then the rest as options.  Sizes are written as
people write them, domains and images by name; `--domain` may be left out where it
is clear which is meant."""

_VALUES = """\
Integers have 64 bits at most.  Sizes are bytes, times are seconds since the epoch, durations are seconds,
ids are UUIDs as text.  Names and lines of text have no control characters.  What is absent is left out:
there is no null."""

_SESSIONS = """\
A client that does nothing about it is served with the defaults.  `Session.open` tells the service who
calls, for its logs, and who owns the tasks.  On a connection of its own a session is in force until that
ends; over HTTP its id is sent with each call, in the header `Session-Id`, a task's in `Task-Id`, and a
request's in `Request-Id`.  In a `system.multicall` a task's id is the member `taskId` of its call.  Each
verb needs a right, and a
right includes those before it; `Session.getInfo` tells a caller which right it has, and which verbs it may
call."""

_TASKS = """\
A verb that changes data answers at once, with a task: a `TaskInfo`.  `Task.wait` waits for it,
`Task.getInfo` and the event `TaskChanged` tell how far it is, `Task.stop` asks it to stop.  What a verb
says about its *commit point* is what holds after a crash: before it, nothing has happened; after it,
everything has, or will be finished.

The service owns tasks, unless a session chose `transparent`: then the client does.  Each call that makes a
task brings the task's id, and the same call with the same id is the same task.  Nobody else sees such tasks
or hears of them, and no restart keeps them: the client asks again."""

_ERRORS = """\
An [error](errors.md) has a stable name, a stable number, attributes, and a message that says what to do.  A
verb answers the errors that it declares, and
[those that every verb may answer](errors.md#errors-of-every-verb).  As JSON-RPC:"""

_FAULTS = """\
As XML-RPC, a fault; the last line of its string is all of the error as JSON:"""

_EVENTS = """\
What happens is told as [events](events.md).  Each has a sequence number larger than every one before, and
they are kept for a while: a client that polls with the last number it saw misses none, or is told that it
did.  `Event.poll` works on every wire, `Event.subscribe` where the service can send on its own."""

_PAGES = """\
Verbs that list answer `items`, at most `limit` of them, and where there are more, `next`, which is given as
`start` in the next call.  Those of domains, images, volumes and tasks take a `filter` and an order, in the
language of [queries](../../docs/guide/queries.md)."""

_LIMITS = """\
Bounds of single values stand with each parameter.  Limits of messages, connections and sessions are
settings, which `Config.get` tells."""

_EVOLUTION = """\
Within a major version nothing is removed and nothing changes its type.  New verbs, parameters, members,
values, errors and events raise the minor version; new parameters are optional.  A client passes over
members, values, errors and events that it does not know, and asks `Host.getCapabilities` for what it needs,
not for a version.  A verb that is to go is marked deprecated, with the one to use instead, and goes with
the next major version."""


class Overview:
    """The page about one schema document."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._examples = Examples(document)
        self._verbs = verbs_of(document)
        self._links = Links(document)

    def page(self) -> str:
        """The page."""
        rights = [(right["name"], right["doc"]) for right in self._document["rights"]]
        return page(
            "# The storage API",
            self._version(),
            self._contents(),
            "## Calls",
            *self._wires(),
            "## Values",
            self._links.text(_VALUES),
            "## Sessions and rights",
            self._links.text(_SESSIONS),
            table(("Right", "Allows to"), rights),
            "## Tasks",
            self._links.text(_TASKS),
            self._states(),
            "## Errors",
            *self._errors(),
            "## Events",
            self._links.text(_EVENTS),
            "## Limits",
            *self._limits(),
            "## How it changes",
            self._links.text(_EVOLUTION),
        )

    def _version(self) -> str:
        path = schema.path(self._document["version"])
        return f"Version {self._document['version']}. For programs, the same as [`{path}`](../../{path})."

    def _contents(self) -> str:
        rows = [
            (self._links.to(group["name"]), self._links.text(group["doc"]), self._verbs_in(group["name"]))
            for group in self._document["classes"]
        ]
        also = "Also: [types](types.md), [errors](errors.md), [events](events.md)."
        return f"{table(('Class', 'What it is about', 'Verbs'), rows)}\n\n{also}"

    def _verbs_in(self, group: str) -> str:
        names = [name for name in self._verbs if name.startswith(f"{group}.")]
        return ", ".join(self._links.to(name, name.partition(".")[2]) for name in names)

    def _wires(self) -> Iterator[str]:
        verb = "Image.getInfo"
        params, result = self._examples.params(verb), self._examples.result(verb)
        yield self._links.text(_CALLS)
        yield "### JSON-RPC"
        yield self._links.text(_JSON_RPC)
        yield code("json", examples.json_rpc(verb, params))
        yield code("json", examples.json_reply(result))
        yield "### XML-RPC"
        yield self._links.text(_XML_RPC)
        yield code("xml", examples.xml_rpc(verb, params))
        yield code("xml", examples.xml_reply(result))
        yield "### The command line"
        yield self._links.text(_COMMAND_LINE)
        yield code("sh", self._examples.command("Image.create"))

    def _states(self) -> str:
        kind = self._document["types"]["TaskState"]
        states = zip(kind["enum"], kind["enumDescriptions"], strict=True)
        return table(("State", "Meaning"), [(f"`{state}`", words) for state, words in states])

    def _errors(self) -> Iterator[str]:
        error = self._examples.error("NoSpace")
        yield self._links.text(_ERRORS)
        yield code("json", examples.json_error(error))
        yield self._links.text(_FAULTS)
        yield code("xml", examples.xml_fault(error))

    def _limits(self) -> Iterator[str]:
        yield self._links.text(_PAGES)
        yield table(("Verb", "`limit`, if absent", "at most"), self._having("limit"))
        yield "These wait before they answer, for `timeout` seconds at most:"
        yield table(("Verb", "`timeout`, if absent", "at most"), self._having("timeout"))
        yield self._links.text(_LIMITS)

    def _having(self, parameter: str) -> Iterator[tuple[str, str, str]]:
        for name, verb in self._verbs.items():
            for member in verb["params"]:
                if member["name"] == parameter:
                    about = member["schema"]
                    yield self._links.to(name), f"{about['default']:,g}", f"{about['maximum']:,}"
