# SPDX-License-Identifier: Apache-2.0
"""``python -m libvdsm.generate``: writes the files made from declarations, or checks that they are fresh."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from libvdsm.generate import evolution, reference, schema

ROOT = Path(__file__).parents[2]

GENERATED: dict[str, tuple[str, Callable[[], Mapping[str, str]]]] = {
    "schema": ("the API as one JSON document", schema.files),
    "docs": ("the reference in docs/api", reference.files),
}
"""Subcommand -> what it makes, and the function that makes it: path below the project's folder -> text."""


def stale(files: Mapping[str, str], root: Path) -> list[str]:
    """Which of the files are missing, or not as they would be written now."""
    return [name for name, text in files.items() if not _holds(root / name, text)]


def _holds(file: Path, text: str) -> bool:
    return file.exists() and file.read_text() == text


def write(files: Mapping[str, str], root: Path) -> list[str]:
    """Write what is stale, and tell what that was."""
    names = stale(files, root)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(files[name])
    return names


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m libvdsm.generate", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, (what, _) in GENERATED.items():
        command = commands.add_parser(name, help=what)
        command.add_argument("--check", action="store_true", help="write nothing; fail if a file is not fresh")
    released = commands.add_parser("released", help="keep the present schema as released")
    released.add_argument("--before-release", action="store_true", help="also over one that differs")
    options = parser.parse_args(arguments)
    if options.command == "released":
        return _release(options.before_release)
    return _generate(options.command, options.check)


def _generate(command: str, check: bool) -> int:
    files = GENERATED[command][1]()
    names = stale(files, ROOT) if check else write(files, ROOT)
    for name in names:
        print(f"{name} is not fresh: run python -m libvdsm.generate {command}" if check else f"wrote {name}")
    return 1 if check and names else 0


def _release(before_release: bool) -> int:
    try:
        file = evolution.release(ROOT, schema.document(), before_release=before_release)
    except FileExistsError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"wrote {file.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
