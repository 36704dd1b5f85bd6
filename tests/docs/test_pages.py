# SPDX-License-Identifier: Apache-2.0
"""The pages are right where a test can tell: links, paths, commands, settings, what depends on what."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm.config import HsmConfig
from hsm.operations.catalogue import OPERATIONS
from hsmctl.argparser import UsageError
from hsmctl.parser import build
from libvdsm import config
from libvdsm.api import VERBS
from tests.docs import pages
from tests.docs.pages import ROOT, Page

PAGE = pytest.mark.parametrize("page", [pages.read(name) for name in pages.names()], ids=pages.names())

OUTSIDE = ("http://www.apache.org/licenses/", "https://keepachangelog.com/", "https://semver.org/", "http://127.0.0.1")
"""Where pages may link to or point at; they speak of nobody's hosts."""
PLACES = (
    *("/var/lib/hsm", "/run/hsm", "/etc/hsm", "/etc/systemd/system/", "/opt/hsm", "/srv/", "/usr/bin/", "/usr/sbin/"),
    *("/proc/", "/dev/", "/etc/passwd", "/RPC2"),
)
"""The absolute paths that pages speak of: the product's, the system's and the reader's, never a machine's."""

_URL = re.compile(r"\bhttps?://[^\s)`\"'<>]+")
_ABSOLUTE = re.compile(r"(?<![\w.~…*<>}\])/-])/[a-zA-Z][\w.-]*(?:/[\w.-]*)*")
_SOURCE = re.compile(r"^(?:hsm|libvdsm|hsmctl|tests|benchmarks|examples|packaging|docs|schema|conf)(?:/[\w.-]+)*/?$")
_NEEDED = re.compile(r"^need (\S+)", re.MULTILINE)


def test_the_pages_that_everybody_looks_for_are_there() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "docs/README.md"):
        assert (ROOT / name).is_file()
    assert "Version 2.0, January 2004" in (ROOT / "LICENSE").read_text()


@PAGE
def test_every_page_says_how_it_is_licensed(page: Page) -> None:
    assert page.text.startswith("<!-- SPDX-License-Identifier: Apache-2.0 -->\n")


@PAGE
def test_every_link_leads_somewhere(page: Page) -> None:
    for number, target in page.links():
        if target.startswith(("http:", "https:")):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page.name).parent / path if path else ROOT / page.name
        assert file.exists(), f"{page.name}:{number}: there is no {target}"
        if anchor:
            there = pages.read(str(file.resolve().relative_to(ROOT))).anchors()
            assert anchor in there, f"{page.name}:{number}: {target} leads to no heading"


@PAGE
def test_a_page_speaks_of_no_machine_and_of_no_host_but_its_reader_s(page: Page) -> None:
    for number, line in enumerate(page.text.splitlines(), 1):
        for url in _URL.findall(line):
            assert url.startswith(OUTSIDE), f"{page.name}:{number}: {url}"
        for path in _ABSOLUTE.findall(_URL.sub("", line)):
            assert f"{path}/".startswith(PLACES), f"{page.name}:{number}: {path}"
        assert not re.search(r"(?<![\w&])#\d+\b", line), f"{page.name}:{number}: a number that means nothing here"


@PAGE
def test_every_file_that_a_page_names_is_there(page: Page) -> None:
    for number, code in page.inline():
        if _SOURCE.match(code):
            assert (ROOT / code).exists(), f"{page.name}:{number}: there is no {code}"


@PAGE
def test_every_command_of_hsmctl_on_a_page_is_one(page: Page) -> None:
    for number, words in page.commands():
        assert _parses(words), f"{page.name}:{number}: hsmctl {words}"


def _parses(words: str) -> bool:
    given = shlex.split(words)
    try:
        build(given).parse_args(given)
    except SystemExit as ended:
        return ended.code in (0, None)
    except UsageError:
        return False
    return True


def test_every_page_can_be_found_from_the_readme() -> None:
    found, left = set[str](), ["README.md"]
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        for _, target in pages.read(name).links():
            path = ((ROOT / name).parent / target.partition("#")[0]).resolve()
            if path.suffix == ".md" and path.is_file():
                left.append(str(path.relative_to(ROOT)))
    assert set(pages.names()) == found


def test_the_guide_s_configuration_file_can_be_read(tmp_path: Path) -> None:
    blocks = [block.text for block in pages.read("docs/guide/local.md").blocks if block.language == "ini"]
    file = tmp_path / "hsm.conf"
    file.write_text(next(text for text in blocks if "[Unit]" not in text))
    assert config.load(HsmConfig, file).rights.other_users == "operate"


def _dependencies() -> Iterator[str]:
    """What the project says that it needs: Python packages and programs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirements in (project["dependencies"], *project["optional-dependencies"].values()):
        for requirement in requirements:
            yield re.split(r"[\[<>=~!; ]", requirement)[0]
    yield from _NEEDED.findall((ROOT / "packaging/install-dependencies").read_text())
    yield "python3"


def test_every_dependency_is_explained_and_nothing_else_is() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs/dependencies.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(set(_dependencies()))


def _rows(heading: str) -> set[str]:
    """The verbs in the first column of the table below a heading of the page on safety."""
    text = (ROOT / "docs/safety.md").read_text()
    section = text[text.index(f"\n## {heading}") + 1 :].split("\n## ")[0]
    firsts = re.findall(r"^\| ([^|]+) \|", section, re.MULTILINE)
    return {verb for first in firsts for verb in re.findall(r"\b[A-Z][a-z]+\.[a-z]\w+", first)}


@pytest.mark.parametrize("heading", ["1. Leases", "2. Commit points", "4. The same call again"])
def test_safety_names_no_verb_that_is_none(heading: str) -> None:
    assert _rows(heading) <= set(VERBS)


DIRECT = {"Image.prepare", "Image.teardown", "Transfer.start", "Transfer.cancel"} | {
    f"Transfer.{verb}" for verb in ("checkpoint", "pause", "resume")
}
DIRECT |= {f"Secret.{verb}" for verb in ("define", "generate", "delete")}
"""Verbs that change something without being tasks."""


def test_safety_has_the_commit_point_of_every_verb_that_changes_something() -> None:
    looking = {"Domain.check", "Domain.collectGarbage"}
    assert _rows("2. Commit points") == (set(OPERATIONS) | DIRECT) - looking


def test_safety_tells_of_every_operation_what_the_same_call_again_does() -> None:
    assert _rows("4. The same call again") == set(OPERATIONS) | DIRECT


def test_every_decision_has_its_four_parts_and_is_in_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text()
    for number, file in enumerate(sorted((ROOT / "docs/decisions").glob("*.md")), 1):
        page = pages.read(str(file.relative_to(ROOT)))
        assert file.name.startswith(f"{number:04d}-")
        assert [line for _, line in page.prose if line.startswith("## ")] == [
            "## Context",
            "## Decision",
            "## Consequences",
        ]
        title = next(line for _, line in page.prose if line.startswith("# "))
        assert title.startswith(f"# {number}. ")
        assert f"{number}. [{title.removeprefix(f'# {number}. ')}](decisions/{file.name})" in index
