# SPDX-License-Identifier: Apache-2.0
"""Looking at what comes from outside before any tool opens it; what is refused is a declared error."""

from __future__ import annotations

from hsm.operations.base import Context
from hsm.tools import inspection
from libvdsm.api.errors import DamagedImage, FormatMismatch, UnsafeImage, UnsupportedImage
from libvdsm.api.types import FileFormat


def inspect(context: Context, descriptor: int, declared: FileFormat | None) -> inspection.Inspected:
    """Look at a file before any tool opens it; what is refused is a declared error."""
    try:
        return inspection.inspect(descriptor, declared.value if declared else None, runner=context.runner)
    except inspection.Refused as refused:
        raise _refusal(refused, declared) from None


def _refusal(refused: inspection.Refused, declared: FileFormat | None) -> Exception:
    kind = refused.kind
    if kind in (inspection.Kind.BACKING_FILE, inspection.Kind.DATA_FILE, inspection.Kind.EXTENTS):
        return UnsafeImage(kind=kind.value, reason=refused.detail)
    if kind is inspection.Kind.FORMAT_MISMATCH:
        said = declared.value if declared else "raw"
        return FormatMismatch(declared=said, found=refused.found or "something else", reason=refused.detail)
    if kind is inspection.Kind.DAMAGED:
        return DamagedImage(reason=refused.detail)
    if kind is inspection.Kind.ENCRYPTED:
        # Whoever has the key can decrypt it there; its secret is none of this host's.
        return UnsupportedImage(
            reason=f"it is encrypted ({refused.detail}); decrypt it first, and have it encrypted here with a secret"
        )
    return UnsupportedImage(reason=refused.detail)


def not_whole(said: str) -> DamagedImage:
    """The error for a file that a check found incomplete, or in contradiction to itself."""
    return DamagedImage(reason=f"qemu-img check finds: {said}")
