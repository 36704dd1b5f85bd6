# SPDX-License-Identifier: Apache-2.0
"""Bitmap: what of an image was written since a backup."""

from __future__ import annotations

from contextlib import ExitStack, closing
from itertools import islice

from hsm.domains.base import Wanted
from hsm.operations import chains
from hsm.operations.base import storage_errors
from hsm.operations.bitmap_layers import found_in, own_chain
from hsm.operations.bitmap_reading import bitmap_info, extents
from hsm.paging import page
from hsm.services.base import Service
from libvdsm.api.bitmap import Bitmap, BitmapInfo, BitmapPage, Extent, ExtentPage
from libvdsm.api.errors import BitmapUnusable, InvalidCursor, NoSuchBitmap
from libvdsm.api.types import DomainId, ImageId, Nothing, TaskInfo

_CURSOR = 256


class BitmapService(Service, Bitmap):
    def add(self, *, domain: DomainId, image: ImageId, bitmap: str, granularity: int = 65536) -> TaskInfo[BitmapInfo]:
        return self.submit("Bitmap.add", domain=domain, image=image, bitmap=bitmap, granularity=granularity)

    def remove(self, *, domain: DomainId, image: ImageId, bitmap: str) -> TaskInfo[Nothing]:
        return self.submit("Bitmap.remove", domain=domain, image=image, bitmap=bitmap)

    def clear(self, *, domain: DomainId, image: ImageId, bitmap: str) -> TaskInfo[BitmapInfo]:
        return self.submit("Bitmap.clear", domain=domain, image=image, bitmap=bitmap)

    def list(self, *, domain: DomainId, image: ImageId, limit: int = 10_000, start: str | None = None) -> BitmapPage:
        opened = self.context.registry.get(domain)
        with storage_errors(self.context, domain, image):
            found = found_in(own_chain(chains.image_of(opened, image)))
        infos = [bitmap_info(layers) for layers in found.values()]
        items, following = page(infos, lambda info: info.name[:_CURSOR], limit, start)
        return BitmapPage(items=items, next=following)

    def get_extents(
        self, *, domain: DomainId, image: ImageId, bitmap: str, limit: int = 10_000, start: str | None = None
    ) -> ExtentPage:
        first = 0
        if start is not None and (not (start.isascii() and start.isdigit()) or (first := int(start)) >= 2**63):
            raise InvalidCursor(reason=f"{start!r} is the `next` of no page")
        opened = self.context.registry.get(domain)
        with storage_errors(self.context, domain, image), ExitStack() as leases:
            record = chains.image_of(opened, image)
            chain = own_chain(record)
            # Nobody writes the image while its bitmaps are read; those who read it as well do not mind.
            held = opened.acquire([Wanted(volume.id, image, shared=True) for volume in chain])
            leases.callback(held.release)
            record = chains.image_of(opened, image)
            layers = found_in(own_chain(record)).get(bitmap)
            if layers is None:
                raise NoSuchBitmap(image=image, bitmap=bitmap)
            if layers.problem:
                raise BitmapUnusable(image=image, bitmap=bitmap, reason=layers.problem)
            capacity = chains.leaf_of(record).metadata.capacity
            with closing(extents(opened, layers, capacity, first)) as found:
                parts = list(islice(found, limit + 1))
        items = [Extent(offset=begin, length=end - begin) for begin, end in parts[:limit]]
        following = str(parts[limit][0]) if len(parts) > limit else None
        return ExtentPage(items=items, next=following)
