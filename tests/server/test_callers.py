# SPDX-License-Identifier: Apache-2.0
"""Who calls: over a Unix socket the kernel says it, over TCP nobody can; and what each may do."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from libvdsm.api import VERBS
from libvdsm.declare import Right
from libvdsm.server.caller import Access, Connection
from tests import service
from tests.server.conftest import ANY_PORTS
from tests.server.raw import Framed, Post, Served
from tests.server.samples import CHANGING, good_params

NOBODY = pwd.getpwnam("nobody")
as_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become another user")


def test_the_services_own_user_and_root_may_do_everything() -> None:
    access = Access(anonymous=None, other_users=None)
    assert access.of_user(os.getuid()) is Right.ADMINISTER
    assert access.of_user(0) is Right.ADMINISTER


@pytest.mark.parametrize("right", [None, *Right])
def test_others_may_do_what_the_configuration_says(right: Right | None) -> None:
    assert Access(anonymous=None, other_users=right).of_user(54321) is right


def test_a_user_without_a_name_is_called_by_number() -> None:
    assert Connection("unix", "pid 1", Right.READ, uid=54321).user == "uid 54321"


def test_over_the_unix_socket_the_kernel_says_who_calls(framed: Framed) -> None:
    info = framed.result("Session.getInfo")
    assert (info["uid"], info["pid"], info["wire"]) == (os.getuid(), os.getpid(), "unix")
    assert info["user"] == pwd.getpwuid(os.getuid()).pw_name
    assert info["right"] == "administer"
    assert info["verbs"] == list(VERBS)


def test_the_task_of_a_call_belongs_to_its_caller(framed: Framed) -> None:
    [domain] = framed.result("Domain.list")["items"]
    task = framed.result("Domain.check", {"domain": domain["id"]})
    assert task["owner"] == pwd.getpwuid(os.getuid()).pw_name
    framed.finish(task)


@pytest.fixture(params=["tcp", "http"])
def anonymous(request: pytest.FixtureRequest, served: Served) -> Any:
    """Calls over TCP: a function from verb and parameters to the result, or the error's name."""
    if request.param == "http":
        with Post(served.http) as post:
            yield lambda verb, params: post.call(verb, params)
        return
    with Framed(served.tcp) as framed:

        def call(verb: str, params: Any) -> Any:
            reply = framed.call(verb, params)
            return reply["error"]["data"]["name"] if "error" in reply else reply["result"]

        yield call


def test_over_tcp_nobody_is_known_and_everybody_may_read(anonymous: Any) -> None:
    info = anonymous("Session.getInfo", {})
    assert info["user"] == "anonymous@127.0.0.1"
    assert info["right"] == "read"
    assert "uid" not in info
    assert set(info["verbs"]) == {name for name, verb in VERBS.items() if verb not in CHANGING}


def test_over_tcp_nothing_can_be_changed(anonymous: Any, framed: Framed) -> None:
    before = framed.result("Task.list"), framed.result("Image.list"), framed.result("Domain.list")
    for verb in CHANGING:
        assert anonymous(verb.full, good_params(verb)) == "AccessDenied", verb.full
    assert (framed.result("Task.list"), framed.result("Image.list"), framed.result("Domain.list")) == before


@pytest.mark.parametrize("user", ["none", "operate"])
def test_what_anonymous_callers_may_do_is_configured(tmp_path: Path, user: str) -> None:
    with service.daemon(tmp_path / "home", *ANY_PORTS, f"rights.anonymous={user}") as running:
        served = Served.of(running)
        with Framed(served.tcp) as framed:
            if user == "none":
                assert framed.is_closed()
            else:
                assert framed.error("Image.delete", {}) == "InvalidParameter"
                assert framed.error("Domain.format", {}) == "AccessDenied"


AS_ANOTHER = """
import json, sys
from libvdsm.client import connect
from libvdsm.declare import ApiError
with connect(sys.argv[1]) as client:
    info = client.session.get_info()
    try:
        client.domain.format(domain=client.domain.list().items[0].id)
        refused = None
    except ApiError as error:
        refused = type(error).__name__, error.user
print(json.dumps([info.uid, info.user, info.right, info.pid, refused]))
"""


@as_root
@pytest.mark.parametrize("wire", ["unix", "http+unix"])
def test_another_user_of_the_host_is_known_and_may_read(served: Served, wire: str) -> None:
    address = f"{wire}:{served.daemon.socket if wire == 'unix' else served.daemon.http_socket}"
    with subprocess.Popen(
        [sys.executable, "-c", AS_ANOTHER, address],
        stdout=subprocess.PIPE,
        user=NOBODY.pw_uid,
        group=NOBODY.pw_gid,
        extra_groups=[],
        cwd=Path(__file__).parents[2],
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
    ) as child:
        said, _ = child.communicate(timeout=30)
    uid, user, right, pid, refused = json.loads(said)
    assert (uid, user, right, pid) == (NOBODY.pw_uid, "nobody", "read", child.pid)
    assert refused == ["AccessDenied", "nobody"]


@as_root
def test_another_user_does_not_get_through_to_a_service_of_ones_own(tmp_path: Path) -> None:
    """A service in a user's folder makes its sockets for that user alone."""
    with service.daemon(tmp_path / "home") as running, Framed(str(running.socket)) as framed:
        # It answers when all its sockets are there.
        framed.result("Host.ping")
        for file in (running.socket, running.http_socket):
            assert file.stat().st_mode & 0o777 == 0o600
