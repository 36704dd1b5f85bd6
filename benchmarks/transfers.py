# SPDX-License-Identifier: Apache-2.0
"""Uploads and downloads over loopback, against ``ovirt-imageio`` alone: its own client, its own daemon, ``qemu-nbd``.

Both sides end with all data on stable storage, inside the clock.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from benchmarks import programs
from benchmarks.memory import resident_of
from benchmarks.rounds import Sides
from libvdsm.api.transfer import Direction
from libvdsm.api.types import DomainId, VolumeFormat
from libvdsm.client import Client

_SIZE = 2**30
_PIECE = 64 * 2**20
_TRANSFERS = 8
_MB = 1_000_000
_PATIENT = "transfer.inactivity=3600"
_START = 20.0


def _client() -> Any:
    from ovirt_imageio import client

    return client


@contextmanager
def upload(folder: Path) -> Iterator[Sides]:
    """1 GiB, half holes, into a qcow2 volume: from asking for it until it can be used, in seconds."""
    mover = _client()
    with programs.serving(folder, _PATIENT) as (_, client, domain), _bare_daemon(folder) as daemon:
        source = _source(folder)
        _keep_daemon(client, domain)

        def ours() -> float:
            began = time.perf_counter()
            transfer = client.transfer.start(domain=domain, direction=Direction.UPLOAD, size=_SIZE)
            mover.upload(str(source), transfer.url, None, secure=False)
            client.wait(client.transfer.finish(transfer=transfer.id))
            took = time.perf_counter() - began
            client.wait(client.image.delete(domain=domain, image=transfer.image))
            return took

        def bare() -> float:
            target = folder / "bare.qcow2"
            began = time.perf_counter()
            programs.run(["qemu-img", "create", "-q", "-f", "qcow2", str(target), str(_SIZE)])
            with daemon.serving(target, write=True) as url:
                mover.upload(str(source), url, None, secure=False)
            _sync(target)
            took = time.perf_counter() - began
            target.unlink()
            return took

        yield Sides(ours, bare)


@contextmanager
def download(folder: Path) -> Iterator[Sides]:
    """The same out of a qcow2 volume, into a qcow2 file, in seconds."""
    mover = _client()
    with programs.serving(folder, _PATIENT) as (_, client, domain), _bare_daemon(folder) as daemon:
        source = _source(folder)
        _keep_daemon(client, domain)
        transfer = client.transfer.start(domain=domain, direction=Direction.UPLOAD, size=_SIZE)
        mover.upload(str(source), transfer.url, None, secure=False)
        client.wait(client.transfer.finish(transfer=transfer.id))
        alone = folder / "bare.qcow2"
        programs.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(source), str(alone)])
        target = folder / "target.qcow2"

        def timed(get: Callable[[], None]) -> float:
            target.unlink(missing_ok=True)
            began = time.perf_counter()
            get()
            _sync(target)
            return time.perf_counter() - began

        def ours() -> None:
            reading = client.transfer.start(domain=domain, direction=Direction.DOWNLOAD, image=transfer.image)
            mover.download(reading.url, str(target), None, secure=False)
            client.wait(client.transfer.finish(transfer=reading.id))

        def bare() -> None:
            with daemon.serving(alone, write=False) as url:
                mover.download(url, str(target), None, secure=False)

        yield Sides(lambda: timed(ours), lambda: timed(bare))


def _keep_daemon(client: Client, domain: DomainId) -> None:
    """A transfer that runs, so that our daemon does too, as the bare one: neither is started inside the clock."""
    client.transfer.start(domain=domain, direction=Direction.UPLOAD, size=2**20)


@contextmanager
def memory(folder: Path) -> Iterator[Sides]:
    """Resident memory of hsmd while eight uploads move, at its highest, in MB."""
    with _moving(folder) as (pid, client, domain, source):
        yield Sides(lambda: _highest(client, domain, source, lambda: resident_of(pid)))


@contextmanager
def children(folder: Path) -> Iterator[Sides]:
    """That of the programs that move the data, likewise."""
    with _moving(folder) as (_, client, domain, source):

        def now() -> float:
            return sum(child.memory for child in client.host.get_stats().children) / _MB

        yield Sides(lambda: _highest(client, domain, source, now))


@contextmanager
def _moving(folder: Path) -> Iterator[tuple[int, Client, DomainId, Path]]:
    folder.mkdir(exist_ok=True)
    with programs.serving(folder) as (daemon, client, domain):
        source = folder / "source.raw"
        with source.open("wb") as file:
            file.write(os.urandom(_PIECE))
        yield daemon.process.pid, client, domain, source


_UPLOAD = "import sys\nfrom ovirt_imageio import client\nclient.upload(sys.argv[1], sys.argv[2], None, secure=False)\n"


def _highest(client: Client, domain: DomainId, source: Path, now: Callable[[], float]) -> float:
    size = source.stat().st_size
    started = [
        client.transfer.start(domain=domain, direction=Direction.UPLOAD, size=size, format=VolumeFormat.RAW)
        for _ in range(_TRANSFERS)
    ]
    movers = [subprocess.Popen([sys.executable, "-c", _UPLOAD, str(source), str(item.url)]) for item in started]
    highest = 0.0
    while any(mover.poll() is None for mover in movers):
        highest = max(highest, now())
        time.sleep(0.01)
    for item, mover in zip(started, movers, strict=True):
        if mover.returncode != 0:
            raise RuntimeError(f"an upload ended with {mover.returncode}")
        client.wait(client.transfer.finish(transfer=item.id))
        highest = max(highest, now())
        client.wait(client.image.delete(domain=domain, image=item.image))
    return highest


def _source(folder: Path) -> Path:
    """A raw file with data in every second piece."""
    path = folder / "source.raw"
    data = os.urandom(_PIECE)
    with path.open("wb") as file:
        for offset in range(0, _SIZE, 2 * _PIECE):
            file.seek(offset)
            file.write(data)
        file.truncate(_SIZE)
        os.fsync(file.fileno())
    return path


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


_CONFIGURATION = """\
[daemon]
systemd_enable = false
drop_privileges = false
[tls]
enable = false
[remote]
host = 127.0.0.1
port = {port}
[local]
socket = {folder}/data
[control]
socket = {folder}/control
[handlers]
keys = stderr
[logger_root]
level = WARNING
handlers = stderr
"""


class _Bare:
    """A daemon of ovirt-imageio's own, which has run before the clock starts: it is meant to."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder, self._port = folder, port
        self._number = 0

    @contextmanager
    def serving(self, path: Path, *, write: bool) -> Iterator[str]:
        """A qcow2 file, behind an NBD server and a ticket."""
        self._number += 1
        ticket, listening = f"bare-{self._number}", self._folder / f"nbd-{self._number}"
        node = json.dumps({"driver": "qcow2", "file": {"driver": "file", "filename": str(path)}})
        argv = ["qemu-nbd", "--persistent", "--shared=8", f"--socket={listening}", "--cache=none", "--aio=native"]
        argv += ["--discard=unmap", "--detect-zeroes=unmap"] if write else ["--read-only"]
        server = subprocess.Popen([*argv, f"json:{node}"], stderr=subprocess.DEVNULL)
        try:
            _until(listening)
            body = {
                "uuid": ticket,
                "size": _SIZE,
                "url": f"nbd:unix:{listening}",
                "timeout": 3600,
                "ops": ["write" if write else "read"],
                "sparse": True,
            }
            self._ask("PUT", ticket, json.dumps(body))
            yield f"http://127.0.0.1:{self._port}/images/{ticket}"
            self._ask("DELETE", ticket, None)
        finally:
            server.terminate()
            server.wait()

    def _ask(self, method: str, ticket: str, body: str | None) -> None:
        connection = HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(self._folder / "control"))
        connection.request(method, f"/tickets/{ticket}", body=body)
        reply = connection.getresponse()
        if reply.status >= 300:
            raise RuntimeError(reply.read().decode())
        connection.close()


@contextmanager
def _bare_daemon(folder: Path) -> Iterator[_Bare]:
    place = folder / "bare"
    (place / "conf.d").mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (place / "conf.d" / "bare.conf").write_text(_CONFIGURATION.format(port=port, folder=place))
    with ExitStack() as stack:
        program = Path(sys.executable).parent / "ovirt-imageio"
        daemon = subprocess.Popen([str(program), "--conf-dir", str(place)])
        stack.callback(daemon.wait)
        stack.callback(daemon.kill)
        _until(place / "control")
        yield _Bare(place, port)


def _until(path: Path) -> None:
    until = time.monotonic() + _START
    while True:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(path))
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.002)
            else:
                return
