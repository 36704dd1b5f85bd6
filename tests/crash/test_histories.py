# SPDX-License-Identifier: Apache-2.0
"""Accidents that only matter because of what comes after them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from libvdsm.api.types import TaskState
from tests.crash import fixture, invariants
from tests.crash.accidents import FULL
from tests.crash.contents import Contents
from tests.crash.fixture import DISK, LOOSE, MAIN, SPARE
from tests.crash.hsmd import Nursery
from tests.crash.operations import OPERATIONS
from tests.crash.trial import Bench, Trial


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("histories").resolve()
    nursery = Nursery()
    try:
        yield Bench(nursery, fixture.make(folder / "fixture", nursery), folder)
    finally:
        nursery.close()


def _trial(name: str, bench: Bench) -> Trial:
    return Trial(next(operation for operation in OPERATIONS if operation.name == name), bench)


def test_a_task_whose_end_was_not_recorded_is_not_taken_up_after_later_ones(bench: Bench) -> None:
    """A domain is formatted and made anew; a restart must not format it again."""
    trial = _trial("domain formatted", bench)
    recording = [point for point in trial.recording.points if "tasks.db-wal" in point.text]
    end = next(point for point in recording if point.role == "worker-0" and FULL.applies(point))
    with trial.world() as world:
        violations: list[str] = []
        assert trial.suffer(world, end, FULL, violations)
        assert not violations
        made = world.client.domain.create(name="made anew", path=str(world.home.spare), id=SPARE)
        assert world.service.wait(made).state is TaskState.SUCCEEDED
        trial.restart(world)
        assert str(SPARE) in invariants.attached(world.home)
        assert world.client.domain.get_info(domain=SPARE).name == "made anew"


def test_a_domain_whose_metadata_was_lost_is_not_made_over(bench: Bench) -> None:
    """Its images are still there, and whoever creates a domain of the same id does not mean them."""
    trial = _trial("domain created", bench)
    with trial.world() as world:
        root = world.home.loose / str(LOOSE)
        (root / "dom_md" / "metadata").unlink()
        before = _tree(root)
        task = world.service.wait(world.client.domain.create(name="new", path=str(world.home.loose), id=LOOSE))
        assert task.error is not None
        assert "holds images" in task.error.message
        assert _tree(root) == before


def test_a_prepared_image_stays_leased_while_the_service_is_killed_and_started(bench: Bench) -> None:
    """The keeper has the lease; nobody deletes the image meanwhile."""
    trial = _trial("image prepared", bench)
    with trial.world() as world:
        world.client.image.prepare(domain=MAIN, image=DISK)
        trial.restart(world)
        seen = invariants.look(world.home, world.client, Contents())
        assert seen.facts[f"{DISK} prepared"] == "writing"
        deleted = world.service.wait(world.client.image.delete(domain=MAIN, image=DISK))
        assert deleted.error is not None
        assert deleted.error.name == "ImageInUse"


def _tree(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_size for path in sorted(folder.rglob("*"))}
