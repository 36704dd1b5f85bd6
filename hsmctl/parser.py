# SPDX-License-Identifier: Apache-2.0
"""The API's records as an argparse parser.

A whole parser knows every command; ``build`` with the user's words makes only the class that they name, which
is what a quick start needs.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hsmctl import commands, queries
from hsmctl.argparser import Parser
from hsmctl.codes import EXPLAINED
from hsmctl.commands import OWN, OWN_OF, Argument
from hsmctl.examples import EXAMPLES, FIRST_STEPS
from hsmctl.transfer.arguments import add_download, add_upload
from hsmctl.values import NAMED, Kind, choices, parse_duration, read
from hsmctl.waiting import DEFAULT, ENVIRONMENT
from libvdsm.api import CLASSES, VERBS
from libvdsm.client.connect import FORMS
from libvdsm.declare import Verb, meta_of

SHELLS = ("bash", "zsh", "fish")

Completer = Callable[..., Iterable[str]]

_TEXT = 88


def build(words: Sequence[str] | None = None) -> Parser:
    """The parser: of all commands, or with the words of a command line only of the class that they name."""
    named = {name for name in CLASSES if words is None or name.lower() in words}
    helps = words is None or not named or {"-h", "--help"} & set(words)
    description = _top_description() if helps else None
    top = Parser(prog="hsmctl", usage="hsmctl COMMAND ... [OPTIONS]", description=description, epilog=EXPLAINED)
    _add_globals(top.add_argument_group("options"), first=True)
    classes = top.add_subparsers(prog="hsmctl", metavar="COMMAND", dest="class_", help=argparse.SUPPRESS)
    for name, cls in CLASSES.items():
        if name in named:
            _add_class(classes, name, cls)
        else:
            classes.add_parser(name.lower())
    _add_own(classes)
    return top


def _top_description() -> str:
    lines = ["Images, volumes and domains of hsm, the storage service for KVM hosts.", ""]
    for heading, names in commands.classes().items():
        lines.append(f"{heading}:")
        for name in names:
            lines.append(f"  {name.lower():<12}{commands.in_cli_words(_first_line(CLASSES[name].__doc__))}")
            own = OWN_OF.get(name.lower(), {})
            verbs = ", ".join([*(commands.short_name(verb) for verb in commands.verbs_of(name)), *own])
            lines += textwrap.wrap(verbs, _TEXT, initial_indent=" " * 14, subsequent_indent=" " * 14)
        lines.append("")
    lines.append("This host:")
    lines += [f"  {name:<12}{text}" for name, text in OWN.items()]
    lines += ["", "First steps:", *[f"  {line}" for line in FIRST_STEPS], ""]
    lines += textwrap.wrap(
        "hsmctl COMMAND --help tells more, with examples. Where an id is expected, a name or the beginning "
        "of the id, four characters or more, will do. With one domain only, --domain can be left out.",
        _TEXT,
    )
    return "\n".join(lines)


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


def _add_globals(group: argparse._ArgumentGroup, *, first: bool = False) -> None:
    """Options that may stand anywhere; only the outermost parser gives them values when they are left out."""
    absent: Any = None if first else argparse.SUPPRESS
    connect = group.add_argument(
        "--connect",
        metavar="ADDRESS",
        default=absent,
        help=f"where the service is: {FORMS}; otherwise $HSM_CONNECT, otherwise this host's own",
    )
    _complete(connect, _no_names)
    timeout = group.add_argument(
        "--connect-timeout",
        metavar="SECONDS",
        type=_seconds,
        default=absent,
        help="how long to wait for a service of this host that is not there, as while it starts; 0: not at all "
        f"(otherwise ${ENVIRONMENT}, otherwise {DEFAULT:g}s)",
    )
    _complete(timeout, _no_names)
    group.add_argument(
        "--json",
        action="store_true",
        default=False if first else argparse.SUPPRESS,
        help="print what the service answers, as JSON; errors too, on standard error (hsmctl's own have no code)",
    )
    if first:
        group.add_argument("--version", action="store_true", help="print the version, and that of the API")
    group.add_argument("-h", "--help", action="help", help="print this help")


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _add_class(top: argparse._SubParsersAction[Parser], name: str, cls: type) -> None:
    prog = f"hsmctl {name.lower()}"
    default = commands.DEFAULTS.get(name)
    usage = f"{prog} [COMMAND ...]" if default else f"{prog} COMMAND ..."
    parser = top.add_parser(name.lower(), prog=prog, usage=usage, description=_class_description(name, cls))
    parser.set_defaults(parser=parser)
    if default:
        parser.set_defaults(verb=VERBS[default.verb], **{f"param_{key}": value for key, value in default.given.items()})
    verbs = parser.add_subparsers(prog=prog, metavar="COMMAND", dest="verb_", help=argparse.SUPPRESS)
    for verb in commands.verbs_of(name):
        command = commands.kebab(verb.name)
        child = verbs.add_parser(
            command,
            aliases=commands.ALIASES.get(command, ()),
            prog=f"{prog} {command}",
            usage=_usage(f"{prog} {command}", verb),
            description=_description(verb),
            epilog="\n\n".join(filter(None, (queries.told(verb), _examples(verb.full)))),
        )
        child.set_defaults(verb=verb, parser=child)
        _add_arguments(child, verb)
    _add_own_of(verbs, name.lower())
    _add_globals(parser.add_argument_group("options of every command"))


def _class_description(name: str, cls: type) -> str:
    lines = [commands.in_cli_words(_first_line(cls.__doc__)), "", "commands:"]
    for verb in commands.verbs_of(name):
        command = commands.kebab(verb.name)
        shown = ", ".join([command, *commands.ALIASES.get(command, ())])
        text = commands.in_cli_words(" ".join(_first_line(verb.doc).split()), verb)
        if len(shown) > 22:
            lines.append(f"  {shown}")
            shown = ""
        lines += textwrap.wrap(text, _TEXT, initial_indent=f"  {shown:<22} ", subsequent_indent=" " * 25)
    if default := commands.DEFAULTS.get(name):
        lines.append(f"  {'(none)':<22} Tell {default.about}.")
    for own, text in OWN_OF.get(name.lower(), {}).items():
        lines += textwrap.wrap(text, _TEXT, initial_indent=f"  {own:<22} ", subsequent_indent=" " * 25)
    return "\n".join([*lines, "", f"hsmctl {name.lower()} COMMAND --help tells more, with examples."])


def _usage(prog: str, verb: Verb) -> str:
    words = [prog]
    for argument in commands.arguments(verb):
        if argument.positional:
            words.append(_shown(argument))
        elif argument.required:
            words.append(f"{argument.option} {argument.metavar}")
    return " ".join([*words, "[OPTIONS]"])


def _shown(argument: Argument) -> str:
    word = f"{argument.metavar}..." if argument.many else argument.metavar
    return f"[{word}]" if _count(argument) in ("*", "?") else word


_OWN_WORDS = {
    "Event.subscribe": "Print events as they happen, one a line, until ^C.\n\n"
    "With --after N, those that came after event N and are still kept come first: none is missed between two runs. Over "
    "HTTP the service is asked again and again.",
}
"""Help where the API's speaks to programs."""


