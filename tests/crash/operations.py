# SPDX-License-Identifier: Apache-2.0
"""The operations that accidents happen to: what is called, and what has to be true when it has succeeded.

Every call names all ids, so calling again is the same call.  ``proof`` compares what is published before and after a
run without accident; that state and the one before are then the only two that any accident may leave.
"""

from __future__ import annotations

from collections.abc import Callable

from libvdsm.api.errors import NoSuchDomain, NoSuchTask
from libvdsm.api.types import (
    Allocation,
    FileFormat,
    Legality,
    TaskState,
    VolumeFormat,
)
from tests.crash import bitmaps, proofs, sparsifying
from tests.crash.contents import digest_of, digest_of_zeros
from tests.crash.copies import COPIES
from tests.crash.fixture import (
    CHAIN,
    CLONE,
    DISK,
    LOOSE,
    MAIN,
    MIB,
    NEW,
    NEW_VOLUME,
    RAW,
    SOURCE,
    SPARE,
    TEMPLATE,
    domain,
    volume,
)
from tests.crash.garbage import plant
from tests.crash.hsmd import ENDED
from tests.crash.layers import LAYERS
from tests.crash.operation import Operation, Task, World, fine
from tests.crash.tags import TAGS
from tests.crash.transfers import TRANSFERS

CONTENT = digest_of(SOURCE)
EMPTY = digest_of_zeros(8 * MIB)
NEW_DOMAIN = domain("new")


# ---- calls that take more than one line


def _create(format_: VolumeFormat, allocation: Allocation) -> Callable[[World], Task]:
    return lambda world: world.client.image.create(
        domain=MAIN,
        capacity=8 * MIB,
        name="new",
        description="made",
        format=format_,
        allocation=allocation,
        id=NEW,
        volume=NEW_VOLUME,
    )


def _import(
    name: str,
    said: FileFormat,
    format_: VolumeFormat = VolumeFormat.QCOW2,
    allocation: Allocation = Allocation.SPARSE,
) -> Callable[[World], Task]:
    def call(world: World) -> Task:
        with world.source(name).open("rb") as source:
            return world.client.image.import_(
                domain=MAIN,
                source=source.fileno(),
                source_format=said,
                name="new",
                format=format_,
                allocation=allocation,
                id=NEW,
                volume=NEW_VOLUME,
            )

    return call


def _export(world: World) -> Task:
    with (world.home.outside / "exported").open("w+b") as target:
        return world.client.image.export(domain=MAIN, image=CHAIN, target=target.fileno(), format=FileFormat.RAW)


def _stopped_import(world: World) -> Task:
    """An import whose tool has begun, and is stopped; or that has ended before its tool begins."""
    task = _import("source.qcow2", FileFormat.QCOW2)(world)
    assert world.gate is not None
    if not world.gate.comes(lambda: world.service.gone(0) or world.client.task.get_info(task=task.id).state in ENDED):
        return world.client.task.get_info(task=task.id)
    world.gate.arrival()
    return world.client.task.stop(task=task.id)


def _an_ended_task(world: World) -> None:
    world.kept["task"] = world.service.wait(world.client.domain.check(domain=SPARE)).id


def _prepare(world: World) -> None:
    world.client.image.prepare(domain=MAIN, image=DISK)


def _clear(world: World) -> None:
    world.client.task.clear(task=world.kept["task"])


def _teardown(world: World) -> None:
    world.client.image.teardown(domain=MAIN, image=DISK)


def _open_session(world: World) -> None:
    world.client.session.open(name="crash test")


