# SPDX-License-Identifier: Apache-2.0
"""--filter and --sort, as people type them and as shells complete them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ctl.conftest import Ctl
from tests.ctl.test_completion import completed


def test_lists_are_filtered_and_sorted(ctl: Ctl, name: str) -> None:
    for number in (1, 2, 3):
        ctl.ok("image", "create", f"{name}-{number}", "--size", f"{number}G")
    words = ("image", "list", "--filter", f'name ~ "{name}-*" and capacity >= 2G')
    assert [image["name"] for image in ctl.json(*words)["items"]] == [f"{name}-2", f"{name}-3"]
    assert [image["name"] for image in ctl.json(*words, "--sort", "-capacity")["items"]] == [f"{name}-3", f"{name}-2"]
    assert [image["name"] for image in ctl.json(*words, "--sort=-capacity", "--limit", "1")["items"]] == [f"{name}-3"]
    shown = ctl.ok(*words, "--sort", "-capacity").splitlines()
    assert [line.split()[0] for line in shown] == ["NAME", f"{name}-3", f"{name}-2"]
    tasks = ctl.json("task", "list", "--sort", "-created,verb", "--filter", "verb = Image.create")["items"]
    assert [task["created"] for task in tasks] == sorted((task["created"] for task in tasks), reverse=True)


@pytest.mark.parametrize("cls", ["domain", "image", "volume", "task"])
def test_an_empty_answer_does_not_say_that_there_is_nothing(ctl: Ctl, cls: str) -> None:
    assert ctl.ok(cls, "list", "--filter", "id ~ x") == "Nothing fits the filter.\n"


def test_a_bad_filter_is_refused_with_its_place(ctl: Ctl) -> None:
    shown = ctl.refused("image", "list", "--filter", "name = web01 and size > 1G")
    assert "The filter is wrong at character 18: there is no field 'size'; the fields are id, domain, " in shown
    assert shown.endswith(". (InvalidFilter)\n")
    assert "(InvalidSort)" in ctl.refused("volume", "list", "--sort", "-nothing")


def test_an_option_behind_sort_is_still_an_option(ctl: Ctl) -> None:
    result = ctl("image", "list", "--sort", "--json")
    assert result.status == 2
    assert "--sort: expected one argument" in result.err


def test_help_names_the_fields(offline: Ctl) -> None:
    shown = " ".join(offline.ok("task", "list", "--help").split())
    assert "fields to filter and sort by: id, verb, state, created, progress.done, " in shown
    assert "fields to filter" not in offline.ok("task", "info", "--help")


def test_fields_complete(tmp_path: Path) -> None:
    pytest.importorskip("argcomplete")
    nowhere = "unix:/nonexistent"
    assert completed("hsmctl image list --sort cap", tmp_path, nowhere) == ["capacity"]
    assert completed("hsmctl task list --filter sta", tmp_path, nowhere) == ["started", "state"]
    assert completed("hsmctl image list --sort prepared.re", tmp_path, nowhere) == ["prepared.readOnly"]
    assert "prepared" in completed("hsmctl image list --filter pre", tmp_path, nowhere)
    assert "prepared" not in completed("hsmctl image list --sort pre", tmp_path, nowhere)
    assert completed("hsmctl image list --sort name,-cap", tmp_path, nowhere) == ["name,-capacity"]


def test_images_are_tagged(ctl: Ctl, name: str) -> None:
    ctl.ok("image", "create", name, "--size", "1M")
    assert ctl.ok("image", "tag", name, "backup", "env=prod") == f"{name} is tagged backup, env=prod.\n"
    assert ctl.ok("image", "set-tags", name, "gold", "--change", "add") == f"{name} is tagged backup, env=prod, gold.\n"
    assert ctl.ok("image", "tag", name, "--change", "remove", "gold", "backup") == f"{name} is tagged env=prod.\n"
    assert "Tags:         env=prod\n" in ctl.ok("image", "info", name)
    shown = ctl.ok("image", "list", "--filter", f'tags has "env=prod" and name = {name}').splitlines()
    assert shown[0].split()[-1] == "TAGS"
    assert shown[1].split()[-1] == "env=prod"
    assert ctl.ok("image", "tag", name) == f"{name} has no tags.\n"
    assert "TAGS" not in ctl.ok("image", "list", "--filter", f"name = {name}")
    assert ctl.json("image", "info", name).get("tags") is None


def test_volumes_are_tagged(ctl: Ctl, name: str) -> None:
    ctl.ok("image", "create", name, "--size", "1M")
    ctl.ok("image", "snapshot", name, "before")
    assert ctl.ok("volume", "tag", "before", "kept", "--image", name) == "before is tagged kept.\n"
    assert ctl.ok("volume", "tag", "--image", name, "before", "a", "b") == "before is tagged a, b.\n"
    assert "a, b" in ctl.ok("volume", "info", "before", "--image", name)


def test_bad_tags_are_refused(ctl: Ctl) -> None:
    result = ctl("image", "tag", "web01", "x" * 65)
    assert result.status == 2
    assert "TAG: it has to be at most 64 characters long" in result.err
    result = ctl("image", "tag", "web01", "--change", "add", "x", "")
    assert result.status == 2
    assert "TAG: it has to be at least 1 character long" in result.err
    assert "there is no option --chnage; did you mean --change?" in ctl("image", "tag", "web01", "--chnage", "x").err
