# SPDX-License-Identifier: Apache-2.0
"""The contract of volumes: garbage first, published last, seen by everybody or by nobody."""

from __future__ import annotations

import uuid

import msgspec
import pytest

from hsm.contract.base import (
    MIB,
    WAIT,
    Contract,
    again,
    content_of,
    make,
    make_overlay,
    metadata_of,
    new_raw,
    write,
)
from hsm.domains.base import Domain, NewVolume
from hsm.formats import volume as volume_format
from libvdsm.api.types import Allocation, ImageId, Legality, VolumeFormat, VolumeId, VolumeRole


def is_published(domain: Domain, new: NewVolume) -> bool:
    """Whether everybody who opens the domain sees the volume."""
    record = again(domain).image(new.image)
    seen = record is not None and record.published and new.volume in record.volumes
    assert seen == (again(domain).find_volume(new.volume) == new.image)
    return seen


class VolumeContract(Contract):
    """begin_volume, make_data, sync_data, extend_data, publish, rewrite, image, image_ids, find_volume, data_path."""

    def test_nothing_is_seen_of_a_volume_before_it_is_published(self, domain: Domain) -> None:
        new = new_raw()
        with domain.lease(WAIT):
            assert not is_published(domain, new)
            held = domain.begin_volume(new)
            assert not is_published(domain, new)
            domain.make_data(new, [(0, b"data")])
            assert not is_published(domain, new)
            domain.publish(new.image, new.volume, metadata_of(domain, new))
            assert is_published(domain, new)
        held.release()
        assert is_published(domain, new)
        assert domain.garbage() == []

    def test_a_published_volume_is_told_as_it_lies_on_storage(self, domain: Domain, other: Domain) -> None:
        new = new_raw()
        metadata = metadata_of(
            domain, new, description="näme", generation=7, sequence=3, legality=Legality.ILLEGAL, created=123
        )
        make(domain, new, metadata)
        record = other.image(new.image)
        assert record is not None
        assert (record.id, record.damaged, list(record.volumes)) == (new.image, [], [new.volume])
        volume = record.volumes[new.volume]
        assert volume.metadata == metadata
        assert (volume.id, volume.folder, volume.length) == (new.volume, new.image, MIB)
        assert (volume.header, volume.damage, volume.links, volume.is_linked) == (None, None, 1, False)
        assert other.image_ids() == [new.image]
        assert other.find_volume(new.volume) == new.image

    def test_metadata_are_stored_in_the_bytes_of_version_5(self, domain: Domain) -> None:
        new = new_raw()
        metadata = metadata_of(domain, new, description='{"DiskAlias":"web01"}', generation=999)
        make(domain, new, metadata)
        stored = self.stored(domain, new.image, new.volume).rstrip(b"\0")
        assert stored == volume_format.write(metadata)
        assert (
            stored
            == (
                f"CAP={MIB}\nCTIME=1700000000\n"
                'DESCRIPTION={"DiskAlias":"web01"}\nDISKTYPE=DATA\n'
                f"DOMAIN={domain.id}\nFORMAT=RAW\nGEN=999\nIMAGE={new.image}\nLEGALITY=LEGAL\n"
                f"PUUID={uuid.UUID(int=0)}\nSEQ=1\nTYPE=SPARSE\nVOLTYPE=LEAF\nEOF\n"
            ).encode()
        )

    def test_what_is_not_there_is_none(self, domain: Domain) -> None:
        assert domain.image(ImageId(uuid.uuid4())) is None
        assert domain.find_volume(VolumeId(uuid.uuid4())) is None

    def test_images_are_told_in_order(self, domain: Domain) -> None:
        made = [make(domain, new_raw()).image for _ in range(5)]
        assert domain.image_ids() == sorted(made)

    # ---- data

    def test_new_data_are_zeros_but_for_what_was_given(self, domain: Domain) -> None:
        new = make(domain, new_raw(), content=[(0, b"begin"), (MIB - 3, b"end")])
        assert content_of(domain, new, MIB) == b"begin" + bytes(MIB - 8) + b"end"

    def test_new_data_replace_what_a_crash_left(self, domain: Domain) -> None:
        new = new_raw()
        with domain.lease(WAIT):
            held = domain.begin_volume(new)
            domain.make_data(new, [(100, b"left over")])
        held.release()
        make(domain, new, content=[(0, b"new")])
        assert content_of(domain, new, MIB) == b"new".ljust(MIB, b"\0")

    def test_data_are_written_by_programs_and_kept(self, domain: Domain, other: Domain) -> None:
        new = make(domain, new_raw())
        write(domain, new, b"guest", 4096)
        domain.sync_data(new.image, new.volume)
        assert content_of(other, new, 5, 4096) == b"guest"

    def test_sparse_data_take_no_space_and_preallocated_take_all(self, domain: Domain) -> None:
        if not domain.capabilities.preallocation:
            pytest.skip("the driver cannot reserve space")
        sparse, taken = make(domain, new_raw()), make(domain, new_raw(allocation=Allocation.PREALLOCATED))
        records = [domain.image(new.image) for new in (sparse, taken)]
        sizes = [record.own[0].actual_size for record in records if record]
        assert sizes[1] >= MIB
        assert sizes[0] < sizes[1] or domain.capabilities.block

    @pytest.mark.parametrize("allocation", [Allocation.SPARSE, Allocation.PREALLOCATED])
    def test_data_grow_and_never_shrink(self, domain: Domain, allocation: Allocation) -> None:
        if allocation is Allocation.PREALLOCATED and not domain.capabilities.preallocation:
            pytest.skip("the driver cannot reserve space")
        new = make(domain, new_raw(allocation=allocation), content=[(0, b"kept")])
        for length, expected in ((3 * MIB, 3 * MIB), (3 * MIB, 3 * MIB), (MIB, 3 * MIB)):
            domain.extend_data(new.image, new.volume, length, allocation)
            record = domain.image(new.image)
            assert record is not None
            assert record.volumes[new.volume].length >= expected
        assert content_of(domain, new, 3 * MIB)[: 3 * MIB] == b"kept".ljust(3 * MIB, b"\0")

    # ---- metadata

    def test_rewritten_metadata_are_seen_by_everybody(self, domain: Domain, other: Domain) -> None:
        new = make(domain, new_raw(), content=[(0, b"kept")])
        changed = metadata_of(domain, new, generation=1, description="changed", legality=Legality.ILLEGAL)
        with domain.lease(WAIT):
            domain.rewrite(new.image, new.volume, changed)
        for view in (domain, other, again(domain)):
            record = view.image(new.image)
            assert record is not None
            assert record.volumes[new.volume].metadata == changed
        assert content_of(domain, new, 4) == b"kept"
        assert domain.garbage() == []

    def test_metadata_that_do_not_fit_are_refused_and_change_nothing(self, domain: Domain) -> None:
        new = make(domain, new_raw())
        before = self.stored(domain, new.image, new.volume)
        for wrong in ("x" * 500, "two\nlines"):
            with pytest.raises(volume_format.BadMetadata), domain.lease(WAIT):
                domain.rewrite(new.image, new.volume, metadata_of(domain, new, description=wrong))
            assert self.stored(domain, new.image, new.volume) == before
        assert domain.garbage() == []

    # ---- chains

    def test_a_chain_is_told_with_its_headers_and_roles(self, domain: Domain) -> None:
        base = make(domain, new_raw())
        top = make_overlay(domain, make_overlay(domain, base))
        record = domain.image(base.image)
        assert record is not None
        assert len(record.volumes) == len(record.own) == 3
        assert [leaf.id for leaf in record.leaves()] == [top.volume]
        volume = record.volumes[top.volume]
        middle = record.volumes[VolumeId(volume.metadata.parent or uuid.UUID(int=0))]
        assert middle.metadata.parent == base.volume
        assert volume.header is not None
        assert (volume.header.backing_file, volume.header.capacity) == (str(middle.id), MIB)
        assert [record.role(found) for found in (record.volumes[base.volume], middle, volume)] == [
            VolumeRole.INTERNAL,
            VolumeRole.INTERNAL,
            VolumeRole.LEAF,
        ]

    def test_programs_find_a_parent_by_the_name_in_the_header(self, domain: Domain) -> None:
        base = make(domain, new_raw(), content=[(0, b"below")])
        top = make_overlay(domain, base)
        folder = domain.data_path(top.image, top.volume).rpartition("/")[0]
        with open(f"{folder}/{base.volume}", "rb") as file:
            assert file.read(5) == b"below"

    # ---- damage

    def test_data_that_are_no_qcow2_are_told_as_damage(self, domain: Domain) -> None:
        new = make(domain, new_raw(format=VolumeFormat.QCOW2))
        record = domain.image(new.image)
        assert record is not None
        volume = record.volumes[new.volume]
        assert volume.header is None
        assert volume.damage

    def test_a_volume_is_told_by_its_metadata_whatever_they_say(self, domain: Domain) -> None:
        new = new_raw()
        foreign = msgspec.structs.replace(metadata_of(domain, new), domain=uuid.uuid4(), extra=(("ZZ", "other's"),))
        make(domain, new, foreign)
        record = domain.image(new.image)
        assert record is not None
        assert record.volumes[new.volume].metadata == foreign
