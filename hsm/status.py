# SPDX-License-Identifier: Apache-2.0
"""How this process is: its memory, its children, its programs."""

from __future__ import annotations

import os
import resource
import shutil
import threading
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hsm.keeper import Keepers
from hsm.tools import imageio
from libvdsm.api.host import ChildInfo, HostStats, ToolInfo
from libvdsm.run import CommandError, Runner

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_TOOLS = {
    "qemu-img": "copying, importing, exporting, measuring and growing qcow2 volumes",
    "qemu-nbd": "uploads and downloads",
    "setpriv": "ending programs together with the service; they end by themselves instead",
}
_VERSION_DEADLINE = 5


def _memory(pid: int) -> int:
    """Resident memory of a process in bytes; 0 when it is gone."""
    try:
        return int(Path("/proc", str(pid), "statm").read_text(encoding="ascii").split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _process_start() -> float:
    """When this process began, in seconds since the epoch."""
    fields = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    return time.time() - uptime + int(fields[19]) / _TICKS


class Status:
    """Answers what a service is asked about itself."""

    def __init__(self, runner: Runner, keepers: Keepers) -> None:
        self._runner = runner
        self._keepers = keepers
        self._began = _process_start()
        self._ready = 0.0
        self._tools: list[ToolInfo] | None = None
        try:
            self.version = version("hsm")
        except PackageNotFoundError:
            self.version = "unknown"
        self.verbs: Callable[[], list[str]] = list
        self.wires: Callable[[], list[str]] = list
        self.connections: Callable[[], int] = int
        self.calls: Callable[[], int] = int

    def ready(self) -> float:
        """The service answers from now on: how long that took, in seconds."""
        self._ready = time.time()
        return self._ready - self._began

    def tools(self) -> list[ToolInfo]:
        """The programs that the service starts; asked for once."""
        if self._tools is None:
            self._tools = [_tool(self._runner, name, purpose) for name, purpose in _TOOLS.items()]
            self._tools.append(_imageio())
        return self._tools

    def stats(self, queued: int, running: int, domains: int) -> HostStats:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        children = [
            ChildInfo(pid=program.pid, name=program.name, memory=_memory(program.pid))
            for program in self._runner.running()
        ] + [
            ChildInfo(pid=keeper.pid, name=f"keeper of {keeper.image}", memory=_memory(keeper.pid))
            for keeper in self._keepers.all()
        ]
        return HostStats(
            uptime=time.time() - self._began,
            started=self._began,
            start_duration=max(0.0, self._ready - self._began),
            memory=_memory(os.getpid()),
            cpu=usage.ru_utime + usage.ru_stime,
            threads=threading.active_count(),
            connections=self.connections(),
            calls=self.calls(),
            tasks_queued=queued,
            tasks_running=running,
            domains=domains,
            children=children,
        )


def _imageio() -> ToolInfo:
    """The data mover, which tells its version only as a Python package."""
    path = imageio.program()
    if path is None:
        return ToolInfo(name=imageio.PROGRAM, missing="uploads and downloads; pip install ovirt-imageio")
    try:
        return ToolInfo(name=imageio.PROGRAM, path=path, version=version(imageio.PROGRAM))
    except PackageNotFoundError:
        return ToolInfo(name=imageio.PROGRAM, path=path)


def _tool(runner: Runner, name: str, purpose: str) -> ToolInfo:
    path = shutil.which(name)
    if path is None:
        return ToolInfo(name=name, missing=purpose)
    try:
        said = runner.run([path, "--version"], deadline=_VERSION_DEADLINE)
    except CommandError as error:
        return ToolInfo(name=name, path=path, missing=f"{purpose}: {error}")
    return ToolInfo(name=name, path=path, version=said.decode(errors="replace").partition("\n")[0])
