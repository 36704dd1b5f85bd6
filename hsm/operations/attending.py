# SPDX-License-Identifier: Apache-2.0
"""The attendant: looks after transfers while there are any.

One that moves no data is paused, one that nobody goes on with is given up.  Where a program ended, the daemon is
started again, since all that clients were told of is still with the NBD servers; a download's server too, since
nothing is lost with it; an upload whose server ended is interrupted, for its client has to send again what was not
stable.  After a restart downloads go on by themselves, as soon as somebody can be answered.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from hsm.operations import transferring
from hsm.operations.base import Context
from hsm.tasks.locks import Locks
from hsm.transfers.states import Event
from hsm.transfers.transfers import Live
from libvdsm.api.transfer import TransferState
from libvdsm.declare import ApiError
from libvdsm.log import Log
from libvdsm.run import CommandError
from libvdsm.threads import Thread

log = Log("hsm.attending")

_TICK = 1.0
_PATIENCE = 10.0

Trying = Callable[[Locks], AbstractContextManager[bool]]


class Attendant:
    """A thread that sleeps while nothing is transferred."""

    def __init__(self, context: Context, trying: Trying) -> None:
        """``trying`` takes locks if they are free."""
        self._context = context
        self._transfers = context.transfers
        self._trying = trying
        self._stopping = threading.Event()
        self._tick = min(_TICK, context.config.transfer.inactivity / 4)
        self._thread = Thread("attendant", self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._transfers.begun.set()
        if self._thread.is_alive():
            self._thread.join(_PATIENCE)

    def _run(self) -> None:
        while self._transfers.begun.wait() and not self._stopping.is_set():
            try:
                self._attend()
            except Exception:  # the boundary of this thread: the next round may fare better
                log.exception("a round among the transfers broke off")
            self._stopping.wait(self._tick)

    def _attend(self) -> None:
        try:
            self._transfers.mend()
        except CommandError as error:
            log.error("ovirt-imageio cannot be started again", error=error)
        for live in self._transfers.live():
            due = self._due(live)
            if due is None:
                continue
            with self._trying(transferring.locks(live)) as taken, live.turn:
                # What was seen before the locks were held may not be so any more.
                due = self._due(live) if taken else None
                try:
                    if due is not None:
                        due(live)
                except (ApiError, CommandError) as error:
                    log.warning("a transfer could not be attended to", id=live.record.id, error=error)

    def _due(self, live: Live) -> Callable[[Live], None] | None:
        """What is to be done with one."""
        state, record = live.record.state, live.record
        over = time.time() > record.touched + self._transfers.expiry
        if state is TransferState.RUNNING:
            if live.server is not None and not live.server.alive():
                return self._broken
            ticket = self._transfers.ticket(live)
            if ticket is not None and not ticket.active:
                if ticket.idle_time >= self._context.config.transfer.inactivity:
                    return self._idle
                return lambda live: transferring.touched(self._context, live, time.time() - ticket.idle_time)
        elif over and state in (TransferState.PAUSED, TransferState.INTERRUPTED):
            return lambda live: transferring.end(self._context, live, Event.EXPIRE)
        elif state is TransferState.INTERRUPTED and not record.is_upload and record.problem is None:
            return self._go_on
        return None

    def _broken(self, live: Live) -> None:
        self._transfers.halt(live)
        if live.record.is_upload:
            problem = "qemu-nbd has ended; resume it, and send again what has not arrived"
            self._transfers.change(live, Event.BREAK, problem=problem)
        else:
            self._transfers.change(live, Event.BREAK)
            self._go_on(live)

    def _idle(self, live: Live) -> None:
        transferring.pause(self._context, live)

    def _go_on(self, live: Live) -> None:
        try:
            transferring.resume(self._context, live)
        except ApiError as error:
            if not live.ended:
                self._transfers.amend(live, problem=error.message)
            raise
