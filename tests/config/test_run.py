# SPDX-License-Identifier: Apache-2.0
"""The command runner: whatever happens, the program it started is gone, and the service knows why."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from libvdsm.run import CommandError, CommandStopped, Runner

DEADLINE = 20.0


@pytest.fixture(scope="module")
def runner() -> Runner:
    return Runner()


def gone(process: int) -> bool:
    """Whether the process of this descriptor ends, waited for a while."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    ended = bool(poll.poll(DEADLINE * 1000))
    os.close(process)
    return ended


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            pass


def test_what_a_program_writes_is_the_answer(runner: Runner) -> None:
    assert runner.run(["echo", "-n", "a  b; $HOME"], deadline=DEADLINE) == b"a  b; $HOME"


def test_arguments_are_no_shell_text(runner: Runner) -> None:
    assert runner.run(["printf", "%s|", "a b", "'", "$(id)", "*"], deadline=DEADLINE) == b"a b|'|$(id)|*|"


def test_a_program_reads_what_it_is_given(runner: Runner) -> None:
    data = os.urandom(2**20)
    assert runner.run(["cat"], deadline=DEADLINE, stdin=data) == data


def test_a_program_that_does_not_read_it_holds_nobody_up(runner: Runner) -> None:
    assert runner.run(["true"], deadline=DEADLINE, stdin=b"x" * 2**22) == b""


def test_without_anything_to_read_its_input_is_at_its_end(runner: Runner) -> None:
    assert runner.run(["cat"], deadline=DEADLINE) == b""


def test_output_may_be_taken_as_it_comes(runner: Runner) -> None:
    taken: list[bytes] = []
    assert runner.run(["seq", "20000"], deadline=DEADLINE, on_output=taken.append) == b""
    assert b"".join(taken).split() == [b"%d" % number for number in range(1, 20001)]


def test_no_more_output_is_kept_than_fits(runner: Runner) -> None:
    kept = runner.run(["head", "-c", str(20 * 2**20), "/dev/zero"], deadline=DEADLINE)
    assert 16 * 2**20 <= len(kept) < 17 * 2**20


def test_an_error_holds_what_the_program_said(runner: Runner) -> None:
    with pytest.raises(CommandError) as caught:
        runner.run(["sh", "-c", "echo no such thing >&2; echo at all >&2; exit 3"], deadline=DEADLINE)
    assert str(caught.value) == "sh: no such thing; at all"


@pytest.mark.parametrize(("script", "status"), [("exit 3", "3"), ("kill -9 $$", "-9")])
def test_a_program_that_says_nothing_is_named_with_its_status(runner: Runner, script: str, status: str) -> None:
    with pytest.raises(CommandError, match=f"sh: ended with status {status}"):
        runner.run(["sh", "-c", script], deadline=DEADLINE)


def test_a_long_complaint_is_cut(runner: Runner) -> None:
    with pytest.raises(CommandError) as caught:
        runner.run(["sh", "-c", "seq 10000 >&2; exit 1"], deadline=DEADLINE)
    assert len(caught.value.reason) <= 2000
    assert caught.value.reason.endswith("10000")


@pytest.mark.parametrize("program", ["no-such-program", "/no/such/program", "/etc/passwd", "/"])
def test_a_program_that_cannot_be_started_is_an_error(runner: Runner, program: str) -> None:
    with pytest.raises(CommandError) as caught:
        runner.run([program], deadline=DEADLINE)
    assert caught.value.program == os.path.basename(program)


def test_so_it_is_where_nothing_ties_it_to_this_process(runner: Runner) -> None:
    with pytest.raises(CommandError, match="no-such-program: cannot be started: No such file"):
        runner.start(["no-such-program"], tied=False)


def test_an_argument_that_cannot_be_passed_is_an_error_and_the_next_program_runs(runner: Runner) -> None:
    with pytest.raises(CommandError, match="cannot be started"):
        runner.run(["echo", "a\0b"], deadline=DEADLINE)
    assert runner.run(["echo", "next"], deadline=DEADLINE) == b"next\n"


@pytest.mark.parametrize("script", ["exec sleep 1000", "exec >&- 2>&-; exec sleep 1000", "while :; do echo x; done"])
def test_a_program_beyond_its_deadline_is_killed(runner: Runner, script: str) -> None:
    process = None

    def begun() -> bool:
        nonlocal process
        if process is None:
            [running] = runner.running()
            process = os.pidfd_open(running.pid)
        return False

    began = time.monotonic()
    with pytest.raises(CommandError, match="did not end within its deadline and was killed"):
        runner.run(["sh", "-c", script], deadline=0.2, stop=begun, on_output=lambda _: None)
    assert time.monotonic() - began < DEADLINE / 2
    assert process is not None
    assert gone(process)
    assert runner.running() == []


