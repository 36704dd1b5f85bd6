# SPDX-License-Identifier: Apache-2.0
"""Damage: ``Domain.check`` finds it and names it, and no verb goes on with what is damaged."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from hsm.operations.checking import ERROR, KINDS
from libvdsm.api.domain import CheckReport, Problem
from libvdsm.api.errors import DomainDamaged, ImageDamaged, VolumeDamaged, VolumeHasChildren
from libvdsm.api.types import ImageInfo
from libvdsm.declare import ApiError
from tests import service
from tests.domains.tree import fingerprint
from tests.verbs.plants import PLANTS, Planted, World, build
from tests.verbs.provoked import provokes
from tests.verbs.scene import Scene, raised

PERMISSIONS = "permissions"
UNKNOWN = "clustersUnknown"
"""These are planted by tests of their own: root may read and write everything, and a tool is nothing in a domain."""


@pytest.fixture
def tmp_path(in_memory: Path) -> Path:
    return in_memory


@pytest.fixture
def world(scene: Scene) -> World:
    return build(scene)


def check(world: World, *, deep: bool = False) -> CheckReport:
    return world.scene.wait(world.scene.client.domain.check(domain=world.scene.domain, deep=deep))


def unchanged(world: World) -> Callable[[], bool]:
    before = fingerprint(world.scene.root)
    return lambda: fingerprint(world.scene.root) == before


DEEP = ("clusters", "secretMissing")
"""What only a look into the data finds."""


def test_every_kind_of_damage_is_planted() -> None:
    assert {kind for kind, _ in PLANTS.values()} | {PERMISSIONS, UNKNOWN} == set(KINDS)


@pytest.mark.parametrize("deep", [False, True])
def test_a_healthy_domain_has_nothing_to_tell(world: World, deep: bool) -> None:
    before = unchanged(world)
    report = check(world, deep=deep)
    assert report == CheckReport(domain=world.scene.domain, healthy=True, images=4, volumes=6, problems=[])
    assert before()


@pytest.mark.parametrize("name", PLANTS)
def test_damage_is_found_named_and_left_as_it_is(world: World, name: str) -> None:
    kind, plant = PLANTS[name]
    planted = plant(world)
    before = unchanged(world)
    report = check(world, deep=kind in DEEP)
    found = [problem for problem in report.problems if is_it(problem, kind, planted)]
    assert found, f"not found; instead: {report.problems}"
    assert found[0].severity == KINDS[kind][0]
    assert found[0].message
    assert {problem.kind for problem in report.problems} - {kind} <= planted.also
    assert report.healthy == all(KINDS[problem.kind][0] != ERROR for problem in report.problems)
    assert before(), "the check changed something"
    if kind not in ("domainMetadata", "garbage", *DEEP):
        dump = world.scene.client.domain.dump(domain=world.scene.domain)
        assert any(is_it(problem, kind, planted) for problem in dump.damaged), "a dump tells the same"
    if kind not in ("domainMetadata", "garbage"):
        collected = world.scene.wait(world.scene.client.domain.collect_garbage(domain=world.scene.domain))
        assert collected.removed == []
        assert before() or kind in ("role", "unfinished"), "the collector mends these, and touches nothing else"


def is_it(problem: Problem, kind: str, planted: Planted) -> bool:
    return (problem.kind, problem.image, problem.volume) == (kind, planted.image, planted.volume) and (
        planted.path is None or problem.path == planted.path
    )


def test_files_that_the_service_may_not_open_are_told(tmp_path_factory: pytest.TempPathFactory) -> None:
    for world in as_ordinary_user():
        os.chmod(world.scene.data(world.raw), 0)
        report = check(world)
        kinds = [(problem.kind, problem.severity, problem.image, problem.volume) for problem in report.problems]
        assert kinds == [(PERMISSIONS, "warning", world.raw.id, world.raw.leaf)]
        assert report.healthy


def test_what_the_tool_came_to_no_verdict_on_is_not_called_damaged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = unchanged(world)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/nonexistent")
        report = check(world, deep=True)
    assert report.healthy
    assert {(problem.kind, problem.severity) for problem in report.problems} == {(UNKNOWN, "warning")}
    assert world.chain.leaf in {problem.volume for problem in report.problems}
    assert before()


def as_ordinary_user() -> Iterator[World]:
    """A world served by somebody whom permissions concern."""
    home = Path(tempfile.mkdtemp(prefix="hsm-test-"))
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--") if os.geteuid() == 0 else ()
    if nobody:
        os.chown(home, 65534, 65534)
    running = service.Daemon(home, command=nobody)
    try:
        client = running.wait().client()
        for task in client.task.list().items:
            client.wait(task)
        yield build(RemoteScene(client))
        client.close()
    finally:
        running.stop()
        shutil.rmtree(home)


class RemoteScene(Scene):
    """A scene whose service is another process."""

    def __init__(self, client: Any) -> None:
        info = client.domain.list().items[0]
        self.client, self.domain, self.heard = client, info.id, []
        self.root = Path(info.path) / str(info.id)
        self.images = self.root / "images"


# ---- nothing goes on with what is damaged

UNUSABLE = [
    name for name, (kind, _) in PLANTS.items() if KINDS[kind][0] == ERROR and kind not in ("domainMetadata", "clusters")
]


def uses(world: World, image: ImageInfo, tmp_path: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Every verb that reads or writes an image's data, as (verb, call)."""
    scene, client, domain = world.scene, world.scene.client, world.scene.domain
    yield "Image.prepare", lambda: client.image.prepare(domain=domain, image=image.id)
    yield "Image.prepare", lambda: client.image.prepare(domain=domain, image=image.id, read_only=True)
    yield "Image.snapshot", lambda: scene.wait(client.image.snapshot(domain=domain, image=image.id))
    target = str(tmp_path / "exported")
    yield "Image.export", lambda: scene.wait(client.image.export(domain=domain, image=image.id, path=target))
    yield "Image.makeTemplate", lambda: scene.wait(client.image.make_template(domain=domain, image=image.id))
    yield (
        "Image.makeTemplate",
        lambda: scene.wait(client.image.make_template(domain=domain, image=image.id, name="copy")),
    )
    yield (
        "Volume.create",
        lambda: scene.wait(client.volume.create(domain=domain, image=image.id, parent=image.leaf)),
    )
    yield (
        "Volume.resize",
        lambda: scene.wait(client.volume.resize(domain=domain, image=image.id, volume=image.leaf, capacity=3 * 2**29)),
    )


