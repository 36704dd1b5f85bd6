# SPDX-License-Identifier: Apache-2.0
"""Random verbs over a real socket, each judged by the model.

Which rules there are to choose from never depends on what the service did, so that a run can be repeated although a
crash ends differently each time.  Where an operation was cut off, the task says which way it went, and the invariants
look whether that is so.
"""

from __future__ import annotations

import copy
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from libvdsm.api.errors import Interrupted
from libvdsm.api.types import (
    Allocation,
    DomainId,
    FileFormat,
    ImageId,
    ImageInfo,
    Legality,
    TaskInfo,
    TaskState,
    VolumeFormat,
    VolumeId,
)
from libvdsm.client import Client
from libvdsm.client.client import to_exception
from libvdsm.declare import ApiError
from tests.formats import qemu
from tests.property.model import BLOCK, Blocks, Image, Layer, Model, Refused
from tests.service import Daemon

PATIENCE = 30.0
_ENDED = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.STOPPED)

Call = Callable[[Client, DomainId], Any]
Expected = Callable[[Model], None]

capacities = st.sampled_from([2**20, 4 * BLOCK, 2**20 + 1, 1, 2 * 2**20])
formats = st.sampled_from([VolumeFormat.QCOW2, VolumeFormat.RAW])
allocations = st.sampled_from([Allocation.SPARSE, Allocation.SPARSE, Allocation.PREALLOCATED])
names = st.sampled_from([None, "disk", "größer", "a b"])
texts = st.sampled_from(["", "text", '{"odd"', "ü" * 20])
positions = st.integers(0, 4)
generations = st.sampled_from(["any", "any", "right", "wrong"])
block_maps = st.dictionaries(st.integers(0, 20), st.integers(0, 255), max_size=4)


