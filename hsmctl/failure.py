# SPDX-License-Identifier: Apache-2.0
"""What goes wrong, and what a command then says and ends with."""

from __future__ import annotations

import sys
from collections.abc import Callable

import msgspec

from hsmctl import output
from hsmctl.argparser import UsageError
from hsmctl.codes import FAILED, UNREACHABLE, USAGE
from hsmctl.commands import in_cli_words
from libvdsm.api.errors import ConnectionFailed
from libvdsm.api.types import ErrorInfo
from libvdsm.client import RemoteError
from libvdsm.declare import ApiError, Verb

_SAID = {
    ("Image.import", "CannotShrink"): "The file holds a larger disk, which would lose the end of its data. Leave --size "
    "out, or give a larger one.",
}
"""What some errors mean on the command line, where the API speaks of what nobody has seen."""


class Refusal(Exception):
    """A reason of hsmctl's own not to go on, in words that say what to do; the name is stable."""

    def __init__(self, name: str, message: str, *, status: int = FAILED) -> None:
        super().__init__(message)
        self.name = name
        self.status = status


def report(
    error: ApiError | Refusal, *, as_json: bool, explain: Callable[[str], str] = str, verb: Verb | None = None
) -> int:
    """Tell an error, and give the exit status; ``explain`` puts names beside ids in the text for people.

    ``verb`` is what was called: its parameters are told as arguments.
    """
    info = _info(error)
    if not as_json:
        notes = getattr(error, "__notes__", [])
        message = _SAID.get((verb.full if verb else "", info.name), info.message)
        info = msgspec.structs.replace(info, message="\n".join([explain(in_cli_words(message, verb)), *notes]))
    output.show_error(info, as_json=as_json)
    if isinstance(error, Refusal):
        return error.status
    return UNREACHABLE if isinstance(error, ConnectionFailed) else FAILED


def report_usage(error: UsageError, *, as_json: bool) -> int:
    """Tell what is wrong with the command line, and give the exit status."""
    if as_json:
        info = ErrorInfo(name="UsageError", code=0, message=str(error), data={"usage": error.usage})
        output.show_error(info, as_json=True)
    else:
        print(f"hsmctl: error: {output.clean(str(error))}\n{error.usage}", file=sys.stderr)
    return USAGE


def _info(error: ApiError | Refusal) -> ErrorInfo:
    if isinstance(error, Refusal):
        return ErrorInfo(name=error.name, code=0, message=str(error), data={})
    if isinstance(error, RemoteError):
        return ErrorInfo(name=error.name, code=error.number, message=error.text, data={})
    return ErrorInfo(name=type(error).__name__, code=error.code, message=error.message, data=error.data())
