# SPDX-License-Identifier: Apache-2.0
"""Session: who a client is.  How sessions travel on wires that have none is the wires' tests' matter."""

from __future__ import annotations

import os
import pwd
import time

from libvdsm.api import VERBS
from libvdsm.api.errors import AccessDenied
from libvdsm.api.session import SessionInfo, TaskMode
from libvdsm.declare import Right
from tests.service import Daemon
from tests.verbs.provoked import provokes
from tests.verbs.scene import Scene, raised


def test_a_session_is_in_force_on_its_connection_until_that_ends(daemon: Daemon) -> None:
    before = time.time()
    with daemon.client() as client:
        opened = client.session.open(name="a test")
        assert opened == SessionInfo(
            user=pwd.getpwuid(os.getuid()).pw_name,
            wire="unix",
            right="administer",
            verbs=list(VERBS),
            task_mode=TaskMode.NON_TRANSPARENT,
            id=opened.id,
            uid=os.getuid(),
            pid=os.getpid(),
            name="a test",
            opened=opened.opened,
        )
        assert opened.id is not None
        assert opened.opened is not None
        assert before <= opened.opened <= time.time()
        assert client.session.get_info() == opened
        assert client.session.open().id != opened.id
    with daemon.client() as client:
        info = client.session.get_info()
    assert (info.id, info.name, info.opened, info.task_mode) == (None, None, None, TaskMode.NON_TRANSPARENT)


@provokes("Domain.create", "AccessDenied")
@provokes("Image.create", "AccessDenied")
def test_get_info_tells_what_the_caller_may_do(scene: Scene) -> None:
    reader = scene.as_caller(uid=None, right=Right.READ, wire="tcp")
    info = reader.session.get_info()
    assert (info.user, info.wire, info.right, info.uid) == ("anonymous@a test", "tcp", "read", None)
    assert set(info.verbs) == {name for name, verb in VERBS.items() if verb.declaration.right is Right.READ}
    error = raised(AccessDenied, lambda: reader.image.create(domain=scene.domain, capacity=1))
    assert (error.user, error.verb, error.right) == ("anonymous@a test", "Image.create", "operate")
    operator = scene.as_caller(uid=12345, right=Right.OPERATE)
    info = operator.session.get_info()
    assert (info.user, info.right, info.uid) == ("uid 12345", "operate", 12345)
    assert "Image.create" in info.verbs
    assert "Domain.create" not in info.verbs
    raised(AccessDenied, lambda: operator.domain.create(name="a", path="/"))


def test_every_verb_asks_for_its_right(scene: Scene) -> None:
    """Nobody gets past the right by way of parameters: it is asked for first."""
    for verb in VERBS.values():
        if verb.declaration.right > Right.READ:
            reader = scene.as_caller(uid=None, right=Right.READ)
            method = getattr(getattr(reader, verb.cls.lower()), verb.method)
            assert raised(AccessDenied, method).verb == verb.full
