# SPDX-License-Identifier: Apache-2.0
"""The work of a copy or a move: from an image that is leased for it to a published image elsewhere.

Every decision is made from what is on storage at that time: ``again`` reads the source anew, and is asked before the
copy is begun and before it is published.  The template that a clone's copy stands on is leased on the target's side,
so that nobody deletes it meanwhile.  Every program carries all leases: the source's, the template's, and those of all
new volumes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

from hsm.domains import durable
from hsm.domains.base import Domain, Held, Wanted
from hsm.formats import qcow2
from hsm.operations import chains, checksums
from hsm.operations.base import Context, storage_errors, written_to
from hsm.operations.chain_making import Chain, make_chain, nothing_more
from hsm.operations.creation import absent
from hsm.operations.filling import Meter
from hsm.operations.layers import Layer, Selection, attributes_of
from hsm.operations.making import empty_data, qemu_img
from hsm.tasks.manager import Job
from hsm.tools.copying import Copier
from hsm.tools.qemu_img import Source
from libvdsm.api.errors import CopyDiffers, InvalidParameter, NotTemplate, TemplateMissing
from libvdsm.api.image_copies import ChecksumInfo
from libvdsm.api.types import Allocation, ImageId, VolumeFormat, VolumeId, VolumeRole
from libvdsm.log import Log

log = Log("hsm.copying")


@dataclass(frozen=True)
class Wish:
    """How a copy is to be made.  ``rate`` in bytes a second; ``checksum``: both sides are read and compared."""

    rate: int | None
    checksum: bool


class Copying:
    """One copy or move.  ``lay_out`` says what is made of a selection; ``ids`` are those of the new volumes."""

    def __init__(
        self,
        context: Context,
        source: Domain,
        target: Domain,
        again: Callable[[], Selection],
        lay_out: Callable[[Selection], list[Layer]],
        ids: list[VolumeId],
    ) -> None:
        self._context = context
        self._source = source
        self._target = target
        self._again = again
        self._lay_out = lay_out
        self._ids = ids

    def run(self, job: Job, held: Held, wish: Wish, ready: Callable[[], None] = nothing_more) -> ChecksumInfo | None:
        """Make the copy under the source's leases: its checksum, if that was wanted."""
        selection = self._again()
        checksum: list[ChecksumInfo] = []
        with ExitStack() as leases, written_to(self._target):
            carried = (*held.descriptors, *self._lease_template(selection, leases))

            def fill(_: Chain, made: list[Held]) -> None:
                layers = self._layers(selection)
                descriptors = (*carried, *(number for one in made for number in one.descriptors))
                work = _Filling(self._context, job, self._source, self._target, descriptors)
                checksum.extend(work.fill(selection, layers, made, wish))

            make_chain(job, self._context, self._target, self._decide, fill, ready=ready)
        return checksum[0] if checksum else None

    def _layers(self, selection: Selection) -> list[Layer]:
        if len(selection.volumes) != len(self._ids):
            reason = f"{len(self._ids)} volumes were to be made, and there are {len(selection.volumes)} to copy"
            raise InvalidParameter(verb="volumes", reason=reason)
        return self._lay_out(selection)

    def _decide(self) -> Chain:
        """Under the target's lease."""
        selection = self._again()
        layers = self._layers(selection)
        absent(self._target, layers[0].plan.new.image)
        self._prove_template(selection)
        return Chain([layer.plan for layer in layers], attributes_of(selection, self._ids))

    def _lease_template(self, selection: Selection, leases: ExitStack) -> tuple[int, ...]:
        if selection.template is None:
            return ()
        self._prove_template(selection)
        home = ImageId(selection.template.metadata.image)
        with storage_errors(self._context, self._target.id, home):
            held = self._target.acquire([Wanted(selection.template.id, home, shared=True)])
        leases.callback(held.release)
        return held.descriptors

    def _prove_template(self, selection: Selection) -> None:
        """The target has the template, with the same volume."""
        if selection.template is None:
            return
        template, home = selection.template, ImageId(selection.template.metadata.image)
        record = self._target.image(home)
        found = record.volumes.get(template.id) if record and record.published else None
        if record is None or found is None:
            raise TemplateMissing(image=selection.record.id, base=home, volume=template.id, domain=self._target.id)
        if found.metadata.role is not VolumeRole.TEMPLATE:
            raise NotTemplate(image=home)
        chains.usable(self._target, record, chains.chain_of(record, found))


