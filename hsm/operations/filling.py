# SPDX-License-Identifier: Apache-2.0
"""Filling new volumes from a source, with progress in bytes of what a guest sees."""

from __future__ import annotations

from collections.abc import Callable

from hsm.domains.base import Domain, Held
from hsm.operations.base import Context
from hsm.operations.making import Plan, empty_data, qemu_img
from hsm.tasks.manager import Job
from hsm.tools.copying import Copier, Course
from hsm.tools.keys import Key
from hsm.tools.nodes import Source


class Meter:
    """Progress over several parts, each of so many bytes."""

    def __init__(self, job: Job, total: int) -> None:
        self._job = job
        self._total = total
        self._done = 0

    def course(self, step: str, part: int, rate: int | None = None) -> Course:
        """The next part's."""
        before, self._done = self._done, self._done + part
        self._job.progress(step, before, self._total)

        def on_percent(percent: float) -> None:
            self._job.progress(step, before + int(part * percent / 100), self._total)

        return Course(on_percent, self._job.stop_asked, rate)


def filling(
    job: Job,
    context: Context,
    domain: Domain,
    source: Source,
    capacity: int,
    descriptors: tuple[int, ...],
    *,
    key: Key | None = None,
) -> Callable[[Plan, Held], None]:
    """Fills a volume from a source; the program that copies inherits ``descriptors`` and the new volume's lease.

    ``key``: what the volume is encrypted with.
    """
    empty = empty_data(context, domain)

    def fill(plan: Plan, held: Held) -> None:
        course = Meter(job, capacity).course("copying", capacity)
        empty(plan, held)
        new = plan.new
        Copier(qemu_img(context)).content(
            source,
            Source(domain.data_path(new.image, new.volume), new.format.value, key=key),
            course,
            descriptors=(*descriptors, *held.descriptors),
        )
        job.progress("writing to stable storage", capacity, capacity)
        domain.sync_data(new.image, new.volume)

    return fill
