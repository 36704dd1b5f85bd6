# SPDX-License-Identifier: Apache-2.0
"""Domains: made, attached, renamed, detached, destroyed.

Commit points: a new domain's metadata file appears; a text changes by one rename; a domain is destroyed when its
folder has lost its name.  Which domains are served is this service's own matter, one file, replaced as a whole.  An
interrupted format is taken up again; everything else is done or not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from hsm.domains import presence
from hsm.domains.base import Domain, DomainMissing
from hsm.domains.registry import Attached
from hsm.formats.volume import BadMetadata
from hsm.operations import describe
from hsm.operations.base import (
    BaseOperation,
    Context,
    domain_lease,
    lock_domain,
    storage_errors,
)
from hsm.operations.collecting import collect
from hsm.tasks.locks import Lock, Locks
from hsm.tasks.manager import Job, Objects
from libvdsm.api.domain import DomainInfo
from libvdsm.api.errors import (
    DomainDamaged,
    DomainExists,
    DomainInUse,
    DomainNotEmpty,
    DomainNotFound,
    NoSuchDomain,
    PathNotUsable,
)
from libvdsm.api.event import DomainAttached, DomainChanged, DomainDetached
from libvdsm.api.types import DomainId, Nothing
from libvdsm.declare import ApiError
from libvdsm.log import Log

log = Log("hsm.domains")


def info_of(context: Context, domain: DomainId) -> DomainInfo:
    """A domain, also one that cannot be reached."""
    attached = context.registry.find(domain)
    try:
        with storage_errors(context, domain):
            return describe.domain_info(attached, context.registry.get(domain).metadata(), None)
    except ApiError as error:
        return describe.domain_info(attached, None, error.message)


def serve(context: Context, domain: Domain) -> DomainInfo:
    """Serve a domain from now on."""
    metadata = domain.metadata()
    context.registry.attach(Attached(domain.id, domain.type, domain.path), domain)
    context.events.emit(DomainAttached(domain=domain.id, name=metadata.description))
    return describe.domain_info(context.registry.find(domain.id), metadata, None)


class _DomainOperation(BaseOperation):
    @property
    def locks(self) -> Locks:
        return (lock_domain(self.params.domain),)

    @property
    def objects(self) -> Objects:
        return Objects(self.params.domain)


class CreateDomain(BaseOperation):
    """Domain.create.  ``params.id`` was filled in by the service.

    Taken up again after a restart: a half-made domain has no place in which a collector would look for it.
    """

    @property
    def resumes(self) -> bool:
        return True

    @property
    def locks(self) -> Locks:
        # One at a time at a path: two domains being made there do not know of each other.
        return lock_domain(self.params.id, shared=False), Lock(f"path/{self.params.path}")

    @property
    def objects(self) -> Objects:
        return Objects(self.params.id)

    def _existing(self) -> Domain | None:
        driver = self.context.registry.driver(self.params.type)
        try:
            return driver.open(self.params.id, self.params.path)
        except DomainMissing as error:
            if self.params.id in driver.discover(self.params.path):
                raise DomainExists(domain=self.params.id, reason=str(error)) from None
            return None
        except BadMetadata as error:
            raise DomainExists(domain=self.params.id, reason=str(error)) from None

    def outcome(self) -> DomainInfo | None:
        usable_folder(self.params.path)
        with storage_errors(self.context, self.params.id):
            existing = self._existing()
            if existing is None:
                return None
            if existing.metadata().description != self.params.name:
                raise DomainExists(domain=self.params.id, reason=f"its name is {existing.metadata().description!r}")
            return serve(self.context, existing)

    def run(self, job: Job) -> DomainInfo:
        job.progress("making the domain")
        driver = self.context.registry.driver(self.params.type)
        with storage_errors(self.context, self.params.id):
            job.commit()
            try:
                made = driver.create(self.params.id, self.params.path, self.params.name)
            except FileExistsError as error:
                raise DomainExists(domain=self.params.id, reason=error.strerror or str(error)) from None
            try:
                return serve(self.context, made)
            except OSError:
                if all(item.id != made.id for item in self.context.registry.all()):
                    made.destroy()
                raise


def usable_folder(path: str) -> None:
    """A folder that this service can make something in."""
    try:
        is_folder = presence.is_folder(path)
    except OSError as error:
        raise PathNotUsable(path=path, reason=error.strerror or str(error)) from None
    if not is_folder:
        raise PathNotUsable(path=path, reason="it is no folder; make it first")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise PathNotUsable(path=path, reason="this service may not write there")


class AttachDomain(BaseOperation):
    """Domain.attach"""

    @property
    def locks(self) -> Locks:
        return (Lock(f"path/{self.params.path}"),)

    @property
    def objects(self) -> Objects:
        return Objects(self.params.id)

    def outcome(self) -> DomainInfo | None:
        path = os.path.realpath(self.params.path)
        attached = [item for item in self.context.registry.all() if os.path.realpath(item.path) == path]
        if self.params.id is not None:
            attached = [item for item in attached if item.id == self.params.id]
        elif attached:
            driver = self.context.registry.driver(self.params.type)
            attached = [item for item in attached if [item.id] == driver.discover(path)]
        return info_of(self.context, attached[0].id) if attached else None

    def run(self, job: Job) -> DomainInfo:
        job.progress("attaching")
        driver = self.context.registry.driver(self.params.type)
        path = self.params.path
        domain = self.params.id or self._only_one(driver, path)
        try:
            opened = driver.open(domain, path)
        except DomainMissing as error:
            raise DomainNotFound(path=path, reason=str(error)) from None
        except BadMetadata as error:
            raise DomainDamaged(domain=domain, reason=str(error)) from None
        except OSError as error:
            raise DomainNotFound(path=path, reason=error.strerror or str(error)) from None
        self._no_other_place(domain, path)
        with storage_errors(self.context, domain):
            info = serve(self.context, opened)
        job.progress("collecting garbage")
        try:
            with storage_errors(self.context, domain):
                collect(self.context, opened, job)
        except ApiError as error:
            # Served it is; a domain that can only be read keeps its garbage.
            log.info("garbage stays", domain=domain, reason=error.message)
        return info

    def _only_one(self, driver: type[Domain], path: str) -> DomainId:
        try:
            found = driver.discover(path)
        except OSError as error:
            raise DomainNotFound(path=path, reason=error.strerror or str(error)) from None
        if len(found) != 1:
            names = ", ".join(str(domain) for domain in found)
            raise DomainNotFound(path=path, reason=f"it holds {len(found)} domains{': ' + names if names else ''}")
        return found[0]

    def _no_other_place(self, domain: DomainId, path: str) -> None:
        for attached in self.context.registry.all():
            if attached.id == domain and os.path.realpath(attached.path) != os.path.realpath(path):
                raise DomainExists(domain=domain, reason=f"it is attached from {attached.path}")


@contextmanager
def not_in_use(context: Context, domain: DomainId) -> Iterator[None]:
    """No image of the domain is prepared on this host."""
    users = [keeper for keeper in context.keepers.all() if keeper.domain == domain]
    if users:
        raise DomainInUse(
            domain=domain, reason=f"{len(users)} image(s) are prepared on this host; tear them down first"
        )
    if transfers := context.transfers.of_domain(domain):
        reason = f"{transfers} transfer(s) have not ended; finish or cancel them first, see Transfer.list"
        raise DomainInUse(domain=domain, reason=reason)
    yield


class DetachDomain(_DomainOperation):
    """Domain.detach"""

    @property
    def locks(self) -> Locks:
        return (lock_domain(self.params.domain, shared=False),)

    def outcome(self) -> Nothing | None:
        attached = {item.id for item in self.context.registry.all()}
        return None if self.params.domain in attached else Nothing()

    def run(self, job: Job) -> Nothing:
        job.progress("detaching")
        domain = self.params.domain
        with storage_errors(self.context, domain), not_in_use(self.context, domain):
            self.context.registry.find(domain)
            job.commit()
            self.context.registry.detach(domain)
        self.context.events.emit(DomainDetached(domain=domain))
        return Nothing()


class SetDomainDescription(_DomainOperation):
    """Domain.setDescription"""

    def outcome(self) -> DomainInfo | None:
        domain = self.context.registry.get(self.params.domain)
        with storage_errors(self.context, domain.id):
            if domain.metadata().description != self.params.description:
                return None
        return info_of(self.context, domain.id)

    def run(self, job: Job) -> DomainInfo:
        job.progress("changing the domain")
        domain = self.context.registry.get(self.params.domain)
        with storage_errors(self.context, domain.id), domain_lease(self.context, domain, job):
            job.commit()
            domain.set_metadata(domain.metadata().with_description(self.params.description))
        self.context.events.emit(DomainChanged(domain=domain.id))
        return info_of(self.context, domain.id)


class FormatDomain(_DomainOperation):
    """Domain.format"""

    @property
    def locks(self) -> Locks:
        return (lock_domain(self.params.domain, shared=False),)

    @property
    def resumes(self) -> bool:
        return True

    def outcome(self) -> Nothing | None:
        try:
            self.context.registry.find(self.params.domain)
        except NoSuchDomain:
            return Nothing()
        return None

    def run(self, job: Job) -> Nothing:
        job.progress("destroying the domain")
        attached = self.context.registry.find(self.params.domain)
        driver = self.context.registry.driver(attached.type)
        with storage_errors(self.context, attached.id), not_in_use(self.context, attached.id):
            try:
                domain = driver.open(attached.id, attached.path)
            except DomainMissing:
                # Interrupted after its commit point: what is left is given back.
                driver.remains(attached.id, attached.path).destroy()
            else:
                self._refuse_or_destroy(job, domain)
            self.context.registry.detach(attached.id)
        self.context.events.emit(DomainDetached(domain=attached.id))
        return Nothing()

    def _refuse_or_destroy(self, job: Job, domain: Domain) -> None:
        images = sum(
            record is not None and record.published for record in (domain.image(image) for image in domain.image_ids())
        )
        if images and not self.params.force:
            raise DomainNotEmpty(domain=domain.id, images=images)
        with domain_lease(self.context, domain, job):
            job.commit()
            domain.destroy()
