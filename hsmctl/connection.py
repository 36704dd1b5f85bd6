# SPDX-License-Identifier: Apache-2.0
"""Where the service is, and how hsmctl gets there."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from hsmctl.codes import USAGE
from hsmctl.failure import Refusal
from libvdsm.api.errors import ConnectionFailed
from libvdsm.client import Client, connect

ENVIRONMENT = "HSM_CONNECT"
HOW_TO_START = (
    "Start one with `hsmd`, or `hsmd --home FOLDER` to keep all of it in one folder;\n"
    "a service elsewhere is reached with --connect ADDRESS, or $HSM_CONNECT."
)
_SOCKET = "hsm.sock"


def default_sockets() -> list[Path]:
    """Where a service of this user, and then the host's, would listen."""
    folders = []
    if os.getuid() != 0:
        state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        folders.append(Path(state).expanduser() / "hsm" / "run")
    folders.append(Path("/run/hsm"))
    return [folder / _SOCKET for folder in folders]


def given_address(option: str | None) -> str | None:
    """The address that the user chose, if any."""
    return option or os.environ.get(ENVIRONMENT) or None


def open_client(option: str | None) -> tuple[Client, str]:
    """A client and the address that it is connected to."""
    address = given_address(option)
    if address is not None:
        try:
            with _without_interrupt(address):
                return connect(address), address
        except ValueError as error:
            raise Refusal("BadAddress", str(error), status=USAGE) from None
    failures = []
    for path in default_sockets():
        try:
            return connect(f"unix:{path}"), f"unix:{path}"
        except ConnectionFailed as error:
            failures.append(error)
    reasons = "; ".join(dict.fromkeys(error.reason for error in failures))
    failed = ConnectionFailed(address=" or ".join(error.address for error in failures), reason=reasons)
    failed.add_note(HOW_TO_START)
    raise failed


@contextlib.contextmanager
def _without_interrupt(address: str) -> Iterator[None]:
    """A program that carries the connection, such as ssh, outlives a ^C, or no task could be stopped."""
    if not address.startswith("exec:") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
