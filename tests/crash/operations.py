# SPDX-License-Identifier: Apache-2.0
"""The operations that accidents happen to: what is called, and what has to be true when it has succeeded.

Every call names all ids, so calling again is the same call.  ``proof`` compares what is published before and after a
run without accident; that state and the one before are then the only two that any accident may leave.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from libvdsm.api.errors import NoSuchDomain, NoSuchTask
from libvdsm.api.types import (
    Allocation,
    FileFormat,
    ImageId,
    Legality,
    TaskInfo,
    TaskState,
    VolumeFormat,
    VolumeId,
)
from libvdsm.client import Client
from libvdsm.declare import ApiError
from tests.crash.contents import Contents, digest_of, digest_of_zeros
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
    Home,
    domain,
    volume,
)
from tests.crash.garbage import plant
from tests.crash.gate import Gate
from tests.crash.hsmd import Hsmd
from tests.crash.invariants import Facts

Task = TaskInfo[Any]
CONTENT = digest_of(SOURCE)
EMPTY = digest_of_zeros(8 * MIB)
NEW_DOMAIN = domain("new")


@dataclass
class World:
    """Where an operation runs."""

    home: Home
    service: Hsmd
    gate: Gate | None = None
    kept: dict[str, Any] = field(default_factory=dict)
    """what ``arrange`` leaves for the call"""

    def close(self) -> None:
        for thing in self.kept.values():
            if hasattr(thing, "close"):
                thing.close()
        if self.gate is not None:
            self.gate.close()

    @property
    def client(self) -> Client:
        return self.service.client()

    def source(self, name: str) -> Path:
        return self.home.outside / name


def _nothing(world: World) -> None:
    """Nothing to arrange."""


def _fine(world: World, facts: Facts, contents: Contents) -> None:
    """Nothing more to look at."""


@dataclass(frozen=True)
class Operation:
    """One row of the table."""

    name: str
    verb: str
    call: Callable[[World], Task | None]
    """the task, or None where the verb answers at once"""
    proof: Callable[[Facts, Facts], bool]
    arrange: Callable[[World], None] = _nothing
    end: TaskState = TaskState.SUCCEEDED
    """how its task ends when nothing happens"""
    task_verb: str | None = None
    """the verb of its task, where that is another one"""
    gone: tuple[type[ApiError], ...] = ()
    """what the repeated call may answer instead: the thing is gone, so it is done"""
    halfway: object = None
    """the id of what a failure after the commit point may leave between the two states, until it is done again"""
    leaks: bool = False
    """whether clusters may be left without use: where qemu-img changes a volume in place, and is interrupted"""
    gated: bool = False
    """whether its tool waits at a gate"""
    done: Callable[[World, Facts, Contents], str | None] = _fine
    """what is wrong after it has succeeded, beyond what is published"""


def _same(before: Facts, after: Facts) -> bool:
    return before == after


def _data(image: ImageId, volume_: VolumeId, content: str) -> Callable[[Facts, Facts], bool]:
    """A new volume with this content, and all else as it was."""

    def proof(before: Facts, after: Facts) -> bool:
        place = f"{image}/{volume_}"
        others = {key: value for key, value in after.items() if not key.startswith(place)}
        return before == others and after[f"{place} data"] == content

    return proof


def _on_top(image: ImageId, content: str) -> Callable[[Facts, Facts], bool]:
    """A new layer that shows the same; of the layer below only the role and the name it is known by changed."""

    def proof(before: Facts, after: Facts) -> bool:
        changed = {key for key in before if before[key] != after[key]}
        return (
            after[f"{image}/{NEW_VOLUME} data"] == content
            and len(changed) == 1
            and all(key.endswith(" told") for key in changed)
        )

    return proof


def _lost(*prefixes: object) -> Callable[[Facts, Facts], bool]:
    """What begins so is gone, and nothing else."""

    def proof(before: Facts, after: Facts) -> bool:
        left = {key: value for key, value in before.items() if not key.startswith(tuple(map(str, prefixes)))}
        return left == after != before

    return proof


def _changed(*keys: str) -> Callable[[Facts, Facts], bool]:
    """Exactly these facts are others than before."""

    def proof(before: Facts, after: Facts) -> bool:
        return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)} == set(keys)

    return proof


def _attached(key: str) -> Callable[[Facts, Facts], bool]:
    def proof(before: Facts, after: Facts) -> bool:
        return key in str(after["attached"]) and key not in str(before["attached"])

    return proof


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
    """An import whose tool has begun, and is stopped."""
    task = _import("source.qcow2", FileFormat.QCOW2)(world)
    assert world.gate is not None
    world.gate.arrival()
    return world.client.task.stop(task=task.id)


def _exported(format_: str, source: str) -> Callable[[World, Facts, Contents], str | None]:
    """The exported file shows what the volume shows."""

    def done(world: World, facts: Facts, contents: Contents) -> str | None:
        found = contents.guest([world.home.outside / "exported"], format_)
        return None if found == facts[f"{source} data"] else f"exported is {found}, not {facts[f'{source} data']}"

    return done


def _hold(image: ImageId, volume_: VolumeId) -> Callable[[World], None]:
    """Keep a volume's file open, to see what becomes of its data."""

    def arrange(world: World) -> None:
        world.kept["file"] = world.home.volume_file(image, volume_).open("rb", buffering=0)

    return arrange


