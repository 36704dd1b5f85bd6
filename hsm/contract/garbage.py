# SPDX-License-Identifier: Apache-2.0
"""The contract of garbage: what nobody published is given back, unless somebody who lives holds its lease."""

from __future__ import annotations

import pytest

from hsm.contract.base import (
    MIB,
    WAIT,
    Contract,
    again,
    content_of,
    make,
    make_overlay,
    make_template,
    metadata_of,
    new_raw,
)
from hsm.contract.leases import exclusive, holding, is_free
from hsm.contract.volumes import is_published
from hsm.domains.base import Domain, Garbage, NewVolume


def collect(domain: Domain) -> list[int | None]:
    """Give everything back that can be: the bytes freed, or None, of each."""
    with domain.lease(WAIT):
        return [domain.reclaim(garbage) for garbage in domain.garbage()]


def begin(domain: Domain, new: NewVolume, stage: int) -> None:
    """Come to a stage of making a volume, and no further, as a crash does."""
    with domain.lease(WAIT):
        held = domain.begin_volume(new)
        if stage > 0:
            domain.make_data(new, [(0, b"x" * 4096)])
    held.release()


class GarbageContract(Contract):
    """unpublish_image, unpublish_volume, abandon, garbage, reclaim."""

    # ---- never published

    @pytest.mark.parametrize("stage", [0, 1])
    def test_what_a_crash_left_is_garbage_and_is_given_back(self, domain: Domain, stage: int) -> None:
        begin(domain, new_raw(), stage)
        found = again(domain).garbage()
        assert found
        assert all(garbage.begun for garbage in found)
        freed = collect(again(domain))
        assert None not in freed
        assert sum(bytes_ or 0 for bytes_ in freed) > 0 or stage == 0 or domain.capabilities.block
        assert domain.garbage() == []
        assert domain.image_ids() == []

    @pytest.mark.parametrize("stage", [0, 1])
    def test_a_layer_that_a_crash_left_is_given_back_and_its_image_stays(self, domain: Domain, stage: int) -> None:
        base = make(domain, new_raw(), content=[(0, b"kept")])
        begin(domain, new_raw(base.image, first=False), stage)
        assert None not in collect(again(domain))
        assert domain.garbage() == []
        assert is_published(domain, base)
        assert content_of(domain, base, 4) == b"kept"
        record = domain.image(base.image)
        assert record is not None
        assert list(record.volumes) == [base.volume]

    @pytest.mark.parametrize("stage", [0, 1])
    def test_a_clone_that_a_crash_left_is_given_back_and_its_template_stays(self, domain: Domain, stage: int) -> None:
        template = make_template(domain)
        begin(domain, new_raw(template=(template.image, template.volume)), stage)
        assert None not in collect(again(domain))
        assert domain.garbage() == []
        assert domain.image_ids() == [template.image]
        assert domain.clones(template.image) == 0
        assert content_of(domain, template, 8) == b"template"

    @pytest.mark.parametrize("stage", [0, 1])
    def test_what_a_live_maker_made_is_left_alone(self, domain: Domain, other: Domain, stage: int) -> None:
        new, layer = new_raw(), new_raw(make(domain, new_raw()).image, first=False)
        helds = []
        with domain.lease(WAIT):
            for volume in (new, layer):
                helds.append(domain.begin_volume(volume))
                if stage > 0:
                    domain.make_data(volume, [(0, b"in the making")])
        freed = collect(other)
        assert freed
        assert set(freed) == {None}
        with domain.lease(WAIT):
            for volume in (new, layer):
                if stage == 0:
                    domain.make_data(volume, [(0, b"in the making")])
                domain.publish(volume.image, volume.volume, metadata_of(domain, volume))
        for held in helds:
            held.release()
        assert is_published(domain, new)
        assert is_published(domain, layer)
        assert content_of(domain, new, 13) == content_of(domain, layer, 13) == b"in the making"

    def test_a_maker_s_program_that_outlives_it_is_left_alone(self, domain: Domain, other: Domain) -> None:
        new = new_raw()
        with domain.lease(WAIT):
            held = domain.begin_volume(new)
        with holding(held):
            held.release()
            assert set(collect(other)) == {None}
        assert None not in collect(other)
        assert domain.garbage() == []

    def test_what_was_published_meanwhile_is_garbage_no_longer(self, domain: Domain, other: Domain) -> None:
        new = new_raw()
        with domain.lease(WAIT):
            held = domain.begin_volume(new)
            domain.make_data(new, [(0, b"kept")])
        found = other.garbage()
        with domain.lease(WAIT):
            domain.publish(new.image, new.volume, metadata_of(domain, new))
        held.release()
        with other.lease(WAIT):
            assert not any(other.reclaim(garbage) for garbage in found)
        assert is_published(domain, new)
        assert content_of(domain, new, 4) == b"kept"

    def test_giving_back_twice_is_no_more_than_once(self, domain: Domain, other: Domain) -> None:
        begin(domain, new_raw(), 1)
        found = other.garbage()
        assert None not in collect(domain)
        with other.lease(WAIT):
            assert not any(other.reclaim(garbage) for garbage in found)

    # ---- abandoned

    @pytest.mark.parametrize("stage", [0, 1])
    def test_a_maker_who_gives_up_leaves_nothing(self, domain: Domain, stage: int) -> None:
        base, template = make(domain, new_raw()), make_template(domain)
        before = domain.image_ids()
        for new in (
            new_raw(),
            new_raw(base.image, first=False),
            new_raw(template=(template.image, template.volume)),
        ):
            begin(domain, new, stage)
            with domain.lease(WAIT):
                domain.abandon(new.image, new.volume)
            assert domain.garbage() == []
            assert domain.image_ids() == before
        assert is_published(domain, base)
        assert content_of(domain, template, 8) == b"template"

    # ---- unpublished

    @pytest.mark.parametrize("wipe", [False, True])
    def test_an_unpublished_image_is_gone_for_everybody_and_garbage(self, domain: Domain, wipe: bool) -> None:
        new, stays = make(domain, new_raw(), content=[(0, b"x" * 4096)]), make(domain, new_raw())
        with domain.lease(WAIT):
            left = domain.unpublish_image(new.image, wipe=wipe)
            assert not is_published(domain, new)
        assert not left.begun
        assert [garbage.path for garbage in again(domain).garbage()] == [left.path]
        freed = again(domain).reclaim(left)
        assert freed is not None
        assert freed >= 4096 or domain.capabilities.block
        assert domain.garbage() == []
        assert domain.image_ids() == [stays.image]
        assert domain.reclaim(left) == 0

    @pytest.mark.parametrize("wipe", [False, True])
    def test_an_unpublished_volume_is_gone_and_its_image_stays(self, domain: Domain, wipe: bool) -> None:
        base = make(domain, new_raw(), content=[(0, b"kept")])
        top = make_overlay(domain, base)
        with domain.lease(WAIT):
            left = domain.unpublish_volume(top.image, top.volume, wipe=wipe)
            assert not is_published(domain, top)
            assert is_published(domain, base)
        assert not left.begun
        assert [garbage.path for garbage in again(domain).garbage()] == [left.path]
        assert domain.reclaim(left) is not None
        assert domain.garbage() == []
        record = domain.image(base.image)
        assert record is not None
        assert [leaf.id for leaf in record.leaves()] == [base.volume]
        assert content_of(domain, base, 4) == b"kept"

    def test_what_was_unpublished_is_given_back_without_the_domain_s_lease(self, domain: Domain, other: Domain) -> None:
        new = make(domain, new_raw())
        with domain.lease(WAIT):
            left = domain.unpublish_image(new.image, wipe=False)
        with other.lease(WAIT):
            assert domain.reclaim(left) is not None

    def test_what_was_unpublished_and_is_still_held_is_left_alone(self, domain: Domain, other: Domain) -> None:
        base = make(domain, new_raw())
        top, image = make_overlay(domain, base), make(domain, new_raw())
        held = domain.acquire([*exclusive(top), *exclusive(image)])
        with domain.lease(WAIT):
            left = [
                domain.unpublish_volume(top.image, top.volume, wipe=False),
                domain.unpublish_image(image.image, wipe=False),
            ]
        assert [other.reclaim(garbage) for garbage in left] == [None, None]
        held.release()
        assert None not in [other.reclaim(garbage) for garbage in left]
        assert domain.garbage() == []

    @pytest.mark.parametrize("wipe", [False, True])
    def test_data_that_are_to_be_wiped_are_wiped_before_they_are_given_back(self, domain: Domain, wipe: bool) -> None:
        if domain.capabilities.block:
            pytest.skip("a device's data cannot be looked at once it is gone")
        new = make(domain, new_raw(), content=[(0, b"secret" * 1000), (MIB - 6, b"secret")])
        with open(domain.data_path(new.image, new.volume), "rb") as data:
            with domain.lease(WAIT):
                left = domain.unpublish_image(new.image, wipe=wipe)
            assert domain.reclaim(left) is not None
            assert (b"secret" in data.read()) is not wipe

    def test_deleting_a_clone_takes_nothing_from_its_template(self, domain: Domain) -> None:
        template = make_template(domain)
        clone = make_overlay(domain, template, clone=True)
        with domain.lease(WAIT):
            left = domain.unpublish_image(clone.image, wipe=True)
        assert domain.reclaim(left) is not None
        assert is_published(domain, template)
        assert content_of(domain, template, 8) == b"template"
        assert is_free(domain, exclusive(template))

    def test_an_image_of_the_same_id_can_be_made_and_deleted_again(self, domain: Domain) -> None:
        for _ in range(3):
            new = make(domain, new_raw(new_image := FIRST.image, FIRST.volume))
            assert domain.image_ids() == [new_image]
            with domain.lease(WAIT):
                domain.unpublish_image(new.image, wipe=False)
            assert domain.image_ids() == []
        collect(domain)
        assert domain.garbage() == []

    def test_a_volume_of_the_same_id_can_be_made_while_the_old_one_is_still_garbage(self, domain: Domain) -> None:
        base = make(domain, new_raw())
        top = make_overlay(domain, base)
        with domain.lease(WAIT):
            left: Garbage = domain.unpublish_volume(top.image, top.volume, wipe=False)
        again_made = make(domain, new_raw(top.image, top.volume, first=False), content=[(0, b"new")])
        domain.reclaim(left)
        collect(domain)
        assert domain.garbage() == []
        assert is_published(domain, again_made)
        assert content_of(domain, again_made, 3) == b"new"


FIRST = new_raw()
