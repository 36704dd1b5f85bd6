# SPDX-License-Identifier: Apache-2.0
"""How long the service takes to answer after its start."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import programs, volumes
from benchmarks.rounds import Sides
from tests import service

_VOLUMES = 5000


@contextmanager
def start(folder: Path) -> Iterator[Sides]:
    """From the start of the process until it has answered Host.ping, in seconds, with an attached domain."""
    volumes.fill(folder, _VOLUMES)
    with programs.serving(folder):
        pass  # now the domain is attached, and remembered

    def ours() -> float:
        began = time.perf_counter()
        daemon = service.Daemon(folder)
        try:
            with programs.until_it_answers(daemon) as client:
                took = time.perf_counter() - began
                programs.settled(client)
        finally:
            daemon.stop()
        return took

    yield Sides(ours)
