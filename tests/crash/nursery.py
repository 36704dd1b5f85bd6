# SPDX-License-Identifier: Apache-2.0
"""Gives birth to hsmd, and to its clients, quickly: a process that has imported the product, and forks.

Orders come as JSON lines on standard input, and what becomes of the children goes out on standard output; at the
input's end everything ends.  A child can be stopped (SIGSTOP) before it does anything, and when a thread of a given
name is about to begin, so that a tracer can be attached in time.  Nothing else of the product is touched.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
import threading
import traceback
from typing import Any, NoReturn

from hsm import daemon
from hsm.domains.registry import installed_drivers
from tests.crash import client

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Take orders until there are no more."""
    # What is written by an import in one run and not in the next would shift the count of system calls.
    sys.dont_write_bytecode = True
    installed_drivers()
    prctl = ctypes.CDLL(None).prctl
    awake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    pending = b""
    while True:
        ready, _, _ = select.select([0, awake], [], [])
        if awake in ready:
            os.read(awake, 4096)
            _report()
        if 0 in ready:
            data = os.read(0, 65536)
            if not data:
                return
            *orders, pending = (pending + data).split(b"\n")
            for order in orders:
                _tell(born=_bear(json.loads(order), prctl))


def _tell(**event: int) -> None:
    os.write(1, json.dumps(event).encode() + b"\n")


def _report() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if os.WIFSTOPPED(status):
            _tell(stopped=pid)
        else:
            _tell(ended=pid, status=os.waitstatus_to_exitcode(status))


def _bear(order: dict[str, Any], prctl: Any) -> int:
    pid = os.fork()
    if pid == 0:
        _live(order, prctl)
    return pid


def _live(order: dict[str, Any], prctl: Any) -> NoReturn:
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        nothing = os.open(os.devnull, os.O_RDONLY)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for here, there in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(here, there)
        os.closerange(3, 256)
        os.environ["PATH"] = order["path"]
        _stop_before(order["stop"])
        if order["client"]:
            client.main(order["arguments"])
        else:
            sys.argv = ["hsmd", *order["arguments"]]
            daemon.main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001  what Python itself would do
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _stop_before(thread: str | None) -> None:
    """Stop here, or when a thread of this name begins."""
    if thread == "main":
        os.kill(os.getpid(), signal.SIGSTOP)
        return
    begin = threading.Thread.run

    def run(self: threading.Thread) -> None:
        if self.name == thread:
            # To this very thread: it does nothing more before the whole process has stopped.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        begin(self)

    if thread is not None:
        threading.Thread.run = run  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