class Service:
    """hsmd as a program, which is killed and started again."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.daemon: Daemon
        self.client: Client
        self.counts: Counter[str] = Counter()
        self._numbers = iter(range(1, 2**40))
        self.start()

    def number(self) -> int:
        return next(self._numbers)

    def start(self) -> None:
        """Start it, and wait until what the start began is done."""
        self.daemon = Daemon(self.home, "log.level=warning").wait()
        self.client = self.daemon.client()
        for task in self.client.task.list().items:
            if task.state not in _ENDED:
                ended = self.client.task.wait(task=task.id, timeout=PATIENCE)
                assert ended.state in _ENDED, f"after a restart a task does not end: {ended}"

    def restart(self) -> None:
        """As after a power cut of the process."""
        self.daemon.kill()
        self.client.close()
        self.start()

    def stop(self) -> None:
        self.client.close()
        self.daemon.stop()


class Verbs(RuleBasedStateMachine):
    """One domain, and whatever happens to it."""

    images = Bundle("images")

    def __init__(self, service: Service) -> None:
        super().__init__()
        self.service = service
        self.model = Model()
        self.domain: DomainId
        self.folder = service.home / "work"
        self.creations: list[tuple[Call, Expected]] = []
        self.cut_after: float | None = None
        self.sound = True

    @initialize()
    def new_domain(self) -> None:
        path = self.folder / f"domain-{self.service.number()}"
        path.mkdir(parents=True)
        task = self.service.client.domain.create(name="property", path=str(path))
        self.domain = self.service.client.wait(task, timeout=PATIENCE).id

    def new_id(self) -> uuid.UUID:
        return uuid.UUID(f"00000000-0000-4000-8000-{self.service.number():012x}")

    # ---- how every verb is judged

    @contextmanager
    def judged(self) -> Iterator[None]:
        """What fails in here makes looking at the rest pointless."""
        self.sound = False
        yield
        self.sound = True

    def do(self, call: Call, expected: Expected) -> Any:
        """Call a verb: the service and the model agree on whether it succeeds, and if not on why."""
        with self.judged():
            after, refused = self._predict(expected)
            try:
                answer = call(self.service.client, self.domain)
                result, interrupted = self._end(answer) if isinstance(answer, TaskInfo) else (answer, False)
            except ApiError as error:
                self._same_refusal(error, refused)
                return None
            if interrupted:
                self.service.counts["not done"] += 1
                return None
            assert not refused, f"the service does what is to be refused with {refused}: {result}"
            self.service.counts["done"] += 1
            self.model = after
            return result

    def do_all(self, calls: list[tuple[Call, Expected]]) -> None:
        """Call several verbs before the first has ended: the end is as if each had waited for the one before."""
        with self.judged():
            answers: list[TaskInfo[Any] | ApiError] = []
            for call, _ in calls:
                try:
                    answers.append(call(self.service.client, self.domain))
                except ApiError as error:
                    answers.append(error)
            for answer, (_, expected) in zip(answers, calls, strict=True):
                self.model, refused = self._predict(expected)
                try:
                    if isinstance(answer, ApiError):
                        raise answer
                    result = self.service.client.wait(answer, timeout=PATIENCE)
                except ApiError as error:
                    self._same_refusal(error, refused)
                else:
                    assert not refused, f"the service does what is to be refused with {refused}: {result}"
                    self.service.counts["done at once with others"] += 1

    def _predict(self, expected: Expected) -> tuple[Model, Refused | None]:
        after = copy.deepcopy(self.model)
        try:
            expected(after)
        except Refused as refused:
            return self.model, refused
        return after, None

    def _same_refusal(self, error: ApiError, refused: Refused | None) -> None:
        came = f"{type(error).__name__}: {error}"
        assert refused, f"the service refuses what the model does not: {came}"
        assert type(error) in refused.errors, f"{refused} is right, and this came: {came}"
        self.service.counts[type(error).__name__] += 1

    def _end(self, task: TaskInfo[Any]) -> tuple[Any, bool]:
        """A task's result, and whether the end of the service came first."""
        if self.cut_after is None:
            return self.service.client.wait(task, timeout=PATIENCE), False
        self.service.client.task.wait(task=task.id, timeout=self.cut_after)
        self.cut_after = None
        self.service.restart()
        self.service.counts["cut"] += 1
        ended = self.service.client.task.get_info(task=task.id)
        assert ended.state in _ENDED, f"a restart has not settled it: {ended}"
        stats = self.service.client.domain.get_stats(domain=self.domain)
        assert stats.garbage == 0, f"{ended.verb} left garbage that the start did not collect"
        if ended.error is not None:
            error = to_exception(ended.error)
            if isinstance(error, Interrupted):
                return None, True
            raise error
        return self.service.client.wait(ended), False

    def create(self, call: Call, expected: Expected) -> Any:
        """Call a verb that can be called again."""
        self.creations.append((call, expected))
        return self.do(call, expected)

    def layer(self, image: ImageId, position: int) -> Layer:
        """A layer of an image that there is, or was, or never was."""
        known = self.model.known(image)
        return known.at(position) if known else Layer(VolumeId(image), 0)

    def expect(self, layer: Layer, generation: str) -> int | None:
        return {"any": None, "right": layer.generation, "wrong": (layer.generation + 1) % 1000}[generation]

    # ---- making

    @rule(target=images, capacity=capacities, format_=formats, allocation=allocations, name=names)
    def create_image(self, capacity: int, format_: VolumeFormat, allocation: Allocation, name: str | None) -> ImageId:
        image, volume = ImageId(self.new_id()), VolumeId(self.new_id())
        self.create(
            lambda client, domain: client.image.create(
                domain=domain,
                capacity=capacity,
                name=name,
                format=format_,
                allocation=allocation,
                id=image,
                volume=volume,
            ),
            lambda model: model.create(image, volume, capacity, format_, allocation, name),
        )
        return image

    @rule(target=images, capacity=capacities, format_=formats)
    def create_image_without_ids(self, capacity: int, format_: VolumeFormat) -> ImageId:
        """The ids are the service's choice, so the model hears of them afterwards."""
        before = self.model
        result: ImageInfo | None = self.do(
            lambda client, domain: client.image.create(domain=domain, capacity=capacity, format=format_),
            lambda model: None,
        )
        if result is None:
            return ImageId(self.new_id())
        assert result.id not in before.images
        self.model.create(result.id, result.leaf, capacity, format_, Allocation.SPARSE, None)
        return result.id

    @rule(image=images, name=names)
    def snapshot(self, image: ImageId, name: str | None) -> None:
        volume = VolumeId(self.new_id())
        self.create(
            lambda client, domain: client.image.snapshot(domain=domain, image=image, name=name, volume=volume),
            lambda model: model.snapshot(image, volume, name),
        )

    @rule(image=images, position=positions, capacity=st.none() | capacities)
    def add_layer(self, image: ImageId, position: int, capacity: int | None) -> None:
        volume, parent = VolumeId(self.new_id()), self.layer(image, position).id
        self.create(
            lambda client, domain: client.volume.create(
                domain=domain, image=image, parent=parent, capacity=capacity, id=volume
            ),
            lambda model: model.add_layer(parent, volume, capacity),
        )

    @rule(target=images, template=images, capacity=st.none() | capacities, name=names)
    def clone(self, template: ImageId, capacity: int | None, name: str | None) -> ImageId:
        return self._clone(template, capacity, name)

    @rule(target=images, image=images)
    def make_template_and_clone_it(self, image: ImageId) -> ImageId:
        """Both at once, since chance alone seldom does the one after the other."""
        self.make_template(image)
        return self._clone(image, None, None)

    def _clone(self, template: ImageId, capacity: int | None, name: str | None) -> ImageId:
        image, volume = ImageId(self.new_id()), VolumeId(self.new_id())
        self.create(
            lambda client, domain: client.image.clone(
                domain=domain, template=template, name=name, capacity=capacity, id=image, volume=volume
            ),
            lambda model: model.clone(template, image, volume, capacity, name),
        )
        return image

    @rule(image=images)
    def make_template(self, image: ImageId) -> None:
        self.do(
            lambda client, domain: client.image.make_template(domain=domain, image=image),
            lambda model: model.make_template(image),
        )

    @rule(target=images, source=images)
    def make_template_from_copy(self, source: ImageId) -> ImageId:
        image, volume = ImageId(self.new_id()), VolumeId(self.new_id())
        self.create(
            lambda client, domain: client.image.make_template(
                domain=domain, image=source, name="copy", id=image, volume=volume
            ),
            lambda model: model.copy_template(source, image, volume, "copy"),
        )
        return image

    @rule(
        target=images,
        length=st.sampled_from([2**20, 3 * BLOCK]),
        blocks=block_maps,
        source_format=st.sampled_from([FileFormat.RAW, FileFormat.QCOW2]),
        capacity=st.none() | capacities,
        format_=formats,
        name=names,
    )
    def import_image(
        self,
        length: int,
        blocks: Blocks,
        source_format: FileFormat,
        capacity: int | None,
        format_: VolumeFormat,
        name: str | None,
    ) -> ImageId:
        image, volume = ImageId(self.new_id()), VolumeId(self.new_id())
        inside = {block: pattern for block, pattern in blocks.items() if (block + 1) * BLOCK <= length}
        file = qemu.create(self.folder / f"import-{image}", source_format.value, length)
        fill(str(file), source_format.value, inside)
        self.create(
            lambda client, domain: client.image.import_(
                domain=domain,
                path=str(file),
                source_format=source_format,
                name=name,
                format=format_,
                capacity=capacity,
                id=image,
                volume=volume,
            ),
            lambda model: model.import_(image, volume, length, capacity, format_, name, inside),
        )
        return image

    @rule(which=st.integers(0, 30))
    def repeat_a_creation(self, which: int) -> None:
        """The same call again answers the same, or why it cannot."""
        if self.creations:
            call, expected = self.creations[-1 - which % len(self.creations)]
            self.do(call, expected)

    # ---- changing

    @rule(image=images, position=positions, capacity=capacities, generation=generations)
    def resize(self, image: ImageId, position: int, capacity: int, generation: str) -> None:
        layer = self.layer(image, position)
        expect = self.expect(layer, generation)
        self.do(
            lambda client, domain: client.volume.resize(
                domain=domain, volume=layer.id, capacity=capacity, generation=expect
            ),
            lambda model: model.resize(layer.id, capacity, expect),
        )

    @rule(image=images, position=positions, text=texts, generation=generations)
    def set_description(self, image: ImageId, position: int, text: str, generation: str) -> None:
        layer = self.layer(image, position)
        expect = self.expect(layer, generation)
        self.do(
            lambda client, domain: client.volume.set_description(
                domain=domain, volume=layer.id, description=text, generation=expect
            ),
            lambda model: model.set_description(layer.id, text, expect),
        )

    @rule(
        image=images,
        position=positions,
        legality=st.sampled_from([Legality.LEGAL, Legality.ILLEGAL]),
        generation=generations,
    )
    def set_legality(self, image: ImageId, position: int, legality: Legality, generation: str) -> None:
        layer = self.layer(image, position)
        expect = self.expect(layer, generation)
        self.do(
            lambda client, domain: client.volume.set_legality(
                domain=domain, volume=layer.id, legality=legality, generation=expect
            ),
            lambda model: model.set_legality(layer.id, legality, expect),
        )

    # ---- using

    @rule(image=images, read_only=st.booleans())
    def prepare(self, image: ImageId, read_only: bool) -> None:
        prepared = self.do(
            lambda client, domain: client.image.prepare(domain=domain, image=image, read_only=read_only),
            lambda model: model.prepare(image, read_only=read_only),
        )
        if prepared is not None:
            leaf = self.model.images[image].leaf
            assert (prepared.volume, prepared.format, prepared.read_only) == (leaf.id, leaf.format, read_only)

    @rule(image=images)
    def teardown_image(self, image: ImageId) -> None:
        self.do(
            lambda client, domain: client.image.teardown(domain=domain, image=image),
            lambda model: model.teardown(image),
        )

    @rule(image=images, blocks=block_maps, stays=st.booleans())
    def guest_writes(self, image: ImageId, blocks: Blocks, stays: bool) -> None:
        """A guest starts, if none is there yet, writes, and goes on running or not."""
        self.prepare(image, read_only=False)
        known = self.model.images.get(image)
        if known is None or known.prepared != "write":
            return
        inside = {block: pattern for block, pattern in blocks.items() if (block + 1) * BLOCK <= known.leaf.capacity}
        info = self.service.client.image.get_info(domain=self.domain, image=image)
        assert info.prepared is not None
        fill(info.prepared.path, info.prepared.format.value, inside)
        self.model.write(image, inside)
        if not stays:
            self.teardown_image(image)

    @rule(image=images, position=st.none() | positions, format_=st.sampled_from([FileFormat.RAW, FileFormat.QCOW2]))
    def export(self, image: ImageId, position: int | None, format_: FileFormat) -> None:
        """What is exported, of now or of a snapshot, is what the model says."""
        layer = None if position is None else self.layer(image, position)
        target = self.folder / "export"
        exported = self.do(
            lambda client, domain: client.image.export(
                domain=domain, image=image, path=str(target), format=format_, volume=layer.id if layer else None
            ),
            lambda model: model.export(image, layer.id if layer else None),
        )
        if exported is not None:
            with self.judged():
                known = self.model.images[image]
                top = next((own for own in known.layers if layer and own.id == layer.id), known.leaf)
                assert exported.capacity == top.capacity
                assert qemu.content(target, format_.value) == self.model.content(known, top)

    @rule(
        chosen=st.lists(images, min_size=2, max_size=6),
        kinds=st.lists(st.sampled_from(["snapshot", "resize", "clone", "copy", "export"]), min_size=6, max_size=6),
        capacity=capacities,
    )
    def many_at_once(self, chosen: list[ImageId], kinds: list[str], capacity: int) -> None:
        self.do_all([self._one_of_many(kind, image, capacity) for kind, image in zip(kinds, chosen, strict=False)])

    def _one_of_many(self, kind: str, image: ImageId, capacity: int) -> tuple[Call, Expected]:
        new, volume, leaf = ImageId(self.new_id()), VolumeId(self.new_id()), self.layer(image, -1).id
        target = self.folder / f"export-{new}"
        made: dict[str, tuple[Call, Expected]] = {
            "snapshot": (
                lambda client, domain: client.image.snapshot(domain=domain, image=image, volume=volume),
                lambda model: model.snapshot(image, volume, None),
            ),
            "resize": (
                lambda client, domain: client.volume.resize(domain=domain, volume=leaf, capacity=capacity),
                lambda model: model.resize(leaf, capacity, None),
            ),
            "clone": (
                lambda client, domain: client.image.clone(domain=domain, template=image, id=new, volume=volume),
                lambda model: model.clone(image, new, volume, None, None),
            ),
            "copy": (
                lambda client, domain: client.image.make_template(
                    domain=domain, image=image, name="copy", id=new, volume=volume
                ),
                lambda model: model.copy_template(image, new, volume, "copy"),
            ),
            "export": (
                lambda client, domain: client.image.export(domain=domain, image=image, path=str(target)),
                lambda model: model.export(image, None),
            ),
        }
        return made[kind]

    # ---- deleting

    @rule(image=images, wipe=st.booleans())
    def delete(self, image: ImageId, wipe: bool) -> None:
        self.do(
            lambda client, domain: client.image.delete(domain=domain, image=image, wipe=wipe),
            lambda model: model.delete(image),
        )

    @rule(image=images, position=positions, generation=generations, wipe=st.booleans())
    def delete_volume(self, image: ImageId, position: int, generation: str, wipe: bool) -> None:
        layer = self.layer(image, -1 - position)
        expect = self.expect(layer, generation)
        self.do(
            lambda client, domain: client.volume.delete(domain=domain, volume=layer.id, wipe=wipe, generation=expect),
            lambda model: model.delete_volume(layer.id, expect),
        )

    # ---- accidents

    @rule()
    def kill_and_start(self) -> None:
        with self.judged():
            self.service.restart()

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.002, 0.004, 0.006, 0.01, 0.02, 0.04]))
    def kill_in_the_next_task(self, seconds: float) -> None:
        """So long after the next task was taken, unless it has ended before."""
        self.cut_after = seconds

    # ---- looking

    @rule()
    def collect_garbage(self) -> None:
        report = self.do(
            lambda client, domain: client.domain.collect_garbage(domain=domain),
            lambda model: None,
        )
        if report is not None:
            with self.judged():
                assert (report.removed, report.kept) == ([], []), "nobody left anything"

    @rule(deep=st.booleans())
    def check(self, deep: bool) -> None:
        report = self.do(
            lambda client, domain: client.domain.check(domain=domain, deep=deep),
            lambda model: None,
        )
        if report is not None:
            with self.judged():
                illegal = [layer.id for layer in self._layers() if layer.legality is not Legality.LEGAL]
                assert report.healthy
                assert sorted((found.kind, found.volume) for found in report.problems) == sorted(
                    ("illegal", volume) for volume in illegal
                )
                assert (report.images, report.volumes) == (len(self.model.images), len(self._layers()))

    def _layers(self) -> list[Layer]:
        return [layer for image in self.model.images.values() for layer in image.layers]

    @invariant()
    def the_list_of_images_is_the_models(self) -> None:
        with self.judged():
            listed = self.service.client.image.list(domain=self.domain).items
            assert {info.id: shown(info) for info in listed} == {
                image.id: described(image) for image in self.model.images.values()
            }

    def teardown(self) -> None:
        """The end of a run: every layer of every image is as the model has it, and then all of it can go."""
        if not self.sound:
            return
        self.cut_after = None
        self.collect_garbage()
        for image in list(self.model.images.values()):
            self._look_at_layers(image)
            self.teardown_image(image.id)
        for image in list(self.model.images.values()):
            self.export(image.id, None, FileFormat.RAW)
        self.check(deep=True)
        client = self.service.client
        client.wait(client.domain.format(domain=self.domain, force=True), timeout=PATIENCE)

    def _look_at_layers(self, image: Image) -> None:
        with self.judged():
            info = self.service.client.image.get_info(domain=self.domain, image=image.id)
            assert info.chain is not None
            seen = [
                (volume.id, volume.capacity, volume.format, volume.description, volume.legality, volume.generation)
                for volume in info.chain
            ]
            assert seen == [
                (layer.id, layer.capacity, layer.format, layer.text, layer.legality, layer.generation)
                for layer in self.model.chain(image)
            ]
            snapshots = [volume.name for volume in info.chain if volume.image == image.id][:-1]
            assert snapshots == [layer.snapshot for layer in image.layers[:-1]]


def shown(info: ImageInfo) -> dict[str, object]:
    """What an image's line in the list says, of what the model knows."""
    prepared = None if info.prepared is None else "read" if info.prepared.read_only else "write"
    return {
        "name": info.name,
        "description": info.description,
        "leaf": info.leaf,
        "capacity": info.capacity,
        "snapshots": info.snapshots,
        "is_template": info.is_template,
        "template": info.template,
        "legality": info.legality,
        "prepared": prepared,
        "damage": info.damage,
    }


def described(image: Image) -> dict[str, object]:
    """What it should say."""
    return {
        "name": image.name,
        "description": image.leaf.text,
        "leaf": image.leaf.id,
        "capacity": image.leaf.capacity,
        "snapshots": len(image.layers) - 1,
        "is_template": image.is_template,
        "template": image.template,
        "legality": image.leaf.legality,
        "prepared": image.prepared,
        "damage": None,
    }


def fill(path: str, format_: str, blocks: Blocks) -> None:
    """Write as a guest would: whole blocks of one byte."""
    for block, pattern in blocks.items():
        qemu.write(path, format_, pattern, block * BLOCK, BLOCK)
