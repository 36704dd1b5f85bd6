# SPDX-License-Identifier: Apache-2.0
"""The composition root: builds every part of the service and hands it to those who need it.  Read it as a table of
contents.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from hsm.audit.recorder import Recorder
from hsm.audit.store import AuditStore
from hsm.config import HsmConfig
from hsm.domains.registry import Registry, installed_drivers
from hsm.events import EventLog
from hsm.keeper import Keepers
from hsm.operations.attending import Attendant
from hsm.operations.base import Context
from hsm.operations.catalogue import OPERATIONS, rebuild
from hsm.operations.transferring import recover
from hsm.secrets import Secrets
from hsm.services.admission import Admission
from hsm.services.audit import AuditService
from hsm.services.base import Parts, Service
from hsm.services.bitmap import BitmapService
from hsm.services.config import ConfigService
from hsm.services.domain import DomainService
from hsm.services.event import EventService
from hsm.services.host import HostService
from hsm.services.image import ImageService
from hsm.services.secret import SecretService
from hsm.services.session import SessionService
from hsm.services.task import TaskService
from hsm.services.transfer import TransferService
from hsm.services.volume import VolumeService
from hsm.status import Status
from hsm.tasks.manager import TaskManager
from hsm.tasks.modes import NonTransparent, Ownership, Transparent
from hsm.tasks.owners import Owners
from hsm.tasks.states import ENDED
from hsm.tasks.store import TaskStore
from hsm.transfers.transfers import Transfers
from libvdsm.api import VERBS
from libvdsm.api.errors import Unavailable
from libvdsm.api.types import DomainId, TaskId, TaskMode
from libvdsm.client import Client
from libvdsm.client.framed import LocalTransport
from libvdsm.declare import Right
from libvdsm.log import Log
from libvdsm.run import Runner
from libvdsm.server import jsonrpc
from libvdsm.server.caller import Access, Caller, Connection
from libvdsm.server.dispatch import Dispatcher, Factory, Sessions
from libvdsm.server.framed import FramedServer
from libvdsm.server.http import HttpServer
from libvdsm.server.listener import (
    ConnectionCount,
    Limits,
    Listener,
    listen_tcp,
    listen_unix,
)

log = Log("hsm.app")

SERVICES: dict[str, type[Service]] = {
    "Host": HostService,
    "Config": ConfigService,
    "Session": SessionService,
    "Domain": DomainService,
    "Image": ImageService,
    "Volume": VolumeService,
    "Task": TaskService,
    "Event": EventService,
    "Audit": AuditService,
    "Transfer": TransferService,
    "Bitmap": BitmapService,
    "Secret": SecretService,
}
_PATIENCE = 20.0
_OWNER = "the service"


class App:
    """The service, in whichever process.  The caller holds the node's lock."""

    def __init__(self, config: HsmConfig, config_file: Path | None = None) -> None:
        state, run = Path(config.service.state_dir), Path(config.service.run_dir)
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        run.mkdir(parents=True, exist_ok=True)
        self.config = config
        self.events = EventLog(config.tasks.events)
        runner = Runner()
        keepers = Keepers(run)
        registry = Registry(installed_drivers(), state / "domains.json")
        self.transfers = Transfers(config, runner, self.events)
        self.context = Context(
            config, registry, runner, keepers, self.events, self.transfers, Secrets(state / "secrets")
        )
        store = TaskStore(state / "tasks.db")
        keep, count = config.tasks.keep, config.tasks.keep_count
        ownerships: list[Ownership] = [NonTransparent(store, keep, count), Transparent(keep, count)]
        self.audit = _audit_store(config)
        self.recorder = Recorder(self.audit) if self.audit else None
        self.tasks = TaskManager(
            self.events, ownerships, config.tasks.workers, config.tasks.queue, witness=self.recorder
        )
        self.owners = Owners(self.tasks, config.tasks.owner_grace, config.tasks.owner_keep)
        self._attendant = Attendant(self.context, self.tasks.trying)
        sessions = Sessions(config.limits.session_idle)
        self.status = Status(runner, keepers)
        file, presence = str(config_file) if config_file else None, self.owners.presence
        parts = Parts(self.context, self.tasks, self.events, sessions, self.status, file, presence, self.audit)
        self.dispatcher = Dispatcher(
            {name: _factory(service, parts) for name, service in SERVICES.items()},
            dict(SERVICES),
            sessions,
            witness=self.recorder,
            admission=Admission(self.tasks, TaskMode(config.tasks.mode)),
            presence=presence,
        )
        limits = config.limits
        self.limits = Limits(limits.message, limits.nesting, limits.connections, limits.idle)
        self._count = ConnectionCount(limits.connections)
        self.listeners: list[Listener] = []
        self.status.verbs = lambda: self.dispatcher.verbs
        self.status.wires = lambda: [listener.address for listener in self.listeners]
        self.status.connections = lambda: self._count.now
        self.status.calls = lambda: self.dispatcher.calls

    def start(self) -> None:
        """Settle what the service before left, then answer."""
        if self.recorder:
            self.recorder.recover()
        recover(self.context)
        self.tasks.recover(lambda verb, params: rebuild(self.context, verb, params))
        if self.recorder:
            self.recorder.settle(self.tasks.list())
        self._default_domain()
        self._collect_garbage()
        self._attendant.start()
        self._listen()
        log.info("serving", seconds=round(self.status.ready(), 3), wires=" ".join(self.status.wires()))

    def stop(self) -> None:
        """Stop answering; tasks stop where they can, or are finished."""
        self.owners.presence.close()
        self.tasks.close(_PATIENCE)
        self._attendant.stop()
        self.transfers.stop()
        for listener in self.listeners:
            listener.close()
        if self.audit:
            self.audit.close()
        log.info("stopped")

    def client(self) -> Client:
        """A client in this process, with all rights."""
        connection = Connection(
            "local",
            "this process",
            Right.ADMINISTER,
            os.getuid(),
            os.getgid(),
            os.getpid(),
            carries_descriptors=True,
            is_session=True,
        )

        def answer(message: bytes, descriptors: Sequence[int]) -> bytes | None:
            return jsonrpc.answer(self.dispatcher, message, connection, descriptors=descriptors)

        return Client(LocalTransport(answer, connection.close))

    def _submit(self, verb: str, **params: object) -> TaskId:
        """Have something done on the service's own account."""
        given = VERBS[verb].params(**params)
        operation = OPERATIONS[verb](self.context, given)
        return self.tasks.submit(verb, given, operation, owner=_OWNER, request="start").id

    def _default_domain(self) -> None:
        """The embedded default: a local domain in a folder of its own."""
        folder = self.config.service.default_domain
        unfinished = [task for task in self.tasks.list() if task.verb == "Domain.create" and task.state not in ENDED]
        if not folder or unfinished or self.context.registry.all():
            return
        Path(folder).mkdir(parents=True, exist_ok=True)
        found = self.context.registry.driver("local").discover(folder)
        if len(found) == 1 and self.context.registry.remembers:
            return  # it was detached, and stays so
        if len(found) == 1:
            task = self._submit("Domain.attach", path=folder, type="local", id=found[0])
        elif not found:
            task = self._submit("Domain.create", name="default", path=folder, type="local", id=DomainId(uuid.uuid4()))
        else:
            return
        # Who is answered first finds the domain there.
        self.tasks.wait(task, _PATIENCE)

    def _collect_garbage(self) -> None:
        """Of every domain, as tasks, so that who is answered first can wait for them."""
        try:
            for item in self.context.registry.all():
                self._submit("Domain.collectGarbage", domain=item.id)
        except Unavailable as error:
            log.warning("garbage stays until the next start", reason=error.message)

    def _listen(self) -> None:
        framed = FramedServer(self.dispatcher, self.limits)
        http = HttpServer(self.dispatcher, self.limits)
        listen, rights = self.config.listen, self.config.rights
        access = Access(_right(rights.anonymous), _right(rights.other_users))

        def add(sock: socket.socket, wire: str, serve: Callable[[socket.socket, Connection], None]) -> None:
            self.listeners.append(Listener(sock, wire, serve, access, self.limits, self._count))

        if listen.unix:
            run, mode = self.config.service.run_dir, int(listen.unix_mode, 8)
            add(listen_unix(f"{run}/hsm.sock", mode), "unix", framed.serve_socket)
            add(listen_unix(f"{run}/hsm-http.sock", mode), "http+unix", http.serve_socket)
        if listen.tcp:
            add(listen_tcp(listen.address, listen.jsonrpc_port), "tcp", framed.serve_socket)
            add(listen_tcp(listen.address, listen.http_port), "http", http.serve_socket)
        for listener in self.listeners:
            listener.start()


def _audit_store(config: HsmConfig) -> AuditStore | None:
    if not config.audit.enabled:
        return None
    return AuditStore(Path(config.service.state_dir, "audit.db"), config.audit.keep, config.audit.keep_count)


def _factory(service: type[Service], parts: Parts) -> Factory:
    def make(caller: Caller) -> Service:
        return service(parts, caller)

    return make


def _right(word: str) -> Right | None:
    return None if word == "none" else Right[word.upper()]
