# SPDX-License-Identifier: Apache-2.0
"""Filters, orders and their errors are the same over every transport, quotes and all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from libvdsm.api.errors import InvalidCursor, InvalidFilter, InvalidSort
from libvdsm.api.types import ImageInfo
from libvdsm.client import Client

NAMES = ("plain", 'a "quoted" <one> & \u00fc', "it's")


@pytest.fixture
def images(client: Client) -> Iterator[list[ImageInfo]]:
    domain = client.domain.list().items[0].id
    made = [
        client.wait(client.image.create(domain=domain, name=name, capacity=(number + 1) * 2**30), timeout=20)
        for number, name in enumerate(NAMES)
    ]
    yield made
    for image in made:
        client.wait(client.image.delete(domain=domain, image=image.id), timeout=20)


def test_what_is_asked_for_is_answered(client: Client, images: list[ImageInfo]) -> None:
    mine = f"id in ({', '.join(str(image.id) for image in images)})"
    found = client.image.list(filter=f"{mine} and capacity < 3G", sort="-capacity").items
    assert [image.name for image in found] == [NAMES[1], NAMES[0]]
    text = NAMES[1].replace('"', '""')
    assert [image.id for image in client.image.list(filter=f'{mine} and name = "{text}"').items] == [images[1].id]
    assert [image.id for image in client.image.list(filter=f"{mine} and name ~ 'it''s'").items] == [images[2].id]


def test_pages_go_on_where_they_ended(client: Client, images: list[ImageInfo]) -> None:
    mine = f"id in ({', '.join(str(image.id) for image in images)})"
    seen: list[str | None] = []
    start = None
    for _ in NAMES:
        page = client.image.list(filter=mine, sort="-name", limit=1, start=start)
        seen += [image.name for image in page.items]
        start = page.next
    assert start is None
    assert seen == sorted(NAMES, reverse=True)


def test_refusals_have_their_attributes(client: Client) -> None:
    with pytest.raises(InvalidFilter) as caught:
        client.task.list(filter="state = '<gone>'")
    assert caught.value.position == 9
    assert caught.value.reason == (
        "state is compared with one of queued, running, stopping, succeeded, failed, stopped, not with '<gone>'"
    )
    with pytest.raises(InvalidSort):
        client.task.list(sort="result")
    with pytest.raises(InvalidCursor):
        client.domain.list(start="<nowhere>")