REFUSALS = ("VolumeDamaged", "ImageDamaged", "VolumeHasChildren")


MENDS = {"a_header_that_is_larger_than_the_metadata": "Volume.resize"}
"""A growth that did not end is ended by a resize to any size; the tests of that verb show it."""


@pytest.mark.parametrize("name", UNUSABLE)
def test_no_verb_goes_on_with_a_damaged_image_but_its_deletion(world: World, name: str, tmp_path: Path) -> None:
    planted = PLANTS[name][1](world)
    assert planted.unusable is not None
    image, delete = planted.unusable, world.scene.client.image.delete
    lost = image.id not in {found.id for found in world.scene.client.image.list().items}
    before = unchanged(world)
    for verb, call in uses(world, image, tmp_path):
        if MENDS.get(name) == verb:
            continue
        with pytest.raises(ApiError) as caught:
            call()
        error = type(caught.value).__name__
        assert error in (("NoSuchImage", "NoSuchVolume") if lost else REFUSALS), f"{verb}: {caught.value}"
        assert before(), f"{verb} changed something"
    world.scene.wait(delete(domain=world.scene.domain, image=image.id))
    assert image.id not in {found.id for found in world.scene.client.image.list().items}
    if not lost:
        assert image.id not in {problem.image for problem in check(world).problems}


