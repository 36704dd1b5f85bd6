# SPDX-License-Identifier: Apache-2.0
"""Values are typed and shown as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmctl.values import Kind, choices, kind_of, parse_duration, read, show_duration, show_size
from libvdsm.api import VERBS
from libvdsm.config import parse_size
from libvdsm.declare import Parameter


def parameter(full: str, name: str) -> Parameter:
    return next(p for p in VERBS[full].parameters if p.name == name)


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0"),
        (512, "512"),
        (1023, "1023"),
        (1024, "1K"),
        (1536, "1.5K"),
        (196608, "192K"),
        (2**20 - 1, "1M"),
        (64 * 2**30, "64G"),
        (1536 * 2**30, "1.5T"),
        (99 * 2**30 + 2**29, "99.5G"),
        (1000 * 2**30 + 2**29, "1000G"),
        (2**63 - 1, "8192P"),
    ],
)
def test_sizes_are_shown_in_the_largest_fitting_unit(size: int, shown: str) -> None:
    assert show_size(size) == shown


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_a_shown_size_can_be_typed_again_and_is_off_by_little(size: int) -> None:
    shown = show_size(size)
    assert abs(parse_size(shown) - size) <= size * 0.05
    assert len(shown) <= 6


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30), ("30s", 30), ("5m", 300), ("1.5h", 5400), ("1d", 86400), ("0.5", 0.5)]
)
def test_times_are_typed_with_units(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1", "5 weeks", "1e3"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0123, "12 ms"), (1.25, "1.2 s"), (61, "1 min 1 s"), (3660, "1 h 1 min"), (200_000, "2 d 7 h")],
)
def test_spans_of_time_are_shown_in_two_units_at_most(seconds: float, shown: str) -> None:
    assert show_duration(seconds) == shown


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_every_parameter_has_a_kind(verb: object) -> None:
    from libvdsm.declare import Verb

    assert isinstance(verb, Verb)
    for each in verb.parameters:
        assert isinstance(kind_of(verb, each), Kind)


def test_an_enumeration_offers_no_value_that_only_old_clients_see() -> None:
    assert choices(parameter("Image.create", "format")) == ["raw", "qcow2"]


@pytest.mark.parametrize(
    ("kind", "full", "name", "text", "message"),
    [
        (Kind.SIZE, "Image.create", "capacity", "0", "it has to be at least 1"),
        (Kind.SIZE, "Image.create", "capacity", "9000P", r"it has to be at most \d+P"),
        (Kind.TEXT, "Image.create", "name", "x" * 65, "it has to be at most 64 characters long"),
        (Kind.TEXT, "Image.create", "name", "", "it has to be at least 1 character long"),
        (Kind.TEXT, "Image.create", "name", "a\nb", "it holds characters that are not allowed here"),
        (Kind.SECONDS, "Task.wait", "timeout", "5m", "it has to be at most 60"),
    ],
)
def test_what_the_api_would_refuse_is_refused_at_once_in_plain_words(
    kind: Kind, full: str, name: str, text: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read(kind, parameter(full, name), text)
