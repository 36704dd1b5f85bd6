# SPDX-License-Identifier: Apache-2.0
"""The settings of the storage service: ``conf/hsm.conf`` is written from this."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, field

_Port = Annotated[int, Meta(ge=0, le=65535)]
_RightWord = Literal["none", "read", "operate", "administer"]


def _seconds(description: str, *, ge: float, le: float) -> Meta:
    return Meta(description=description, extra={"unit": "seconds"}, ge=ge, le=le)


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """Where the service keeps what is its own."""

    state_dir: Annotated[
        str, Meta(description="Folder for what outlives a restart: attached domains, tasks, audit log.")
    ] = "/var/lib/hsm"
    run_dir: Annotated[str, Meta(description="Folder for sockets and the node's lock.")] = "/run/hsm"
    default_domain: Annotated[
        str,
        Meta(
            description="Folder in which a local domain named 'default' is made at the start if there is none.\n"
            "Empty: none is made."
        ),
    ] = ""
    host_id: Annotated[
        int, Meta(ge=1, le=2000, description="This host's number in names of temporary files on shared storage.")
    ] = 1


class Listen(msgspec.Struct, frozen=True, kw_only=True):
    """Where clients reach the service."""

    unix: Annotated[
        bool, Meta(description="Unix sockets below run_dir: hsm.sock (JSON-RPC), hsm-http.sock (XML-RPC).")
    ] = True
    unix_mode: Annotated[str, Meta(pattern="^0?[0-7]{3}$", description="Permissions of the Unix sockets, octal.")] = (
        "0666"
    )
    tcp: Annotated[bool, Meta(description="TCP, on the loopback address only.")] = True
    address: Annotated[
        Literal["127.0.0.1", "::1"], Meta(description="The loopback address to listen on: 127.0.0.1 or ::1.")
    ] = "127.0.0.1"
    http_port: Annotated[_Port, Meta(description="XML-RPC over HTTP, /RPC2. 0: any free port.")] = 54330
    jsonrpc_port: Annotated[_Port, Meta(description="Framed JSON-RPC. 0: any free port.")] = 54331


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a client may ask for."""

    message: Annotated[int, Meta(ge=4096, le=2**30, description="Largest message.", extra={"unit": "bytes"})] = 2**24
    nesting: Annotated[int, Meta(ge=8, le=500, description="How deep the values of a message may be nested.")] = 64
    connections: Annotated[int, Meta(ge=1, le=10_000, description="Clients connected at once.")] = 500
    idle: Annotated[float, _seconds("A connection that is silent for longer is closed.", ge=0.1, le=1e6)] = 3600.0
    session_idle: Annotated[float, _seconds("A session over HTTP ends after this silence.", ge=0.1, le=1e6)] = 3600.0


class Rights(msgspec.Struct, frozen=True, kw_only=True):
    """Who may do what: none, read, operate or administer."""

    anonymous: Annotated[_RightWord, Meta(description="Callers over TCP, who cannot be known.")] = "read"
    other_users: Annotated[
        _RightWord,
        Meta(description="Callers over a Unix socket who are neither root nor the service's own user."),
    ] = "read"


class Tasks(msgspec.Struct, frozen=True, kw_only=True):
    """How changes are worked on."""

    workers: Annotated[int, Meta(ge=1, le=64, description="Tasks at work at once.")] = 8
    queue: Annotated[int, Meta(ge=1, le=100_000, description="Tasks waiting at once; more are refused.")] = 1000
    keep: Annotated[float, _seconds("Tasks that ended are forgotten after this time.", ge=0, le=1e9)] = 7 * 86400.0
    keep_count: Annotated[int, Meta(ge=1, le=100_000, description="Ended tasks kept at most; each takes memory.")] = (
        1000
    )
    events: Annotated[int, Meta(ge=10, le=1_000_000, description="Events kept for clients that poll.")] = 10_000
    mode: Annotated[
        Literal["nonTransparent", "transparent"],
        Meta(
            description="Who owns the tasks of clients that do not say: the service (nonTransparent), or the client.\n"
            "Where clients do, one that opens no session cannot make tasks."
        ),
    ] = "nonTransparent"
    owner_grace: Annotated[
        float, _seconds("Tasks of a client that owns them are stopped when it is gone for so long.", ge=0, le=1e6)
    ] = 60.0
    owner_keep: Annotated[
        float, _seconds("What such a client's tasks ended with is forgotten when it is gone for so long.", ge=0, le=1e6)
    ] = 3600.0


