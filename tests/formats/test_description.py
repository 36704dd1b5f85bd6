# SPDX-License-Identifier: Apache-2.0
"""The one text of a volume: names and descriptions in it, oVirt's and ours, and how much fits."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm.formats.description import BYTES_LIMIT, TooLong, alias, read, write
from hsm.formats.volume import DESCRIPTION_LIMIT

WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=64).filter(
    lambda found: not set(found) & {"\ufffe", "\uffff"}
)
NAMES = WORDS.filter(bool)


def written(text: str = "", **changed: str | None) -> str | None:
    """What is written, or None if it is too much."""
    try:
        return write(text, **changed)
    except TooLong:
        return None


@given(NAMES, WORDS)
def test_a_name_and_a_description_are_read_back(name: str, text: str) -> None:
    stored = written(name=name, description=text)
    if stored is None:
        return
    assert read(stored, leaf=True) == (name, text or None)
    assert read(stored, leaf=False) == (None, text or None)
    assert alias(stored) == name
    assert json.loads(stored)["DiskAlias"] == name


@given(WORDS)
def test_a_description_alone_is_stored_as_it_is_unless_it_looks_like_more(text: str) -> None:
    stored = write(description=text)
    assert stored == text or text.startswith("{")
    assert read(stored, leaf=True) == (None, text or None)


@given(NAMES, WORDS, NAMES)
def test_a_snapshot_keeps_the_images_name_beside_its_own(name: str, text: str, snapshot: str) -> None:
    stored = written(name=name, description=text)
    frozen = None if stored is None else written(stored, snapshot=snapshot)
    if stored is None or frozen is None:
        return
    assert read(frozen, leaf=False) == (snapshot, text or None)
    assert read(frozen, leaf=True) == (name, text or None), "as it is again when the layer above is deleted"
    assert write(frozen, snapshot="") == stored


@given(NAMES, WORDS, WORDS)
def test_a_change_of_the_description_leaves_the_rest(name: str, old: str, new: str) -> None:
    stored = written(name=name, description=old, snapshot="s")
    changed = None if stored is None else written(stored, description=new)
    if changed is not None:
        assert read(changed, leaf=True) == (name, new or None)
        assert read(changed, leaf=False) == ("s", new or None)


def test_members_of_others_are_kept() -> None:
    stored = write('{"DiskAlias":"a","Quota":{"id":[1,null,"é"]}}', description="new")
    assert json.loads(stored) == {"DiskAlias": "a", "Quota": {"id": [1, None, "é"]}, "DiskDescription": "new"}


def test_a_text_of_others_becomes_the_description_when_a_name_is_given() -> None:
    assert json.loads(write("just words", name="a")) == {"DiskDescription": "just words", "DiskAlias": "a"}
    assert json.loads(write('{"half', name="a")) == {"DiskDescription": '{"half', "DiskAlias": "a"}
    assert json.loads(write("[1]", name="a")) == {"DiskDescription": "[1]", "DiskAlias": "a"}


READ = {
    "": (None, None),
    "words": (None, "words"),
    '{"DiskAlias":"a"}': ("a", None),
    '{"DiskAlias":"","DiskDescription":""}': (None, None),
    '{"DiskAlias":1,"DiskDescription":["x"]}': (None, None),
    '{"DiskAlias":"a"': (None, '{"DiskAlias":"a"'),
    "{}": (None, None),
    '{"DiskAlias":"a","DiskAlias":"b"}': ("b", None),
    '{"DiskAlias":"a\\nb\\ud800"}': ("a b ", None),
    json.dumps({"DiskAlias": "n" * 190}): ("n" * 63 + "…", None),
    "x" * 300: (None, "x" * 209 + "…"),
}


@pytest.mark.parametrize("text", READ, ids=lambda text: text[:40])
def test_what_others_wrote_is_read(text: str) -> None:
    assert read(text, leaf=True) == READ[text]


@pytest.mark.parametrize("text", ["a\nb", "a\nEOF", "\x00", "a\rb", "\x85", "\u2028"])
def test_nothing_that_is_written_is_more_than_a_line(text: str) -> None:
    stored = write(json.dumps({"DiskDescription": text}), snapshot="")
    assert not set(stored) & {"\n", "\r", "\x00"}
    assert json.loads(stored)["DiskDescription"] == text if stored.startswith("{") else stored == text


def test_half_characters_are_stored_as_json_spells_them() -> None:
    stored = write('{"DiskAlias":"a\\ud800"}', snapshot="s")
    stored.encode()
    assert json.loads(stored) == {"DiskAlias": "a\ud800", "Snapshot": "s"}


# ---- limits


def test_the_limits_are_those_of_the_format() -> None:
    assert write(description="x" * DESCRIPTION_LIMIT) == "x" * DESCRIPTION_LIMIT
    assert len(write(description="é" * (BYTES_LIMIT // 2)).encode()) == BYTES_LIMIT - 1
    for text in ("x" * (DESCRIPTION_LIMIT + 1), "é" * (BYTES_LIMIT // 2 + 1), "磁" * (BYTES_LIMIT // 3 + 1)):
        with pytest.raises(TooLong, match="210 characters in 215 bytes"):
            write(description=text)


@given(st.text(max_size=230), st.text(max_size=230), st.text(max_size=230))
def test_nothing_that_is_written_is_beyond_the_limits(name: str, text: str, snapshot: str) -> None:
    stored = written(name=name, description=text, snapshot=snapshot)
    if stored is not None:
        assert len(stored) <= DESCRIPTION_LIMIT
        assert len(stored.encode()) <= BYTES_LIMIT
