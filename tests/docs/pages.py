# SPDX-License-Identifier: Apache-2.0
"""The pages of the documentation, taken apart: prose, blocks of code, links, commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN = (
    "README.md",
    "docs/guide/local.md",
    "docs/guide/snapshots.md",
    "docs/guide/audit.md",
    "docs/guide/queries.md",
    "docs/guide/tasks.md",
    "docs/guide/transfers.md",
    "docs/guide/images.md",
    "docs/guide/copies.md",
    "docs/guide/backup.md",
    "docs/guide/encryption.md",
)
"""The pages whose console blocks are run, from the first command to the last."""

_FENCE = re.compile(r"^```(\w*)$")
_HEADING = re.compile(r"^#{1,6} +(.+)$")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_INLINE = re.compile(r"`([^`]+)`")
_COMMAND = re.compile(r"""\bhsmctl(?= )((?:'[^']*'|"[^"]*"|[^|)<>&;`#'"])*)""")
PROMPT = "$ "


@dataclass(frozen=True)
class Block:
    """A block of code: its language, and what stands in it."""

    line: int
    language: str
    text: str


@dataclass(frozen=True)
class Page:
    """One page: lines of prose with their numbers, and blocks."""

    name: str
    prose: list[tuple[int, str]]
    blocks: list[Block]

    @property
    def text(self) -> str:
        return (ROOT / self.name).read_text(encoding="utf-8")

    def links(self) -> Iterator[tuple[int, str]]:
        """Targets of links, with the number of the line that each stands in."""
        for number, line in self.prose:
            for target in _LINK.findall(_INLINE.sub("", line)):
                yield number, target

    def inline(self) -> Iterator[tuple[int, str]]:
        """What stands between backticks in the prose."""
        for number, line in self.prose:
            for code in _INLINE.findall(line):
                yield number, code

    def anchors(self) -> set[str]:
        """What a link to this page may have behind its ``#``."""
        found: dict[str, int] = {}
        for _, line in self.prose:
            if heading := _HEADING.match(line):
                slug = re.sub(r"[^\w\- ]", "", heading[1].lower()).replace(" ", "-")
                found[slug] = found.get(slug, -1) + 1
        return {
            slug if not number else f"{slug}-{number}" for slug, last in found.items() for number in range(last + 1)
        }

    def commands(self) -> Iterator[tuple[int, str]]:
        """Everything that calls hsmctl: in blocks for a shell, and between backticks."""
        for block in self.blocks:
            if block.language in ("console", "sh"):
                for offset, line in enumerate(block.text.splitlines(), 1):
                    if block.language == "sh" or line.startswith(PROMPT):
                        yield from ((block.line + offset, words) for words in _COMMAND.findall(line))
        for number, code in self.inline():
            if code.startswith("hsmctl "):
                yield number, code.removeprefix("hsmctl ")


def read(name: str) -> Page:
    """A page, by its path below the project's folder."""
    prose: list[tuple[int, str]] = []
    blocks: list[Block] = []
    begun: tuple[int, str] | None = None
    inside: list[str] = []
    for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.match(line)
        if begun is not None:
            if fence:
                blocks.append(Block(*begun, "\n".join(inside)))
                begun, inside = None, []
            else:
                inside.append(line)
        elif fence:
            begun = (number, fence[1])
        else:
            prose.append((number, line))
    assert begun is None, f"{name}: the block that begins in line {begun} has no end"
    return Page(name, prose, blocks)


def names() -> list[str]:
    """Every page of the project."""
    return sorted(
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.md")
        if not any(part.startswith(".") or part == "build" for part in path.relative_to(ROOT).parts)
    )
