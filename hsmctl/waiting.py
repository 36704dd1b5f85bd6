# SPDX-License-Identifier: Apache-2.0
"""Waiting for a service that is being started: a socket that nobody listens on yet.

Only for what is on this host, where a service may have been started a moment ago; everything else fails at once.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from hsmctl.codes import USAGE
from hsmctl.failure import Refusal
from hsmctl.values import parse_duration

ENVIRONMENT = "HSM_CONNECT_TIMEOUT"
DEFAULT = 5.0
"""Seconds: a service takes a part of one to start, and some on a busy machine."""
_TELL = 1.0
_PAUSE = 0.05


def patience(option: float | None) -> float:
    """Seconds to wait for a service: as the option says, otherwise the environment, otherwise a few."""
    if option is not None:
        return option
    text = os.environ.get(ENVIRONMENT)
    if not text:
        return DEFAULT
    try:
        return parse_duration(text)
    except ValueError as error:
        raise Refusal("BadTimeout", f"${ENVIRONMENT}: {error}", status=USAGE) from None


def until_one_listens(addresses: Sequence[str], seconds: float) -> dict[str, OSError]:
    """Wait until a service listens at one of the addresses; why not, for those where none does.

    Ends early where waiting does not help: the socket is another user's, or its folder is not there.
    """
    until = time.monotonic() + seconds
    told = not sys.stderr.isatty()
    while True:
        failures = {address: error for address in addresses if (error := _refusal(address)) is not None}
        pending = [address for address, error in failures.items() if _may_come(address, error)]
        if len(failures) < len(addresses) or not pending or time.monotonic() >= until:
            return failures
        if not told and time.monotonic() >= until - seconds + _TELL:
            told = True
            print(f"hsmctl: waiting for hsmd at {' or '.join(pending)}", file=sys.stderr)
        time.sleep(_PAUSE)


def _refusal(address: str) -> OSError | None:
    """Why a place on this host takes no connection; None if it does, or if that is not to be known before."""
    endpoint = _endpoint(address)
    if endpoint is None:
        return None
    family, where = endpoint
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(where)
        except OSError as error:
            return error
    return None


def _may_come(address: str, error: OSError) -> bool:
    if isinstance(error, FileNotFoundError):
        # A service that starts makes the folder of its sockets, and not what that is in.
        return os.path.isdir(Path(address.partition(":")[2]).expanduser().parent.parent)
    return isinstance(error, ConnectionRefusedError)


def _endpoint(address: str) -> tuple[socket.AddressFamily, str | tuple[str, int]] | None:
    """The socket of an address on this host; None for one elsewhere, or of no form that has one."""
    scheme, _, rest = address.partition(":")
    if scheme in ("unix", "http+unix") and rest:
        return socket.AF_UNIX, str(Path(rest).expanduser())
    try:
        parts = urlsplit(address if scheme == "http" else f"//{rest}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if scheme not in ("tcp", "http") or not host or not port:
        return None
    return _loopback(host, port)


def _loopback(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]] | None:
    if host == "localhost":
        host = "127.0.0.1"
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None
    if not ip.is_loopback:
        return None
    return (socket.AF_INET6 if ip.version == 6 else socket.AF_INET), (host, port)