OF_A_TEMPLATE = {
    "metadata_that_is_cut_off": "ImageDamaged",
    "data_that_is_gone": "ImageDamaged",
    "a_header_that_is_overwritten": "VolumeDamaged",
    "a_header_that_keeps_its_data_elsewhere": "VolumeDamaged",
    "a_header_with_a_parent_that_the_metadata_do_not_name": "VolumeDamaged",
    "a_header_that_is_larger_than_the_metadata": "VolumeDamaged",
    "raw_data_whose_end_is_missing": "VolumeDamaged",
    "two_newest_volumes": "ImageDamaged",
    "metadata_of_another_domain": "VolumeDamaged",
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=provokes("Image.clone", error)) for name, error in OF_A_TEMPLATE.items()]
)
def test_a_damaged_template_is_not_cloned(scene: Scene, name: str) -> None:
    of_raw = name in ("data_that_is_gone", "raw_data_whose_end_is_missing")
    made = scene.raw() if of_raw else scene.image()
    template = scene.wait(scene.client.image.make_template(domain=scene.domain, image=made.id))
    PLANTS[name][1](World(scene, template.leaf, template.leaf, *[template] * 4))
    before = fingerprint(scene.root)
    with pytest.raises(ApiError, match="damaged"):
        scene.clone(template)
    assert fingerprint(scene.root) == before


@provokes("Image.snapshot", "VolumeDamaged", "ImageDamaged")
@provokes("Image.export", "VolumeDamaged", "ImageDamaged")
@provokes("Image.prepare", "VolumeDamaged", "ImageDamaged")
@provokes("Image.makeTemplate", "VolumeDamaged", "ImageDamaged")
def test_the_error_says_what_is_damaged_and_how(world: World, tmp_path: Path) -> None:
    PLANTS["a_header_that_names_a_file_of_the_host"][1](world)
    scene = world.scene
    for _, call in uses(world, world.chain, tmp_path):
        error = raised(VolumeDamaged, call)
        assert error.volume == world.chain.leaf
        assert "/etc/hostname" in error.reason
    assert "/etc/hostname" in (scene.look(world.chain).damage or "")
    PLANTS["metadata_that_is_empty"][1](world)
    for _, call in uses(world, world.chain, tmp_path):
        error = raised(ImageDamaged, call)
        assert error.image == world.chain.id
        assert f"{world.base}: no EOF line" in error.reason
    assert "no EOF line" in (scene.look(world.chain).damage or "")


@pytest.mark.parametrize(
    "name", ["metadata_that_is_empty", "data_in_the_middle_of_a_chain_that_is_gone", "a_parent_whose_metadata_is_gone"]
)
def test_deleting_the_leaf_of_a_damaged_chain_takes_nothing_else_along(world: World, name: str) -> None:
    PLANTS[name][1](world)
    folder, leaf = world.scene.folder(world.chain), str(world.chain.leaf)

    def data_of_others() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == "" and path.name != leaf}

    before = data_of_others()
    delete, domain = world.scene.client.volume.delete, world.scene.domain
    for volume in (world.chain.leaf, world.middle, world.base):
        # Refused, or nothing to do: to a deletion, what has no metadata is gone already.
        with suppress(ImageDamaged, VolumeDamaged, VolumeHasChildren):
            world.scene.wait(delete(domain=domain, image=world.chain.id, volume=volume))
    assert data_of_others() == before


def test_nothing_is_changed_on_a_domain_whose_metadata_are_damaged(world: World) -> None:
    PLANTS["a_domains_metadata_that_somebody_edited"][1](world)
    scene, client = world.scene, world.scene.client
    before = fingerprint(scene.root)
    error = raised(DomainDamaged, lambda: scene.image())
    assert error.domain == scene.domain
    assert "checksum" in error.reason
    raised(DomainDamaged, lambda: scene.snapshot(world.chain))
    raised(DomainDamaged, lambda: scene.wait(client.image.delete(domain=scene.domain, image=world.raw.id)))
    raised(DomainDamaged, lambda: scene.wait(client.domain.format(domain=scene.domain, force=True)))
    assert fingerprint(scene.root) == before
