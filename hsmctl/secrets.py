# SPDX-License-Identifier: Apache-2.0
"""Secrets: how a value comes in without being seen, and what the list of them looks like.

A value is no argument: others could read it among the processes, and the shell would remember it.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable
from pathlib import Path

from hsmctl.codes import USAGE
from hsmctl.failure import Refusal
from hsmctl.output import Cell, Table, View
from hsmctl.shown import Shown
from hsmctl.tables import ids
from hsmctl.values import show_time
from libvdsm.api.secret import SecretPage

STANDARD_INPUT = "-"


def read_value(file: str | None, ask: Callable[[str], str] = getpass.getpass) -> str:
    """A value from a file, or from who sits at the terminal; a line end after it is none of it."""
    if file is None:
        return _asked(ask)
    try:
        data = sys.stdin.buffer.read() if file == STANDARD_INPUT else Path(file).read_bytes()
        text = data.decode()
    except OSError as error:
        raise Refusal("NoValue", f"the value cannot be read: {error.strerror or error} ({file})") from None
    except UnicodeDecodeError:
        raise Refusal("NoValue", f"the value is no text in UTF-8 ({file})") from None
    return text.removesuffix("\n").removesuffix("\r")


def _asked(ask: Callable[[str], str]) -> str:
    if not sys.stdin.isatty():
        msg = "there is no terminal to ask for the value at; give it with --value-file FILE, or - for standard input"
        raise Refusal("NoValue", msg, status=USAGE)
    value = ask("Value: ")
    if value != ask("Again: "):
        raise Refusal("NoValue", "the two are not the same; nothing was done")
    return value


def secrets(page: SecretPage, _shown: Shown) -> View:
    """The secrets of a host."""
    brief = ids(item.id for item in page.items)
    rows: list[list[Cell]] = [
        [
            brief[item.id],
            item.name or "-",
            "generated" if item.generated else "given",
            show_time(item.created),
            item.description or "-",
        ]
        for item in page.items
    ]
    empty = "This host has no secrets. `hsmctl secret generate NAME` makes one."
    return Table(["ID", "NAME", "VALUE", "CREATED", "DESCRIPTION"], rows, frozenset(), empty)
