# SPDX-License-Identifier: Apache-2.0
"""hsmctl: the storage service on the command line."""

# PYTHON_ARGCOMPLETE_OK

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from hsmctl.argparser import Parser, UsageError
from hsmctl.codes import BROKEN_PIPE, INTERRUPTED, OK, USAGE
from hsmctl.failure import Refusal, report, report_usage
from hsmctl.parser import build
from hsmctl.waiting import patience
from libvdsm.api import VERSION
from libvdsm.declare import ApiError


def main() -> None:
    """The program."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        status = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = BROKEN_PIPE
    except KeyboardInterrupt:
        print("hsmctl: interrupted", file=sys.stderr)
        status = INTERRUPTED
    sys.exit(status)


def run(argv: Sequence[str]) -> int:
    """Run one command; the exit status."""
    if "_ARGCOMPLETE" in os.environ:
        from hsmctl.completion import complete

        complete(build())
    try:
        return _run(argv)
    except UsageError as error:
        return report_usage(error, as_json="--json" in argv)


def _run(argv: Sequence[str]) -> int:
    parser = build(argv)
    words, rest = parser.parse_known_args(argv)
    named: Parser = getattr(words, "parser", parser)
    if rest:
        named.refuse_rest(rest)
    if words.version:
        print(f"hsmctl {_version()}, API {VERSION}")
        return OK
    try:
        if hasattr(words, "verb"):
            from hsmctl.call import run as call

            return call(words.verb, words)
        if hasattr(words, "own"):
            return _own(words)
    except (ApiError, Refusal) as error:
        return report(error, as_json=words.json)
    if words.json:
        named.error("missing: COMMAND")
    named.print_help()
    return USAGE


def _own(words: argparse.Namespace) -> int:
    if words.own == "doctor":
        from hsmctl.doctor import doctor

        return doctor(words.connect, as_json=words.json, seconds=patience(words.connect_timeout))
    if words.own.startswith("image "):
        from hsmctl.transfer.command import run

        return run(words)
    from hsmctl.completion import script

    print(script(words.shell))
    return OK


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("hsm")
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    main()
