# SPDX-License-Identifier: Apache-2.0
"""The contract of a domain as a whole: made, found, opened, described, destroyed."""

from __future__ import annotations

import uuid

import pytest

from hsm.contract.base import MIB, WAIT, Contract, MakeDomain, again, make, new_raw
from hsm.domains.base import DRIVER_API, Capabilities, Domain, DomainMissing
from hsm.formats.volume import BadMetadata
from libvdsm.api.types import DomainId


class WholeContract(Contract):
    """Capabilities, create, discover, open, remains, metadata, space, destroy."""

    def test_capabilities_are_data(self, domain: Domain) -> None:
        driver = type(domain)
        assert isinstance(driver.capabilities, Capabilities)
        assert driver.capabilities.driver_api == DRIVER_API
        assert driver.capabilities.description
        assert "\n" not in driver.capabilities.description
        assert driver.type
        assert driver.type.isidentifier()

    def test_a_new_domain_is_empty_and_of_version_5(self, domain: Domain) -> None:
        found = domain.metadata()
        assert found.id == domain.id
        assert found.version == 5
        assert found.block_size in (512, 4096)
        assert found.alignment in (MIB, 2 * MIB, 4 * MIB, 8 * MIB)
        assert domain.image_ids() == []
        assert domain.garbage() == []

    def test_a_domain_has_the_name_that_it_was_given(self, domain: Domain) -> None:
        fields = domain.metadata().fields
        assert domain.metadata().description == fields["DESCRIPTION"] != ""
        assert fields["SDUUID"] == str(domain.id)

    def test_a_domain_is_found_where_it_was_made(self, make_domain: MakeDomain) -> None:
        one, other = make_domain(), make_domain()
        assert one.id in type(one).discover(one.path)
        assert other.id in type(other).discover(other.path)
        assert type(one).discover(one.path) == sorted(type(one).discover(one.path))

    def test_a_domain_that_is_opened_is_the_one_that_was_made(self, domain: Domain, other: Domain) -> None:
        assert (other.id, other.path, other.type) == (domain.id, domain.path, domain.type)
        assert dict(other.metadata().fields) == dict(domain.metadata().fields)

    def test_a_domain_that_is_not_there_is_missing(self, domain: Domain) -> None:
        with pytest.raises(DomainMissing):
            type(domain).open(DomainId(uuid.uuid4()), domain.path)

    def test_new_metadata_are_seen_by_everybody(self, domain: Domain, other: Domain) -> None:
        before = dict(domain.metadata().fields)
        with domain.lease(WAIT):
            domain.set_metadata(domain.metadata().with_description("näw & more"))
        for view in (domain, other, again(domain)):
            assert dict(view.metadata().fields) == {**before, "DESCRIPTION": "näw & more"}
        assert domain.garbage() == []

    def test_space_is_that_of_the_storage_beneath(self, domain: Domain) -> None:
        space = domain.space()
        assert 0 < space.free <= space.capacity

    def test_two_domains_share_nothing(self, make_domain: MakeDomain) -> None:
        one, other = make_domain(), make_domain()
        new = make(one, new_raw())
        assert one.image_ids() == [new.image]
        assert other.image_ids() == []
        assert other.find_volume(new.volume) is None
        with one.lease(WAIT), other.lease(WAIT):
            pass

    def test_a_destroyed_domain_is_gone_with_all_that_was_in_it(self, make_domain: MakeDomain) -> None:
        domain, stays = make_domain(), make_domain()
        make(domain, new_raw())
        new = make(stays, new_raw())
        with domain.lease(WAIT):
            domain.destroy()
        with pytest.raises(DomainMissing):
            again(domain)
        assert domain.id not in type(domain).discover(domain.path)
        assert again(stays).image_ids() == [new.image]

    def test_destroying_what_is_gone_changes_nothing(self, domain: Domain) -> None:
        domain.destroy()
        type(domain).remains(domain.id, domain.path).destroy()
        with pytest.raises(DomainMissing):
            again(domain)

    def test_a_domain_that_is_there_is_no_remainder(self, domain: Domain) -> None:
        make(domain, new_raw())
        with pytest.raises(BadMetadata):
            type(domain).remains(domain.id, domain.path)
        assert len(again(domain).image_ids()) == 1
