# SPDX-License-Identifier: Apache-2.0
"""hsmd, the storage service as a program.

One service per node: whoever holds the lock file below the run directory.  ``--stdio`` relays its standard input and
output to the running service, and serves them itself only when there is none, with the lock.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
from pathlib import Path

from hsm.app import App
from hsm.config import SYSTEM_FILE, HsmConfig, Service, embedded, user_home
from hsm.stdio import relay, serve
from hsm.tasks.store import StoreError
from libvdsm import log as logging
from libvdsm.config import ConfigError, load
from libvdsm.declare import ApiError

_EXIT_TAKEN = 3
_LONGEST_RUN_DIR = 107 - len("/imageio/private/12345678")
"""Bytes: a socket's path has 107 at most, and those of the NBD servers are the longest."""


def main() -> None:
    """The program."""
    # Data is for owner and group: 0660, as oVirt has it.
    os.umask(0o002)
    arguments = _arguments()
    try:
        config, file = _configuration(arguments)
    except ConfigError as error:
        sys.exit(f"hsmd: {error}")
    if len(os.fsencode(config.service.run_dir)) > _LONGEST_RUN_DIR:
        sys.exit(
            f"hsmd: {config.service.run_dir} is too long a path for the sockets that are to be below it; at most "
            f"{_LONGEST_RUN_DIR} bytes are possible. Set service.run_dir, or start it with another --home DIR"
        )
    logging.setup(level=config.log.level, style=config.log.style, file=config.log.file)
    lock = _lock(config)
    if lock is None:
        if arguments.stdio:
            sys.exit(relay(config))
        print(f"hsmd: another service holds {config.service.run_dir}", file=sys.stderr)
        sys.exit(_EXIT_TAKEN)
    try:
        app = App(config, file)
    except (OSError, StoreError) as error:
        sys.exit(f"hsmd: {error}")
    if arguments.stdio:
        _start(app)
        try:
            status = serve(app)
        finally:
            app.stop()
        sys.exit(status)
    _run(app)


def _lock(config: HsmConfig) -> int | None:
    """The node's lock, held for as long as this process lives; None if another service, or another user's, has it."""
    path = Path(config.service.run_dir, "lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except OSError as error:
        if isinstance(error, PermissionError) and path.exists():
            return None
        no_folder = isinstance(error, (NotADirectoryError, FileExistsError))
        advice = "give a folder" if no_folder else "set service.run_dir, or start it with --home DIR"
        sys.exit(f"hsmd: {error.filename}: {error.strerror}; {advice}")
    return lock


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hsmd", description="The storage service for KVM hosts.")
    parser.add_argument("--config", metavar="FILE", help=f"settings; default {SYSTEM_FILE} if it is there")
    parser.add_argument("--home", metavar="DIR", help="keep everything below one folder, with a domain to begin with")
    parser.add_argument(
        "--set", metavar="SECTION.KEY=VALUE", action="append", default=[], help="change one setting; may be repeated"
    )
    parser.add_argument("--stdio", action="store_true", help="answer on standard input and output")
    parser.add_argument("--version", action="store_true", help="say which version this is")
    arguments = parser.parse_args()
    if arguments.version:
        from importlib.metadata import version

        print(f"hsmd {version('hsm')}")
        sys.exit()
    return arguments


def _configuration(arguments: argparse.Namespace) -> tuple[HsmConfig, Path | None]:
    home = Path(arguments.home) if arguments.home else None
    file = Path(arguments.config) if arguments.config else None
    if file is None and home is None and SYSTEM_FILE.exists():
        file = SYSTEM_FILE
    served = arguments.stdio and Path(Service().run_dir, "hsm.sock").exists()
    if file is None and home is None and not served:
        home = user_home()
    if home is not None and file is None and (home / "hsm.conf").exists():
        file = home / "hsm.conf"
    settings = {}
    for text in arguments.set:
        key, _, value = text.partition("=")
        settings[key.strip()] = value.strip()
    return load(HsmConfig, file, settings, embedded(home.absolute()) if home else None), file


def _run(app: App) -> None:
    """Serve until a signal says to stop.  The signal thread is this one; it does nothing else.

    It reads from a pipe, since a wait for a lock has a gap: the interpreter would run the handler of a signal that
    came just before when the wait is over, which is never.
    """
    told, telling = os.pipe()
    os.set_blocking(telling, False)
    signal.set_wakeup_fd(telling)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    _start(app)
    os.read(told, 1)
    app.stop()


def _start(app: App) -> None:
    try:
        app.start()
    except (OSError, StoreError) as error:
        sys.exit(f"hsmd: {error}")
    except ApiError as error:
        sys.exit(f"hsmd: {error.message}")


if __name__ == "__main__":
    main()
