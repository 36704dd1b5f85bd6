# SPDX-License-Identifier: Apache-2.0
"""What the verbs are given: there is always something to choose, whatever the service did before."""

from __future__ import annotations

from hypothesis import strategies as st

from libvdsm.api.types import Allocation, TagChange, VolumeFormat
from tests.formats import qemu
from tests.property.parts import BLOCK, Blocks

capacities = st.sampled_from([2**20, 4 * BLOCK, 2**20 + 1, 1, 2 * 2**20])
formats = st.sampled_from([VolumeFormat.QCOW2, VolumeFormat.RAW])
allocations = st.sampled_from([Allocation.SPARSE, Allocation.SPARSE, Allocation.PREALLOCATED])
names = st.sampled_from([None, "disk", "größer", "a b"])
texts = st.sampled_from(["", "text", '{"odd"', "ü" * 20])
tags = st.lists(st.sampled_from(["gold", "backup", "größer, so"]), max_size=3)
changes = st.sampled_from([TagChange.REPLACE, TagChange.ADD, TagChange.REMOVE])
positions = st.integers(0, 4)
tops = st.sampled_from([-1, -1, -1, -2, 0])
stays = st.sampled_from([False, False, True])
generations = st.sampled_from(["any", "any", "right", "wrong"])
block_maps = st.dictionaries(st.integers(0, 20), st.integers(0, 255), min_size=1, max_size=4)
growths = st.sampled_from([BLOCK, 2**20, 1, 0, -BLOCK])
images = st.sampled_from([0, 0, 0, 1, 1, 2, 3, 4, -1])
"""The newest, or an older one: what is done to one image again and again goes deep.  -1: one that is gone."""
templates = st.sampled_from([0, 0, 1, 2])


def fill(path: str, format_: str, blocks: Blocks) -> None:
    """Write as a guest would: whole blocks of one byte."""
    for block, pattern in blocks.items():
        qemu.write(path, format_, pattern, block * BLOCK, BLOCK)
