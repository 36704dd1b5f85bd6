# SPDX-License-Identifier: Apache-2.0
"""Markdown: blocks, and links to whatever the API names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from libvdsm.generate.schema import Document, verbs_of

_HEAD = """\
<!-- SPDX-License-Identifier: Apache-2.0 -->
<!-- Written by `python -m libvdsm.generate docs` from libvdsm/api, which is the place to edit. -->

"""


def anchor(heading: str) -> str:
    """The part after ``#`` in a link to a heading, as GitHub and most renderers make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; without rows, nothing."""
    body = [_row(row) for row in rows]
    return "\n".join([_row(columns), "|" + "---|" * len(columns), *body]) if body else ""


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def code(language: str, text: str) -> str:
    """A block of code."""
    return f"```{language}\n{text}\n```"


def page(*blocks: str) -> str:
    """Blocks with an empty line between them; empty ones are left out."""
    return _HEAD + "\n\n".join(block for block in blocks if block) + "\n"


def first_sentence(text: str) -> str:
    """What a table has room for."""
    return re.split(r"(?<=[.;]) ", text.replace("\n", " "), maxsplit=1)[0].rstrip(".;")


class Links:
    """Where each name that a text may mention is explained."""

    def __init__(self, document: Document) -> None:
        self._places = {
            **{name: f"types.md#{anchor(name)}" for name in document["types"]},
            **{error["name"]: f"errors.md#{anchor(error['name'])}" for error in document["errors"]},
            **{event["name"]: f"events.md#{anchor(event['name'])}" for event in document["events"]},
            **{group["name"]: f"{group['name'].lower()}.md" for group in document["classes"]},
            **{name: f"{name.partition('.')[0].lower()}.md#{anchor(name)}" for name in verbs_of(document)},
        }

    def to(self, name: str, words: str = "") -> str:
        """A link to what is named so."""
        return f"[{words or name}]({self._places[name]})"

    def to_all(self, names: Iterable[str]) -> str:
        """Links with commas between them."""
        return ", ".join(map(self.to, names))

    def text(self, text: str) -> str:
        """A docstring as Markdown: names of what is explained elsewhere become links."""
        text = text.replace("``", "`").replace(".  ", ". ")
        return re.sub(r"`([A-Z][\w.]*)`", lambda found: self._mention(found[1]), text)

    def _mention(self, name: str) -> str:
        return self.to(name, f"`{name}`") if name in self._places else f"`{name}`"
