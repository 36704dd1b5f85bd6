# SPDX-License-Identifier: Apache-2.0
"""The one command runner.

Programs are argument lists, never shell text, and each has a deadline.  They are started by one thread that lives as
long as the process, because the kernel's parent-death signal, which ends a program when its starter is killed, fires
when the *thread* that started it ends.  Descriptors given to a program keep leases alive in it: see
``hsm.domains.flocks``.  A deadline kills a program and waits for its end; it never lets go of anything before that.
"""

from __future__ import annotations

import os
import queue
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass

from libvdsm.log import Log
from libvdsm.threads import Thread

log = Log("libvdsm.run")

_OUTPUT_LIMIT = 16 * 2**20
_TICK = 0.1
_ONLY_IF_TIED = 'test "$PPID" = "$0" && exec "$@"'
"""A process that ended before its end was made the program's too would leave an orphan: then nothing is started.

The one text that a shell reads; what it starts comes as arguments, and is the same process.
"""
_TOLD, _LINE = 3, 2000
_NOT_STARTED = (126, 127)
"""What a shell ends with that has found no program of a name, or none that it can start."""


def _summary(said: list[str]) -> str:
    """What a program said on standard error, in one line: its beginning and its end, where it said very much."""
    if len(said) > 2 * _TOLD:
        said = [*said[:_TOLD], f"({len(said) - 2 * _TOLD} more lines)", *said[-_TOLD:]]
    return "; ".join(line[:_LINE] for line in said)


class CommandError(Exception):
    """A program ended with an error, could not be started, or went beyond its deadline."""

    def __init__(self, program: str, reason: str, status: int | None = None) -> None:
        """``status``: what it ended with, where it came to an end of its own."""
        super().__init__(f"{program}: {reason}")
        self.program = program
        self.reason = reason
        self.status = status


class CommandStopped(Exception):
    """A program was ended because whoever wanted its result does no longer."""


@dataclass(frozen=True)
class Running:
    """A program at work."""

    pid: int
    name: str


