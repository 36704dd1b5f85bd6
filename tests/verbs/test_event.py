# SPDX-License-Identifier: Apache-2.0
"""Event: what happens is told, once, in order, to who polls and to who listens."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from libvdsm.api import EVENTS
from libvdsm.api.errors import NotSupported
from libvdsm.api.event import EventInfo
from libvdsm.api.types import Legality
from tests.service import Daemon
from tests.verbs.conftest import Restart
from tests.verbs.provoked import provokes
from tests.verbs.scene import MIB, Scene, raised

Told = list[tuple[str, dict[str, Any]]]


def told(scene: Scene, after: int, *, tasks: bool = False) -> Told:
    items = scene.client.event.poll(after=after).items
    return [(event.name, event.data) for event in items if tasks or event.name != "TaskChanged"]


def here(scene: Scene, **data: Any) -> dict[str, Any]:
    return {
        "domain": str(scene.domain),
        **{key: value if isinstance(value, bool | int) else str(value) for key, value in data.items()},
    }


# ---- which verb tells what


def creation(scene: Scene) -> tuple[Callable[[], Any], Callable[[Any], Told]]:
    return scene.image, lambda made: [("VolumeCreated", here(scene, image=made.id, volume=made.leaf))]


def snapshot(scene: Scene) -> tuple[Callable[[], Any], Callable[[Any], Told]]:
    base = scene.image()
    return lambda: scene.snapshot(base), lambda made: [
        ("VolumeChanged", here(scene, image=base.id, volume=base.leaf)),
        ("VolumeCreated", here(scene, image=base.id, volume=made.leaf)),
    ]


def clone(scene: Scene) -> tuple[Callable[[], Any], Callable[[Any], Told]]:
    template = scene.template()
    return lambda: scene.clone(template), lambda made: [("VolumeCreated", here(scene, image=made.id, volume=made.leaf))]


def template(scene: Scene) -> tuple[Callable[[], Any], Callable[[Any], Told]]:
    image = scene.image()
    make = scene.client.image.make_template
    return lambda: scene.wait(make(domain=scene.domain, image=image.id)), lambda _: [
        ("VolumeChanged", here(scene, image=image.id, volume=image.leaf))
    ]


def change(verb: str, **params: Any) -> Callable[[Scene], tuple[Callable[[], Any], Callable[[Any], Told]]]:
    def made(scene: Scene) -> tuple[Callable[[], Any], Callable[[Any], Told]]:
        image = scene.image(MIB)
        call = getattr(scene.client.volume, verb)
        return lambda: scene.wait(call(domain=scene.domain, volume=image.leaf, **params)), lambda _: [
            ("VolumeChanged", here(scene, image=image.id, volume=image.leaf))
        ]

    made.__name__ = verb
    return made


def deletion(scene: Scene) -> tuple[Callable[[], Any], Callable[[Any], Told]]:
    image = scene.image()
    return lambda: scene.wait(scene.client.image.delete(domain=scene.domain, image=image.id)), lambda _: [
        ("ImageDeleted", here(scene, image=image.id))
    ]


def deletion_of_a_leaf(scene: Scene) -> tuple[Callable[[], Any], Callable[[Any], Told]]:
    image = scene.snapshot(scene.image())
    return lambda: scene.wait(scene.client.volume.delete(domain=scene.domain, volume=image.leaf)), lambda _: [
        ("VolumeDeleted", here(scene, image=image.id, volume=image.leaf))
    ]


def deletion_of_the_last_volume(scene: Scene) -> tuple[Callable[[], Any], Callable[[Any], Told]]:
    image = scene.image()
    return lambda: scene.wait(scene.client.volume.delete(domain=scene.domain, volume=image.leaf)), lambda _: [
        ("ImageDeleted", here(scene, image=image.id))
    ]


def preparing(scene: Scene) -> tuple[Callable[[], Any], Callable[[Any], Told]]:
    image = scene.image()
    prepare = scene.client.image.prepare
    return lambda: prepare(domain=scene.domain, image=image.id, read_only=True), lambda _: [
        ("ImagePrepared", here(scene, image=image.id, readOnly=True))
    ]


def tearing_down(scene: Scene) -> tuple[Callable[[], Any], Callable[[Any], Told]]:
    image = scene.image()
    scene.client.image.prepare(domain=scene.domain, image=image.id)
    return lambda: scene.client.image.teardown(domain=scene.domain, image=image.id), lambda _: [
        ("ImageTornDown", here(scene, image=image.id))
    ]


def collecting(scene: Scene) -> tuple[Callable[[], Any], Callable[[Any], Told]]:
    for _ in range(2):
        (scene.images / f"_remove_me_{uuid.uuid4()}").mkdir()
    collect = scene.client.domain.collect_garbage
    return lambda: scene.wait(collect(domain=scene.domain)), lambda _: [("GarbageCollected", here(scene, items=2))]


def renaming(scene: Scene) -> tuple[Callable[[], Any], Callable[[Any], Told]]:
    call = scene.client.domain.set_description
    return lambda: scene.wait(call(domain=scene.domain, description="new")), lambda _: [("DomainChanged", here(scene))]


def detaching(scene: Scene) -> tuple[Callable[[], Any], Callable[[Any], Told]]:
    call = scene.client.domain.detach
    return lambda: scene.wait(call(domain=scene.domain)), lambda _: [("DomainDetached", here(scene))]


def attaching(scene: Scene) -> tuple[Callable[[], Any], Callable[[Any], Told]]:
    scene.wait(scene.client.domain.detach(domain=scene.domain))
    call = scene.client.domain.attach
    return lambda: scene.wait(call(path=str(scene.root.parent))), lambda _: [
        ("DomainAttached", here(scene, name="default"))
    ]


def destroying(scene: Scene) -> tuple[Callable[[], Any], Callable[[Any], Told]]:
    call = scene.client.domain.format
    return lambda: scene.wait(call(domain=scene.domain)), lambda _: [("DomainDetached", here(scene))]


def tagging(scene: Scene) -> tuple[Callable[[], Any], Callable[[Any], Told]]:
    image = scene.image(MIB)
    call = scene.client.image.set_tags
    return (
        lambda: scene.wait(call(domain=scene.domain, image=image.id, tags=["new"])),
        lambda _: [("ImageChanged", here(scene, image=image.id))],
    )


ACTIONS = [
    tagging,
    creation,
    snapshot,
    clone,
    template,
    change("resize", capacity=2 * MIB),
    change("set_description", description="new"),
    change("set_legality", legality=Legality.ILLEGAL),
    change("set_tags", tags=["new"]),
    deletion,
    deletion_of_a_leaf,
    deletion_of_the_last_volume,
    preparing,
    tearing_down,
    collecting,
    renaming,
    detaching,
    attaching,
    destroying,
]


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.__name__)
def test_what_happened_is_told(scene: Scene, action: Callable[[Scene], Any]) -> None:
    act, expected = action(scene)
    after = scene.client.event.poll().next
    made = act()
    assert told(scene, after) == expected(made)


def test_every_event_is_told_by_some_action(scene: Scene) -> None:
    seen = {"TaskChanged"}
    for action in ACTIONS[:-3]:
        act, expected = action(scene)
        seen |= {name for name, _ in expected(act())}
    # The last is shown in tests/transfers.
    seen |= {"DomainDetached", "DomainAttached", "TransferChanged"}
    assert seen == set(EVENTS)


def test_what_is_so_already_is_not_told(scene: Scene) -> None:
    image = scene.image(MIB)
    scene.client.image.prepare(domain=scene.domain, image=image.id)
    after = scene.client.event.poll().next
    scene.client.image.prepare(domain=scene.domain, image=image.id)
    scene.wait(scene.client.volume.resize(domain=scene.domain, volume=image.leaf, capacity=MIB))
    scene.wait(scene.client.domain.collect_garbage(domain=scene.domain))
    assert told(scene, after) == []


def test_a_task_tells_its_states(scene: Scene) -> None:
    after = scene.client.event.poll().next
    task = scene.client.image.create(domain=scene.domain, capacity=MIB)
    scene.wait(task)
    changes = [data for name, data in told(scene, after, tasks=True) if name == "TaskChanged"]
    assert {data["task"] for data in changes} == {str(task.id)}
    assert {data["verb"] for data in changes} == {"Image.create"}
    states = [data["state"] for data in changes]
    assert (states[0], states[1], states[-1]) == ("queued", "running", "succeeded")
    assert changes[-1]["progress"]["percent"] == 100


# ---- poll


def test_poll_begins_where_it_is_told(scene: Scene) -> None:
    begin = scene.client.event.poll()
    assert (begin.items, begin.missed) == ([], False)
    before = time.time()
    scene.image()
    page = scene.client.event.poll(after=begin.next)
    sequences = [event.sequence for event in page.items]
    assert sequences == sorted(set(sequences))
    assert sequences[0] > begin.next
    assert page.next == sequences[-1]
    assert all(before <= event.time <= time.time() for event in page.items)
    assert scene.client.event.poll(after=page.next).items == []


def test_poll_answers_no_more_than_the_limit_and_goes_on(scene: Scene) -> None:
    after = scene.client.event.poll().next
    scene.image()
    whole = scene.client.event.poll(after=after).items
    found: list[EventInfo] = []
    while page := scene.client.event.poll(after=after, limit=2):
        assert len(page.items) <= 2
        if not page.items:
            break
        found += page.items
        after = page.next
    assert found == whole


def test_poll_waits_for_what_happens_next(scene: Scene) -> None:
    after = scene.client.event.poll().next
    began = time.monotonic()
    assert scene.client.event.poll(after=after, timeout=0.05).items == []
    assert time.monotonic() - began >= 0.05
    found: list[EventInfo] = []
    waiting = threading.Thread(target=lambda: found.extend(scene.client.event.poll(after=after, timeout=30).items))
    waiting.start()
    scene.image()
    waiting.join(10)
    assert found


def test_who_polls_too_late_is_told_that_he_missed_something(scene: Scene, restart: Restart) -> None:
    first = scene.client.event.poll().next
    scene = restart(scene.domain, tasks__events="10")
    assert scene.client.event.poll(after=first).missed, "what was before the restart is gone"
    after = scene.client.event.poll().next
    scene.image()
    assert not scene.client.event.poll(after=after).missed
    for _ in range(5):
        scene.image()
    page = scene.client.event.poll(after=after)
    assert page.missed
    assert len(page.items) == 10
    assert scene.client.event.poll(after=page.next + 1000).missed, "it is of no service that ever was"


# ---- subscribe


@provokes("Event.subscribe", "NotSupported")
def test_a_wire_that_cannot_push_says_so(scene: Scene) -> None:
    raised(NotSupported, scene.client.event.subscribe)


def test_who_listens_is_told_as_it_happens_and_from_where_he_wants(daemon: Daemon) -> None:
    with daemon.client() as client, daemon.client() as other:
        domain = client.domain.list().items[0].id
        before = client.event.poll().next
        listening = client.listen()
        first = other.wait(other.image.create(domain=domain, capacity=MIB))
        live = next(event for event in listening if event.name == "VolumeCreated")
        assert live.data["image"] == str(first.id)
        again = next(event for event in client.listen(after=before) if event.name == "VolumeCreated")
        assert again == live
        assert client.event.subscribe(after=live.sequence).after == live.sequence
