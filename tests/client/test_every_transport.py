# SPDX-License-Identifier: Apache-2.0
"""One client, the same over every transport: Unix socket, TCP, HTTP, HTTP over a Unix socket, a program, in-process."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from libvdsm.api.errors import (
    InvalidParameter,
    NoSuchImage,
    NoSuchTask,
    NoSuchVolume,
    VolumeExists,
)
from libvdsm.api.types import DomainId, ImageId, ImageInfo, TaskId, TaskInfo, TaskState, VolumeFormat, VolumeId
from libvdsm.client import Client
from libvdsm.log import request_id

CAPACITY = 5 * 2**30
TIMEOUT = 20.0


@pytest.fixture
def domain(client: Client) -> DomainId:
    return client.domain.list().items[0].id


@pytest.fixture
def image(client: Client, domain: DomainId) -> Any:
    """An image, deleted at the end."""
    made = client.wait(client.image.create(domain=domain, name="web01", capacity=CAPACITY), timeout=TIMEOUT)
    yield made
    client.wait(client.image.delete(domain=domain, image=made.id), timeout=TIMEOUT)


def test_a_verb_is_a_typed_method(client: Client) -> None:
    assert abs(client.host.ping().time - time.time()) < 60
    assert client.session.get_info().right == "administer"
    assert client.host.get_stats().uptime > 0


def test_a_task_is_waited_for_and_gives_its_result(client: Client, domain: DomainId) -> None:
    task = client.image.create(domain=domain, name="disk", capacity=CAPACITY, format=VolumeFormat.RAW)
    assert isinstance(task, TaskInfo)
    seen: list[TaskInfo[Any]] = []
    made = client.wait(task, timeout=TIMEOUT, on_progress=seen.append)
    assert isinstance(made, ImageInfo)
    assert (made.capacity, made.name, made.domain) == (CAPACITY, "disk", domain)
    assert seen[-1].state is TaskState.SUCCEEDED
    assert client.wait(client.image.delete(domain=domain, image=made.id), timeout=TIMEOUT) is not None
    assert made.id not in [found.id for found in client.image.list().items]


def test_what_was_made_is_listed_and_described(client: Client, domain: DomainId, image: ImageInfo) -> None:
    assert image.id in [found.id for found in client.image.list(domain=domain).items]
    info = client.image.get_info(domain=domain, image=image.id)
    assert info.chain is not None
    assert [volume.id for volume in info.chain] == [image.leaf]
    assert info.chain[0].format is VolumeFormat.QCOW2
    assert info.template is None
    assert isinstance(info.created, float)


def test_an_error_is_an_exception_with_its_attributes(client: Client, domain: DomainId) -> None:
    missing = ImageId(uuid.uuid4())
    with pytest.raises(NoSuchImage) as caught:
        client.image.get_info(domain=domain, image=missing)
    assert (caught.value.domain, caught.value.image) == (domain, missing)
    assert str(missing) in str(caught.value)


def test_what_the_service_refuses_is_an_exception_too(client: Client, domain: DomainId) -> None:
    with pytest.raises(InvalidParameter, match="capacity"):
        client.image.create(domain=domain, capacity=0)
    with pytest.raises(InvalidParameter, match=r"\$\.limit"):
        client.image.list(limit=2**62)


def test_the_error_of_a_task_is_raised_by_waiting(client: Client, domain: DomainId, image: ImageInfo) -> None:
    task = client.image.create(domain=domain, capacity=CAPACITY * 2, id=image.id, volume=image.leaf)
    with pytest.raises(VolumeExists) as caught:
        client.wait(task, timeout=TIMEOUT)
    assert caught.value.volume == image.leaf


def test_a_parameter_that_there_is_not_is_an_error_before_anything_is_sent(client: Client) -> None:
    with pytest.raises(TypeError, match=r"Image\.list has no parameter 'color'"):
        client.image.list(color="red")  # type: ignore[call-arg]


def test_text_of_all_the_world_arrives_unchanged(client: Client, domain: DomainId, image: ImageInfo) -> None:
    text = "größer <&> \"' \\ 漢字 \U0001f600"
    client.wait(client.volume.set_description(domain=domain, volume=image.leaf, description=text), timeout=TIMEOUT)
    assert client.volume.get_info(domain=domain, volume=image.leaf).description == text


def test_the_request_of_the_log_travels(client: Client, domain: DomainId) -> None:
    token = request_id.set("from-the-client")
    try:
        task = client.domain.check(domain=domain)
    finally:
        request_id.reset(token)
    assert task.request == "from-the-client"
    assert client.wait(task, timeout=TIMEOUT).healthy


def test_events_are_listened_to_while_calls_go_on(client: Client, domain: DomainId) -> None:
    events = client.listen()
    task = client.image.create(domain=domain, capacity=CAPACITY)
    made = client.wait(task, timeout=TIMEOUT)
    client.wait(client.image.delete(domain=domain, image=made.id), timeout=TIMEOUT)
    names, sequences = [], []
    for event in events:
        sequences.append(event.sequence)
        if event.data.get("image") == str(made.id):
            names.append(event.name)
        if names[-1:] == ["ImageDeleted"]:
            break
    assert names[0] == "VolumeCreated"
    assert sequences == sorted(set(sequences))


def test_events_begin_after_a_sequence_that_was_seen(client: Client, domain: DomainId) -> None:
    after = client.event.poll().next
    client.wait(client.domain.check(domain=domain), timeout=TIMEOUT)
    known = client.event.poll(after=after).items
    events = client.listen(after=after)
    assert [next(events).sequence for _ in known] == [event.sequence for event in known]


def test_who_listens_is_told_of_events_that_are_lost(client: Client) -> None:
    now = client.event.poll().next
    assert [client.listen().missed, client.listen(after=now).missed] == [False, False]
    # From before this service began, and from one that never was.
    assert [client.listen(after=0).missed, client.listen(after=2**60).missed] == [True, True]


def test_one_client_serves_many_threads(client: Client) -> None:
    """Each gets the answer to its own question."""

    def ask(_: int) -> None:
        for _ in range(25):
            task = TaskId(uuid.uuid4())
            with pytest.raises(NoSuchTask) as caught:
                client.task.get_info(task=task)
            assert caught.value.task == task

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ask, range(8)))


def test_many_clients_work_at_once(opener: Callable[[], Client], client: Client, domain: DomainId) -> None:
    barrier = threading.Barrier(3)

    def work(_: int) -> VolumeId:
        with opener() as own:
            barrier.wait(TIMEOUT)
            made = own.wait(own.image.create(domain=domain, capacity=CAPACITY), timeout=TIMEOUT)
            own.wait(own.image.delete(domain=domain, image=made.id), timeout=TIMEOUT)
            return made.leaf

    with ThreadPoolExecutor(3) as threads:
        gone = list(threads.map(work, range(3)))
    assert len(set(gone)) == 3
    for volume in gone:
        with pytest.raises(NoSuchVolume):
            client.volume.get_info(domain=domain, volume=volume)
