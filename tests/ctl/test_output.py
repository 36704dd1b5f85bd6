# SPDX-License-Identifier: Apache-2.0
"""A terminal gets tables with colours, a pipe gets plain columns of whole texts."""

from __future__ import annotations

import io
import json

import pytest

from hsmctl import output
from hsmctl.failure import Refusal, report
from hsmctl.output import Facts, Pieces, Styled, Table
from libvdsm.api.errors import NoSuchImage, NotTemplate
from libvdsm.api.types import DomainId, ImageId
from libvdsm.client import RemoteError
from tests.ctl.test_names import A, B

LONG = "a-name-" * 20
TABLE = Table(["NAME", "SIZE"], [["web01", "64G"], [Styled(LONG, "red"), "1.5T"]], frozenset({"SIZE"}))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(view: output.View, stream: io.StringIO) -> str:
    output.show(view, stream)
    return stream.getvalue()


def test_a_pipe_gets_columns_without_colours_and_nothing_is_cut() -> None:
    lines = shown(TABLE, io.StringIO()).splitlines()
    assert lines == [
        f"{'NAME':<{len(LONG)}}  SIZE",
        f"{'web01':<{len(LONG)}}   64G",
        f"{LONG}  1.5T",
    ]


def test_an_empty_cell_is_a_dash_so_that_columns_can_be_counted() -> None:
    assert shown(Table(["A", "B"], [["", "x"]]), io.StringIO()).splitlines()[1] == "-  x"


def test_a_terminal_gets_colours_and_names_stay_whole_however_narrow_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = shown(TABLE, Terminal())
    assert "\x1b[" in text
    assert LONG in text
    assert "…" not in text


def test_prose_is_folded_into_its_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    lines = shown(Table(["NAME", "MEANING"], [["x" * 8, "word " * 20]]), Terminal()).splitlines()
    assert len(lines) > 3
    assert all(len(line) <= 40 for line in lines[1:])


def test_an_empty_table_says_what_to_do() -> None:
    assert (
        shown(Table(["NAME"], [], empty="There is nothing; make one."), io.StringIO())
        == "There is nothing; make one.\n"
    )


def test_facts_leave_out_what_is_absent() -> None:
    view = Pieces([Facts([("Name", "web01"), ("Template", None), ("In use", "no")]), "Done."])
    assert shown(view, io.StringIO()) == "Name:    web01\nIn use:  no\n\nDone.\n"


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_names_written_by_others_play_no_tricks_on_a_terminal(stream: type[io.StringIO]) -> None:
    evil = "web\x1b]0;owned\x07\x9b31m\u202e[bold]"
    text = shown(Table(["NAME"], [[evil]]), stream())
    for trick in ("\x1b]", "\x07", "\x9b", "\u202e"):
        assert trick not in text
    assert "[bold]" in text


def test_wide_characters_keep_columns_straight() -> None:
    lines = shown(Table(["NAME", "X"], [["日本", "1"], ["abcd", "2"]]), io.StringIO()).splitlines()
    assert lines[1:] == ["日本  1", "abcd  2"]


def test_an_error_names_itself_and_speaks_of_commands(capsys: pytest.CaptureFixture[str]) -> None:
    status = report(NotTemplate(image=ImageId(A)), as_json=False)
    text = capsys.readouterr().err
    assert status == 1
    assert text.startswith(f"hsmctl: error: Image {A} is not a template")
    assert "`hsmctl image make-template`" in text
    assert text.endswith("(NotTemplate)\n")


def test_an_error_as_json_is_what_travels(capsys: pytest.CaptureFixture[str]) -> None:
    report(NoSuchImage(domain=DomainId(A), image=ImageId(B)), as_json=True)
    assert json.loads(capsys.readouterr().err) == {
        "name": "NoSuchImage",
        "code": 301,
        "message": f"Domain {A} has no image {B}; see Image.list.",
        "data": {"domain": str(A), "image": str(B)},
    }


def test_an_error_of_a_newer_service_keeps_its_name_and_number(capsys: pytest.CaptureFixture[str]) -> None:
    report(RemoteError("DiskTired", 777, "The disk is tired."), as_json=True)
    assert json.loads(capsys.readouterr().err)["name"] == "DiskTired"
    report(RemoteError("DiskTired", 777, "The disk is tired."), as_json=False)
    assert capsys.readouterr().err == "hsmctl: error: The disk is tired. (DiskTired)\n"


def test_the_name_of_an_error_stands_on_its_first_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(Refusal("Ambiguous", "which?\n  a\n  b", status=2), as_json=False) == 2
    assert capsys.readouterr().err == "hsmctl: error: which? (Ambiguous)\n  a\n  b\n"
