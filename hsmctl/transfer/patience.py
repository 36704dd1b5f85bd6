# SPDX-License-Identifier: Apache-2.0
"""Going on after whatever broke: a bounded number of times without any way made, and for a bounded time."""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hsmctl.connection import open_client
from hsmctl.progress import Bar
from libvdsm.api.errors import ConnectionFailed, TransferStateWrong
from libvdsm.api.transfer import TransferInfo
from libvdsm.api.types import Progress, TransferId
from libvdsm.client import Client
from libvdsm.declare import ApiError

_PATIENCE = 120.0
"""Seconds without an answer of the service."""
_ATTEMPTS = 8
"""Without any way made, while the service answers."""
_PAUSE = 0.5
_CHECKPOINT = 5.0
"""Seconds between two: what is sent again after a kill."""

BROKEN = (OSError, http.client.HTTPException, ConnectionFailed)


@dataclass
class Service:
    """The service, found again when the connection breaks."""

    address: str | None
    client: Client
    transfer: TransferId | None = None
    """what would be held, if its user gave up now"""

    def again(self) -> None:
        """Another connection.  Raises ``ConnectionFailed`` where that is not to be had in time."""
        until = time.monotonic() + _PATIENCE
        while True:
            with contextlib.suppress(OSError):
                self.client.close()
            try:
                self.client, _ = open_client(self.address)
                self.client.host.ping()
            except ConnectionFailed:
                if time.monotonic() > until:
                    raise
                time.sleep(_PAUSE)
            else:
                return


class Persistence:
    """Tries until something is done, as long as there is hope."""

    def __init__(self, service: Service, bar: Bar) -> None:
        self.service = service
        self.bar = bar
        self._attempts = 0

    def moved_on(self) -> None:
        self._attempts = 0

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """What breaks is told, and to be tried again; what cannot be mended is raised."""
        try:
            yield
        except (*BROKEN, TransferStateWrong) as error:
            self._attempts += 1
            if self._attempts >= _ATTEMPTS:
                raise
            self.bar.say(f"{str(error).rstrip('.')}; going on")
            time.sleep(_PAUSE)
            self.service.again()

    def resumed(self, transfer: TransferId) -> TransferInfo:
        return self.service.client.transfer.resume(transfer=transfer)


class Checkpoints:
    """Called often, does something now and then: shows how far it is, and has that kept."""

    def __init__(self, bar: Bar, step: str, size: int, reached: Callable[[], int], keep: Callable[[int], None]) -> None:
        self._bar, self._step, self._size = bar, step, size
        self._reached, self._keep = reached, keep
        self._kept = time.monotonic()

    def __call__(self) -> None:
        done = self._reached()
        show(self._bar, self._step, done, self._size)
        if time.monotonic() - self._kept >= _CHECKPOINT:
            self._keep(done)
            self._kept = time.monotonic()

    @contextlib.contextmanager
    def kept_on_interrupt(self) -> Iterator[None]:
        """What had been moved when ^C was pressed need not be moved again."""
        try:
            yield
        except KeyboardInterrupt:
            with contextlib.suppress(*BROKEN, ApiError):
                self._keep(self._reached())
            raise


def show(bar: Bar, step: str, done: int, size: int) -> None:
    percent = min(100.0, done * 100 / size) if size else 100.0
    bar.draw(Progress(done=done, total=size, percent=percent, step=step), step)
