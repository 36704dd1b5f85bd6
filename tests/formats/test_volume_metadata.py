# SPDX-License-Identifier: Apache-2.0
"""Volume metadata: what is read is written back, what is malformed is refused, and nothing takes more than its slot."""

from __future__ import annotations

import string
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm.formats import description, volume
from hsm.formats.volume import BadMetadata, VolumeMetadata
from libvdsm.api.types import Allocation, Legality, VolumeFormat, VolumeRole

LONGEST = 2**63 - 1
GOOD = {
    "CAP": "1073741824",
    "CTIME": "1700000000",
    "DESCRIPTION": '{"DiskAlias":"a=b"}',
    "DISKTYPE": "DATA",
    "DOMAIN": "8c4d2a31-6a5f-4e0e-9d53-0d7a5c1f6b11",
    "FORMAT": "COW",
    "GEN": "7",
    "IMAGE": "2f0f0f5e-2f7b-4c55-a0d5-9b8b7a3f1c22",
    "LEGALITY": "LEGAL",
    "PUUID": "77a1c9de-31d0-4a77-8e2e-5f9b5a0a4e33",
    "SEQ": "4",
    "TYPE": "SPARSE",
    "VOLTYPE": "LEAF",
}


def text(**fields: str | None) -> bytes:
    given_ = {key: value for key, value in {**GOOD, **fields}.items() if value is not None}
    return "".join(f"{key}={given_[key]}\n" for key in sorted(given_)).encode() + b"EOF\n"


def known(enum: type) -> st.SearchStrategy[object]:
    return st.sampled_from([member for member in enum if member.name != "UNKNOWN"])  # type: ignore[attr-defined]


