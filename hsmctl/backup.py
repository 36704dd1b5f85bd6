# SPDX-License-Identifier: Apache-2.0
"""What bitmaps look like, and the parts of a disk that they mark."""

from __future__ import annotations

from hsmctl.output import Cell, Styled, Table, View
from hsmctl.shown import Shown
from hsmctl.values import show_size
from libvdsm.api.bitmap import BitmapPage, ExtentPage


def bitmaps(page: BitmapPage, _shown: Shown) -> View:
    """One line each; the last column says what a backup has to know."""
    rows: list[list[Cell]] = [
        [
            bitmap.name,
            show_size(bitmap.granularity),
            str(len(bitmap.layers)),
            Styled(bitmap.problem, "red") if bitmap.problem else "recording",
        ]
        for bitmap in page.items
    ]
    empty = "It has no bitmaps. Add one where you make a full backup, with `hsmctl bitmap add IMAGE NAME`."
    return Table(["NAME", "GRANULARITY", "LAYERS", "STATE"], rows, frozenset({"GRANULARITY", "LAYERS"}), empty)


def extents(page: ExtentPage, _shown: Shown) -> View:
    """Offsets and lengths exactly: they are what a backup copies."""
    rows: list[list[Cell]] = [[str(part.offset), str(part.length)] for part in page.items]
    return Table(["OFFSET", "LENGTH"], rows, frozenset({"OFFSET", "LENGTH"}), "Nothing was written.")