class Runner:
    """Starts programs, and knows which are running."""

    def __init__(self) -> None:
        self._requests: queue.SimpleQueue[tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]]
        self._requests = queue.SimpleQueue()
        self._running: dict[int, Running] = {}
        self._setpriv = shutil.which("setpriv")
        Thread("launcher", self._start_forever).start()

    def running(self) -> list[Running]:
        """The programs at work now."""
        return list(self._running.values())

    def run(
        self,
        argv: Sequence[str],
        *,
        deadline: float,
        descriptors: Sequence[int] = (),
        on_output: Callable[[bytes], None] | None = None,
        stop: Callable[[], bool] | None = None,
        stdin: bytes = b"",
        complaints: bool = True,
    ) -> bytes:
        """Run a program to its end and give what it wrote to standard output.

        ``deadline`` in seconds.  ``descriptors`` are inherited by the program.  ``on_output`` gets standard output
        as it comes, which is then not collected.  ``stop`` is asked ten times a second; when it answers true the
        program is killed and ``CommandStopped`` raised.  Without ``complaints`` all that it says on standard error,
        but for warnings, is an error, whatever its status.
        """
        process = self.start(argv, descriptors=descriptors, stdin=stdin)
        began = time.monotonic()
        try:
            output, errors = self._follow(process, argv[0], began + deadline, on_output, stop)
            status = process.wait()
        finally:
            self._end(process)
        log.debug("program ended", argv=" ".join(argv), status=status, seconds=round(time.monotonic() - began, 3))
        said = [line for line in errors.decode(errors="replace").splitlines() if line.strip()]
        if status != 0 or (not complaints and _complains(os.path.basename(argv[0]), said)):
            text = _summary(said) or f"ended with status {status}"
            if status in _NOT_STARTED:
                raise CommandError(os.path.basename(argv[0]), f"cannot be started: {text.rpartition('exec: ')[2]}")
            raise CommandError(os.path.basename(argv[0]), text, status)
        return output

    @contextmanager
    def alongside(
        self, argv: Sequence[str], name: str, *, descriptors: Sequence[int] = (), stdin: bytes | int = b""
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A program that runs beside its user, and is gone when this is left.  ``name``: what becomes of it."""
        process = self.start(argv, descriptors=descriptors, stdin=stdin)
        self._running[process.pid] = Running(process.pid, name)
        try:
            yield process
        finally:
            self._end(process)

    def start(
        self,
        argv: Sequence[str],
        *,
        descriptors: Sequence[int] = (),
        stdin: bytes | int = b"",
        tied: bool = True,
        output: int | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program and do not wait for it.

        ``tied``: it is killed when this process ends.  ``output``: a file that gets all that it says, of a program
        that nobody listens to.  ``stdin``: what it finds there, or an open file.
        """
        command = list(argv)
        if tied and self._setpriv:
            tie = [self._setpriv, "--pdeathsig", "KILL", "--", "/bin/sh", "-c", _ONLY_IF_TIED, str(os.getpid())]
            command = [*tie, *argv]

        def begin() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                command,
                stdin=source if isinstance(stdin, bytes) else stdin,
                stdout=subprocess.PIPE if output is None else output,
                stderr=subprocess.PIPE if output is None else output,
                pass_fds=tuple(descriptors),
                start_new_session=True,
            )

        answer: Future[subprocess.Popen[bytes]] = Future()
        try:
            # A file and no pipe: a program that reads little of it, or late, holds nobody up.
            with os.fdopen(os.memfd_create("stdin"), "r+b") as source:
                if isinstance(stdin, bytes):
                    source.write(stdin)
                    source.seek(0)
                self._requests.put((begin, answer))
                process = answer.result()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise CommandError(os.path.basename(argv[0]), f"cannot be started: {reason}") from None
        self._running[process.pid] = Running(process.pid, os.path.basename(argv[0]))
        return process

    def end(self, process: subprocess.Popen[bytes], *, patience: float = 0.0) -> int:
        """End a program that was started, and give its status.

        It is asked to, and killed when it has not ended ``patience`` seconds later; it is gone when this returns.
        """
        if patience and process.poll() is None:
            # No group of its own could be meant any more once it has been waited for; until then it is there.
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                log.warning("program does not end and is killed", pid=process.pid, seconds=patience)
        self._end(process)
        return process.wait()

    def _start_forever(self) -> None:
        while True:
            begin, answer = self._requests.get()
            try:
                answer.set_result(begin())
            except Exception as error:  # noqa: BLE001  the boundary of this thread: whoever asked is told
                answer.set_exception(error)

    def _follow(
        self,
        process: subprocess.Popen[bytes],
        name: str,
        until: float,
        on_output: Callable[[bytes], None] | None,
        stop: Callable[[], bool] | None,
    ) -> tuple[bytes, bytes]:
        assert process.stdout is not None
        assert process.stderr is not None
        collected = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
        # A program may close its outputs long before it ends, so its end is waited for too.
        with selectors.DefaultSelector() as selector, os.fdopen(os.pidfd_open(process.pid)) as end:
            for descriptor in (*collected, end.fileno()):
                selector.register(descriptor, selectors.EVENT_READ)
            while selector.get_map():
                if stop is not None and stop():
                    raise CommandStopped
                if time.monotonic() > until:
                    raise CommandError(os.path.basename(name), "did not end within its deadline and was killed")
                for ready, _ in selector.select(_TICK):
                    data = b"" if ready.fileobj == end.fileno() else os.read(ready.fd, 65536)
                    if not data:
                        selector.unregister(ready.fd)
                    elif on_output is not None and ready.fd == process.stdout.fileno():
                        on_output(data)
                    elif len(collected[ready.fd]) < _OUTPUT_LIMIT:
                        collected[ready.fd] += data
        return bytes(collected[process.stdout.fileno()]), bytes(collected[process.stderr.fileno()])

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Whatever happened, the program is gone when this returns."""
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        self._running.pop(process.pid, None)


def _complains(program: str, said: list[str]) -> bool:
    """Whether there is more than warnings; what begins without the program's name goes on with the line before."""
    warns = False
    for line in said:
        if line.startswith(f"{program}:") or not warns:
            warns = "warning:" in line
        if not warns:
            return True
    return False
