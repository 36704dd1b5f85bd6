# SPDX-License-Identifier: Apache-2.0
"""What all operations need: the service's parts, names of locks, and storage's errors in the API's words."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from hsm.config import HsmConfig
from hsm.domains.base import Domain, DomainMissing, LeaseBusy
from hsm.domains.registry import Registry
from hsm.events import EventLog
from hsm.formats.attributes import AttributesTooLong
from hsm.formats.description import TooLong
from hsm.formats.volume import BadMetadata
from hsm.keeper import Keepers
from hsm.tasks.locks import Lock, Locks
from hsm.tasks.manager import Job, Objects
from hsm.transfers.transfers import Transfers
from libvdsm.api.errors import (
    DomainBusy,
    DomainDamaged,
    DomainReadOnly,
    ImageInUse,
    InvalidParameter,
    NoSpace,
    StorageFailed,
    TaskStopped,
    ToolFailed,
)
from libvdsm.api.types import DomainId, ImageId
from libvdsm.declare import ApiError
from libvdsm.run import CommandError, CommandStopped, Runner

WRITABLE_VERSION = 5
_STOP_HEARD = 0.2
"""Seconds after which a task that waits for a domain's lease hears that it is to stop."""
_NO_SPACE = "No space left"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class Context:
    """The parts of the service that operations work with."""

    config: HsmConfig
    registry: Registry
    runner: Runner
    keepers: Keepers
    events: EventLog
    transfers: Transfers

    @property
    def lease_wait(self) -> float:
        return self.config.storage.lease_wait


class BaseOperation:
    """The usual answers; ``hsm.tasks.manager.Operation`` says what each means."""

    def __init__(self, context: Context, params: Any) -> None:
        self.context = context
        self.params = params

    @property
    def locks(self) -> Locks:
        return ()

    @property
    def objects(self) -> Objects:
        return Objects()

    @property
    def resumes(self) -> bool:
        return False

    def outcome(self) -> Any:
        return None

    def run(self, job: Job) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing was given to let go of."""


OperationFactory = Callable[[Context, msgspec.Struct], BaseOperation]


def lock_domain(domain: DomainId, *, shared: bool = True) -> Lock:
    """Shared by everything that works on a domain; exclusive for what takes it away."""
    return Lock(f"domain/{domain}", shared)


def lock_image(domain: DomainId, image: ImageId, *, shared: bool = False) -> Lock:
    return Lock(f"image/{domain}/{image}", shared)


@contextmanager
def storage_errors(context: Context, domain: DomainId, image: ImageId | None = None) -> Iterator[None]:
    """What storage, leases and tools raise, as declared errors of a domain and an image."""
    try:
        yield
    except LeaseBusy as error:
        raise _busy(context, error, domain, image) from None
    except CommandStopped:
        raise TaskStopped from None
    except CommandError as error:
        raise _tool_failed(error, domain) from None
    except TooLong as error:
        raise InvalidParameter(verb="name or description", reason=str(error)) from None
    except AttributesTooLong as error:
        raise InvalidParameter(verb="attributes", reason=str(error)) from None
    except BadMetadata as error:
        raise DomainDamaged(domain=domain, reason=str(error)) from None
    except DomainMissing as error:
        raise StorageFailed(domain=domain, reason=str(error)) from None
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        reason = f"{error.strerror or error}{where}"
        raise (NoSpace if error.errno in _FULL else StorageFailed)(domain=domain, reason=reason) from None


def _busy(context: Context, error: LeaseBusy, domain: DomainId, image: ImageId | None) -> ApiError:
    if error.volume is None or image is None:
        return DomainBusy(domain=domain, holder=error.holder, waited=0.0)
    holder = error.holder
    if keeper := context.keepers.find(domain, image):
        holder = f"its keeper, process {keeper.pid}: it is prepared on this host, until it is torn down"
    elif live := context.transfers.holder(domain, image):
        holder = f"transfer {live.record.id}, {live.record.direction.value}, which can be finished or cancelled"
    return ImageInUse(image=image, volume=error.volume, holder=holder, host=os.uname().nodename)


def _tool_failed(error: CommandError, domain: DomainId) -> ApiError:
    """Programs tell of a full or failing storage in words."""
    if _NO_SPACE in error.reason:
        return NoSpace(domain=domain, reason=error.reason)
    # QEMU calls it so too when what it reads contradicts itself.
    if "Input/output error" in error.reason and "corrupt" not in error.reason:
        return StorageFailed(domain=domain, reason=error.reason)
    return ToolFailed(tool=error.program, reason=error.reason)


@contextmanager
def written_to(target: Domain) -> Iterator[None]:
    """What is full is the domain that is written, also where another one is read."""
    try:
        yield
    except (OSError, CommandError) as error:
        if reason := full(error):
            raise NoSpace(domain=target.id, reason=reason) from None
        raise


def full(error: Exception) -> str | None:
    """The words of an error that says that there is no space left, or None."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return error.strerror or str(error)
    return error.reason if isinstance(error, CommandError) and _NO_SPACE in error.reason else None


@contextmanager
def domain_lease(context: Context, domain: Domain, job: Job | None = None) -> Iterator[None]:
    """Hold a domain's own lease, for one batch of changes of its metadata.

    ``job``: the task that waits, which hears a stop meanwhile.  What takes back or finishes is not stopped.
    """
    with ExitStack() as held:
        _wait_for_lease(context.lease_wait, domain, held, job)
        # Everything that a change rests on is read again once the lease is held; this first.
        writable(domain)
        yield


def _wait_for_lease(wait: float, domain: Domain, held: ExitStack, job: Job | None) -> None:
    until = time.monotonic() + wait
    while True:
        if job is not None:
            job.check()
        left = max(0.0, until - time.monotonic())
        try:
            held.enter_context(domain.lease(left if job is None else min(left, _STOP_HEARD)))
        except LeaseBusy as error:
            if time.monotonic() >= until:
                raise DomainBusy(domain=domain.id, holder=error.holder, waited=wait) from None
        else:
            return


def writable(domain: Domain) -> None:
    """The domain's layout is one that this service changes."""
    if (version := domain.metadata().version) != WRITABLE_VERSION:
        reason = f"its layout is version {version}, and only version {WRITABLE_VERSION} is written"
        raise DomainReadOnly(domain=domain.id, reason=reason)
