# SPDX-License-Identifier: Apache-2.0
"""Domain metadata: sealed by a checksum, so that whatever was changed without it is noticed."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm.formats import domain
from hsm.formats.volume import BadMetadata

ID = uuid.UUID("8c4d2a31-6a5f-4e0e-9d53-0d7a5c1f6b11")
GOOD = domain.new(ID, "LOCALFS", "local", "/data")


def sealed(**fields: str | None) -> bytes:
    """Metadata with a right checksum and fields changed or left out."""
    found = {key: value for key, value in {**GOOD.fields, **fields}.items() if value is not None}
    return domain.write(domain.DomainMetadata(found))


def test_new_metadata_say_what_they_were_given() -> None:
    found = domain.parse(domain.write(GOOD))
    assert (found.id, found.type, found.version, found.description) == (ID, "LOCALFS", 5, "local")
    assert (found.block_size, found.alignment, found.fields["REMOTE_PATH"]) == (512, 2**20, "/data")


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=64))
def test_a_new_description_is_read_back_and_changes_nothing_else(text: str) -> None:
    found = domain.parse(domain.write(GOOD.with_description(text)))
    assert dict(found.fields) == {**GOOD.fields, "DESCRIPTION": text}


def test_characters_beyond_ascii_are_sealed_as_references() -> None:
    # Taken from the rule in FACTS; VDSM computes the same.
    plain = domain.write(GOOD.with_description("&#228;")).decode()
    special = domain.write(GOOD.with_description("ä")).decode()
    assert plain.partition("_SHA_CKSUM=")[2] == special.partition("_SHA_CKSUM=")[2]


def test_metadata_of_older_domains_have_defaults() -> None:
    found = domain.parse(sealed(VERSION="4", ALIGNMENT=None, BLOCK_SIZE=None, DESCRIPTION=None))
    assert (found.version, found.block_size, found.alignment, found.description) == (4, 512, 2**20, "")


@given(st.integers(0, len(sealed()) - 1), st.integers(1, 255))
def test_every_changed_byte_is_noticed(at: int, change: int) -> None:
    data = bytearray(sealed())
    data[at] ^= change
    try:
        found = domain.parse(bytes(data))
    except BadMetadata:
        return
    assert found.fields == GOOD.fields, "only what says the same is read"


@given(st.integers(0, len(sealed()) - 2))
def test_metadata_that_are_cut_off_are_noticed(length: int) -> None:
    with pytest.raises(BadMetadata):
        domain.parse(sealed()[:length])


MALFORMED = {
    "nothing": b"",
    "no pair": sealed().replace(b"CLASS=Data", b"CLASS Data"),
    "no text": sealed().replace(b"CLASS=Data", b"CLASS=\xff\xfe"),
    "no checksum": b"".join(line for line in sealed().splitlines(keepends=True) if b"_SHA_CKSUM" not in line),
    "no id": sealed(SDUUID=None),
    "no version": sealed(VERSION=None),
    "no type": sealed(TYPE=None),
    "an id that is none": sealed(SDUUID="x"),
    "a version that is no number": sealed(VERSION="five"),
    "a block size that is no number": sealed(BLOCK_SIZE="big"),
    "an alignment that is no number": sealed(ALIGNMENT=""),
    "zeros": bytes(4096),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_malformed_is_refused(data: bytes) -> None:
    with pytest.raises(BadMetadata, match=r"."):
        domain.parse(data)


@given(st.binary(max_size=400))
def test_bytes_of_any_kind_are_refused(data: bytes) -> None:
    with pytest.raises(BadMetadata):
        domain.parse(data)