def test_so_are_the_programs_that_it_started(runner: Runner) -> None:
    child: list[int] = []

    def took(data: bytes) -> None:
        child.append(os.pidfd_open(int(data)))

    with pytest.raises(CommandError, match="deadline"):
        runner.run(["sh", "-c", "sleep 1000 & echo $!; wait"], deadline=0.2, on_output=took)
    assert gone(child[0])


def test_a_program_is_killed_when_nobody_wants_its_result_any_more(runner: Runner) -> None:
    process: list[int] = []

    def stop() -> bool:
        process.extend(os.pidfd_open(running.pid) for running in runner.running() if not process)
        return True

    with pytest.raises(CommandStopped):
        runner.run(["sleep", "1000"], deadline=DEADLINE, stop=stop)
    assert gone(process[0])


def test_so_it_is_when_whoever_takes_its_output_fails(runner: Runner) -> None:
    process: list[int] = []

    def took(data: bytes) -> None:
        process.append(os.pidfd_open(int(data)))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        runner.run(["sh", "-c", "echo $$; exec sleep 1000"], deadline=DEADLINE, on_output=took)
    assert gone(process[0])
    assert runner.running() == []


def test_a_program_at_work_can_be_seen(runner: Runner) -> None:
    seen: list[str] = []
    runner.run(["/bin/echo", "x"], deadline=DEADLINE, on_output=lambda _: seen.extend(p.name for p in runner.running()))
    assert seen == ["echo"]
    assert runner.running() == []


def test_a_program_inherits_the_descriptors_that_it_is_given(runner: Runner, pipe: tuple[int, int]) -> None:
    read, write = pipe
    runner.run(["sh", "-c", f"echo through >/proc/self/fd/{write}"], deadline=DEADLINE, descriptors=[write])
    assert os.read(read, 100) == b"through\n"


def test_it_inherits_no_others(runner: Runner, pipe: tuple[int, int]) -> None:
    os.set_inheritable(pipe[1], True)
    listed = runner.run(["ls", "/proc/self/fd"], deadline=DEADLINE).split()
    # Standard ones, and the folder that ls reads.
    assert listed == [b"0", b"1", b"2", b"3"]


def test_a_program_outlives_the_thread_that_wanted_it(runner: Runner, pipe: tuple[int, int]) -> None:
    """The kernel's parent-death signal fires at the end of the thread that started it, which is the runner's own."""
    read, write = pipe
    started: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        started.append(
            runner.start(["sh", "-c", f"read answer </proc/self/fd/{read}; exit $answer"], descriptors=[read])
        )

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    os.write(write, b"7\n")
    [process] = started
    assert process.wait(DEADLINE) == 7
    runner._end(process)


STARTER = """
import pathlib, time
from libvdsm.run import Runner
process = Runner().start(["sleep", "1000"], tied={tied})
while pathlib.Path("/proc", str(process.pid), "comm").read_text() != "sleep\\n":
    pass
print(process.pid, flush=True)
time.sleep(1000)
"""


def orphan(*, tied: bool) -> int:
    """A program whose starter was killed, as a descriptor."""
    argv = [sys.executable, "-c", STARTER.format(tied=tied)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        program = os.pidfd_open(int(starter.stdout.readline()))
        starter.kill()
    return program


def test_a_program_dies_with_the_process_that_started_it_even_if_that_is_killed() -> None:
    assert gone(orphan(tied=True))


def test_a_program_that_is_not_tied_lives_on() -> None:
    program = orphan(tied=False)
    signal.pidfd_send_signal(program, 0)
    signal.pidfd_send_signal(program, signal.SIGKILL)
    assert gone(program)


@pytest.mark.parametrize(
    ("said", "fails"),
    [
        ("sh: warning: strange", False),
        ("sh: warning: strange; and\nmore of it", False),
        ("sh: warning: strange\nsh: broken", True),
        ("broken\nsh: warning: strange", True),
    ],
)
def test_a_warning_of_several_lines_is_a_warning(said: str, fails: bool) -> None:
    argv = ["sh", "-c", 'printf "%b\\n" "$0" >&2', said.replace("\n", "\\n")]
    runner = Runner()
    if fails:
        with pytest.raises(CommandError):
            runner.run(argv, deadline=10, complaints=False)
    else:
        assert runner.run(argv, deadline=10, complaints=False) == b""
