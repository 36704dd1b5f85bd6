# SPDX-License-Identifier: Apache-2.0
"""The contract of glances: whatever anybody did to a domain, a list shows it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from hsm.contract.base import (
    MIB,
    WAIT,
    Contract,
    again,
    make,
    make_overlay,
    make_template,
    metadata_of,
    new_raw,
    write,
)
from hsm.domains.base import Domain, NewVolume
from hsm.formats.attributes import NONE
from libvdsm.api.types import Allocation, VolumeRole

_SETTLES = 1.2
"""Seconds after which a driver may rely on what it read."""


class Scene:
    """A base with a layer on it, and a template with a clone; ``watcher`` looks at them again and again."""

    def __init__(self, watcher: Domain) -> None:
        self.watcher = watcher
        self.base = make(watcher, new_raw())
        self.layer = make_overlay(watcher, self.base, sequence=2)
        self.template = make_template(watcher)
        self.clone = make_overlay(watcher, self.template, clone=True)

    def is_seen(self) -> bool:
        """Whether the watcher sees what lies on storage."""
        images = (self.base.image, self.template.image, self.clone.image)
        return all(self.watcher.glance(image) == again(self.watcher).image(image) for image in images)


def _rewritten(domain: Domain, new: NewVolume, **changed: Any) -> None:
    domain.rewrite(new.image, new.volume, metadata_of(domain, new, **changed))


def _unpublished(scene: Scene, domain: Domain) -> None:
    domain.unpublish_volume(scene.layer.image, scene.layer.volume, wipe=False)


def _deleted(scene: Scene, domain: Domain) -> None:
    domain.reclaim(domain.unpublish_image(scene.clone.image, wipe=False))


def _tagged(scene: Scene, domain: Domain) -> None:
    domain.set_attributes(scene.base.image, NONE.with_tags(("gold",)))


def _template_tagged(scene: Scene, domain: Domain) -> None:
    domain.set_attributes(scene.template.image, NONE.with_tags(("gold",), scene.template.volume))


def _longer(scene: Scene, domain: Domain) -> None:
    domain.extend_data(scene.base.image, scene.base.volume, 2 * MIB, Allocation.SPARSE)


def _linked(scene: Scene, domain: Domain) -> None:
    domain.link_template(scene.base.image, scene.template.image, scene.template.volume)


UNDER_LEASE: dict[str, Callable[[Scene, Domain], None]] = {
    "metadata": lambda scene, domain: _rewritten(domain, scene.base, description="new"),
    "a template's metadata": lambda scene, domain: _rewritten(domain, scene.template, role=VolumeRole.TEMPLATE),
    "a volume less": _unpublished,
    "an image less": _deleted,
    "a length": _longer,
    "tags": _tagged,
    "a template's tags": _template_tagged,
    "a link more": _linked,
}
AS_PROGRAMS_DO: dict[str, Callable[[Scene, Domain], object]] = {
    "a volume more": lambda scene, domain: make_overlay(domain, scene.layer, sequence=3),
    "data": lambda scene, domain: write(domain, scene.base, b"data", MIB // 2),
    "a header": lambda scene, domain: write(domain, scene.layer, (2 * MIB).to_bytes(8, "big"), 24),
}


class GlanceContract(Contract):
    """glance"""

    def test_whatever_another_service_changes_is_seen(self, domain: Domain, other: Domain) -> None:
        scenes = {change: Scene(domain) for change in (*UNDER_LEASE, *AS_PROGRAMS_DO)}
        assert all(scene.is_seen() for scene in scenes.values())
        time.sleep(_SETTLES)
        for _ in range(2):
            assert all(scene.is_seen() for scene in scenes.values())
        with other.lease(WAIT):
            for change, under_lease in UNDER_LEASE.items():
                under_lease(scenes[change], other)
        for change, as_programs_do in AS_PROGRAMS_DO.items():
            as_programs_do(scenes[change], other)
        assert [change for change, scene in scenes.items() if not scene.is_seen()] == []

    def test_changes_that_follow_each_other_at_once_are_seen(self, domain: Domain, other: Domain) -> None:
        new = make(domain, new_raw())
        for number in range(100):
            with other.lease(WAIT):
                _rewritten(other, new, generation=number)
            record = domain.glance(new.image)
            assert record is not None
            assert record.volumes[new.volume].metadata.generation == number

    def test_nothing_is_seen_where_nothing_is(self, domain: Domain) -> None:
        assert domain.glance(new_raw().image) is None
