# SPDX-License-Identifier: Apache-2.0
"""What the pages tell their readers to type works, and answers what they show."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import service
from tests.docs import pages, tour


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path, as a reader's home has: sockets lie below it."""
    with tempfile.TemporaryDirectory(prefix="tour") as folder:
        yield Path(folder)


@pytest.mark.parametrize("name", pages.RUN)
def test_every_command_of_a_page_works_and_answers_what_it_shows(name: str, place: Path) -> None:
    wanted = list(tour.steps(pages.read(name)))
    home = place / "home"
    try:
        answers = tour.run(wanted, home)
    finally:
        for folder in home.iterdir():
            service.end_keepers(folder)
    troubles = []
    for step, answer in zip(wanted, answers, strict=False):
        where = f"{name}:{step.line}: {step.command}"
        if (answer.status != 0) != step.fails:
            troubles.append(f"{where}\nended with status {answer.status}:\n  " + "\n  ".join(answer.lines))
        elif trouble := tour.difference(step, answer, home):
            troubles.append(f"{where}\n{trouble}")
    assert not troubles, "\n\n".join(troubles)
    assert len(answers) == len(wanted), f"{name}: it goes on no further than {wanted[len(answers)].command!r}"
