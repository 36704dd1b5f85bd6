# SPDX-License-Identifier: Apache-2.0
"""A service that is called and killed, and the judgement of what it answers.

Where an operation was cut off, the task says which way it went, and the invariants look whether that is so.
"""

from __future__ import annotations

import copy
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine

from libvdsm.api.errors import ImageInUse, Interrupted
from libvdsm.api.types import DomainId, ImageId, TaskInfo, TaskState, VolumeId
from libvdsm.client import Client
from libvdsm.client.client import to_exception
from libvdsm.declare import ApiError
from tests.property.model import Model
from tests.property.parts import Layer, Refused
from tests.service import Daemon

PATIENCE = 30.0
_ENDED = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.STOPPED)

Call = Callable[[Client, DomainId], Any]
Expected = Callable[[Model], None]


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


class Judge(RuleBasedStateMachine):
    """One domain, its model, and how each verb is judged."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self.service = service
        self.model = Model()
        self.folder = service.home / "work"
        self.domain = self._new_domain()
        self.creations: list[tuple[Call, Expected]] = []
        self.cut_after: float | None = None
        self.sound = True

    def _new_domain(self) -> DomainId:
        path = self.folder / f"domain-{self.service.number()}"
        path.mkdir(parents=True)
        task = self.service.client.domain.create(name="property", path=str(path))
        return self.service.client.wait(task, timeout=PATIENCE).id

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
                    # What is refused anyway may be refused for the leases of those who are at work beside it.
                    self._same_refusal(error, refused and Refused(*refused.errors, ImageInUse))
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

    def pick(self, which: int) -> ImageId:
        """An image by its age, the newest first; every number means one, if only one that never was."""
        if which < 0:
            return next(reversed(self.model.forgotten), ImageId(self.new_id()))
        living = list(self.model.images)
        return living[-1 - which % len(living)] if living else ImageId(self.new_id())

    def pick_template(self, which: int) -> ImageId:
        """A template, where there is one."""
        found = [image.id for image in self.model.images.values() if image.is_template]
        return found[which % len(found)] if found else self.pick(which)

    def layer(self, image: ImageId, position: int) -> Layer:
        """A layer of an image that there is, or was, or never was."""
        known = self.model.known(image)
        return known.at(position) if known else Layer(VolumeId(image), 0)

    def expect(self, layer: Layer, generation: str) -> int | None:
        return {"any": None, "right": layer.generation, "wrong": (layer.generation + 1) % 1000}[generation]
