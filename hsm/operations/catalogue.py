# SPDX-License-Identifier: Apache-2.0
"""Which operation does the work of which verb: how a service starts one, and how a restart finds it again."""

from __future__ import annotations

from typing import Any

import msgspec

from hsm.operations.amending import AmendVolume
from hsm.operations.base import BaseOperation, Context, OperationFactory
from hsm.operations.bitmaps import AddBitmap, ClearBitmap, RemoveBitmap
from hsm.operations.changes import MakeTemplate, Resize, SetDescription, SetLegality
from hsm.operations.checking import CheckDomain
from hsm.operations.checksums import ChecksumImage
from hsm.operations.collecting import CollectGarbage
from hsm.operations.copies import CopyImage, CopyTemplate, CopyVolume
from hsm.operations.creation import Clone, CreateImage, Snapshot, create_volume
from hsm.operations.deletion import DeleteImage, DeleteVolume
from hsm.operations.domains import (
    AttachDomain,
    CreateDomain,
    DetachDomain,
    FormatDomain,
    SetDomainDescription,
)
from hsm.operations.exporting import ExportImage
from hsm.operations.finishing import FinishTransfer
from hsm.operations.flattening import FlattenImage, RebaseImage
from hsm.operations.groups import DeleteImages, SnapshotImages
from hsm.operations.importing import ImportImage
from hsm.operations.merging import DeleteSnapshot, Merge
from hsm.operations.moving import MoveImage
from hsm.operations.resizing import ResizeImage
from hsm.operations.reverting import RevertImage
from hsm.operations.shrinking import ShrinkingResize
from hsm.operations.sparsifying import SparsifyImage
from hsm.operations.tagging import TagImage, TagVolume
from libvdsm.api import VERBS


def make_template(context: Context, params: Any) -> BaseOperation:
    """Image.makeTemplate: in place, or from a copy when it is given a name."""
    return CopyTemplate(context, params) if params.name is not None else MakeTemplate(context, params)


def resize(context: Context, params: Any) -> BaseOperation:
    """Volume.resize: larger only, or smaller too when that is asked for."""
    return ShrinkingResize(context, params) if params.shrink else Resize(context, params)


OPERATIONS: dict[str, OperationFactory] = {
    "Domain.create": CreateDomain,
    "Domain.attach": AttachDomain,
    "Domain.detach": DetachDomain,
    "Domain.setDescription": SetDomainDescription,
    "Domain.format": FormatDomain,
    "Domain.check": CheckDomain,
    "Domain.collectGarbage": CollectGarbage,
    "Image.create": CreateImage,
    "Image.snapshot": Snapshot,
    "Image.clone": Clone,
    "Image.makeTemplate": make_template,
    "Image.import": ImportImage,
    "Image.export": ExportImage,
    "Image.delete": DeleteImage,
    "Image.snapshotMany": SnapshotImages,
    "Image.deleteMany": DeleteImages,
    "Image.copy": CopyImage,
    "Image.move": MoveImage,
    "Image.checksum": ChecksumImage,
    "Volume.create": create_volume,
    "Volume.resize": resize,
    "Volume.setDescription": SetDescription,
    "Volume.setLegality": SetLegality,
    "Volume.delete": DeleteVolume,
    "Image.setTags": TagImage,
    "Volume.setTags": TagVolume,
    "Volume.copy": CopyVolume,
    "Image.merge": Merge,
    "Image.deleteSnapshot": DeleteSnapshot,
    "Image.revert": RevertImage,
    "Image.flatten": FlattenImage,
    "Image.rebase": RebaseImage,
    "Transfer.finish": FinishTransfer,
    "Bitmap.add": AddBitmap,
    "Bitmap.remove": RemoveBitmap,
    "Bitmap.clear": ClearBitmap,
    "Image.sparsify": SparsifyImage,
    "Volume.amend": AmendVolume,
    "Image.resize": ResizeImage,
}


def rebuild(context: Context, verb: str, params: bytes) -> BaseOperation:
    """An operation from what the record of tasks has of it."""
    decoded = msgspec.json.decode(params, type=VERBS[verb].params)
    return OPERATIONS[verb](context, decoded)
