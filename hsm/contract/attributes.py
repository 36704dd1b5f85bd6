# SPDX-License-Identifier: Apache-2.0
"""The contract of attributes: what is kept of an image beside the metadata of its volumes."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest

from hsm.contract.base import MIB, WAIT, Contract, again, content_of, make, make_overlay, new_raw
from hsm.contract.garbage import collect
from hsm.contract.volumes import is_published
from hsm.domains.base import Domain
from hsm.formats import attributes
from hsm.formats.attributes import Attributes, AttributesTooLong, Making, Shrink, VolumeAttributes
from libvdsm.api.types import VolumeId


class AttributesContract(Contract):
    """set_attributes, shrink_data, and images in the making."""

    def test_an_image_has_none_at_first(self, domain: Domain) -> None:
        record = domain.image(make(domain, new_raw()).image)
        assert record is not None
        assert record.attributes == attributes.NONE

    def test_what_was_written_is_read_by_everybody(self, domain: Domain) -> None:
        new, other = make(domain, new_raw()), make(domain, new_raw())
        kept = Attributes(
            tags=("backup", "größer"),
            volumes={new.volume: VolumeAttributes(tags=("first",), expires=2e9)},
            intent=Shrink(volume=new.volume, capacity=512),
            secret=uuid.uuid4(),
        )
        for written in (kept, Attributes(tags=("other",)), attributes.NONE):
            with domain.lease(WAIT):
                domain.set_attributes(new.image, written)
            record = again(domain).image(new.image)
            assert record is not None
            assert record.attributes == written
            assert not record.damaged
        untouched = domain.image(other.image)
        assert untouched is not None
        assert untouched.attributes == attributes.NONE
        assert domain.garbage() == []

    def test_a_volume_tells_its_tags(self, domain: Domain) -> None:
        new = make(domain, new_raw())
        kept: dict[uuid.UUID, VolumeAttributes] = {
            new.volume: VolumeAttributes(tags=("first", "größer")),
            uuid.uuid4(): VolumeAttributes(tags=("of what is gone",)),
        }
        with domain.lease(WAIT):
            domain.set_attributes(new.image, Attributes(tags=("of the image",), volumes=kept))
        record = again(domain).image(new.image)
        assert record is not None
        assert {volume.id: volume.tags for volume in record.volumes.values()} == {new.volume: ("first", "größer")}

    def test_what_does_not_fit_is_refused_and_changes_nothing(self, domain: Domain) -> None:
        new = make(domain, new_raw())
        with domain.lease(WAIT):
            domain.set_attributes(new.image, Attributes(tags=("kept",)))
            with pytest.raises(AttributesTooLong):
                domain.set_attributes(new.image, Attributes(tags=("x" * attributes.LIMIT,)))
        record = domain.image(new.image)
        assert record is not None
        assert record.attributes == Attributes(tags=("kept",))

    def test_they_go_with_their_image(self, domain: Domain) -> None:
        new = make(domain, new_raw())
        with domain.lease(WAIT):
            domain.set_attributes(new.image, Attributes(tags=("old",)))
            left = domain.unpublish_image(new.image, wipe=False)
        assert domain.reclaim(left) is not None
        assert domain.garbage() == []
        made_again = make(domain, new_raw(new.image))
        record = domain.image(made_again.image)
        assert record is not None
        assert record.attributes == attributes.NONE

    def test_a_clone_has_its_own(self, domain: Domain) -> None:
        template = make(domain, new_raw())
        with domain.lease(WAIT):
            domain.set_attributes(template.image, Attributes(tags=("template",)))
        clone = make_overlay(domain, template, clone=True)
        record = domain.image(clone.image)
        assert record is not None
        assert record.attributes == attributes.NONE

    # ---- in the making

    def test_an_image_in_the_making_is_not_there_before_its_leaf(self, domain: Domain) -> None:
        leaf = VolumeId(uuid.uuid4())
        new = new_raw()
        with domain.lease(WAIT):
            held = domain.begin_volume(new)
            domain.set_attributes(new.image, Attributes(making=Making(leaf=leaf)))
        held.release()
        base = make(domain, replace(new, first=False))
        record = again(domain).image(base.image)
        assert record is not None
        assert not record.published
        assert [garbage.begun for garbage in domain.garbage()] == [True]
        top = make(domain, new_raw(new.image, leaf, first=False))
        record = again(domain).image(base.image)
        assert record is not None
        assert record.published
        assert domain.garbage() == []
        assert None not in collect(domain)
        assert is_published(domain, base)
        assert is_published(domain, top)

    def test_what_a_crash_left_of_one_is_given_back_as_a_whole(self, domain: Domain) -> None:
        new, stays = new_raw(), make(domain, new_raw(), content=[(0, b"kept")])
        with domain.lease(WAIT):
            held = domain.begin_volume(new)
            domain.set_attributes(new.image, Attributes(making=Making(leaf=uuid.uuid4())))
        held.release()
        make(domain, replace(new, first=False), content=[(0, b"x" * 4096)])
        assert None not in collect(again(domain))
        assert domain.image_ids() == [stays.image]
        assert domain.garbage() == []
        assert content_of(domain, stays, 4) == b"kept"

    def test_one_whose_maker_lives_is_left_alone(self, domain: Domain, other: Domain) -> None:
        new = new_raw()
        leaf = new_raw(new.image, first=False)
        with domain.lease(WAIT):
            helds = [domain.begin_volume(new)]
            domain.set_attributes(new.image, Attributes(making=Making(leaf=leaf.volume)))
            helds.append(domain.begin_volume(leaf))
        assert set(collect(other)) == {None}
        helds.pop().release()
        assert set(collect(other)) == {None}, "one lease is as good as all"
        helds.pop().release()
        assert None not in collect(other)
        assert domain.image_ids() == []

    # ---- cut

    def test_raw_data_is_cut_and_what_is_before_the_end_stays(self, domain: Domain) -> None:
        new = make(domain, new_raw(), content=[(0, b"kept"), (MIB // 2, b"lost")])
        domain.shrink_data(new.image, new.volume, MIB // 2)
        record = again(domain).image(new.image)
        assert record is not None
        assert content_of(domain, new, 4) == b"kept"
        assert record.volumes[new.volume].length == MIB // 2 or domain.capabilities.block
        domain.shrink_data(new.image, new.volume, MIB)
        assert content_of(domain, new, 4) == b"kept", "nothing grows"
