# SPDX-License-Identifier: Apache-2.0
"""The operations on secrets and on encrypted images, for the crash tests."""

from __future__ import annotations

from collections.abc import Callable

from libvdsm.api.image_layers import MergeDirection
from libvdsm.api.transfer import Direction
from libvdsm.api.types import FileFormat, SecretId, TransferId
from tests.crash import proofs
from tests.crash.contents import digest_of, digest_of_zeros
from tests.crash.fixture import (
    DISK,
    MAIN,
    MIB,
    NEW,
    NEW_VOLUME,
    OTHER_SECRET,
    SAFE,
    SAFE_TEMPLATE,
    SECRET,
    SOURCE,
    SPARE,
    image,
    volume,
)
from tests.crash.invariants import Facts
from tests.crash.operation import Operation, Task, World
from tests.transfers import http

_CONTENT, _EMPTY = digest_of(SOURCE), digest_of_zeros(8 * MIB)
_NEW_SECRET = SecretId(image("new secret"))
_BASE, _LEAF = volume("safe"), volume("safe leaf")


def _define(world: World) -> None:
    world.client.secret.define(id=_NEW_SECRET, value="sesame", name="new")


def _generate(world: World) -> None:
    world.client.secret.generate(id=_NEW_SECRET)


def _forget(world: World) -> None:
    world.client.secret.delete(secret=OTHER_SECRET)


def _made(content: str, secret: SecretId) -> proofs.Proof:
    """A new image with this content, encrypted with this."""

    def proof(before: Facts, after: Facts) -> bool:
        others = {key: value for key, value in after.items() if not key.startswith(str(NEW))}
        return (
            before == others and after[f"{NEW}/{NEW_VOLUME} data"] == content and after[f"{NEW} secret"] == str(secret)
        )

    return proof


def _import(world: World) -> Task:
    with world.source("source.qcow2").open("rb") as source:
        return world.client.image.import_(
            domain=MAIN,
            source=source.fileno(),
            source_format=FileFormat.QCOW2,
            id=NEW,
            volume=NEW_VOLUME,
            secret=SECRET,
        )


def _merge(direction: MergeDirection) -> Callable[[World], Task]:
    return lambda world: world.client.image.merge(domain=MAIN, image=SAFE, base=_BASE, top=_LEAF, direction=direction)


def _merged(left: object, gone: object) -> proofs.Proof:
    """What is left shows what the uppermost did."""

    def proof(before: Facts, after: Facts) -> bool:
        return (
            after[f"{SAFE}/{left} data"] == before[f"{SAFE}/{_LEAF} data"]
            and not [key for key in after if key.startswith(f"{SAFE}/{gone}")]
            and after[f"{SAFE} secret"] == str(SECRET)
        )

    return proof


_UPLOAD = TransferId(image("encrypted upload"))


def _upload(world: World) -> None:
    world.client.transfer.start(
        domain=MAIN,
        direction=Direction.UPLOAD,
        size=8 * MIB,
        image=NEW,
        volume=NEW_VOLUME,
        id=_UPLOAD,
        secret=SECRET,
    )


def _uploaded(world: World) -> None:
    """All of it has been sent, and that is known."""
    _upload(world)
    http.put(world.client.transfer.get_info(transfer=_UPLOAD), 0, SOURCE)
    world.client.transfer.checkpoint(transfer=_UPLOAD, arrived=8 * MIB)


ENCRYPTED = [
    Operation(
        "secret defined",
        "Secret.define",
        _define,
        lambda before, after: sorted([*_ids(before), str(_NEW_SECRET)]) == _ids(after),
    ),
    Operation(
        "secret generated",
        "Secret.generate",
        _generate,
        lambda before, after: sorted([*_ids(before), str(_NEW_SECRET)]) == _ids(after),
    ),
    Operation(
        "secret forgotten",
        "Secret.delete",
        _forget,
        lambda before, after: [id_ for id_ in _ids(before) if id_ != str(OTHER_SECRET)] == _ids(after),
    ),
    Operation(
        "encrypted image created",
        "Image.create",
        lambda w: w.client.image.create(domain=MAIN, capacity=8 * MIB, id=NEW, volume=NEW_VOLUME, secret=SECRET),
        _made(_EMPTY, SECRET),
    ),
    Operation("file imported and encrypted", "Image.import", _import, _made(_CONTENT, SECRET)),
    Operation(
        "snapshot of an encrypted image made",
        "Image.snapshot",
        lambda w: w.client.image.snapshot(domain=MAIN, image=SAFE, name="kept", volume=NEW_VOLUME),
        lambda before, after: after[f"{SAFE}/{NEW_VOLUME} data"] == before[f"{SAFE}/{_LEAF} data"],
    ),
    Operation(
        "encrypted template cloned with another secret",
        "Image.clone",
        lambda w: w.client.image.clone(
            domain=MAIN, template=SAFE_TEMPLATE, id=NEW, volume=NEW_VOLUME, secret=OTHER_SECRET
        ),
        lambda before, after: (
            after[f"{NEW}/{NEW_VOLUME} data"] == _CONTENT and after[f"{NEW} secret"] == str(OTHER_SECRET)
        ),
    ),
    Operation(
        "image encrypted by copying it",
        "Image.copy",
        lambda w: w.client.image.copy(domain=MAIN, image=DISK, to=SPARE, id=NEW, volumes=[NEW_VOLUME], secret=SECRET),
        lambda before, after: (
            after[f"{SPARE}/{NEW}/{NEW_VOLUME} data"] == _CONTENT and after[f"{NEW} secret"] == str(SECRET)
        ),
    ),
    Operation(
        "encrypted chain collapsed with another secret",
        "Image.copy",
        lambda w: w.client.image.copy(
            domain=MAIN, image=SAFE, id=NEW, volumes=[NEW_VOLUME], collapse=True, secret=OTHER_SECRET
        ),
        lambda before, after: (
            after[f"{NEW}/{NEW_VOLUME} data"] == before[f"{SAFE}/{_LEAF} data"]
            and after[f"{NEW} secret"] == str(OTHER_SECRET)
        ),
    ),
    Operation(
        "encrypted layers merged down",
        "Image.merge",
        _merge(MergeDirection.DOWN),
        _merged(_BASE, _LEAF),
        halfway=(SAFE,),
        leaks=True,
    ),
    Operation(
        "encrypted layers merged up",
        "Image.merge",
        _merge(MergeDirection.UP),
        _merged(_LEAF, _BASE),
        halfway=(SAFE,),
        leaks=True,
    ),
    Operation("encrypted upload started", "Transfer.start", _upload, _made(_EMPTY, SECRET)),
    Operation(
        "encrypted upload finished",
        "Transfer.finish",
        lambda w: w.client.transfer.finish(transfer=_UPLOAD),
        lambda before, after: after[f"{NEW}/{NEW_VOLUME} data"] == _CONTENT,
        arrange=_uploaded,
    ),
    Operation(
        "encrypted image reverted",
        "Image.revert",
        lambda w: w.client.image.revert(domain=MAIN, image=SAFE, volume=_BASE, leaf=NEW_VOLUME),
        lambda before, after: after[f"{SAFE}/{NEW_VOLUME} data"] == _CONTENT and f"{SAFE}/{_LEAF} data" not in after,
        halfway=(SAFE,),
    ),
]


def _ids(facts: Facts) -> list[str]:
    found = facts["secrets"]
    assert isinstance(found, list)
    return found
