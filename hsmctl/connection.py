# SPDX-License-Identifier: Apache-2.0
"""Where the service is, and how hsmctl gets there."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from hsmctl import waiting
from hsmctl.codes import UNREACHABLE, USAGE
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


def open_client(option: str | None, seconds: float = 0.0) -> tuple[Client, str]:
    """A client and the address that it is connected to; a service that is being started has some seconds."""
    address = given_address(option)
    if address is not None:
        try:
            with _without_interrupt(address):
                _refuse_denied(waiting.until_one_listens([address], seconds))
                return connect(address), address
        except ValueError as error:
            raise Refusal("BadAddress", str(error), status=USAGE) from None
    return _open_default(seconds)


def _open_default(seconds: float) -> tuple[Client, str]:
    paths = default_sockets()
    # Where none of the folders is there, no service has been started, and waiting for one is in vain.
    if not any(os.path.isdir(path.parent) for path in paths):
        seconds = 0.0
    unreachable = waiting.until_one_listens([f"unix:{path}" for path in paths], seconds)
    failures = []
    for path in paths:
        address = f"unix:{path}"
        try:
            if address not in unreachable:
                return connect(address), address
            failures.append(ConnectionFailed(address=address, reason=unreachable[address].strerror or "no answer"))
        except ConnectionFailed as error:
            failures.append(error)
    _refuse_denied(unreachable)
    reasons = "; ".join(dict.fromkeys(error.reason for error in failures))
    failed = ConnectionFailed(address=" or ".join(error.address for error in failures), reason=reasons)
    failed.add_note(HOW_TO_START)
    raise failed


def _refuse_denied(unreachable: dict[str, OSError]) -> None:
    """A service that is not this user's: starting another is no answer."""
    for address, error in unreachable.items():
        if isinstance(error, PermissionError):
            msg = (
                f"{address} is there, and this user may not use it: the service runs for another user. Ask its "
                "administrator for access (the setting listen.unix_mode), or use hsmctl as that "
                "user; a service of your own is started with `hsmd --home FOLDER`"
            )
            raise Refusal("ConnectionFailed", msg, status=UNREACHABLE)


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
