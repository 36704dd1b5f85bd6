# SPDX-License-Identifier: Apache-2.0
"""hsmctl audit: a table that people can read, of things that may be gone."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import pytest

from hsmctl.values import Kind, parse_moment
from libvdsm.api.audit import AuditOutcome, AuditPage, AuditRecord
from tests.ctl.conftest import Ctl
from tests.ctl.test_parser import arguments
from tests.ctl.test_tables import lines


def test_what_was_done_is_told_with_names_also_of_what_is_gone(ctl: Ctl, name: str) -> None:
    ctl.ok("image", "create", name, "--size", "1M")
    image = ctl.json("image", "info", name)["id"]
    ctl.ok("image", "snapshot", name, "before-upgrade")
    ctl.ok("volume", "resize", name, "2M")
    ctl.ok("image", "delete", name)
    table = ctl.ok("audit", "list", "--image", image).splitlines()
    assert table[0].split() == ["TIME", "USER", "COMMAND", "WHAT", "OUTCOME", "ERROR"]
    told = [" ".join(line.split()[3:]) for line in table[1:]]
    assert told[0] == f"image delete {name} succeeded -"
    assert told[1].startswith(f"volume resize {name}, volume ")
    assert told[2] == f"image snapshot {name}, before-upgrade succeeded -"
    assert told[3] == f"image create {name} succeeded -"
    [line] = ctl.ok("audit", "list", "--image", image, "--verb", "Image.delete").splitlines()[1:]
    assert name in line, "also where the record that gave the name is on no page"


def test_a_copy_that_is_gone_goes_by_its_own_name(ctl: Ctl, name: str) -> None:
    ctl.ok("image", "create", name, "--size", "1M")
    ctl.ok("image", "copy", name, f"{name}-copy")
    copy = ctl.json("image", "info", f"{name}-copy")["id"]
    ctl.ok("image", "delete", f"{name}-copy")
    table = ctl.ok("audit", "list", "--image", copy).splitlines()[1:]
    assert [" ".join(line.split()[3:6]) for line in table] == [
        f"image delete {name}-copy",
        f"image copy {name}-copy",
    ]


def test_a_copy_that_was_refused_goes_by_the_name_of_its_source(ctl: Ctl, name: str) -> None:
    ctl.ok("image", "create", name, "--size", "1M")
    source = ctl.json("image", "info", name)["id"]
    ctl.refused("image", "copy", name, f"{name}-copy", "--volume", str(uuid.uuid4()))
    ctl.ok("image", "delete", name)
    for line in ctl.ok("audit", "list", "--image", source).splitlines()[1:]:
        assert f"{name}-copy" not in line


def test_what_failed_is_told_with_its_error(ctl: Ctl, tmp_path: Path) -> None:
    ctl.refused("domain", "create", "nowhere", tmp_path / "missing")
    line = ctl.ok("audit", "list", "--limit", "1").splitlines()[1]
    assert "domain create" in line
    assert "nowhere" in line
    assert line.split()[-2:] == ["failed", "PathNotUsable"]


def test_a_name_is_looked_for_on_the_only_domain(ctl: Ctl, name: str) -> None:
    ctl.ok("image", "create", name, "--size", "1M")
    found = ctl.json("audit", "list", "--image", name)["items"]
    assert [item["params"]["name"] for item in found] == [name]
    assert "NoMatch" in ctl.refused("audit", "list", "--image", "nothing-of-this-name")


def test_alone_it_tells_the_latest_fifty(ctl: Ctl) -> None:
    for _ in range(51):
        ctl("task", "clear", str(uuid.uuid4()))
    table = ctl.ok("audit").splitlines()
    assert table[0].startswith("TIME")
    assert len([line for line in table if "task clear" in line]) == 50
    assert table[-1] == "Older ones: `hsmctl audit list`."
    assert len(ctl.json("audit")["items"]) == 50
    assert len(ctl.json("audit", "list")["items"]) > 51
    assert "the latest 50 records" in ctl.ok("audit", "--help")


def test_conditions_are_options(ctl: Ctl) -> None:
    ctl("task", "stop", str(uuid.uuid4()))
    words = ["audit", "list", "--outcome", "failed", "--verb", "Task.stop", "--since", "1h", "--domain", "default"]
    assert ctl.ok(*words) == "Nothing is recorded.\n", "it was about no domain"
    assert "NoSuchTask" in ctl.ok(*words[:-2])
    assert ctl.ok("audit", "list", "--until", "2020-01-01") == "Nothing is recorded.\n"
    assert ctl.ok("audit", "list", "--user", "nobody-of-this-name") == "Nothing is recorded.\n"


def test_several_domains_are_told_apart() -> None:
    def record(number: int) -> AuditRecord:
        return AuditRecord(
            number=number,
            time=0.0,
            user="alice",
            verb="Domain.newer",
            params={},
            request="r",
            outcome=AuditOutcome.REFUSED,
            domain=uuid.UUID(int=number),  # type: ignore[arg-type]
        )

    table = lines("Audit.list", AuditPage(items=[record(2), record(1)]))
    assert table[0].endswith("  DOMAIN")
    assert table[1].endswith(f"  {uuid.UUID(int=2)}")
    assert "Domain.newer" in table[1], "a verb that this hsmctl does not know"


def test_a_moment_is_typed_as_people_write_it() -> None:
    assert arguments("Audit.list")["since"].kind is Kind.MOMENT
    now = time.time()
    assert now - 7201 < parse_moment("2h") <= now - 7199
    assert parse_moment("7d") < now - 6 * 86400
    assert parse_moment("1767225600") == 1767225600.0
    assert parse_moment("1767225600.5") == 1767225600.5
    day = parse_moment("2026-11-20")
    assert time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(day)) == "2026-11-20 00:00:00"
    assert parse_moment("2026-11-20 18:30") == parse_moment("2026-11-20T18:30:00") == day + 18.5 * 3600


@pytest.mark.parametrize("text", ["yesterday", "", "2026-13-01", "2026-11-20 25:00", "-5", "2x", "9" * 400])
def test_what_is_no_moment_is_refused_with_examples(text: str, offline: Ctl) -> None:
    result = offline("audit", "list", f"--since={text}")
    assert result.status == 2
    assert "2026-11-20" in result.err or "at most" in result.err