class Storage(msgspec.Struct, frozen=True, kw_only=True):
    """How storage is worked with."""

    lease_wait: Annotated[
        float, _seconds("How long to wait while somebody else changes a domain's metadata.", ge=0.1, le=600)
    ] = 10.0
    tool_deadline: Annotated[
        float, _seconds("A program that copies data is ended after this time.", ge=0.1, le=1e7)
    ] = 86400.0
    quick_deadline: Annotated[
        float, _seconds("A program that only looks, or changes a header, is ended after this time.", ge=0.1, le=1e5)
    ] = 60.0


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """The record of who changed what."""

    enabled: Annotated[bool, Meta(description="Whether changes are recorded, in audit.db below state_dir.")] = True
    keep: Annotated[float, _seconds("Records are forgotten after this time.", ge=0, le=1e10)] = 400 * 86400.0
    keep_count: Annotated[
        int,
        Meta(
            ge=100,
            le=10_000_000,
            description="Records kept at most, the newest; each takes about half a KiB.\n"
            "Of calls that were refused for want of a right a tenth of it: nobody can push out what was done.",
        ),
    ] = 100_000


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """Uploads and downloads; their data goes through ovirt-imageio."""

    port: Annotated[_Port, Meta(description="Port for the data, on the loopback address. 0: any free port.")] = 54334
    inactivity: Annotated[float, _seconds("A transfer that moves no data for this time is paused.", ge=1, le=1e6)] = (
        60.0
    )
    expiry: Annotated[
        float, _seconds("A transfer that nobody goes on with is given up after this time.", ge=1, le=1e9)
    ] = 86400.0


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """What is logged, and how."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="The least that is logged.")] = (
        "info"
    )
    style: Annotated[Literal["text", "json"], Meta(description="text for people, json for programs.")] = "text"
    file: Annotated[str, Meta(description="Where to; empty: standard error.")] = ""


class HsmConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All settings, by section."""

    service: Service = field(default_factory=Service)
    listen: Listen = field(default_factory=Listen)
    limits: Limits = field(default_factory=Limits)
    rights: Rights = field(default_factory=Rights)
    tasks: Tasks = field(default_factory=Tasks)
    storage: Storage = field(default_factory=Storage)
    transfer: Transfer = field(default_factory=Transfer)
    log: Log = field(default_factory=Log)
    audit: Audit = field(default_factory=Audit)


HEADING = """SPDX-License-Identifier: Apache-2.0
Settings of hsmd, the storage service. Every setting is shown with its default.
Sizes take K, M, G, T (powers of 1024); times are in seconds; yes and no are yes and no."""

SYSTEM_FILE = Path("/etc/hsm/hsm.conf")


def embedded(home: Path) -> dict[str, str]:
    """The settings of a service that keeps everything in one folder, as one unprivileged user."""
    return {
        "service.state_dir": str(home / "state"),
        "service.run_dir": str(home / "run"),
        "service.default_domain": str(home / "domains"),
        "listen.tcp": "no",
        "transfer.port": "0",
        "listen.unix_mode": "0600",
    }


def user_home() -> Path | None:
    """Where a service started by an ordinary user keeps everything; None for root and the service user."""
    if os.getuid() in (0, 36):
        return None
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "hsm"
