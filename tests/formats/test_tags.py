# SPDX-License-Identifier: Apache-2.0
"""Tags in an image's attributes: what they change, and what has to fit beside them."""

from __future__ import annotations

import uuid

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm.formats import attributes
from hsm.formats.attributes import (
    TAGS,
    Attributes,
    AttributesTooLong,
    DeleteMany,
    Making,
    Shrink,
    SnapshotMany,
    VolumeAttributes,
)
from libvdsm.api import VERBS
from libvdsm.declare import meta_of

IMAGE, VOLUME, OTHER = (uuid.uuid4() for _ in range(3))
FULL = Attributes(
    tags=("a",),
    volumes={VOLUME: VolumeAttributes(tags=("b",), expires=1.0), OTHER: VolumeAttributes(tags=("c",))},
    making=Making(leaf=VOLUME),
    intent=Shrink(volume=VOLUME, capacity=1),
)


def test_tags_of_an_image_change_nothing_else() -> None:
    changed = FULL.with_tags(("x", "y"))
    assert changed == msgspec.structs.replace(FULL, tags=("x", "y"))
    assert FULL.tags == ("a",)


def test_tags_of_a_volume_change_nothing_else() -> None:
    changed = FULL.with_tags(("x",), VOLUME)
    assert changed.volumes == {VOLUME: VolumeAttributes(tags=("x",), expires=1.0), OTHER: FULL.volumes[OTHER]}
    assert msgspec.structs.replace(changed, volumes=FULL.volumes) == FULL
    assert FULL.with_tags((), OTHER).volumes == {VOLUME: FULL.volumes[VOLUME]}, "nothing is kept of what has none"
    assert FULL.tags_of(VOLUME) == ("b",)
    assert FULL.tags_of(IMAGE) == ()


def test_the_number_of_tags_is_that_of_the_declaration() -> None:
    (tags,) = (p for p in VERBS["Image.setTags"].parameters if p.name == "tags")
    assert [meta.max_length for meta in meta_of(tags.type) if meta.max_length] == [TAGS]
    with pytest.raises(AttributesTooLong, match=f"{TAGS} are the limit"):
        FULL.with_tags(tuple(map(str, range(TAGS + 1))))


def filled() -> Attributes:
    """With as many tags as are taken."""
    kept = attributes.NONE
    try:
        for _ in range(1000):
            kept = kept.with_tags(("tag",), uuid.uuid4())
    except AttributesTooLong:
        return kept
    raise AssertionError("there is no limit")


def test_beside_all_tags_that_there_may_be_the_largest_change_fits() -> None:
    ids = tuple(uuid.uuid4() for _ in range(64))
    name = "\U0001f600" * 64
    for intent in (
        SnapshotMany(group=uuid.uuid4(), images=ids, volumes=ids, name=name),
        DeleteMany(group=uuid.uuid4(), images=ids, wipe=True),
        Shrink(volume=VOLUME, capacity=2**62),
    ):
        whole = msgspec.structs.replace(filled(), intent=intent)
        assert attributes.parse(attributes.write(whole, IMAGE), IMAGE) == whole


@given(st.lists(st.text(min_size=1, max_size=64), max_size=TAGS))
def test_what_is_accepted_can_be_written_and_read(tags: list[str]) -> None:
    try:
        kept = attributes.NONE.with_tags(tuple(tags))
    except (AttributesTooLong, UnicodeEncodeError):
        return
    assert attributes.parse(attributes.write(kept, IMAGE), IMAGE) == kept
