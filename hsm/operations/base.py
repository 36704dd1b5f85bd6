# SPDX-License-Identifier: Apache-2.0
"""What all operations need: the service's parts, names of locks, and storage's errors in the API's words."""

from __future__ import annotations

import errno
import os
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
from hsm.secrets import Secrets
from hsm.tasks.locks import Lock, Locks
from hsm.tasks.manager import Job, Objects
from hsm.tools.keys import KeyRefused
from hsm.transfers.transfers import Transfers
from libvdsm.api.errors import (
    DomainBusy,
    DomainDamaged,
    DomainReadOnly,
    ImageInUse,
    InvalidParameter,
    NoSpace,
    SecretWrong,
    StorageFailed,
    TaskStopped,
    ToolFailed,
)
from libvdsm.api.types import DomainId, ImageId, SecretId
from libvdsm.declare import ApiError
from libvdsm.run import CommandError, CommandStopped, Runner

WRITABLE_VERSION = 5
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
    secrets: Secrets

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
    except KeyRefused as error:
        raise SecretWrong(secret=SecretId(error.secret)) from None
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
        holder = f"its keeper, process {keeper.pid}: it is prepared on this host"
    elif live := context.transfers.holder(domain, image):
        holder = f"transfer {live.record.id}, {live.record.direction.value}"
    return ImageInUse(image=image, volume=error.volume, holder=holder, host=os.uname().nodename)


def _tool_failed(error: CommandError, domain: DomainId) -> ApiError:
    """Programs tell of a full or failing storage in words."""
    if "No space left" in error.reason:
        return NoSpace(domain=domain, reason=error.reason)
    # QEMU calls it so too when what it reads contradicts itself.
    if "Input/output error" in error.reason and "corrupt" not in error.reason:
        return StorageFailed(domain=domain, reason=error.reason)
    return ToolFailed(tool=error.program, reason=error.reason)


@contextmanager
def domain_lease(context: Context, domain: Domain) -> Iterator[None]:
    """Hold a domain's own lease, for one batch of changes of its metadata."""
    wait = context.lease_wait
    with ExitStack() as held:
        try:
            held.enter_context(domain.lease(wait))
        except LeaseBusy as error:
            raise DomainBusy(domain=domain.id, holder=error.holder, waited=wait) from None
        # Everything that a change rests on is read again once the lease is held; this first.
        writable(domain)
        yield


def writable(domain: Domain) -> None:
    """The domain's layout is one that this service changes."""
    if (version := domain.metadata().version) != WRITABLE_VERSION:
        reason = f"its layout is version {version}, and only version {WRITABLE_VERSION} is written"
        raise DomainReadOnly(domain=domain.id, reason=reason)
