# SPDX-License-Identifier: Apache-2.0
"""A program that has its own tasks: the service keeps nothing of them, and nobody else sees them."""

from __future__ import annotations

from examples.demo.stage import Stage

_FILE = "manager.py"
_PROGRAM = """\
import os
from libvdsm.client import TaskOwner, connect

def make(client):
    domain = client.domain.list(filter="name = default").items[0].id
    return client.image.create(domain=domain, name="db01", capacity=2**30)

with TaskOwner(lambda: connect(os.environ["HSM_CONNECT"]), "my-manager") as owner:
    task = owner.start(make)
    print("made", task.wait().name, "in task", task.id)
"""


def own(stage: Stage) -> None:
    tell = stage.tell
    tell.say(
        "A manager of virtual machines has tasks of its own. It can own those of the storage too: it names them, asks "
        "again if the service was killed, and nothing of them is kept on the service's disk."
    )
    (stage.work / _FILE).write_text(_PROGRAM)
    stage.shell(f"cat {_FILE}")
    task = stage.shell(f"python3 {_FILE}").split()[-1]
    with stage.service.client() as client:
        others = [str(other.id) for other in client.task.list().items]
    tell.claim("db01 is there, and the task is in nobody else's list.", "db01" in stage.images() and task not in others)
    stage.hsmctl("image", "delete", "db01")
