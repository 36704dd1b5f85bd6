# SPDX-License-Identifier: Apache-2.0
"""``hsmctl doctor``: what this host lacks, and whether the service works.

Each finding says what to do about it.  Only what is ``missing`` makes the doctor fail.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from hsmctl import output
from hsmctl.codes import FAILED, OK
from hsmctl.connection import HOW_TO_START, default_sockets, given_address, open_client
from hsmctl.deadline import within
from hsmctl.failure import Refusal
from hsmctl.names import read_all
from hsmctl.output import Cell, Styled, Table
from hsmctl.values import show_size
from libvdsm.api.domain import DomainInfo, DomainState
from libvdsm.client import Client
from libvdsm.declare import ApiError

_PYTHON = (3, 11)
_PATIENCE = 5.0
"""Seconds that a program or the service has to answer."""

_STYLES = {"ok": "green", "warn": "yellow", "missing": "red", "info": "dim"}


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it is (ok, warn, missing or info), and what to do about it."""

    subject: str
    state: str
    detail: str
    advice: str = ""


@dataclass(frozen=True)
class Tool:
    """A program, and what is lost without it.  ``state`` is how bad that is."""

    name: str
    package: str
    state: str
    purpose: str


TOOLS = (
    Tool("qemu-img", "qemu-utils or qemu-img", "missing", "makes, copies and checks qcow2 volumes"),
    Tool("qemu-io", "qemu-utils or qemu-img", "warn", "is used by tests and by hand"),
    Tool("qemu-nbd", "qemu-utils or qemu-img", "warn", "serves volumes over NBD"),
    Tool("setpriv", "util-linux", "warn", "ends helper programs when the service is killed"),
    Tool("sanlock", "sanlock", "info", "will hold leases on shared storage, which local domains do without"),
    Tool("strace", "strace", "info", "is needed only to develop hsm"),
)


def doctor(connect: str | None, *, as_json: bool, seconds: float = 0.0) -> int:
    """Look at everything, and say what is missing; the exit status.  A service that starts has some seconds."""
    findings = list(examine(connect, seconds))
    healthy = all(finding.state != "missing" for finding in findings)
    if as_json:
        print(json.dumps({"healthy": healthy, "findings": [asdict(f) for f in findings]}, indent=2))
        return OK if healthy else FAILED
    rows: list[list[Cell]] = [[Styled(f.state, _STYLES[f.state]), f.subject, _sentences(f)] for f in findings]
    output.show(Table(["", "WHAT", "HOW IT IS"], rows))
    missing = [finding.subject for finding in findings if finding.state == "missing"]
    verdict = f"Missing: {', '.join(missing)}." if missing else "Nothing that is required is missing."
    output.show(Styled(f"\n{verdict}", "red" if missing else "green"))
    return OK if healthy else FAILED


def examine(connect: str | None, seconds: float = 0.0) -> Iterator[Finding]:
    """All findings: this host first, then the service."""
    yield _python()
    yield Finding("user", "info", f"uid {os.getuid()}{' (root)' if os.getuid() == 0 else ''}")
    for tool in TOOLS:
        yield examine_tool(tool)
    yield _kvm()
    yield from _sockets(connect)
    yield from _service(connect, seconds)


