# SPDX-License-Identifier: Apache-2.0
"""A structure with a field of every kind that queries know, and random ones of it."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from hypothesis import strategies as st
from msgspec import Meta

from libvdsm.api.types import Bytes, Count, ImageId, OpenEnum, Text, Time
from libvdsm.declare import Info

NOW = 1_790_000_000.0
"""The time of all tests."""


class Colour(OpenEnum):
    """Some words."""

    RED = "red"
    GREEN = "green"
    UNKNOWN = "unknown"


class Part(Info, frozen=True, kw_only=True):
    """What is inside a thing."""

    size: Bytes
    ready: bool
    label: Text | None = None


class Thing(Info, frozen=True, kw_only=True):
    """One field of each kind, present and perhaps absent."""

    id: ImageId
    title: Text
    size: Bytes
    made_at: Time
    count: Count
    share: float
    good: bool
    colour: Colour
    part: Part
    name: Text | None = None
    used: Bytes | None = None
    seen_at: Time | None = None
    twin: ImageId | None = None
    shade: Colour | None = None
    tags: list[Annotated[str, Meta(max_length=9)]] | None = None
    inner: Part | None = None
    parts: list[Part] | None = None
    facts: dict[str, Any] | None = None


def thing(number: int = 1, **fields: Any) -> Thing:
    """A thing, with what a test does not care about filled in."""
    given: dict[str, Any] = {
        "id": ImageId(UUID(int=number)),
        "title": "a thing",
        "size": 4096,
        "made_at": NOW - 3600,
        "count": 3,
        "share": 12.5,
        "good": True,
        "colour": Colour.RED,
        "part": Part(size=1, ready=False),
    }
    return Thing(**(given | fields))


texts = st.text("ab*?[]!-\\ .\n\"'ü", max_size=5)
sizes = st.sampled_from([0, 1, 2, 1023, 1024, 2**20, 2**63 - 1])
times = st.sampled_from([0.0, NOW - 86400, NOW - 86399.5, NOW - 1, NOW])
ids = st.integers(1, 4).map(lambda number: ImageId(UUID(int=number << 64)))
colours = st.sampled_from([Colour.RED, Colour.GREEN])
parts = st.builds(Part, size=sizes, ready=st.booleans(), label=st.none() | texts)
things = st.builds(
    Thing,
    id=ids,
    title=texts,
    size=sizes,
    made_at=times,
    count=st.integers(0, 3),
    share=st.sampled_from([0.0, 0.5, 99.5]),
    good=st.booleans(),
    colour=colours,
    part=parts,
    name=st.none() | texts,
    used=st.none() | sizes,
    seen_at=st.none() | times,
    twin=st.none() | ids,
    shade=st.none() | colours,
    tags=st.none() | st.lists(texts, max_size=3),
    inner=st.none() | parts,
)