def _description(verb: Verb) -> str:
    paragraphs = commands.in_cli_words(_OWN_WORDS.get(verb.full, verb.doc), verb).split("\n\n")
    if verb.declaration.deprecated_since:
        instead = f"; use {verb.declaration.replaced_by}" if verb.declaration.replaced_by else ""
        paragraphs.append(f"Deprecated since {verb.declaration.deprecated_since}{instead}.")
    return "\n\n".join(textwrap.fill(" ".join(paragraph.split()), _TEXT) for paragraph in paragraphs)


def _examples(key: str) -> str:
    lines = ["examples:"]
    for example in EXAMPLES.get(key, ()):
        lines += [f"  {example.line}"] if not example.why else [f"  # {example.why}", f"  {example.line}"]
    return "\n".join(lines)


def _add_arguments(parser: Parser, verb: Verb) -> None:
    positional = parser.add_argument_group("arguments")
    options = parser.add_argument_group("options")
    for argument in commands.arguments(verb):
        if argument.positional:
            _add_positional(positional, verb, argument)
        else:
            _add_option(options, verb, argument)
    _add_extras(options, verb)
    _add_globals(parser.add_argument_group("options of every command"))


def _add_positional(group: argparse._ArgumentGroup, verb: Verb, argument: Argument) -> None:
    action = group.add_argument(
        argument.dest,
        metavar=argument.metavar,
        nargs=_count(argument),
        type=_reader(argument),
        choices=_choices(verb, argument),
        help=_help(verb, argument),
    )
    _complete(action, _completer(argument))


def _add_option(group: argparse._ArgumentGroup, verb: Verb, argument: Argument) -> None:
    help_ = _help(verb, argument)
    if argument.kind is Kind.FLAG:
        constant = argument.parameter.default is not True
        group.add_argument(argument.option, dest=argument.dest, action="store_const", const=constant, help=help_)
        return
    action = group.add_argument(
        argument.option,
        dest=argument.dest,
        metavar=None if argument.kind is Kind.CHOICE else argument.metavar,
        required=argument.required,
        nargs="+" if argument.many else None,
        action="extend" if argument.many else "store",
        type=_reader(argument),
        choices=_choices(verb, argument),
        help=help_,
    )
    in_query = argument.parameter.name in queries.PARAMETERS
    _complete(action, queries.Completer(verb, argument.parameter.name) if in_query else _completer(argument))


_TAKEN = {("Image.export", "format"): ["raw", "qcow2"]}
"""Of an enumeration, the values that are not always refused."""


def _choices(verb: Verb, argument: Argument) -> list[str] | None:
    if argument.kind is not Kind.CHOICE:
        return None
    return _TAKEN.get((verb.full, argument.parameter.name)) or choices(argument.parameter)


def _count(argument: Argument) -> str | None:
    if argument.many:
        needed = argument.required and any(meta.min_length for meta in meta_of(argument.parameter.type))
        return "+" if needed else "*"
    return None if argument.required else "?"


