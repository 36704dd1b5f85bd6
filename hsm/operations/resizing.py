# SPDX-License-Identifier: Apache-2.0
"""Resizing an image, which is resizing its newest volume: the same steps, and the same commit points."""

from __future__ import annotations

from hsm.operations import chains, describe
from hsm.operations.base import BaseOperation, lock_domain, lock_image, storage_errors
from hsm.operations.changes import Resize
from hsm.operations.shrinking import ShrinkingResize
from hsm.tasks.locks import Locks
from hsm.tasks.manager import Job, Objects
from libvdsm.api import VERBS
from libvdsm.api.errors import ImageInUse, VolumeHasChildren
from libvdsm.api.types import ImageInfo


class ResizeImage(BaseOperation):
    """Image.resize"""

    @property
    def locks(self) -> Locks:
        return lock_domain(self.params.domain), lock_image(self.params.domain, self.params.image)

    @property
    def objects(self) -> Objects:
        return Objects(self.params.domain, self.params.image)

    @property
    def resumes(self) -> bool:
        return True

    def _of_leaf(self) -> Resize:
        given = self.params
        domain = self.context.registry.get(given.domain)
        with storage_errors(self.context, domain.id, given.image):
            leaf = chains.leaf_of(chains.image_of(domain, given.image))
        params = VERBS["Volume.resize"].params(
            domain=given.domain, volume=leaf.id, image=given.image, capacity=given.capacity, shrink=given.shrink
        )
        return (ShrinkingResize if given.shrink else Resize)(self.context, params)

    def _told(self) -> ImageInfo:
        domain = self.context.registry.get(self.params.domain)
        with storage_errors(self.context, domain.id, self.params.image):
            record = chains.image_of(domain, self.params.image)
            return describe.image_info(domain.id, record, None, chain=True)

    def outcome(self) -> ImageInfo | None:
        return self._told() if self._of_leaf().outcome() is not None else None

    def run(self, job: Job) -> ImageInfo:
        of_leaf = self._of_leaf()
        try:
            of_leaf.run(job)
        except VolumeHasChildren as error:
            # It was the newest a moment ago.
            holder = "whoever just made a snapshot of it"
            raise ImageInUse(image=self.params.image, volume=error.volume, holder=holder) from None
        return self._told()
