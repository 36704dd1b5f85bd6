# SPDX-License-Identifier: Apache-2.0
"""Owners of tasks over the wires: how an id travels, and how the service learns that an owner is gone."""

from __future__ import annotations

import fcntl
import select
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import service
from tests.server.conftest import ANY_PORTS
from tests.server.raw import PATIENCE, Framed, Post, Served, request, until, xml

GRACE = 0.2
MIB = 2**20
ME = {"taskMode": "transparent", "owner": "me"}
GONE = "hsm.owners: owner gone"


@pytest.fixture(scope="module")
def owned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One hsmd with little patience, that everybody may use."""
    home = tmp_path_factory.mktemp("owners") / "home"
    settings = ("rights.anonymous=operate", f"tasks.owner_grace={GRACE}")
    with service.daemon(home, *ANY_PORTS, *settings) as running:
        found = Served.of(running)
        with Framed(found.unix) as framed:
            for task in framed.result("Task.list")["items"]:
                framed.finish(task)
        yield found


@pytest.fixture
def domain(owned: Served) -> str:
    with Framed(owned.unix) as framed:
        return str(framed.result("Domain.list")["items"][0]["id"])


@pytest.fixture
def busy(owned: Served, domain: str) -> Iterator[None]:
    with busy_domain(owned, domain):
        yield


@contextmanager
def busy_domain(owned: Served, domain: str) -> Iterator[None]:
    """The domain's metadata is somebody else's: tasks run, and do not come to an end."""
    with (owned.daemon.home / "domains" / domain / "dom_md" / "ids").open("r+b") as ids:
        fcntl.flock(ids, fcntl.LOCK_EX)
        yield


def new() -> str:
    return str(uuid.uuid4())


def gone(owned: Served, name: str) -> Callable[[], bool]:
    """Whether the service has noticed, and stopped something."""
    return lambda: any(GONE in line and f"owner={name} " in line for line in owned.log.splitlines())


# ---- how an id travels


def test_a_member_of_the_request_names_the_task(owned: Served, domain: str) -> None:
    with Framed(owned.unix) as framed:
        framed.result("Session.open", ME)
        task = new()
        params = {"domain": domain, "capacity": MIB}
        made = framed.call("Image.create", params, task=task)["result"]
        assert (made["id"], made["mode"]) == (task, "transparent")
        assert framed.finish(made)["state"] == "succeeded"
        assert framed.error("Image.create", params) == "TaskIdRequired"
        assert framed.call("Image.list", task=task)["error"]["data"]["name"] == "InvalidParameter"
        assert framed.call("Image.create", params, task="nonsense")["error"]["data"]["name"] == "InvalidParameter"
        framed.send(request("Image.create", params, task=5))
        assert framed.receive()["error"]["data"]["name"] == "InvalidRequest"


def test_over_http_a_header_does(owned: Served, domain: str) -> None:
    with Post(owned.http) as post:
        session = post.call("Session.open", ME)["id"]
        task = new()
        made = post.call("Domain.check", {"domain": domain}, Session_Id=session, Task_Id=task)
        assert (made["id"], made["mode"]) == (task, "transparent")
        ended = post.call("Task.wait", {"task": task, "timeout": PATIENCE}, Session_Id=session)
        assert ended["state"] == "succeeded"
        assert post.call("Task.getInfo", {"task": task}) == "NoSuchTask"
        assert post.call("Domain.check", {"domain": domain}, Session_Id=session) == "TaskIdRequired"
        assert post.call("Domain.check", {"domain": domain}, Task_Id=task) == "InvalidParameter"


def test_in_a_multicall_each_call_has_its_own(owned: Served, domain: str) -> None:
    with Post(owned.http) as post:
        session = post.call("Session.open", ME)["id"]
        tasks = [new(), new()]
        calls: list[dict[str, Any]] = [
            {"methodName": "Domain.check", "params": [{"domain": domain}], "taskId": task} for task in tasks
        ]
        calls += [{"methodName": "Host.ping"}, {"methodName": "Domain.check", "params": [{}], "taskId": 5}]
        answers = post.call("system.multicall", calls, Session_Id=session)
        assert [answer[0]["id"] for answer in answers[:2]] == tasks
        assert isinstance(answers[2], list)
        assert "taskId" in answers[3]["faultString"]
        assert post.call("system.multicall", calls, Session_Id=session, Task_Id=new()) == "InvalidParameter"


def test_users_have_owners_of_their_own(owned: Served, domain: str) -> None:
    """Whoever calls over TCP is somebody else, whatever name is given."""
    with Framed(owned.unix) as known, Framed(owned.tcp) as anonymous:
        task = new()
        known.result("Session.open", ME)
        anonymous.result("Session.open", ME)
        known.call("Domain.check", {"domain": domain}, task=task)
        assert anonymous.error("Task.getInfo", {"task": task}) == "NoSuchTask"
        assert known.result("Task.getInfo", {"task": task})["id"] == task


def test_pushed_events_are_the_owners(owned: Served, domain: str) -> None:
    with Framed(owned.unix) as mine, Framed(owned.unix) as others:
        for framed in (mine, others):
            framed.result("Event.subscribe")
        # The session may begin after the subscription.
        mine.result("Session.open", ME)
        task = new()
        mine.send(request("Domain.check", {"domain": domain}, "asked", task=task))
        told = mine.receive()
        while told.get("params", {}).get("data", {}).get("state") != "succeeded":
            told = mine.receive()
        assert told["params"]["data"]["task"] == task
        # Sent on the same connection, after whatever was pushed before.
        others.send(request("Domain.check", {"domain": domain}, "asked"))
        # How many events overtake the answer depends on who is quicker.
        heard = [others.receive()]
        while not any("result" in told for told in heard) or not any("method" in told for told in heard):
            heard.append(others.receive())
        theirs = next(answer["result"]["id"] for answer in heard if "result" in answer)
        assert {event["params"]["data"]["task"] for event in heard if "method" in event} == {theirs}


# ---- how the service learns that an owner is gone


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("wire", ["unix", "tcp"])
def test_a_client_that_dies_while_it_waits_is_noticed(owned: Served, domain: str, wire: str) -> None:
    """Nobody reads from its connection then: its thread in the service waits too."""
    name, task = f"framed-{wire}", new()
    framed = Framed(getattr(owned, wire))
    framed.result("Session.open", {"taskMode": "transparent", "owner": name})
    framed.call("Image.create", {"domain": domain, "capacity": MIB}, task=task)
    framed.send(request("Task.wait", {"task": task, "timeout": 60}))
    assert not gone(owned, name)()
    framed.sock.close()
    assert until(gone(owned, name))


@pytest.mark.usefixtures("busy")
def test_over_http_too(owned: Served, domain: str) -> None:
    name, task = "http-dies", new()
    with Post(owned.http) as post:
        session = post.call("Session.open", {"taskMode": "transparent", "owner": name})["id"]
        headers = {"Session_Id": session, "Task_Id": task}
        post.call("Image.create", {"domain": domain, "capacity": MIB}, **headers)
        waits = xml("Task.wait", {"task": task, "timeout": 60})
        post.http.request("POST", "/RPC2", waits, {"Content-Type": "text/xml", "Session-Id": session})
        # It is there as long as it waits, which is longer than the grace period.
        assert not select.select([post.http.sock], [], [], 3 * GRACE)[0]
        assert not gone(owned, name)()
    assert until(gone(owned, name))


def test_over_http_silence_is_absence_and_the_next_call_is_too_late(owned: Served, domain: str) -> None:
    name, task = "http-silent", new()
    with Post(owned.http) as post:
        with busy_domain(owned, domain):
            session = post.call("Session.open", {"taskMode": "transparent", "owner": name})["id"]
            params = {"domain": domain, "capacity": MIB}
            post.call("Image.create", params, Session_Id=session, Task_Id=task)
            assert until(gone(owned, name))
        ended = post.call("Task.wait", {"task": task, "timeout": PATIENCE}, Session_Id=session)
        assert (ended["state"], ended["error"]["name"]) == ("stopped", "OwnerAbsent")


@pytest.mark.usefixtures("busy")
def test_another_connection_of_the_same_owner_is_presence(owned: Served, domain: str) -> None:
    name, task = "stays", new()
    session = {"taskMode": "transparent", "owner": name}
    with Framed(owned.unix) as stays:
        stays.result("Session.open", session)
        with Framed(owned.unix) as leaves:
            leaves.result("Session.open", session)
            leaves.call("Image.create", {"domain": domain, "capacity": MIB}, task=task)
        ended = stays.result("Task.wait", {"task": task, "timeout": 3 * GRACE})
        assert ended["state"] == "running"
        assert not gone(owned, name)()
        stays.result("Task.stop", {"task": task})


def test_a_service_without_owners_has_no_thread_for_them(served: Served) -> None:
    threads = Path("/proc", str(served.daemon.process.pid), "task").iterdir()
    assert "owners" not in [(thread / "comm").read_text().strip() for thread in threads]