def _zeros(world: World, facts: Facts, contents: Contents) -> str | None:
    """Where the data was there are zeros."""
    file: BinaryIO = world.kept["file"]
    file.seek(0)
    return "the data was given back and not wiped" if file.read().strip(b"\0") else None


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
        _attached(str(NEW_DOMAIN)),
    ),
    Operation(
        "domain attached",
        "Domain.attach",
        lambda w: w.client.domain.attach(path=str(w.home.loose), id=LOOSE),
        _attached(str(LOOSE)),
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
        _changed(f"{SPARE} name"),
    ),
    Operation(
        "domain formatted",
        "Domain.format",
        lambda w: w.client.domain.format(domain=SPARE, force=True),
        lambda before, after: not any(str(SPARE) in f"{key}{value}" for key, value in after.items()),
        gone=(NoSuchDomain,),
        halfway=SPARE,
    ),
    Operation("domain checked", "Domain.check", lambda w: w.client.domain.check(domain=MAIN, deep=True), _same),
    Operation(
        "garbage collected",
        "Domain.collectGarbage",
        lambda w: w.client.domain.collect_garbage(domain=MAIN),
        _same,
        arrange=lambda w: plant(w.home),
    ),
    *(
        Operation(
            f"{allocation.value} {format_.value} image created",
            "Image.create",
            _create(format_, allocation),
            _data(NEW, NEW_VOLUME, EMPTY),
        )
        for format_ in (VolumeFormat.QCOW2, VolumeFormat.RAW)
        for allocation in (Allocation.SPARSE, Allocation.PREALLOCATED)
    ),
    Operation(
        "snapshot made",
        "Image.snapshot",
        lambda w: w.client.image.snapshot(domain=MAIN, image=DISK, name="kept", volume=NEW_VOLUME),
        _on_top(DISK, CONTENT),
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
        _changed(f"{DISK}/{volume('disk')} metadata", f"{DISK}/{volume('disk')} told"),
    ),
    Operation(
        "template copied",
        "Image.makeTemplate",
        lambda w: w.client.image.make_template(domain=MAIN, image=DISK, name="new", id=NEW, volume=NEW_VOLUME),
        _data(NEW, NEW_VOLUME, CONTENT),
    ),
    Operation(
        "qcow2 file imported",
        "Image.import",
        _import("source.qcow2", FileFormat.QCOW2),
        _data(NEW, NEW_VOLUME, CONTENT),
    ),
    Operation(
        "raw file imported as raw",
        "Image.import",
        _import("source.raw", FileFormat.RAW, VolumeFormat.RAW),
        _data(NEW, NEW_VOLUME, CONTENT),
    ),
    Operation(
        "file of others imported into preallocated space",
        "Image.import",
        _import("shared.qcow2", FileFormat.QCOW2, allocation=Allocation.PREALLOCATED),
        _data(NEW, NEW_VOLUME, CONTENT),
    ),
    Operation(
        "image exported as raw",
        "Image.export",
        _export,
        _same,
        done=_exported("raw", f"{CHAIN}/{volume('chain leaf')}"),
    ),
    Operation(
        "image exported by path",
        "Image.export",
        lambda w: w.client.image.export(domain=MAIN, image=DISK, path=str(w.home.outside / "exported")),
        _same,
        done=_exported("qcow2", f"{DISK}/{volume('disk')}"),
    ),
    Operation("image prepared", "Image.prepare", _prepare, _changed(f"{DISK} prepared")),
    Operation("image torn down", "Image.teardown", _teardown, _changed(f"{DISK} prepared"), arrange=_prepare),
    Operation("image deleted", "Image.delete", lambda w: w.client.image.delete(domain=MAIN, image=CHAIN), _lost(CHAIN)),
    Operation(
        "image wiped",
        "Image.delete",
        lambda w: w.client.image.delete(domain=MAIN, image=CLONE, wipe=True),
        _lost(CLONE),
        arrange=_hold(CLONE, volume("clone")),
        done=_zeros,
    ),
    Operation(
        "volume of its own created",
        "Volume.create",
        lambda w: w.client.volume.create(
            domain=MAIN, image=NEW, capacity=8 * MIB, format=VolumeFormat.RAW, id=NEW_VOLUME
        ),
        _data(NEW, NEW_VOLUME, EMPTY),
    ),
    Operation(
        "volume created on a leaf",
        "Volume.create",
        lambda w: w.client.volume.create(domain=MAIN, image=DISK, parent=volume("disk"), id=NEW_VOLUME),
        _on_top(DISK, CONTENT),
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
        _changed(*(f"{RAW}/{volume('raw')} {what}" for what in ("metadata", "told", "data"))),
        halfway=RAW,
    ),
    Operation(
        "qcow2 volume resized",
        "Volume.resize",
        # Beyond what one cluster of the first table maps: the table has to move.
        lambda w: w.client.volume.resize(domain=MAIN, volume=volume("disk"), capacity=1024 * MIB),
        _changed(*(f"{DISK}/{volume('disk')} {what}" for what in ("metadata", "told", "data"))),
        halfway=DISK,
        leaks=True,
    ),
    Operation(
        "volume described",
        "Volume.setDescription",
        lambda w: w.client.volume.set_description(domain=MAIN, volume=volume("disk"), description="other words"),
        _changed(f"{DISK}/{volume('disk')} told"),
    ),
    Operation(
        "volume marked illegal",
        "Volume.setLegality",
        lambda w: w.client.volume.set_legality(domain=MAIN, volume=volume("disk"), legality=Legality.ILLEGAL),
        _changed(f"{DISK}/{volume('disk')} metadata"),
    ),
    *(
        Operation(
            f"leaf {'wiped' if wipe else 'deleted'}",
            "Volume.delete",
            lambda w, wipe=wipe: w.client.volume.delete(domain=MAIN, volume=volume("chain leaf"), wipe=wipe),  # type: ignore[misc]
            lambda before, after: after[f"{CHAIN}/{volume('chain')} data"] == CONTENT
            and f"{CHAIN}/{volume('chain leaf')} data" not in after,
            arrange=_hold(CHAIN, volume("chain leaf")),
            done=_zeros if wipe else _fine,
        )
        for wipe in (False, True)
    ),
    Operation(
        "only volume deleted",
        "Volume.delete",
        lambda w: w.client.volume.delete(domain=MAIN, volume=volume("raw")),
        _lost(RAW),
    ),
    Operation(
        "import stopped",
        "Task.stop",
        _stopped_import,
        _same,
        end=TaskState.STOPPED,
        task_verb="Image.import",
        gated=True,
    ),
    Operation("task cleared", "Task.clear", _clear, _same, arrange=_an_ended_task, gone=(NoSuchTask,)),
    Operation("session opened", "Session.open", _open_session, _same),
]

