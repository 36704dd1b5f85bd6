# SPDX-License-Identifier: Apache-2.0
"""What bitmaps say: read from the volumes themselves, by no program."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager

from hsm.domains.base import Domain
from hsm.formats import bitmaps as bitmaps_format
from hsm.formats.bitmaps import BadBitmaps
from hsm.operations.bitmap_layers import Layer, Layers
from libvdsm.api.bitmap import BitmapInfo, BitmapLayer
from libvdsm.api.errors import VolumeDamaged


def bitmap_info(layers: Layers) -> BitmapInfo:
    """One bitmap, as the API tells it."""
    return BitmapInfo(
        name=layers.name,
        granularity=layers.layers[0].bitmap.granularity,
        usable=layers.problem is None,
        layers=[
            BitmapLayer(
                volume=layer.volume.id,
                granularity=layer.bitmap.granularity,
                recording=layer.bitmap.recording,
                in_use=layer.bitmap.in_use,
            )
            for layer in layers.layers
        ],
        problem=layers.problem,
    )


def extents(domain: Domain, layers: Layers, capacity: int, start: int = 0) -> Generator[tuple[int, int], None, None]:
    """What is marked in any layer from ``start`` on, as (offset, end), within what a guest sees."""
    with ExitStack() as files:
        marked = [_marked(layer, files.enter_context(_opened(domain, layer)), start) for layer in layers.layers]
        for begin, end in bitmaps_format.union(marked):
            if begin < capacity:
                yield begin, min(end, capacity)


@contextmanager
def _opened(domain: Domain, layer: Layer) -> Iterator[int]:
    path = domain.data_path(layer.volume.folder, layer.volume.id)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _marked(layer: Layer, descriptor: int, start: int) -> Iterator[tuple[int, int]]:
    header = layer.volume.header
    assert header is not None

    def read(offset: int, length: int) -> bytes:
        return os.pread(descriptor, length, offset)

    try:
        yield from bitmaps_format.dirty(layer.bitmap, header.capacity, header.cluster_size, read, start)
    except BadBitmaps as error:
        raise VolumeDamaged(volume=layer.volume.id, reason=str(error)) from None
