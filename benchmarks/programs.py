# SPDX-License-Identifier: Apache-2.0
"""The service under measurement, and bare tools, started as cheaply as Python can."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from libvdsm.api.errors import ConnectionFailed
from libvdsm.api.types import DomainId, TaskState
from libvdsm.client import Client
from tests import service

_PATIENCE = 30.0


def run(argv: Sequence[str]) -> bytes:
    """Run a program and give its output.

    Not by ``subprocess``, which takes up to a millisecond more: the bare side is to be as fast as it can be.
    """
    path = shutil.which(argv[0]) or argv[0]
    ours, theirs = os.pipe()
    try:
        pid = os.posix_spawn(path, list(argv), os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, theirs, 1)])
    finally:
        os.close(theirs)
    parts = []
    while part := os.read(ours, 65536):
        parts.append(part)
    os.close(ours)
    _, status = os.waitpid(pid, 0)
    if status != 0:
        raise RuntimeError(f"{' '.join(argv)}: status {os.waitstatus_to_exitcode(status)}")
    return b"".join(parts)


def until_it_answers(daemon: service.Daemon) -> Client:
    """A client of a service that was just started, once it has answered Host.ping."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            client = daemon.client()
        except ConnectionFailed:
            if time.monotonic() > until or daemon.process.poll() is not None:
                raise
            time.sleep(0.001)
        else:
            client.host.ping()
            return client


@contextmanager
def serving(home: Path, *settings: str) -> Iterator[tuple[service.Daemon, Client, DomainId]]:
    """The service with its default domain, what it does at its start being done."""
    with service.daemon(home, *settings) as daemon, daemon.client() as client:
        yield daemon, client, settled(client)


def settled(client: Client) -> DomainId:
    """The default domain, once the tasks of the service's start have ended."""
    for task in client.task.list().items:
        if task.state in (TaskState.QUEUED, TaskState.RUNNING):
            client.wait(task, timeout=_PATIENCE)
    return client.domain.list().items[0].id
