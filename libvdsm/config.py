# SPDX-License-Identifier: Apache-2.0
"""Configuration as typed code: a structure of sections, each a structure of keys with default, type and explanation.

The files in ``conf/`` are written from these structures, and what a user writes is checked against them: an unknown
key or a bad value is an error that names the file and the line.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from libvdsm.declare import bare, describe

C = TypeVar("C", bound=msgspec.Struct)

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTP]?)(?:i?B)?\Z", re.IGNORECASE)
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class ConfigError(Exception):
    """The configuration cannot be used; the text says which file and line, and why."""


@dataclass(frozen=True)
class Key:
    """One setting as declared."""

    section: str
    name: str
    type: Any
    default: Any
    description: str
    unit: str


def parse_size(text: str) -> int:
    """``64G`` or ``1.5 TiB`` as bytes; units are powers of 1024."""
    match = _SIZE.match(text.strip())
    if match is None:
        msg = f"{text!r} is not a size; write for example 512M, 64G or 1.5T"
        raise ValueError(msg)
    return (
        int(float(match[1]) * _UNITS[match[2].upper()]) if "." in match[1] else int(match[1]) * _UNITS[match[2].upper()]
    )


def keys(cls: type[msgspec.Struct]) -> Iterator[Key]:
    """Every setting of a configuration, in order."""
    for section, kind in typing.get_type_hints(cls).items():
        hints = typing.get_type_hints(kind, include_extras=True)
        for field in msgspec.structs.fields(kind):
            default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
            description, extra = describe(hints[field.name])
            yield Key(section, field.name, hints[field.name], default, description, extra.get("unit", ""))


def write_value(value: Any) -> str:
    """A value as it stands in the file."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, (list, tuple)) else str(value)


def template(cls: type[msgspec.Struct], heading: str) -> str:
    """A configuration file that sets nothing and explains everything."""
    lines = [f"# {line}".rstrip() for line in heading.splitlines()]
    section = None
    for key in keys(cls):
        if key.section != section:
            section = key.section
            lines += ["", f"[{section}]"]
        unit = f" ({key.unit})" if key.unit else ""
        lines += ["", *[f"# {line}" for line in f"{key.description}{unit}".splitlines()]]
        lines.append(f"#{key.name} = {write_value(key.default)}".rstrip())
    return "\n".join(lines) + "\n"


def load(
    cls: type[C],
    path: Path | None,
    overrides: dict[str, str] | None = None,
    defaults: dict[str, str] | None = None,
) -> C:
    """Read a configuration file; without one, everything has its default.

    ``overrides`` are ``section.key`` -> text, from a command line; they win over the file.  ``defaults`` are the
    same, and the file wins over them.
    """
    declared = {(key.section, key.name): key for key in keys(cls)}
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for dotted, text in (defaults or {}).items():
        section, _, name = dotted.partition(".")
        found[section, name] = (f"the default of {dotted}", text)
    if path is not None:
        for where, section, name, text in _read(path):
            _known(declared, section, name, where)
            found[section, name] = (where, text)
    for dotted, text in (overrides or {}).items():
        section, _, name = dotted.partition(".")
        _known(declared, section, name, f"--set {dotted}")
        found[section, name] = (f"--set {dotted}", text)
    values: dict[str, dict[str, Any]] = {section: {} for section in typing.get_type_hints(cls)}
    for (section, name), (where, text) in found.items():
        values[section][name] = _convert(declared[section, name], text, where)
    sections = {section: kind(**values[section]) for section, kind in typing.get_type_hints(cls).items()}
    return cls(**sections)


def _known(declared: dict[tuple[str, str], Key], section: str, name: str, where: str) -> None:
    if (section, name) in declared:
        return
    names = [key.name for key in declared.values() if key.section == section]
    if not names:
        sections = sorted({key.section for key in declared.values()})
        msg = f"{where}: there is no section [{section}]; the sections are {', '.join(sections)}"
    else:
        msg = f"{where}: [{section}] has no key {name!r}; its keys are {', '.join(names)}"
    raise ConfigError(msg)


def _read(path: Path) -> Iterator[tuple[str, str, str, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        msg = f"{path}: cannot be read: {reason}"
        raise ConfigError(msg) from None
    section = ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        where = f"{path}:{number}"
        if not line or line[0] in "#;":
            continue
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].strip()
            continue
        name, equals, value = line.partition("=")
        if not equals or not section:
            msg = f"{where}: expected [section] or key = value, and found {line!r}"
            raise ConfigError(msg)
        yield where, section, name.strip(), value.strip()


def _convert(key: Key, text: str, where: str) -> Any:
    try:
        return msgspec.convert(_plain(key, text), key.type)
    except (ValueError, msgspec.ValidationError) as error:
        msg = f"{where}: [{key.section}] {key.name} = {text}: {error}"
        raise ConfigError(msg) from None


def _number(kind: type[int | float], text: str) -> int | float:
    try:
        return kind(text)
    except ValueError:
        msg = f"expected a {'whole ' if kind is int else ''}number"
        raise ValueError(msg) from None


def _plain(key: Key, text: str) -> Any:
    kind = bare(key.type)
    if kind is bool:
        if text.lower() not in _WORDS:
            msg = "expected yes or no"
            raise ValueError(msg)
        return _WORDS[text.lower()]
    if kind is int:
        return parse_size(text) if key.unit == "bytes" else _number(int, text)
    if kind is float:
        return _number(float, text)
    if typing.get_origin(kind) is list:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text
