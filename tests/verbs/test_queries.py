# SPDX-License-Identifier: Apache-2.0
"""Lists of what fits a filter, in an order, in pages, as the service answers them."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from libvdsm.api.errors import InvalidCursor, InvalidFilter, InvalidParameter, InvalidSort, NoSuchImage
from libvdsm.api.types import ImageId, ImageInfo, VolumeRole
from libvdsm.client import Client
from tests.verbs.provoked import provokes
from tests.verbs.scene import GIB, MIB, Scene, raised

Lister = Callable[..., Any]


def listers(scene: Scene) -> dict[str, Lister]:
    def volumes(**given: Any) -> Any:
        return scene.client.volume.list(domain=scene.domain, **given)

    client: Client = scene.client
    return {
        "Domain": client.domain.list,
        "Image": client.image.list,
        "Volume": volumes,
        "Task": client.task.list,
        "Transfer": client.transfer.list,
    }


def pages(lister: Lister, limit: int, between: Callable[[int], None] | None = None, **query: Any) -> list[Any]:
    """All items, page by page."""
    found: list[Any] = []
    start = None
    for number in range(100):
        page = lister(limit=limit, start=start, **query)
        assert len(page.items) <= limit
        found += page.items
        if (start := page.next) is None:
            return found
        if between is not None:
            between(number)
    raise AssertionError("it has no end")


def names(infos: list[Any]) -> list[str | None]:
    return [info.name for info in infos]


@pytest.fixture
def three(scene: Scene) -> list[ImageInfo]:
    return [
        scene.image(3 * GIB, name="web01"),
        scene.image(GIB, name="web02", description="orders, since May"),
        scene.template(2 * GIB, name="db"),
    ]


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    ("filter_", "sort", "wanted"),
    [
        ('name ~ "web*"', None, ["web01", "web02"]),
        ('name ~ "web*"', "capacity", ["web02", "web01"]),
        ("capacity >= 2G", "-capacity", ["web01", "db"]),
        ("isTemplate", None, ["db"]),
        ("not isTemplate and description is absent", None, ["web01"]),
        ('description = "orders, since May"', None, ["web02"]),
        ("created > now-1h and legality = legal", "-name", ["web02", "web01", "db"]),
        ("created < now-1h", None, []),
        ("prepared is present or prepared.readOnly", None, []),
        (None, "-capacity,name", ["web01", "db", "web02"]),
    ],
)
def test_images_are_chosen_and_sorted(
    scene: Scene, filter_: str | None, sort: str | None, wanted: list[str | None]
) -> None:
    assert names(scene.client.image.list(domain=scene.domain, filter=filter_, sort=sort).items) == wanted
    assert names(pages(scene.client.image.list, 1, filter=filter_, sort=sort)) == wanted


def test_an_image_in_use_is_found_by_its_use(scene: Scene, three: list[ImageInfo]) -> None:
    scene.client.image.prepare(domain=scene.domain, image=three[0].id)
    found = scene.client.image.list(filter="prepared.readOnly = false and prepared.keeper > 0").items
    assert [image.id for image in found] == [three[0].id]
    assert len(scene.client.image.list(filter="prepared is absent").items) == 2
    assert scene.client.image.list(filter="prepared.readOnly").items == []


def test_images_asked_for_by_id_are_the_only_ones_read(
    scene: Scene, three: list[ImageInfo], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = scene.app.context.registry.get(scene.domain)
    read: list[ImageId] = []
    real = opened.glance

    def reading(_: Any, image: ImageId) -> Any:
        read.append(image)
        return real(image)

    monkeypatch.setattr(type(opened), "glance", reading)
    two = {image.id for image in three[:2]}
    page = scene.client.image.list(filter=f"id in ({', '.join(map(str, two))}) and capacity > 0")
    assert {image.id for image in page.items} == two
    assert set(read) == two
    read.clear()
    assert len(scene.client.volume.list(domain=scene.domain, filter=f"image = {three[0].id}").items) == 1
    assert read == [three[0].id]
    read.clear()
    assert scene.client.image.list(filter=f"domain = {uuid.uuid4()}").items == []
    assert scene.client.image.list(filter=f"id = {uuid.uuid4()}").items == []
    assert read == []


def test_domains_are_chosen_and_sorted(scene: Scene, tmp_path: Path) -> None:
    for name in ("slow", "fast"):
        (tmp_path / name).mkdir()
        scene.wait(scene.client.domain.create(name=name, path=str(tmp_path / name)))
    listed = scene.client.domain.list
    assert names(listed(sort="-name").items) == ["slow", "fast", "default"]
    assert names(listed(filter=f'path ~ "{tmp_path}/[fs]*" and state = ok and version = 5').items) == ["fast", "slow"]
    assert names(pages(listed, 1, filter="name != default", sort="name")) == ["fast", "slow"]
    assert [domain.id for domain in listed(filter=f"id = {scene.domain}").items] == [scene.domain]


def test_volumes_are_chosen_and_sorted(scene: Scene) -> None:
    image = scene.snapshot(scene.snapshot(scene.image(MIB, name="now"), name="first"), name="second")
    assert image.chain is not None
    chain = [volume.id for volume in image.chain]
    lister = listers(scene)["Volume"]
    assert names(lister(filter="role = internal").items) == ["first", "second"]
    assert names(lister(filter="role = internal", sort="-sequence").items) == ["second", "first"]
    assert [volume.id for volume in pages(lister, 1, sort="-sequence")] == chain[::-1]
    assert [volume.id for volume in pages(lister, 2, image=image.id, filter="parent is present")] == chain[1:]
    assert lister(filter="role = leaf").items[0].role is VolumeRole.LEAF
    assert lister(filter="legality != legal or damage is present").items == []


def test_tasks_are_chosen_and_sorted(scene: Scene) -> None:
    scene.image(name="a")
    unknown = ImageId(uuid.uuid4())
    raised(NoSuchImage, lambda: scene.wait(scene.client.image.snapshot(domain=scene.domain, image=unknown)))
    lister = scene.client.task.list
    failed = lister(filter="state = failed and error.name = NoSuchImage and error.code > 0").items
    assert [task.verb for task in failed] == ["Image.snapshot"]
    assert failed == lister(filter=f'verb ~ "Image.*" and image = {failed[0].image}').items
    ended = [task.ended or 0 for task in lister(filter="ended is present", sort="ended").items]
    assert ended == sorted(ended)
    assert len(ended) >= 3
    assert [
        task.verb for task in lister(filter="progress.percent = 100 and image is present", sort="-created").items
    ] == ["Image.create"]
    assert lister(filter="created > now").items == []


@pytest.mark.parametrize("sort", [None, "name", "-name", "capacity,-name", "-created", "id", "template,name"])
def test_pages_are_right_while_images_come_and_go(scene: Scene, sort: str | None) -> None:
    made = [scene.image((number % 3 + 1) * MIB, name=f"web{number % 4}") for number in range(7)]
    gone: set[ImageId] = set()
    come: set[ImageId] = set()

    def change(number: int) -> None:
        victim = made[(number * 3) % 7]
        scene.wait(scene.client.image.delete(domain=scene.domain, image=victim.id))
        gone.add(victim.id)
        come.add(scene.image(MIB, name=f"web{number % 5}").id)

    query = {"filter": 'name ~ "web*" and capacity < 9M', "sort": sort}
    found = [image.id for image in pages(scene.client.image.list, 2, change, **query)]
    assert len(gone) >= 2
    assert len(found) == len(set(found)), "nothing twice"
    assert {image.id for image in made} - gone <= set(found), "nothing left out that was there all the time"
    assert set(found) <= {image.id for image in made} | come


def test_pages_of_volumes_are_right_while_a_snapshot_is_taken_and_undone(scene: Scene) -> None:
    """The place of a layer among the others is its own, whatever comes on top of it."""
    image = scene.snapshot(scene.image(MIB))
    other = scene.image(MIB)
    assert image.chain is not None
    stay = {volume.id for volume in image.chain} | {other.leaf}

    def change(number: int) -> None:
        if number % 2 == 0:
            scene.snapshot(image)
        else:
            leaf = scene.look(image).leaf
            scene.wait(scene.client.volume.delete(domain=scene.domain, volume=leaf, image=image.id))

    found = [volume.id for volume in pages(listers(scene)["Volume"], 1, change)]
    assert len(found) == len(set(found))
    assert stay <= set(found)


# ---- refusals

EACH = pytest.mark.parametrize(
    "cls",
    [
        pytest.param(cls, marks=provokes(f"{cls}.list", "InvalidFilter", "InvalidSort", "InvalidCursor"), id=cls)
        for cls in ("Domain", "Image", "Volume", "Task", "Transfer")
    ],
)


@EACH
def test_bad_queries_are_refused(scene: Scene, cls: str) -> None:
    scene.image(name="a")
    scene.image(name="b")
    lister = listers(scene)[cls]
    wrong = raised(InvalidFilter, lambda: lister(filter="id = 3 and nothing"))
    assert wrong.position == 6
    assert "a whole id" in wrong.reason
    assert "'nothing'; the fields are id, " in raised(InvalidFilter, lambda: lister(filter="nothing = 1")).reason
    assert "'nothing' is no field" in raised(InvalidSort, lambda: lister(sort="nothing")).reason
    assert "of another list" in raised(InvalidCursor, lambda: lister(start="web01 3f2a")).reason
    # A filter that is too long, or of more than one line, is no value of its type.
    raised(InvalidParameter, lambda: lister(filter="id = 3 or " * 500))
    raised(InvalidParameter, lambda: lister(filter="id = 3 \n or id = 4"))
    raised(InvalidParameter, lambda: lister(filter=""))
    raised(InvalidParameter, lambda: lister(sort="id," * 200))


@pytest.mark.parametrize("cls", ["Image", "Volume", "Task"])
def test_a_cursor_serves_its_own_list_only(scene: Scene, cls: str) -> None:
    for name in ("a", "b", "c"):
        scene.image(name=name)
    lister = listers(scene)[cls]
    start = lister(limit=1, filter="created > 0", sort="-created").next
    assert len(lister(limit=1, filter="created > 0", sort="-created", start=start).items) == 1
    for other in ({}, {"filter": "created > 0"}, {"sort": "-created"}, {"filter": "created > 1", "sort": "-created"}):
        refused = raised(InvalidCursor, functools.partial(lister, start=start, **other))
        assert "another filter or order" in refused.reason


def test_a_cursor_of_one_domain_s_list_is_refused_by_another_s(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    other = scene.wait(scene.client.domain.create(name="second", path=str(tmp_path / "second")))
    scene.image(name="a")
    scene.image(name="b")
    start = scene.client.image.list(domain=scene.domain, limit=1).next
    raised(InvalidCursor, lambda: scene.client.image.list(domain=other.id, start=start))
    raised(InvalidCursor, lambda: scene.client.image.list(start=start))
    assert names(scene.client.image.list(domain=scene.domain, start=start).items) == ["b"]


def test_a_damaged_image_is_found_as_such(scene: Scene, three: list[ImageInfo]) -> None:
    scene.edit(three[0], CAP=str(9 * GIB))
    damaged = scene.client.image.list(filter="damage is present").items
    assert [image.id for image in damaged] == [three[0].id]
    assert names(scene.client.image.list(filter='damage ~ "*"', sort="damage").items) == ["web01"]
