# SPDX-License-Identifier: Apache-2.0
"""Parameters that nobody writes down: declared with a marker, known to the records, told in the schema."""

from __future__ import annotations

from typing import Annotated

import pytest
from msgspec import Meta

from libvdsm.api import VERBS
from libvdsm.api.types import Line
from libvdsm.declare import Spec, holds_secret
from libvdsm.generate.reference import Reference
from libvdsm.generate.schema import document, schema_of, verbs_of
from tests.audit.made_up import FILL, LOCK, Key

SECRET = Annotated[str, Meta(max_length=10, extra={"secret": True})]


class Outer(Spec, frozen=True, kw_only=True):
    """With a secret two floors down."""

    keys: dict[str, Key]


@pytest.mark.parametrize(
    "annotation",
    [SECRET, SECRET | None, list[SECRET], dict[str, SECRET], Key, Key | None, list[Key], Outer, dict[str, list[Outer]]],
    ids=str,
)
def test_whatever_holds_a_secret_is_secret(annotation: object) -> None:
    assert holds_secret(annotation)


@pytest.mark.parametrize("annotation", [Line, str, Line | None, list[Line], dict[str, Line], int], ids=str)
def test_and_nothing_else(annotation: object) -> None:
    assert not holds_secret(annotation)


def test_the_records_know_which_parameters_are_secret() -> None:
    assert {p.name for p in LOCK.parameters if p.secret} == {"passphrase", "keys"}
    assert not [p for p in FILL.parameters if p.secret]
    found = {(verb.full, p.name) for verb in VERBS.values() for p in verb.parameters if p.secret}
    assert found == {("Secret.define", "value")}


def test_the_schema_tells_it() -> None:
    [parameter] = [p for p in LOCK.parameters if p.name == "passphrase"]
    assert schema_of(parameter.type)["secret"] is True
    assert "secret" not in schema_of(LOCK.parameters[0].type)


def test_the_reference_tells_it() -> None:
    made = document()
    [member] = [one for one in verbs_of(made)["Image.create"]["params"] if one["name"] == "description"]
    assert "not shown in the audit log" not in Reference(made).pages()["image.md"]
    member["schema"]["secret"] = True
    [line] = [line for line in Reference(made).pages()["image.md"].splitlines() if "not shown in the audit log" in line]
    assert line.startswith("| `description` |")
