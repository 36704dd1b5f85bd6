# SPDX-License-Identifier: Apache-2.0
"""Keepers: small processes that hold the leases of prepared images.

Preparing an image is using it, and use has to outlive this service: so a process that only sleeps inherits the lease,
in a session of its own.  A keeper is its own record: its command line says what it holds, so a service that starts
finds the keepers of the one before it among the processes, and no file can disagree with them.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from hsm.domains.base import Held
from libvdsm.api.types import DomainId, ImageId, VolumeId
from libvdsm.log import Log

log = Log("hsm.keeper")

_NAME = "hsm-keeper"
_END = 5.0
_MOMENT = 0.0005


@dataclass(frozen=True)
class Keeper:
    """A process that holds the leases of one prepared image."""

    pid: int
    domain: DomainId
    image: ImageId
    volume: VolumeId
    read_only: bool
    since: float
    pidfd: int

    def alive(self) -> bool:
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return not poll.poll(0)


def _command_line(pid: int) -> bytes:
    return Path("/proc", str(pid), "cmdline").read_bytes()


class KeeperFailed(Exception):
    """A keeper could not be started, or did not end."""


class Keepers:
    """The keepers of this node's storage service, by image."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = str(run_dir.resolve())
        self._sleep = shutil.which("sleep") or "/bin/sleep"
        self._lock = threading.Lock()
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._keepers = {(keeper.domain, keeper.image): keeper for keeper in self._survivors()}
        for keeper in self._keepers.values():
            log.info("found a prepared image", image=keeper.image, keeper=keeper.pid)

    def all(self) -> list[Keeper]:
        """The keepers that live."""
        with self._lock:
            for keeper in [keeper for keeper in self._keepers.values() if not keeper.alive()]:
                log.warning("a keeper is gone", image=keeper.image, keeper=keeper.pid)
                self._drop(keeper)
            return list(self._keepers.values())

    def find(self, domain: DomainId, image: ImageId) -> Keeper | None:
        return next((keeper for keeper in self.all() if (keeper.domain, keeper.image) == (domain, image)), None)

    def start(self, domain: DomainId, image: ImageId, volume: VolumeId, held: Held, *, read_only: bool) -> Keeper:
        """Start a keeper with these leases.  The caller lets go of its own hold on them afterwards."""
        since = round(time.time(), 3)
        name = f"{_NAME} {domain} {image} {volume} {'read' if read_only else 'write'} {since} {self._run_dir}"
        try:
            process = subprocess.Popen(
                [name, "infinity"],
                executable=self._sleep,
                pass_fds=held.descriptors,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )
        except OSError as error:
            raise KeeperFailed(error.strerror or str(error)) from None
        # Only its command line tells a service after this one what it is, and that appears a moment after its start.
        until = time.monotonic() + _END
        while not _command_line(process.pid).startswith(name.encode()) and process.poll() is None:
            if time.monotonic() > until:
                process.kill()
            time.sleep(_MOMENT)
        if process.poll() is not None:
            msg = f"it ended at once, with status {process.returncode}"
            raise KeeperFailed(msg)
        keeper = Keeper(process.pid, domain, image, volume, read_only, since, os.pidfd_open(process.pid))
        with self._lock:
            self._children[process.pid] = process
            self._keepers[domain, image] = keeper
        return keeper

    def end(self, keeper: Keeper) -> None:
        """End a keeper, and return when it is gone and its leases are free."""
        with self._lock:
            if self._keepers.get((keeper.domain, keeper.image)) is not keeper:
                return
            # Whoever lists keepers meanwhile closes the descriptor of one that is gone.
            pidfd = os.dup(keeper.pidfd)
        try:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            if not poll.poll(_END * 1000):
                msg = f"process {keeper.pid} did not end within {_END:.0f} s"
                raise KeeperFailed(msg)
        finally:
            os.close(pidfd)
        with self._lock:
            self._drop(keeper)

    def _drop(self, keeper: Keeper) -> None:
        """Forget a keeper, once: its descriptor's number may be somebody else's by the second time."""
        if self._keepers.get((keeper.domain, keeper.image)) is not keeper:
            return
        del self._keepers[keeper.domain, keeper.image]
        os.close(keeper.pidfd)
        child = self._children.pop(keeper.pid, None)
        if child is not None:
            child.wait()

    def _survivors(self) -> Iterator[Keeper]:
        """Keepers that a service before this one started, with the same run directory."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                name = _command_line(int(entry.name)).split(b"\0")[0].decode("utf-8", "replace")
                if not name.startswith(f"{_NAME} ") or entry.stat().st_uid != os.getuid():
                    continue
                pidfd = os.pidfd_open(int(entry.name))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            keeper = self._parse(int(entry.name), name, pidfd)
            if keeper is None:
                os.close(pidfd)
            else:
                yield keeper

    def _parse(self, pid: int, name: str, pidfd: int) -> Keeper | None:
        parts = name.split(" ", 6)
        if len(parts) != 7 or parts[6] != self._run_dir:
            return None
        try:
            domain, image, volume = (UUID(part) for part in parts[1:4])
            since = float(parts[5])
        except ValueError:
            return None
        return Keeper(pid, DomainId(domain), ImageId(image), VolumeId(volume), parts[4] == "read", since, pidfd)