descriptions = st.text(st.characters(exclude_categories=("Cs", "Cc"))).filter(
    lambda found: len(found) <= volume.DESCRIPTION_LIMIT and len(found.encode()) <= description.BYTES_LIMIT
)
metadata = st.builds(
    VolumeMetadata,
    domain=st.uuids(),
    image=st.uuids(),
    parent=st.none() | st.uuids().filter(lambda found: found.int != 0),
    capacity=st.integers(0, LONGEST // 512).map(lambda sectors: sectors * 512),
    format=st.sampled_from([VolumeFormat.RAW, VolumeFormat.QCOW2]),
    allocation=known(Allocation),
    role=known(VolumeRole),
    legality=known(Legality),
    created=st.integers(0, 10**10 - 1),
    description=descriptions,
    disk_type=st.sampled_from(["DATA", "ISOF", "MEMD", "2"]),
    generation=st.integers(0, 999),
    sequence=st.integers(0, LONGEST),
)


@given(metadata)
def test_what_is_written_is_read_back(given_: VolumeMetadata) -> None:
    assert volume.parse(volume.write(given_)) == given_


@given(metadata)
def test_nothing_that_we_write_takes_more_than_its_slot(given_: VolumeMetadata) -> None:
    assert len(volume.write(given_)) <= volume.LIMIT == 512


def test_the_longest_metadata_just_fit() -> None:
    """This is where the limit of 215 bytes for descriptions comes from."""
    longest = VolumeMetadata(
        domain=UUID(int=1),
        image=UUID(int=1),
        parent=UUID(int=1),
        capacity=LONGEST // 512 * 512,
        format=VolumeFormat.QCOW2,
        allocation=Allocation.PREALLOCATED,
        role=VolumeRole.INTERNAL,
        legality=Legality.ILLEGAL,
        created=10**10 - 1,
        description="é" * (description.BYTES_LIMIT // 2) + "x" * (description.BYTES_LIMIT % 2),
        generation=999,
        sequence=LONGEST,
    )
    assert len(longest.description.encode()) == description.BYTES_LIMIT
    assert len(volume.write(longest)) == volume.LIMIT


@given(metadata, st.dictionaries(st.text(string.ascii_uppercase, min_size=1, max_size=8), st.text("ab=", max_size=9)))
def test_keys_of_others_are_kept(given_: VolumeMetadata, others: dict[str, str]) -> None:
    extra = {f"X{key}": value for key, value in others.items()}
    lines = [*volume.write(given_).decode().splitlines()[:-1], *(f"{key}={value}" for key, value in extra.items())]
    data = ("\n".join(sorted(lines)) + "\nEOF\n").encode()
    found = volume.parse(data)
    assert dict(found.extra) == extra
    if len(data) <= volume.LIMIT:
        assert volume.parse(volume.write(found)) == found
    else:
        with pytest.raises(BadMetadata, match="512 are the limit"):
            volume.write(found)


def test_version_4_counts_in_sectors() -> None:
    data = text(CAP=None, SEQ=None, SIZE="2048", MTIME="0")
    found = volume.parse(data)
    assert (found.version, found.capacity, found.sequence) == (4, 2**20, 1)
    assert volume.write(found) == data


def test_what_follows_the_end_is_not_looked_at() -> None:
    assert volume.parse(text() + b"\0" * 100) == volume.parse(text()) == volume.parse(text() + b"more=x")
    assert volume.parse(text().rstrip(b"\n")) == volume.parse(text())


@pytest.mark.parametrize("key", sorted(GOOD.keys() - {"GEN", "SEQ", "CAP"}))
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(BadMetadata, match=f"key {key} is missing"):
        volume.parse(text(**{key: None}))


def test_a_size_of_one_kind_is_needed() -> None:
    with pytest.raises(BadMetadata, match="SIZE"):
        volume.parse(text(CAP=None))


def test_generation_and_sequence_may_be_missing() -> None:
    found = volume.parse(text(GEN=None, SEQ=None))
    assert (found.generation, found.sequence) == (0, 1)


MALFORMED = {
    "nothing": b"",
    "zeros": bytes(512),
    "no end": text()[:-4],
    "cut off in the middle": text()[:150],
    "a line that is no pair": text().replace(b"GEN=7", b"GEN 7"),
    "an empty line": text().replace(b"GEN=7\n", b"GEN=7\n\n"),
    "a key twice": text().replace(b"GEN=7\n", b"GEN=7\nGEN=8\n"),
    "bytes that are no text": text(DESCRIPTION="x").replace(b"=x", b"=\xff\xfe"),
    "a qcow2 header": b"QFI\xfb" + bytes(508),
    "line ends of another system": text().replace(b"\n", b"\r\n"),
    **{
        f"{key} is {value!r}": text(**{key: value})
        for key, value in [
            ("CAP", ""),
            ("CAP", "-1"),
            ("CAP", "1.5"),
            ("CAP", "0x10"),
            ("CAP", " 512"),
            ("CAP", "1_000"),
            ("CAP", "٥١٢"),
            ("CAP", str(2**63)),
            ("CTIME", "now"),
            ("CTIME", "-1"),
            ("CTIME", str(2**63)),
            ("GEN", "1000"),
            ("GEN", "-1"),
            ("SEQ", "-1"),
            ("SEQ", str(2**63)),
            ("DOMAIN", ""),
            ("DOMAIN", "not an id"),
            ("DOMAIN", "{8c4d2a31-6a5f-4e0e-9d53-0d7a5c1f6b11}"),
            ("IMAGE", "2f0f0f5e2f7b4c55a0d59b8b7a3f1c22"),
            ("IMAGE", "2F0F0F5E-2F7B-4C55-A0D5-9B8B7A3F1C22"),
            ("PUUID", "none"),
            ("FORMAT", "qcow2"),
            ("FORMAT", ""),
            ("TYPE", "THIN"),
            ("VOLTYPE", "leaf"),
            ("LEGALITY", "MAYBE"),
        ]
    },
    "a negative size of version 4": text(CAP=None, SIZE="-1", MTIME="0"),
    "a huge size of version 4": text(CAP=None, SIZE=str(2**55), MTIME="0"),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_malformed_is_refused(data: bytes) -> None:
    with pytest.raises(BadMetadata, match=r"."):
        volume.parse(data)


@given(st.binary(max_size=600))
def test_bytes_of_any_kind_are_read_or_refused(data: bytes) -> None:
    try:
        volume.parse(data)
    except BadMetadata:
        return


@given(st.integers(0, len(text())), st.binary(min_size=1, max_size=3))
def test_metadata_with_a_hole_in_them_are_read_or_refused(at: int, hole: bytes) -> None:
    data = bytearray(text())
    data[at : at + len(hole)] = hole
    try:
        found = volume.parse(bytes(data))
    except BadMetadata:
        return
    assert 0 <= found.generation <= 999
    assert found.capacity >= 0


def test_a_value_that_would_become_lines_is_not_written() -> None:
    good = volume.parse(text())
    with pytest.raises(BadMetadata):
        volume.write(msgspec.structs.replace(good, description="a\nEOF"))


def test_generations_wrap() -> None:
    assert [volume.next_generation(number) for number in (0, 998, 999)] == [1, 999, 0]