class _Filling:
    """The data of all layers, and their checksum."""

    def __init__(
        self, context: Context, job: Job, source: Domain, target: Domain, descriptors: tuple[int, ...]
    ) -> None:
        self._context = context
        self._job = job
        self._source = source
        self._target = target
        self._descriptors = descriptors
        self._copier = Copier(qemu_img(context))

    def fill(self, selection: Selection, layers: list[Layer], made: list[Held], wish: Wish) -> list[ChecksumInfo]:
        """All of it, stable when this returns; with a checksum if one is wanted."""
        seen = selection.top.metadata.capacity
        total = sum(layer.plan.metadata.capacity for layer in layers)
        meter = Meter(self._job, total + (2 * seen if wish.checksum else 0))
        for layer, own in zip(layers, made, strict=True):
            self._layer(meter, layer, own, wish.rate)
        if not all(layer.same for layer in layers):
            self._end_bitmaps(layers)
        for layer in layers:
            self._job.check()
            self._target.sync_data(layer.plan.new.image, layer.plan.new.volume)
        return [self._verified(meter, selection, layers[-1])] if wish.checksum else []

    def _layer(self, meter: Meter, layer: Layer, own: Held, rate: int | None) -> None:
        new, was = layer.plan.new, layer.source
        course = meter.course("copying", layer.plan.metadata.capacity, rate)
        reading = self._source.data_path(was.folder, was.id)
        writing = self._target.data_path(new.image, new.volume)
        if layer.same:
            self._target.make_data(new, [])
            # Shared space has to be found when one of the two is written; what is preallocated has it already.
            share = new.allocation is Allocation.SPARSE
            way = self._copier.same(reading, writing, course, descriptors=self._descriptors, share=share)
            log.debug("file copied", volume=new.volume, way=way.value)
            self._name_backing(layer, writing)
            return
        self._begin(layer, own, writing)
        self._copier.content(
            Source(reading, was.metadata.format.value),
            writing,
            new.format.value,
            course,
            descriptors=self._descriptors,
            backing=self._backing(layer),
            compress=layer.form.compress,
        )

    def _backing(self, layer: Layer) -> tuple[str, str] | None:
        """What a new volume stands on: path and format."""
        parent = layer.plan.metadata.parent
        if parent is None or layer.backing_format is None:
            return None
        return self._target.data_path(layer.plan.new.image, VolumeId(parent)), layer.backing_format.value

    def _begin(self, layer: Layer, own: Held, path: str) -> None:
        """An empty volume."""
        plan, size = layer.plan, layer.form.cluster_size
        if size is None or plan.new.format is VolumeFormat.RAW:
            empty_data(self._context, self._target)(plan, own)
            return
        backing = None
        if plan.metadata.parent is not None and layer.backing_format is not None:
            backing = (str(plan.metadata.parent), layer.backing_format.value)
        # The program would make the file with permissions of its own choice.
        self._target.make_data(replace(plan.new, length=0, allocation=Allocation.SPARSE), [])
        qemu_img(self._context).create(
            path,
            plan.metadata.capacity,
            descriptors=self._descriptors,
            preallocated=plan.new.allocation is Allocation.PREALLOCATED,
            cluster_size=size,
            backing=backing,
        )

    def _name_backing(self, layer: Layer, path: str) -> None:
        """Have the header of a copied file name what the copy stands on."""
        parent, header = layer.plan.metadata.parent, layer.source.header
        if parent is None or header is None or header.backing_file == str(parent):
            return
        durable.write_into(path, lambda start: qcow2.renamed(start, str(parent)), qcow2.READ)

    def _end_bitmaps(self, layers: list[Layer]) -> None:
        """What a tool wrote has no bitmaps; so none is left that would seem to know all that was written."""
        for layer in layers:
            header = layer.source.header
            if layer.same and header is not None and header.bitmaps_at is not None:
                path = self._target.data_path(layer.plan.new.image, layer.plan.new.volume)
                durable.write_into(path, qcow2.without_bitmaps, qcow2.READ)

    def _verified(self, meter: Meter, selection: Selection, leaf: Layer) -> ChecksumInfo:
        """The copy's checksum, which is the source's; what was written is read from the storage."""
        top, new = selection.top, leaf.plan.new
        seen = selection.top.metadata.capacity
        sides = (
            ("reading the source", self._source.data_path(top.folder, top.id), top.metadata.format),
            ("reading the copy", self._target.data_path(new.image, new.volume), new.format),
        )
        found = []
        for step, path, format_ in sides:
            course = meter.course(step, seen)
            source = Source(path, format_.value)
            found.append(checksums.compute(self._context, source, course, descriptors=self._descriptors))
        if found[0] != found[1]:
            raise CopyDiffers(image=selection.record.id, source=found[0].checksum, copy=found[1].checksum)
        return found[1]
