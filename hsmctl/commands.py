# SPDX-License-Identifier: Apache-2.0
"""How verbs are called on the command line: names, short names, and which parameter is which argument."""

from __future__ import annotations

import functools
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hsmctl.values import Kind, element, kind_of
from libvdsm.api import CLASSES, VERBS
from libvdsm.declare import Parameter, Right, Verb

ALIASES: Mapping[str, tuple[str, ...]] = {
    "delete": ("rm",),
    "get-capabilities": ("capabilities",),
    "get-extents": ("extents",),
    "get-info": ("info", "show"),
    "get-stats": ("stats",),
    "list": ("ls",),
    "set-tags": ("tag",),
    "subscribe": ("listen",),
}
"""Names that people expect, beside the verb's own."""

_SHORT = ("get-capabilities", "get-extents", "get-info", "get-stats", "subscribe")
"""Verbs that hsmctl itself calls by their first alias when it mentions them."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Storage": ("Image", "Domain", "Volume", "Bitmap", "Secret"),
    "What goes on": ("Task", "Transfer", "Event", "Audit"),
    "The service": ("Host", "Config", "Session"),
}
"""The order of the help.  A class that stands in none is shown under the last heading."""


OWN: dict[str, str] = {
    "doctor": "Tell what this host lacks, and whether the service works.",
    "completion": "Print the script that completes commands and names in a shell.",
}
"""The commands that no verb stands behind."""

OWN_OF: dict[str, dict[str, str]] = {
    "image": {
        "upload": "Upload a local file as a new image; the same command again goes on where it was.",
        "download": "Download an image into a local file; the same command again goes on where it was.",
    },
}
"""Commands of a class that take more than one call: what each does in a line."""

@dataclass(frozen=True)
class Default:
    """What a class alone means, without a command."""

    verb: str
    given: Mapping[str, Any]
    about: str


DEFAULTS: Mapping[str, Default] = {"Audit": Default("Audit.list", {"limit": 50}, "the latest 50 records")}


@dataclass(frozen=True)
class Argument:
    """One parameter as an argument of a command."""

    parameter: Parameter
    kind: Kind
    positional: bool
    required: bool
    option: str
    many: bool = False
    """Several may be given."""

    @property
    def dest(self) -> str:
        return f"param_{self.parameter.name}"

    @property
    def shown(self) -> str:
        """What the argument is called in help and errors."""
        return self.metavar if self.positional else self.option

    @property
    def metavar(self) -> str:
        named = self.kind in (Kind.TEXT, Kind.IMAGE) or self.positional
        if self.kind is Kind.HIDDEN:
            return str(Kind.FILE.value)
        if self.kind in (Kind.FILE, Kind.SIZE) or not named:
            return str(self.kind.value)
        name = self.parameter.name.rstrip("_").upper().replace("_", "-")
        return name.removesuffix("S") if self.many else name


def kebab(name: str) -> str:
    """``makeTemplate`` or ``make_template`` as ``make-template``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name.rstrip("_").replace("_", "-")).lower()


def shown_command(verb: Verb) -> str:
    """A command as hsmctl mentions it, in the short form if it has one."""
    return f"hsmctl {verb.cls.lower()} {short_name(verb)}"


def short_name(verb: Verb) -> str:
    """A verb's name in help and hints."""
    name = kebab(verb.name)
    return ALIASES[name][0] if name in _SHORT else name


def classes() -> dict[str, list[str]]:
    """Heading -> API classes, in the order of the help."""
    grouped = {heading: [name for name in names if name in CLASSES] for heading, names in GROUPS.items()}
    known = {name for names in grouped.values() for name in names}
    grouped[list(GROUPS)[-1]] += [name for name in CLASSES if name not in known]
    return grouped


def verbs_of(class_: str) -> list[Verb]:
    return [verb for verb in VERBS.values() if verb.cls == class_]


def arguments(verb: Verb) -> tuple[Argument, ...]:
    """The parameters of a verb as arguments: positional ones first, in their order."""
    return _arguments(verb.full)


@functools.cache
def _arguments(full: str) -> tuple[Argument, ...]:
    verb = VERBS[full]
    positional = verb.declaration.positional
    order = {name: index for index, name in enumerate(positional)}
    offered = [p for p in verb.parameters if not (verb.descriptors and p.name == "path")]
    offered.sort(key=lambda p: (order.get(p.name, len(order)), not p.required))
    return tuple(_argument(verb, parameter, parameter.name in positional) for parameter in offered)


def _argument(verb: Verb, parameter: Parameter, positional: bool) -> Argument:
    kind = kind_of(verb, parameter)
    option = "--" + parameter.extra.get("option", kebab(parameter.name))
    if kind is Kind.HIDDEN:
        option += "-file"
    if kind is Kind.FLAG and parameter.default is True:
        option = option.replace("--", "--no-", 1)
    required = (parameter.required or kind is Kind.FILE) and kind is not Kind.HIDDEN
    if is_place(parameter.name, kind) and not (positional and _names_its_domain(verb)):
        required = False
    return Argument(parameter, kind, positional, required, option, element(parameter) is not None)


def is_place(name: str, kind: Kind) -> bool:
    """Whether a parameter is the domain that a command is about, which may go without saying."""
    return kind is Kind.DOMAIN and name in ("domain", "id")


def _names_its_domain(verb: Verb) -> bool:
    # What only an administrator may do to a domain is never done to one that was not named.
    return verb.declaration.right >= Right.ADMINISTER or len(verb.declaration.positional) > 1


def with_command(word: str) -> list[str]:
    """The whole commands whose last word is this one."""
    found = [
        f"{class_.lower()} {word}"
        for names in classes().values()
        for class_ in names
        for verb in verbs_of(class_)
        if word in (kebab(verb.name), *ALIASES.get(kebab(verb.name), ()))
    ]
    return found + [f"{class_} {word}" for class_, names in OWN_OF.items() if word in names]


def starts_task(verb: Verb) -> bool:
    """Whether the verb begins a change that is waited for; the verbs of ``Task`` only tell of one."""
    return verb.makes_task and verb.task_result is not Any


def makes_named(verb: Verb) -> bool:
    """Whether the verb makes something that gets a name of its own: an image, a domain."""
    names = {parameter.name for parameter in verb.parameters}
    return starts_task(verb) and {"id", "name"} <= names


def is_paged(verb: Verb) -> bool:
    """Whether the answer comes in pages that hsmctl can put together."""
    return any(p.name == "start" for p in verb.parameters) and "items" in typing.get_type_hints(verb.result)


def in_cli_words(text: str, verb: Verb | None = None) -> str:
    """Text of the API as a user of the command line reads it: verbs as commands, parameters as arguments."""

    def command(match: re.Match[str]) -> str:
        found = VERBS.get(match[1])
        return f"`{shown_command(found)}`" if found else match[0]

    def argument(match: re.Match[str]) -> str:
        for known in arguments(verb) if verb else ():
            if match[1] in (known.parameter.name, known.parameter.wire):
                return known.shown
        for other in verbs_of(verb.cls) if verb else ():
            if match[1] == other.name:
                return f"`{short_name(other)}`"
        return f"`hsmctl {match[1].lower()}`" if match[1] in CLASSES else match[0]

    return re.sub(r"`(\w+)`", argument, re.sub(r"`?\b([A-Z][a-z]+\.[a-z]\w+)\b`?", command, text))
