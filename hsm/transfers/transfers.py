# SPDX-License-Identifier: Apache-2.0
"""The transfers of this service: their record, their leases, and the programs that move their data.

What happens on storage is the operations' business.  Here a transfer is *opened*, which starts a ``qemu-nbd`` with its
leases and gives ``ovirt-imageio`` a ticket onto it, and *closed* again; leases are held also while it is closed, until
it has ended.  One ``ovirt-imageio`` serves all of them, from the first that is open to the last.

Locks: ``Live.turn`` is one transfer's, for a change of it; ``_lock`` guards the tables and is never held for long.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from hsm.config import HsmConfig
from hsm.domains.base import Held
from hsm.events import EventLog
from hsm.tools.imageio import Imageio, Ticket
from hsm.tools.nbd_export import Export, QemuNbd
from hsm.transfers.states import ENDED, Event, move
from hsm.transfers.store import Record, TransferStore, TransferStoreError
from libvdsm.api.event import TransferChanged
from libvdsm.api.types import Allocation, DomainId, ImageId, TransferId
from libvdsm.log import Log
from libvdsm.run import CommandError, Runner

log = Log("hsm.transfers")


@dataclass(eq=False)
class Live:
    """A transfer in memory.  ``held`` from before its volume is published, or read, until it has ended."""

    record: Record
    held: Held | None = None
    server: QemuNbd | None = None
    turn: threading.RLock = field(default_factory=threading.RLock)

    @property
    def ended(self) -> bool:
        return self.record.state in ENDED


class Transfers:
    """All transfers of this service."""

    def __init__(self, config: HsmConfig, runner: Runner, events: EventLog) -> None:
        self._config = config
        self.expiry = config.transfer.expiry
        """seconds after which a transfer that nobody goes on with is given up"""
        self._runner = runner
        self._events = events
        self._folder = Path(config.service.run_dir) / "imageio"
        self._store = TransferStore(Path(config.service.state_dir) / "transfers.db")
        self._lock = threading.RLock()
        self._daemon_turn = threading.RLock()
        self._daemon: Imageio | None = None
        self._users = 0
        self._known = {record.id: Live(record) for record in self._store.load()}
        self.begun = threading.Event()
        """set while there is one that has not ended"""
        self._note()

    # ---- looking

    def all(self) -> list[Live]:
        with self._lock:
            return list(self._known.values())

    def live(self) -> list[Live]:
        """Those that have not ended."""
        return [live for live in self.all() if not live.ended]

    def find(self, transfer: TransferId) -> Live | None:
        with self._lock:
            return self._known.get(transfer)

    def holder(self, domain: DomainId, image: ImageId) -> Live | None:
        """One that holds leases of an image."""
        place = (domain, image)
        return next(
            (live for live in self.live() if live.held and (live.record.domain, live.record.image) == place), None
        )

    def of_domain(self, domain: DomainId) -> int:
        """How many use a domain."""
        return sum(live.record.domain == domain for live in self.live())

    def ticket(self, live: Live) -> Ticket | None:
        """How its clients use it, while it is open."""
        daemon = self._daemon
        if live.server is None or daemon is None:
            return None
        try:
            return daemon.ticket(live.record.ticket)
        except CommandError:
            return None

    def place(self, live: Live) -> tuple[str, str] | None:
        """(URL, Unix socket) for its clients, while it is open."""
        daemon = self._daemon
        if live.server is None or daemon is None:
            return None
        return f"http://127.0.0.1:{daemon.port}/images/{live.record.ticket}", daemon.data

    # ---- the record

    def begin(self, record: Record, held: Held | None = None) -> Live:
        """Write a new one down.  Raises ``TransferStoreError``."""
        self._prune()
        self._store.put(record)
        live = Live(record, held)
        with self._lock:
            self._known[record.id] = live
        self._note()
        self._tell(live)
        return live

    def change(self, live: Live, event: Event, **fields: object) -> None:
        """Something happened to it; it is written down before anybody is told.

        Where it cannot be, it is so all the same: a restart sees from what is on storage what became of it.
        """
        state = move(live.record.state, event)
        now = time.time()
        fields.setdefault("problem", None)
        if state in ENDED:
            fields["ended"] = now
        self.amend(live, state=state, **fields)
        self._note()
        self._tell(live)
        log.info("transfer", id=live.record.id, event=event.name, state=state.value, problem=live.record.problem or "")

    def amend(self, live: Live, **fields: object) -> None:
        """The same, for what is so whether it can be written down or not."""
        record = msgspec.structs.replace(live.record, **fields)
        try:
            self._store.put(record)
        except TransferStoreError as error:
            log.error("a transfer could not be written down", id=record.id, state=record.state.value, error=error)
        live.record = record

    def update(self, live: Live, **fields: object) -> None:
        """The same state, with other facts, written down.  Raises ``TransferStoreError``."""
        record = msgspec.structs.replace(live.record, **fields)
        self._store.put(record)
        live.record = record

    def drop(self, live: Live) -> None:
        """One that never came to be."""
        with self._lock:
            self._known.pop(live.record.id, None)
        self._note()
        try:
            self._store.forget(live.record.id)
        except TransferStoreError as error:
            log.warning("a transfer that is none stays in the record", id=live.record.id, error=error)

    def _note(self) -> None:
        if self.live():
            self.begun.set()
        else:
            self.begun.clear()

    def _tell(self, live: Live) -> None:
        record = live.record
        self._events.emit(
            TransferChanged(transfer=record.id, domain=record.domain, image=record.image, state=record.state.value)
        )

    def _prune(self) -> None:
        """Forget those that ended too long ago, and the oldest beyond a number."""
        ended = sorted((live for live in self.all() if live.ended), key=lambda live: -(live.record.ended or 0))
        oldest = time.time() - self._config.tasks.keep
        for place, live in enumerate(ended):
            if place >= self._config.tasks.keep_count or (live.record.ended or 0) < oldest:
                self.drop(live)

    # ---- moving data

    def open(self, live: Live, export: Export) -> None:
        """Let data move.  Its leases are held.  Raises ``CommandError``."""
        assert live.held is not None
        with ExitStack() as undo:
            daemon = self._enter_daemon(live.record.port)
            undo.callback(self._leave_daemon)
            server = self._serve(export, live.held)
            undo.callback(server.end, patience=0.0)
            self._add(daemon, live, server)
            undo.callback(_forget_ticket, daemon, live.record.ticket)
            # Before it is told to run: whoever hears that asks where.
            undo.callback(setattr, live, "server", None)
            live.server = server
            self.change(live, Event.OPEN, port=daemon.port, touched=time.time())
            undo.pop_all()

    def close(self, live: Live) -> None:
        """Move no more data, and have all stable that clients were told of.

        Raises ``CommandError`` where that may not be so; it is closed all the same.
        """
        server, live.server = live.server, None
        if server is None:
            return
        with ExitStack() as last:
            last.callback(self._leave_daemon)
            last.callback(server.end, patience=0.0)
            self._ask(lambda daemon: daemon.remove(live.record.ticket))
            if live.record.is_upload:
                self._ask(lambda daemon: self._flush(daemon, live, server))
                server.end()

    def _flush(self, daemon: Imageio, live: Live, server: QemuNbd) -> None:
        """Errors of what is written late are only told to who asks; nobody asks any more but us."""
        ours = new_ticket()
        daemon.add(ours, listening=server.socket, size=live.record.size, write=True, sparse=True, idle=3600)
        try:
            daemon.flush(ours)
        finally:
            _forget_ticket(daemon, ours)

    def checkpoint(self, live: Live) -> None:
        """Have stable what was sent so far.  Raises ``CommandError``."""
        if live.server is None:
            raise CommandError("qemu-nbd", "it does not run")
        self._ask(lambda daemon: daemon.flush(live.record.ticket))

    def halt(self, live: Live) -> None:
        """Move no more data, whatever becomes of what was sent and is not stable."""
        server, live.server = live.server, None
        if server is None:
            return
        server.end(patience=0.0)
        if self._daemon is not None:
            _forget_ticket(self._daemon, live.record.ticket)
        self._leave_daemon()

    def release(self, live: Live) -> None:
        """Let go of its leases; nothing of it moves data any more."""
        assert live.server is None
        held, live.held = live.held, None
        if held is not None:
            held.release()

    def checksum(self, live: Live, export: Export, wait: Callable[[], None]) -> str:
        """The checksum of what is there; ``wait`` is called now and then.  Raises ``CommandError``."""
        assert live.held is not None
        ours = new_ticket()
        with ExitStack() as stack:
            daemon = self._enter_daemon(live.record.port)
            stack.callback(self._leave_daemon)
            server = self._serve(export, live.held)
            stack.callback(server.end, patience=0.0)
            daemon.add(ours, listening=server.socket, size=live.record.size, write=False, sparse=False, idle=86400)
            stack.callback(_forget_ticket, daemon, ours)
            return daemon.checksum(ours, wait)

    @contextmanager
    def staying(self, live: Live) -> Iterator[None]:
        """The daemon stays, though a transfer is closed meanwhile.  Raises ``CommandError``."""
        self._enter_daemon(live.record.port)
        try:
            yield
        finally:
            self._leave_daemon()

    def mend(self) -> None:
        """Start the daemon again if it ended: what its clients were told of is still with the NBD servers."""
        with self._daemon_turn:
            daemon = self._daemon
            if daemon is None or daemon.alive():
                return
            log.warning("ovirt-imageio has ended and is started again", pid=daemon.pid)
            daemon.end()
            self._daemon = None
            self._daemon = self._start_daemon(daemon.port)
            for live in self.live():
                if live.server is not None:
                    self._add(self._daemon, live, live.server)

    def stop(self) -> None:
        """The service ends: what clients were told of is stable, and what is under way ends."""
        for live in self.live():
            with live.turn:
                try:
                    self.close(live)
                except CommandError as error:
                    log.warning("an upload may have lost its end", id=live.record.id, error=error)
                self.release(live)
        self._store.close()

    def _serve(self, export: Export, held: Held) -> QemuNbd:
        return QemuNbd(self._runner, export, str(self._folder / "private" / secrets.token_hex(4)), held.descriptors)

    def _add(self, daemon: Imageio, live: Live, server: QemuNbd) -> None:
        record = live.record
        daemon.add(
            record.ticket,
            listening=server.socket,
            size=record.size,
            write=record.is_upload,
            sparse=record.allocation is Allocation.SPARSE,
            idle=self._config.transfer.inactivity,
        )

    def _enter_daemon(self, earlier: int | None) -> Imageio:
        """The daemon, started for the first who needs it."""
        with self._daemon_turn:
            self.mend()
            if self._daemon is None:
                self._daemon = self._start_daemon(earlier)
            self._users += 1
            return self._daemon

    def _running_daemon(self) -> Imageio:
        """The daemon of who has entered, also if it had ended."""
        with self._daemon_turn:
            self.mend()
            assert self._daemon is not None
            return self._daemon

    def _ask(self, question: Callable[[Imageio], None]) -> None:
        """Ask the daemon for something; if it is just ending, ask the next one."""
        daemon = self._running_daemon()
        try:
            question(daemon)
        except CommandError:
            if not daemon.ends():
                raise
            question(self._running_daemon())

    def _leave_daemon(self) -> None:
        with self._daemon_turn:
            self._users -= 1
            if self._daemon is not None and not self._users:
                self._daemon.end()
                self._daemon = None

    def _start_daemon(self, earlier: int | None) -> Imageio:
        self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        mode = int(self._config.listen.unix_mode, 8)
        return Imageio(self._runner, self._folder, mode, self._config.transfer.port, earlier)


def _forget_ticket(daemon: Imageio, ticket: str) -> None:
    with suppress(CommandError):
        daemon.remove(ticket)


def new_ticket() -> str:
    """An id that nobody guesses."""
    return secrets.token_urlsafe(24)
