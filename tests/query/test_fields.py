# SPDX-License-Identifier: Apache-2.0
"""Which fields queries can name, of a structure and of the API's list verbs."""

from __future__ import annotations

import pytest

from libvdsm.api import VERBS
from libvdsm.api.domain import DomainInfo
from libvdsm.api.transfer import TransferInfo
from libvdsm.api.types import ImageInfo, TaskInfo, VolumeInfo
from libvdsm.query.fields import OPERATORS, Kind, fields_of, listed
from tests.query.things import Part, Thing, thing


def test_a_field_is_known_by_its_name_on_the_wire_with_its_kind() -> None:
    assert {name: field.kind for name, field in fields_of(Thing).items()} == {
        "id": Kind.ID,
        "title": Kind.TEXT,
        "size": Kind.SIZE,
        "madeAt": Kind.TIME,
        "count": Kind.NUMBER,
        "share": Kind.NUMBER,
        "good": Kind.BOOLEAN,
        "colour": Kind.CHOICE,
        "part.size": Kind.SIZE,
        "part.ready": Kind.BOOLEAN,
        "part.label": Kind.TEXT,
        "name": Kind.TEXT,
        "used": Kind.SIZE,
        "seenAt": Kind.TIME,
        "twin": Kind.ID,
        "shade": Kind.CHOICE,
        "tags": Kind.LIST,
        "inner": Kind.STRUCTURE,
        "inner.size": Kind.SIZE,
        "inner.ready": Kind.BOOLEAN,
        "inner.label": Kind.TEXT,
    }


def test_what_is_inside_something_that_may_be_absent_may_be_absent() -> None:
    fields = fields_of(Thing)
    assert not fields["part.size"].optional
    assert fields["inner.size"].optional
    assert fields["inner.size"].get(thing()) is None
    assert fields["inner.size"].get(thing(inner=Part(size=7, ready=True))) == 7
    assert fields["part.label"].get(thing(part=Part(size=7, ready=True, label="x"))) == "x"


def test_only_what_may_be_absent_can_be_asked_for_its_presence() -> None:
    for field in fields_of(Thing).values():
        assert ("is" in field.operators) == field.optional
        assert set(OPERATORS[field.kind]) <= set(field.operators)


@pytest.mark.parametrize(
    ("verb", "struct"),
    [
        ("Domain.list", DomainInfo),
        ("Image.list", ImageInfo),
        ("Volume.list", VolumeInfo),
        ("Task.list", TaskInfo),
        ("Transfer.list", TransferInfo),
    ],
)
def test_every_verb_that_takes_a_filter_says_what_it_lists(verb: str, struct: type) -> None:
    assert listed(VERBS[verb]) is struct
    assert fields_of(struct)["id"].kind is Kind.ID


def test_no_other_verb_lists_by_filter() -> None:
    taking = {name for name, verb in VERBS.items() if any(p.name == "filter" for p in verb.parameters)}
    assert {name for name, verb in VERBS.items() if listed(verb) is not None} == taking
    assert all(any(p.name == "sort" for p in VERBS[name].parameters) for name in taking)