OPERATIONS = [
    Operation(
        "domain created",
        "Domain.create",
        lambda w: w.client.domain.create(name="new", path=str(w.home.room), id=NEW_DOMAIN),
        proofs.attached(str(NEW_DOMAIN)),
    ),
    Operation(
        "domain attached",
        "Domain.attach",
        lambda w: w.client.domain.attach(path=str(w.home.loose), id=LOOSE),
        proofs.attached(str(LOOSE)),
    ),
    Operation(
        "domain detached",
        "Domain.detach",
        lambda w: w.client.domain.detach(domain=SPARE),
        lambda before, after: str(SPARE) not in str(after["attached"]) and f"{SPARE} name" in after,
        gone=(NoSuchDomain,),
    ),
    Operation(
        "domain renamed",
        "Domain.setDescription",
        lambda w: w.client.domain.set_description(domain=SPARE, description="a new name"),
        proofs.changed(f"{SPARE} name"),
    ),
    Operation(
        "domain formatted",
        "Domain.format",
        lambda w: w.client.domain.format(domain=SPARE, force=True),
        lambda before, after: not any(str(SPARE) in f"{key}{value}" for key, value in after.items()),
        gone=(NoSuchDomain,),
        halfway=(SPARE,),
    ),
    Operation("domain checked", "Domain.check", lambda w: w.client.domain.check(domain=MAIN, deep=True), proofs.same),
    Operation(
        "garbage collected",
        "Domain.collectGarbage",
        lambda w: w.client.domain.collect_garbage(domain=MAIN),
        proofs.same,
        arrange=lambda w: plant(w.home),
    ),
    *(
        Operation(
            f"{allocation.value} {format_.value} image created",
            "Image.create",
            _create(format_, allocation),
            proofs.data(NEW, NEW_VOLUME, EMPTY),
        )
        for format_ in (VolumeFormat.QCOW2, VolumeFormat.RAW)
        for allocation in (Allocation.SPARSE, Allocation.PREALLOCATED)
    ),
    Operation(
        "snapshot made",
        "Image.snapshot",
        lambda w: w.client.image.snapshot(domain=MAIN, image=DISK, name="kept", volume=NEW_VOLUME),
        proofs.on_top(DISK, CONTENT),
    ),
    Operation(
        "template cloned",
        "Image.clone",
        lambda w: w.client.image.clone(domain=MAIN, template=TEMPLATE, name="new", id=NEW, volume=NEW_VOLUME),
        lambda before, after: after[f"{NEW}/{NEW_VOLUME} data"] == CONTENT,
    ),
    Operation(
        "image made a template",
        "Image.makeTemplate",
        lambda w: w.client.image.make_template(domain=MAIN, image=DISK),
        proofs.changed(f"{DISK}/{volume('disk')} metadata", f"{DISK}/{volume('disk')} told"),
    ),
    Operation(
        "template copied",
        "Image.makeTemplate",
        lambda w: w.client.image.make_template(domain=MAIN, image=DISK, name="new", id=NEW, volume=NEW_VOLUME),
        proofs.data(NEW, NEW_VOLUME, CONTENT),
    ),
    Operation(
        "qcow2 file imported",
        "Image.import",
        _import("source.qcow2", FileFormat.QCOW2),
        proofs.data(NEW, NEW_VOLUME, CONTENT),
    ),
    Operation(
        "raw file imported as raw",
        "Image.import",
        _import("source.raw", FileFormat.RAW, VolumeFormat.RAW),
        proofs.data(NEW, NEW_VOLUME, CONTENT),
    ),
    Operation(
        "file of others imported into preallocated space",
        "Image.import",
        _import("shared.qcow2", FileFormat.QCOW2, allocation=Allocation.PREALLOCATED),
        proofs.data(NEW, NEW_VOLUME, CONTENT),
    ),
    Operation(
        "image exported as raw",
        "Image.export",
        _export,
        proofs.same,
        done=proofs.exported("raw", f"{CHAIN}/{volume('chain leaf')}"),
    ),
    Operation(
        "image exported by path",
        "Image.export",
        lambda w: w.client.image.export(domain=MAIN, image=DISK, path=str(w.home.outside / "exported")),
        proofs.same,
        done=proofs.exported("qcow2", f"{DISK}/{volume('disk')}"),
    ),
    Operation(
        "images frozen together",
        "Image.snapshotMany",
        lambda w: w.client.image.snapshot_many(
            domain=MAIN, images=[DISK, RAW, CHAIN], name="kept", volumes=[NEW_VOLUME, volume("second"), volume("third")]
        ),
        lambda before, after: (
            after[f"{DISK}/{NEW_VOLUME} data"] == after[f"{RAW}/{volume('second')} data"] == CONTENT
            and after[f"{CHAIN}/{volume('third')} data"] == before[f"{CHAIN}/{volume('chain leaf')} data"]
        ),
        halfway=(DISK, RAW, CHAIN),
    ),
    Operation(
        "images deleted together",
        "Image.deleteMany",
        lambda w: w.client.image.delete_many(domain=MAIN, images=[DISK, RAW, CHAIN]),
        proofs.lost(DISK, RAW, CHAIN),
        halfway=(DISK, RAW, CHAIN),
    ),
    Operation("image prepared", "Image.prepare", _prepare, proofs.changed(f"{DISK} prepared")),
    Operation("image torn down", "Image.teardown", _teardown, proofs.changed(f"{DISK} prepared"), arrange=_prepare),
    Operation(
        "image deleted", "Image.delete", lambda w: w.client.image.delete(domain=MAIN, image=CHAIN), proofs.lost(CHAIN)
    ),
    Operation(
        "image wiped",
        "Image.delete",
        lambda w: w.client.image.delete(domain=MAIN, image=CLONE, wipe=True),
        proofs.lost(CLONE),
        arrange=proofs.hold(CLONE, volume("clone")),
        done=proofs.zeros,
    ),
    Operation(
        "volume of its own created",
        "Volume.create",
        lambda w: w.client.volume.create(
            domain=MAIN, image=NEW, capacity=8 * MIB, format=VolumeFormat.RAW, id=NEW_VOLUME
        ),
        proofs.data(NEW, NEW_VOLUME, EMPTY),
    ),
    Operation(
        "volume created on a leaf",
        "Volume.create",
        lambda w: w.client.volume.create(domain=MAIN, image=DISK, parent=volume("disk"), id=NEW_VOLUME),
        proofs.on_top(DISK, CONTENT),
    ),
    Operation(
        "volume created on a template",
        "Volume.create",
        lambda w: w.client.volume.create(domain=MAIN, image=NEW, parent=volume("template"), id=NEW_VOLUME),
        lambda before, after: after[f"{NEW}/{NEW_VOLUME} data"] == CONTENT,
    ),
    Operation(
        "raw volume resized",
        "Volume.resize",
        lambda w: w.client.volume.resize(domain=MAIN, volume=volume("raw"), capacity=16 * MIB),
        proofs.changed(*(f"{RAW}/{volume('raw')} {what}" for what in ("metadata", "told", "data"))),
        halfway=(RAW,),
    ),
    Operation(
        "qcow2 volume resized",
        "Volume.resize",
        # Beyond what one cluster of the first table maps: the table has to move.
        lambda w: w.client.volume.resize(domain=MAIN, volume=volume("disk"), capacity=1024 * MIB),
        proofs.changed(*(f"{DISK}/{volume('disk')} {what}" for what in ("metadata", "told", "data"))),
        halfway=(DISK,),
        leaks=True,
    ),
    *(
        Operation(
            f"{name} volume shrunk",
            "Volume.resize",
            lambda w, name=name: w.client.volume.resize(  # type: ignore[misc]
                domain=MAIN, volume=volume(name), capacity=4 * MIB, shrink=True
            ),
            proofs.changed(*(f"{image}/{volume(name)} {what}" for what in ("metadata", "told", "data"))),
            halfway=(image,),
            leaks=name == "disk",
        )
        for name, image in (("raw", RAW), ("disk", DISK))
    ),
    *(
        Operation(
            f"{name} image {'shrunk' if shrink else 'resized'}",
            "Image.resize",
            lambda w, image=image, size=size, shrink=shrink: w.client.image.resize(  # type: ignore[misc]
                domain=MAIN, image=image, capacity=size * MIB, shrink=shrink
            ),
            proofs.changed(*(f"{image}/{volume(name)} {what}" for what in ("metadata", "told", "data"))),
            halfway=(image,),
            leaks=name == "disk",
        )
        for name, image, size, shrink in (("raw", RAW, 16, False), ("disk", DISK, 4, True))
    ),
    Operation(
        "volume described",
        "Volume.setDescription",
        lambda w: w.client.volume.set_description(domain=MAIN, volume=volume("disk"), description="other words"),
        proofs.changed(f"{DISK}/{volume('disk')} told"),
    ),
    Operation(
        "volume marked illegal",
        "Volume.setLegality",
        lambda w: w.client.volume.set_legality(domain=MAIN, volume=volume("disk"), legality=Legality.ILLEGAL),
        proofs.changed(f"{DISK}/{volume('disk')} metadata"),
    ),
    *(
        Operation(
            f"leaf {'wiped' if wipe else 'deleted'}",
            "Volume.delete",
            lambda w, wipe=wipe: w.client.volume.delete(domain=MAIN, volume=volume("chain leaf"), wipe=wipe),  # type: ignore[misc]
            lambda before, after: (
                after[f"{CHAIN}/{volume('chain')} data"] == CONTENT
                and f"{CHAIN}/{volume('chain leaf')} data" not in after
            ),
            arrange=proofs.hold(CHAIN, volume("chain leaf")),
            done=proofs.zeros if wipe else fine,
        )
        for wipe in (False, True)
    ),
    Operation(
        "only volume deleted",
        "Volume.delete",
        lambda w: w.client.volume.delete(domain=MAIN, volume=volume("raw")),
        proofs.lost(RAW),
    ),
    Operation(
        "import stopped",
        "Task.stop",
        _stopped_import,
        proofs.same,
        end=TaskState.STOPPED,
        task_verb="Image.import",
        gated=True,
    ),
    Operation("task cleared", "Task.clear", _clear, proofs.same, arrange=_an_ended_task, gone=(NoSuchTask,)),
    Operation("session opened", "Session.open", _open_session, proofs.same),
    *TAGS,
    *COPIES,
    *LAYERS,
    *TRANSFERS,
    *bitmaps.OPERATIONS,
    *sparsifying.OPERATIONS,
]
