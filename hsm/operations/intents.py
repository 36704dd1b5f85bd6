# SPDX-License-Identifier: Apache-2.0
"""Changes in place, which roll forward: an intent is written first, and from then on the change is finished.

The intent lies in the image's attributes, on storage, and says all that is needed.  So it is finished by the task that
wrote it, by that task taken up again after a restart, or by whoever collects garbage, on any host.  Each step can be
done again: where the last one came to is seen from what is on storage.

The commit point is ``begin``.  Whoever finishes holds the leases of the image's volumes exclusively.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import MappingProxyType

from hsm.domains.base import Domain, Held, LeaseBusy, Wanted
from hsm.formats.attributes import (
    AnyIntent,
    ChangeBitmaps,
    DeleteMany,
    Flatten,
    Member,
    MergeDown,
    MergeUp,
    Move,
    Rebase,
    Revert,
    Shrink,
    SnapshotMany,
)
from hsm.operations import bitmap_guard, groups, merging, moving, pulling, reverting, shrinking
from hsm.operations.base import Context, lock_image, storage_errors
from hsm.tasks.manager import Job
from libvdsm.api.types import ImageId
from libvdsm.declare import ApiError
from libvdsm.log import Log

log = Log("hsm.intents")

Finish = Callable[[Context, Job, Domain, ImageId, Held], bool]
"""Does what is left of an intent's work, and takes the intent away; false if somebody else has to.

The leases of the image are held already, and may be let go of at the end.
"""

FINISH: MappingProxyType[type[AnyIntent], Finish] = MappingProxyType(
    {
        Shrink: shrinking.finish,
        Move: moving.finish,
        SnapshotMany: groups.finish,
        DeleteMany: groups.finish,
        Member: groups.finish_member,
        MergeDown: merging.finish_down,
        MergeUp: pulling.finish,
        Flatten: pulling.finish,
        Rebase: pulling.finish,
        Revert: reverting.finish,
        ChangeBitmaps: bitmap_guard.finish,
    }
)


def finish(context: Context, job: Job, domain: Domain, image: ImageId) -> bool:
    """Finish what somebody began with an image and did not end; false if somebody is at work on it."""
    with ExitStack() as stack:
        if not stack.enter_context(job.trying((lock_image(domain.id, image),))):
            return False
        stack.enter_context(storage_errors(context, domain.id, image))
        record = domain.image(image)
        if record is None or record.attributes.intent is None:
            return True
        try:
            held = domain.acquire(
                [Wanted(volume.id, image, shared=volume.is_linked) for volume in record.volumes.values()]
            )
        except LeaseBusy:
            return False
        stack.callback(held.release)
        record = domain.image(image)
        if record is not None and record.attributes.intent is not None:
            if not FINISH[type(record.attributes.intent)](context, job, domain, image, held):
                return False
            log.info("an interrupted change was finished", domain=domain.id, image=image)
    return True


def try_finish(context: Context, job: Job, domain: Domain, image: ImageId) -> bool:
    """The same; trouble with one image is told, and leaves the others their turn."""
    try:
        return finish(context, job, domain, image)
    except ApiError as error:
        log.warning("an interrupted change stays unfinished", domain=domain.id, image=image, error=error.message)
        return False