def examine_tool(tool: Tool, *, path: str | None = None) -> Finding:
    """Whether a program is there and answers; ``path`` is searched instead of ``$PATH``."""
    found = shutil.which(tool.name, path=path)
    if found is None:
        advice = "" if tool.state == "info" else f"Install {tool.package}"
        return Finding(tool.name, tool.state, f"not found: it {tool.purpose}", advice)
    try:
        answer = subprocess.run(
            [found, "-V" if tool.name == "sanlock" else "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(tool.name, tool.state, f"{found} does not run: {error}", f"Reinstall {tool.package}")
    if answer.returncode != 0:
        reason = (answer.stderr or answer.stdout).strip().partition("\n")[0]
        return Finding(tool.name, tool.state, f"{found} does not run: {reason}", f"Reinstall {tool.package}")
    version = re.search(r"\d+(\.\d+)+", answer.stdout or answer.stderr)
    return Finding(tool.name, "ok", f"{version[0] if version else 'unknown version'}, {found}")


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < _PYTHON:
        return Finding("python", "missing", version, "Install Python 3.11 or newer")
    return Finding("python", "ok", version)


def _kvm() -> Finding:
    device = Path("/dev/kvm")
    if not device.exists():
        return Finding("/dev/kvm", "info", "absent: guests would run slowly here; storage does not need it")
    usable = os.access(device, os.R_OK | os.W_OK)
    return Finding(
        "/dev/kvm", "info", "usable" if usable else "present, and not for this user; storage does not need it"
    )


def _sockets(connect: str | None) -> Iterator[Finding]:
    if (address := given_address(connect)) is not None:
        yield Finding("address", "info", f"{address}, from {'--connect' if connect else '$HSM_CONNECT'}")
        return
    for path in default_sockets():
        try:
            there = path.exists()
        except PermissionError:
            yield Finding("socket", "warn", f"{path} cannot be looked at", "Ask the administrator for access")
            continue
        yield Finding("socket", "ok" if there else "info", f"{path} {'exists' if there else 'does not exist'}")


def _service(connect: str | None, seconds: float) -> Iterator[Finding]:
    try:
        client, address = within(seconds + _PATIENCE, lambda: open_client(connect, seconds))
    except TimeoutError as error:
        yield Finding("service", "missing", str(error), "Look at its log; restart it")
        return
    except (ApiError, Refusal) as error:
        yield Finding("service", "missing", _line(str(error)), _line(HOW_TO_START))
        return
    for ask in (_capabilities, _rights, _domains):
        try:
            yield from within(_PATIENCE, _asking(ask, client, address))
        except (ApiError, TimeoutError) as error:
            yield Finding("service", "missing", _line(str(error)), "Look at its log")
            return
    client.close()


def _asking(ask: Callable[[Client, str], list[Finding]], client: Client, address: str) -> Callable[[], list[Finding]]:
    return lambda: ask(client, address)


def _capabilities(client: Client, address: str) -> list[Finding]:
    able = client.host.get_capabilities()
    types = ", ".join(driver.type for driver in able.drivers)
    return [
        Finding("service", "ok", f"version {able.version}, API {able.api}, at {address}"),
        Finding("domain types", "ok", types) if types else Finding("domain types", "missing", "none", "Reinstall hsm"),
        *[
            Finding(f"service: {tool.name}", "warn", f"not found: {tool.missing}", "Install it")
            for tool in able.tools
            if tool.missing
        ],
    ]


def _rights(client: Client, _: str) -> list[Finding]:
    session = client.session.get_info()
    if session.right == "administer":
        return [Finding("rights", "ok", f"{session.user} may do everything")]
    advice = "On a Unix socket root and the service's own user may do everything; see [rights] in hsm.conf"
    return [Finding("rights", "warn", f"{session.user} may only {session.right}", advice)]


def _domains(client: Client, _: str) -> list[Finding]:
    domains = list(read_all(lambda start: client.domain.list(start=start)).items)
    if not domains:
        return [Finding("domains", "warn", "none is served", "Make one with `hsmctl domain create NAME PATH`")]
    return [_domain(client, domain) for domain in domains]


def _domain(client: Client, domain: DomainInfo) -> Finding:
    subject = f"domain {domain.name or domain.id}"
    if domain.state is not DomainState.OK:
        advice = f"See `hsmctl domain check {domain.name or domain.id}`"
        return Finding(subject, "missing", f"{domain.state.value}: {_line(domain.problem or domain.path)}", advice)
    try:
        stats = client.domain.get_stats(domain=domain.id)
    except ApiError as error:
        return Finding(subject, "missing", _line(str(error)))
    full = stats.capacity and stats.free / stats.capacity < 0.05
    images = "1 image" if stats.images == 1 else f"{stats.images} images"
    detail = f"{domain.type}, {show_size(stats.free)} of {show_size(stats.capacity)} free, {images}"
    return Finding(subject, "warn" if full else "ok", detail, "It is nearly full: free space" if full else "")


def _sentences(finding: Finding) -> str:
    ended = finding.detail if finding.detail.endswith(("?", ".")) else finding.detail + "."
    return f"{ended} {finding.advice}." if finding.advice else finding.detail


def _line(text: object) -> str:
    return " ".join(str(text).split()).rstrip(".")
