# SPDX-License-Identifier: Apache-2.0
"""Domain: the places where images lie."""

from __future__ import annotations

from typing import Any

from hsm.operations import checking, describe
from hsm.operations.base import storage_errors
from hsm.operations.domains import info_of
from hsm.paging import Listing, page
from hsm.services.base import Service
from libvdsm.api.domain import (
    CheckReport,
    Domain,
    DomainDump,
    DomainInfo,
    DomainPage,
    DomainStats,
    GarbageReport,
)
from libvdsm.api.types import DomainId, Nothing, TaskInfo


class DomainService(Service, Domain):
    def create(
        self,
        *,
        name: str,
        path: str,
        type: str = "local",
        id: DomainId | None = None,
    ) -> TaskInfo[DomainInfo]:
        self.context.registry.driver(type)
        new = id or DomainId(self.new_id("domain"))
        return self.submit("Domain.create", name=name, path=path, type=type, id=new)

    def attach(
        self,
        *,
        path: str,
        type: str = "local",
        id: DomainId | None = None,
    ) -> TaskInfo[DomainInfo]:
        self.context.registry.driver(type)
        return self.submit("Domain.attach", path=path, type=type, id=id)

    def detach(self, *, domain: DomainId) -> TaskInfo[Nothing]:
        self.context.registry.find(domain)
        return self.submit("Domain.detach", domain=domain)

    def list(
        self, *, filter: str | None = None, sort: str | None = None, limit: int = 1000, start: str | None = None
    ) -> DomainPage:
        listing = Listing("Domain.list", DomainInfo, default="name", filter=filter, sort=sort, start=start)
        found = [info_of(self.context, item.id) for item in self.context.registry.all()]
        items, following = listing.page(found, limit)
        return DomainPage(items=items, next=following)

    def get_info(self, *, domain: DomainId) -> DomainInfo:
        return info_of(self.context, domain)

    def get_stats(self, *, domain: DomainId) -> DomainStats:
        opened = self.context.registry.get(domain)
        images = volumes = actual = promised = 0
        with storage_errors(self.context, domain):
            for image in opened.image_ids():
                record = opened.glance(image)
                if record is None or not record.published:
                    continue
                images += 1
                volumes += len(record.own)
                actual += sum(volume.actual_size for volume in record.own)
                promised += sum(leaf.metadata.capacity for leaf in record.leaves())
            space = opened.space()
            garbage = len(opened.garbage())
        prepared = sum(keeper.domain == domain for keeper in self.context.keepers.all())
        return DomainStats(
            id=domain,
            capacity=space.capacity,
            free=space.free,
            images=images,
            volumes=volumes,
            actual_size=actual,
            promised=promised,
            garbage=garbage,
            prepared=prepared,
        )

    def set_description(self, *, domain: DomainId, description: str) -> TaskInfo[DomainInfo]:
        self.context.registry.find(domain)
        return self.submit("Domain.setDescription", domain=domain, description=description)

    def format(self, *, domain: DomainId, force: bool = False) -> TaskInfo[Nothing]:
        self.context.registry.find(domain)
        return self.submit("Domain.format", domain=domain, force=force)

    def check(self, *, domain: DomainId, deep: bool = False) -> TaskInfo[CheckReport]:
        self.context.registry.find(domain)
        return self.submit("Domain.check", domain=domain, deep=deep)

    def dump(self, *, domain: DomainId, limit: int = 10_000, start: str | None = None) -> DomainDump:
        opened = self.context.registry.get(domain)
        volumes: list[Any] = []
        damaged: list[Any] = []
        with storage_errors(self.context, domain):
            metadata = opened.metadata()
            ids, following = page(opened.image_ids(), str, limit, start)
            for image in ids:
                record = opened.image(image)
                if record is not None:
                    damaged += checking.check_image(opened, record)
                if record is not None and record.published:
                    volumes += describe.volume_infos(domain, record)
            garbage = [found.path for found in opened.garbage()]
        return DomainDump(
            domain=info_of(self.context, domain),
            metadata=dict(metadata.fields),
            volumes=volumes,
            damaged=damaged,
            garbage=garbage,
            facts={},
            next=following,
        )

    def collect_garbage(self, *, domain: DomainId) -> TaskInfo[GarbageReport]:
        self.context.registry.find(domain)
        return self.submit("Domain.collectGarbage", domain=domain)