def _reader(argument: Argument) -> Callable[[str], Any]:
    def reader(text: str) -> Any:
        if argument.kind is Kind.CHOICE:
            return text
        try:
            return read(argument.kind, argument.parameter, text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return reader


_HOW = {
    Kind.DOMAIN: "name or id",
    Kind.IMAGE: "name or id",
    Kind.VOLUME: "snapshot name or id",
    Kind.TASK: "id or its beginning",
    Kind.TRANSFER: "id or its beginning",
    Kind.SECRET: "name or id",
    Kind.HIDDEN: "in a file, or - for standard input; otherwise it is asked for",
    Kind.SIZE: "such as 512M or 64G",
    Kind.SECONDS: "such as 30s or 5m",
    Kind.MOMENT: "such as 2h for two hours ago, or '2026-11-20 18:30'",
}


def _help(verb: Verb, argument: Argument) -> str:
    text = commands.in_cli_words(argument.parameter.description, verb)
    if commands.makes_named(verb):
        text = text.removesuffix("; need not be unique")
    if argument.kind is Kind.FLAG and argument.parameter.default is True:
        text = text.rpartition("false: ")[2] or text
    notes = [_HOW[argument.kind]] if argument.kind in _HOW else []
    if argument.kind is Kind.FILE and argument.parameter.extra.get("mode") == "write":
        notes.append("must not exist, unless --force is given")
    if commands.is_place(argument.parameter.name, argument.kind) and not argument.required:
        text = text.partition("; absent")[0]
        notes.append("otherwise $HSM_DOMAIN, " + ("or the only one" if argument.parameter.required else "or all"))
    elif argument.parameter.name == "name" and verb.descriptors:
        notes.append("otherwise the file's name without its suffix")
    elif verb.full == "Task.wait" and argument.parameter.name == "timeout":
        return text + " (such as 30s; otherwise: until the task has ended)"
    default = argument.parameter.default
    if default is not None and not isinstance(default, bool):
        notes.append(f"default: {getattr(default, 'value', default)}")
    if argument.kind is Kind.WHOLE and argument.parameter.name == "limit" and commands.is_paged(verb):
        notes = ["otherwise all"]
    return (text + (f" ({'; '.join(notes)})" if notes else "")).replace("%", "%%")


def _add_extras(group: argparse._ArgumentGroup, verb: Verb) -> None:
    """Options that belong to hsmctl, and not to the verb."""
    if commands.makes_named(verb):
        group.add_argument(
            "--allow-same-name", action="store_true", help=f"even if another {verb.cls.lower()} has that name"
        )
    if any(a.kind is Kind.FILE and a.parameter.extra.get("mode") == "write" for a in commands.arguments(verb)):
        group.add_argument("--force", action="store_true", help="replace FILE if it exists")
    if commands.starts_task(verb):
        group.add_argument(
            "--wait",
            action="store_true",
            default=True,
            help="wait for the end of the task; ^C stops it (default)",
        )
        group.add_argument("--no-wait", dest="wait", action="store_false", help="print the task's id and end at once")


def _add_own(top: argparse._SubParsersAction[Parser]) -> None:
    for name, text in OWN.items():
        usage = f"hsmctl {name} [OPTIONS]" if name == "doctor" else f"hsmctl {name} {{{','.join(SHELLS)}}}"
        parser = top.add_parser(name, usage=usage, description=text, epilog=_examples(name))
        parser.set_defaults(own=name, parser=parser)
        if name == "completion":
            group = parser.add_argument_group("arguments")
            group.add_argument("shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish")
        _add_globals(parser.add_argument_group("options of every command"))


def _add_own_of(verbs: argparse._SubParsersAction[Parser], class_: str) -> None:
    for name, text in OWN_OF.get(class_, {}).items():
        full = f"{class_} {name}"
        usage = f"hsmctl {full} {'FILE [NAME]' if name == 'upload' else 'IMAGE FILE'} [OPTIONS]"
        parser = verbs.add_parser(
            name, prog=f"hsmctl {full}", usage=usage, description=text, epilog=_examples(full)
        )
        parser.set_defaults(own=full, parser=parser)
        add = add_upload if name == "upload" else add_download
        for action in add(parser.add_argument_group("arguments"), parser.add_argument_group("options")):
            _complete(action, _no_names)
        _add_globals(parser.add_argument_group("options of every command"))


def _complete(action: argparse.Action, completer: Completer | None) -> None:
    if completer is not None:
        action.completer = completer  # type: ignore[attr-defined]


def _no_names(**_: Any) -> list[str]:
    return []


def _completer(argument: Argument) -> Completer | None:
    """Who completes an argument; what the service knows is asked only when a shell wants it."""
    if argument.kind in (Kind.FILE, Kind.PATH, Kind.CHOICE, Kind.HIDDEN):
        return None

    def completer(**given: Any) -> Iterable[str]:
        from hsmctl.completion import names

        return names(argument, **given)

    return completer if argument.kind in NAMED else _no_names
