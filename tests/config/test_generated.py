# SPDX-License-Identifier: Apache-2.0
"""Files written from the service's tables: committed, and never edited by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsm import generate
from hsm.operations.checking import KINDS
from hsm.tasks.states import TABLE
from libvdsm.generate.__main__ import ROOT, stale, write


def test_the_committed_files_are_fresh() -> None:
    assert stale(generate.files(), ROOT) == [], "run python -m hsm.generate"


def test_there_are_a_configuration_file_and_three_pages_of_the_guide() -> None:
    pages = {f"docs/guide/{name}.md" for name in ("task-states", "damage", "transfer-states")}
    assert set(generate.files()) == {"conf/hsm.conf", *pages}


def test_every_kind_of_damage_is_in_the_guide() -> None:
    page = generate.files()["docs/guide/damage.md"]
    for kind, (severity, meaning) in KINDS.items():
        assert f"| `{kind}` | {severity} | {meaning} |" in page


def test_every_state_and_every_transition_is_in_the_guide() -> None:
    page = generate.files()["docs/guide/task-states.md"]
    for state, moves in TABLE.items():
        assert f"\n| `{state.value}` | " in page
        for event, after in moves.items():
            assert f"    {state.value} --> {after.value}: {event.value}\n" in page


@pytest.mark.parametrize("name", generate.files())
def test_each_says_how_it_is_licensed(name: str) -> None:
    assert "SPDX-License-Identifier: Apache-2.0" in generate.files()[name][:100]


def test_checking_writes_nothing_and_fails_where_a_file_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    assert generate.main(["--check"]) == 1
    assert list(tmp_path.iterdir()) == []
    assert "conf/hsm.conf is not fresh: run python -m hsm.generate\n" in capsys.readouterr().out
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    assert write(generate.files(), tmp_path) == []
