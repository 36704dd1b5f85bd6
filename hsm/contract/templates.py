# SPDX-License-Identifier: Apache-2.0
"""The contract of templates: a clone reaches its template's volume under its own name, and owns nothing of it."""

from __future__ import annotations

import pytest

from hsm.contract.base import (
    WAIT,
    Contract,
    again,
    content_of,
    make,
    make_overlay,
    make_template,
    metadata_of,
    new_raw,
    write,
)
from hsm.contract.leases import exclusive, is_free, shared
from hsm.domains.base import Domain, Wanted
from libvdsm.api.types import VolumeRole


class TemplateContract(Contract):
    """begin_volume with a template, clones, and what image tells of linked volumes."""

    def test_a_clone_has_its_own_volume_and_its_template_s(self, domain: Domain, other: Domain) -> None:
        template = make_template(domain)
        clone = make_overlay(domain, template, clone=True)
        record = other.image(clone.image)
        assert record is not None
        assert record.published
        assert record.volumes.keys() == {clone.volume, template.volume}
        assert [volume.id for volume in record.own] == [clone.volume]
        assert [volume.id for volume in record.leaves()] == [clone.volume]
        linked = record.volumes[template.volume]
        assert linked.is_linked
        assert (linked.folder, linked.metadata.image) == (clone.image, template.image)
        assert linked.metadata.role is VolumeRole.TEMPLATE

    def test_a_template_s_data_are_reached_through_the_clone(self, domain: Domain) -> None:
        template = make_template(domain)
        clone = make_overlay(domain, template, clone=True)
        with open(domain.data_path(clone.image, template.volume), "rb") as file:
            assert file.read(8) == b"template"
        write(domain, clone, b"clone", 4096)
        assert content_of(domain, template, 8) == b"template"

    def test_a_volume_is_found_where_it_belongs(self, domain: Domain) -> None:
        template = make_template(domain)
        clones = [make_overlay(domain, template, clone=True) for _ in range(3)]
        assert domain.find_volume(template.volume) == template.image
        assert [domain.find_volume(clone.volume) for clone in clones] == [clone.image for clone in clones]

    def test_clones_are_counted(self, domain: Domain) -> None:
        template, lonely = make_template(domain), make_template(domain)
        image = make(domain, new_raw())
        assert domain.clones(template.image) == 0
        clones = [make_overlay(domain, template, clone=True) for _ in range(3)]
        assert domain.clones(template.image) == again(domain).clones(template.image) == 3
        assert domain.clones(lonely.image) == domain.clones(image.image) == domain.clones(clones[0].image) == 0
        with domain.lease(WAIT):
            left = domain.unpublish_image(clones[0].image, wipe=False)
        domain.reclaim(left)
        assert domain.clones(template.image) == 2

    def test_a_clone_that_is_being_made_counts_already(self, domain: Domain) -> None:
        template = make_template(domain)
        new = new_raw(template=(template.image, template.volume))
        with domain.lease(WAIT):
            held = domain.begin_volume(new)
        assert again(domain).clones(template.image) == 1
        record = again(domain).image(new.image)
        assert record is None or not record.published
        held.release()
        with domain.lease(WAIT):
            domain.abandon(new.image, new.volume)
        assert domain.clones(template.image) == 0
        assert content_of(domain, template, 8) == b"template"

    def test_a_template_has_one_lease_by_whichever_name(self, domain: Domain, other: Domain) -> None:
        template = make_template(domain)
        clone = make_overlay(domain, template, clone=True)
        held = domain.acquire([Wanted(template.volume, clone.image, shared=True)])
        assert is_free(other, shared(template))
        assert not is_free(other, exclusive(template))
        held.release()
        held = domain.acquire(exclusive(template))
        assert not is_free(other, [Wanted(template.volume, clone.image, shared=True)])
        held.release()

    def test_what_a_template_s_metadata_say_now_is_told_in_clones(self, domain: Domain, other: Domain) -> None:
        template = make_template(domain)
        clone = make_overlay(domain, template, clone=True)
        changed = metadata_of(domain, template, role=VolumeRole.TEMPLATE, description="new", generation=1)
        with domain.lease(WAIT):
            domain.rewrite(template.image, template.volume, changed)
        record = other.image(clone.image)
        assert record is not None
        assert record.volumes[template.volume].metadata == changed

    def test_a_template_is_linked_into_an_image_and_out_of_it(self, domain: Domain, other: Domain) -> None:
        template, image = make_template(domain), make(domain, new_raw())
        for _ in range(2):  # the second time there is nothing to do
            with domain.lease(WAIT):
                domain.link_template(image.image, template.image, template.volume)
            record = other.image(image.image)
            assert record is not None
            assert record.volumes[template.volume].is_linked
            assert [volume.id for volume in record.own] == [image.volume]
            assert other.clones(template.image) == 1
            held = domain.acquire([Wanted(template.volume, image.image, shared=True)])
            assert not is_free(other, exclusive(template))
            held.release()
        for _ in range(2):
            with domain.lease(WAIT):
                domain.unlink_template(image.image, template.volume)
            record = other.image(image.image)
            assert record is not None
            assert record.volumes.keys() == {image.volume}
            assert other.clones(template.image) == 0
        assert content_of(domain, template, 8) == b"template"
        assert is_free(other, exclusive(template))
        assert other.garbage() == []

    def test_an_image_s_own_volume_is_never_unlinked(self, domain: Domain) -> None:
        template = make_template(domain)
        make_overlay(domain, template, clone=True)
        with domain.lease(WAIT), pytest.raises(OSError, match="no link"):
            domain.unlink_template(template.image, template.volume)
        assert content_of(domain, template, 8) == b"template"
