# SPDX-License-Identifier: Apache-2.0
"""Making an image of several volumes: garbage first, the base published first, the leaf last.

Commit point: the publication of the leaf.  Until then the image's attributes say that it is in the making and name
that leaf, so nobody takes the part of it that is there already for the image.  The maker holds the leases of all new
volumes from the beginning to the end.  An image of one volume needs no such word.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import msgspec

from hsm.domains.base import Domain, Held
from hsm.formats import attributes as attributes_format
from hsm.formats.attributes import Attributes, Making
from hsm.operations.base import Context, domain_lease
from hsm.operations.making import Plan, abandon
from hsm.tasks.manager import Job
from libvdsm.api.event import VolumeCreated
from libvdsm.log import Log

log = Log("hsm.making")


@dataclass(frozen=True)
class Chain:
    """An image to be made, as decided from what is on storage: its volumes, the base first."""

    plans: list[Plan]
    attributes: Attributes = attributes_format.NONE


def nothing_more() -> None:
    """Nothing more has to be done before the image is published."""


def make_chain(
    job: Job,
    context: Context,
    domain: Domain,
    decide: Callable[[], Chain],
    fill: Callable[[Chain, list[Held]], None],
    *,
    ready: Callable[[], None] = nothing_more,
) -> None:
    """Make and publish an image.

    ``decide`` reads storage and says what to make, or raises; it is asked whenever the domain's lease was taken, and
    names the same volumes each time.  ``fill`` makes the data, stable when it returns.  ``ready`` is done between
    that and the publication, without the domain's lease.
    """
    with ExitStack() as undo:
        held: list[Held] = []
        with domain_lease(context, domain, job):
            chain = decide()
            for plan in chain.plans:
                undo.callback(abandon, context, domain, plan.new)
            # All are let go of before the first is given back: a part of an image is given back as a whole.
            undo.callback(_release, held)
            for plan in chain.plans:
                held.append(domain.begin_volume(plan.new))  # noqa: PERF401  what one failure leaves is let go of
        fill(chain, held)
        ready()
        with domain_lease(context, domain, job):
            chain = decide()
            _publish(job, domain, chain)
            undo.pop_all()
            _forget_making(domain, chain)
        _release(held)
    for plan in chain.plans:
        context.events.emit(VolumeCreated(domain=domain.id, image=plan.new.image, volume=plan.new.volume))


def _publish(job: Job, domain: Domain, chain: Chain) -> None:
    leaf = chain.plans[-1].new
    making = Making(leaf=leaf.volume) if len(chain.plans) > 1 else None
    first = msgspec.structs.replace(chain.attributes, making=making)
    if first != attributes_format.NONE:
        domain.set_attributes(leaf.image, first)
    job.commit()
    for plan in chain.plans:
        domain.publish(plan.new.image, plan.new.volume, plan.metadata)


def _forget_making(domain: Domain, chain: Chain) -> None:
    """The image is there; that it was in the making is of no more interest, and the collector's if need be."""
    if len(chain.plans) > 1:
        image = chain.plans[-1].new.image
        try:
            domain.set_attributes(image, chain.attributes)
        except OSError as error:
            log.warning("left for the collector", image=image, error=error)


def _release(held: list[Held]) -> None:
    while held:
        held.pop().release()
