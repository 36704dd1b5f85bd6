# SPDX-License-Identifier: Apache-2.0
"""``hsmd --stdio``: frames, or one document from a file; relayed to the service that runs, or served with the lock."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libvdsm.wire.framing import HEADER, Framer, frame
from tests import service
from tests.server.raw import Framed, Served, outcome, request, xml

TIMEOUT = 60
GET_INFO = request("Session.getInfo")


def argv(home: Path, *settings: str) -> list[str]:
    words = [sys.executable, "-m", "hsm.daemon", "--home", str(home), "--stdio"]
    for setting in settings:
        words += ["--set", setting]
    return words


def run(home: Path, given: bytes, *settings: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(argv(home, *settings), input=given, capture_output=True, timeout=TIMEOUT, check=False)


def from_file(home: Path, file: Path, *settings: str) -> subprocess.CompletedProcess[bytes]:
    """As a shell does for ``< file``."""
    with file.open("rb") as opened:
        return subprocess.run(argv(home, *settings), stdin=opened, capture_output=True, timeout=TIMEOUT, check=False)


def messages(stream: bytes) -> list[Any]:
    framer = Framer(2**30)
    found = [json.loads(message) for message in framer.feed(stream)]
    assert framer.pending == 0
    return found


@pytest.fixture(params=["relayed", "served itself"])
def home(request: pytest.FixtureRequest, served: Served, tmp_path: Path) -> Path:
    """A folder whose service runs, and one without a service."""
    return served.daemon.home if request.param == "relayed" else tmp_path / "home"


def wire(home: Path, served: Served) -> str:
    return "unix" if home == served.daemon.home else "stdio"


def test_frames_are_answered_with_frames(home: Path, served: Served) -> None:
    given = b"".join(map(frame, (GET_INFO, request("Host.nonsense", call_id=2), request("Host.ping", call_id=3))))
    ended = run(home, given)
    assert ended.returncode == 0, ended.stderr
    info, error, ping = messages(ended.stdout)
    assert info["result"]["wire"] == wire(home, served)
    assert info["result"]["uid"] == os.getuid()
    assert info["result"]["right"] == "administer"
    assert error["error"]["data"]["name"] == "NoSuchVerb"
    assert ping["id"] == 3


def test_frames_may_come_from_a_file(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "frames"
    file.write_bytes(frame(request("Host.ping")) * 3)
    ended = from_file(home, file)
    assert ended.returncode == 0, ended.stderr
    assert len(messages(ended.stdout)) == 3


def test_a_bare_document_from_a_file_is_answered_with_one(home: Path, served: Served, tmp_path: Path) -> None:
    file = tmp_path / "call.xml"
    # As an editor may save it: with a byte order mark.
    file.write_bytes(b"\xef\xbb\xbf" + xml("Session.getInfo"))
    ended = from_file(home, file)
    assert ended.returncode == 0, ended.stderr
    assert outcome(ended.stdout)["wire"] == ("http+unix" if wire(home, served) == "unix" else "stdio")


@pytest.mark.parametrize(
    ("document", "name"),
    [(b"<!DOCTYPE x><methodCall/>", "InvalidRequest"), (b" \n" + b"<value><array><data>" * 1000, "TooLarge")],
    ids=["doctype", "nested"],
)
def test_a_document_that_is_no_call_is_answered_with_a_fault(home: Path, document: bytes, name: str) -> None:
    ended = run(home, document)
    assert ended.returncode == 0, ended.stderr
    assert outcome(ended.stdout) == name


def test_a_document_that_is_too_large_is_answered_with_a_fault(home: Path) -> None:
    good = xml("Host.ping")
    for padding, name in ((8500, None), (2**20, "TooLarge")):
        ended = run(home, good + b" " * (padding - len(good)), "limits.message=8500")
        assert ended.returncode == 0, ended.stderr
        assert isinstance(outcome(ended.stdout), dict) if name is None else outcome(ended.stdout) == name


def test_nothing_is_answered_with_nothing(home: Path) -> None:
    ended = run(home, b"")
    assert (ended.returncode, ended.stdout) == (0, b"")
    assert b"Traceback" not in ended.stderr


def test_a_message_that_ends_early_is_not_answered(home: Path) -> None:
    ended = run(home, frame(request("Host.ping")) + frame(GET_INFO)[:-3])
    assert ended.returncode == 0, ended.stderr
    assert len(messages(ended.stdout)) == 1


@pytest.mark.parametrize("given", [b"hello\n", b"\xff" * 100], ids=["short", "long"])
def test_what_is_neither_is_refused(home: Path, given: bytes) -> None:
    ended = run(home, given)
    if len(given) < HEADER:
        assert ended.stdout == b""
    else:
        assert messages(ended.stdout)[0]["error"]["data"]["name"] == "TooLarge"
    assert ended.returncode == 0
    assert b"Traceback" not in ended.stderr


def test_events_come_between_the_answers(home: Path, tmp_path: Path) -> None:
    with subprocess.Popen(argv(home), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as hsmd:
        assert hsmd.stdin is not None
        assert hsmd.stdout is not None
        framer = Framer(2**30)
        pending: list[Any] = []

        def receive() -> Any:
            assert hsmd.stdout is not None
            while not pending:
                pending.extend(map(json.loads, framer.feed(os.read(hsmd.stdout.fileno(), 65536))))
            return pending.pop(0)

        def send(verb: str, params: Any = None) -> None:
            assert hsmd.stdin is not None
            hsmd.stdin.write(frame(request(verb, params)))
            hsmd.stdin.flush()

        send("Domain.list")
        domain = receive()["result"]["items"][0]["id"]
        send("Event.subscribe")
        assert "result" in receive()
        send("Domain.check", {"domain": domain})
        kinds: set[str] = set()
        while kinds != {"reply", "event"}:
            kinds.add("event" if "method" in receive() else "reply")
        hsmd.stdin.close()
        assert hsmd.wait(TIMEOUT) == 0


def test_whoever_closes_the_output_ends_it_without_complaint(home: Path) -> None:
    hsmd = subprocess.Popen(argv(home), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert hsmd.stdin is not None
    assert hsmd.stdout is not None
    assert hsmd.stderr is not None
    hsmd.stdout.close()
    # Standard input stays open: the end is noticed by the answer that cannot be written.
    hsmd.stdin.write(frame(request("Host.ping")))
    hsmd.stdin.flush()
    with hsmd.stdin, hsmd.stderr:
        assert hsmd.wait(TIMEOUT) == 0
        assert b"Traceback" not in hsmd.stderr.read()


def test_a_client_may_send_much_before_it_reads(home: Path) -> None:
    """Both directions flow at once; where one waits for the other, both would stand still for ever."""
    count = 1500
    hsmd = subprocess.Popen(argv(home), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert hsmd.stdin is not None
    assert hsmd.stdout is not None
    stdin = hsmd.stdin
    call = frame(request("Host.getCapabilities"))

    def write() -> None:
        with stdin:
            for _ in range(count):
                stdin.write(call)

    writer = threading.Thread(target=write)
    writer.start()
    with hsmd.stdout:
        answered = hsmd.stdout.read()
    writer.join()
    assert hsmd.wait(TIMEOUT) == 0
    assert len(messages(answered)) == count


class Serving:
    """``hsmd --stdio`` that serves itself, until its input ends."""

    def __init__(self, home: Path) -> None:
        self.process = subprocess.Popen(
            argv(home), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(frame(request("Host.ping")))
        self.process.stdin.flush()
        assert self.process.stdout.read(HEADER)

    def end(self) -> int:
        self.process.communicate(timeout=TIMEOUT)
        return self.process.returncode


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    made = Serving(tmp_path / "home")
    yield made
    assert made.end() == 0


def test_while_it_serves_others_reach_it_where_they_reach_a_service(serving: Serving, tmp_path: Path) -> None:
    with Framed(str(tmp_path / "home" / "run" / "hsm.sock")) as framed:
        assert framed.result("Host.ping")
    ended = run(tmp_path / "home", frame(GET_INFO))
    assert messages(ended.stdout)[0]["result"]["wire"] == "unix"


def test_while_it_serves_no_other_service_starts(serving: Serving, tmp_path: Path) -> None:
    second = service.Daemon(tmp_path / "home")
    assert second.process.wait(TIMEOUT) == 3
    assert "another service holds" in second.log.read_text()


def test_where_the_lock_is_held_and_nobody_listens_it_says_so(tmp_path: Path) -> None:
    """The holder may be starting, so it is waited for; here for a short time."""
    run_dir = tmp_path / "home" / "run"
    run_dir.mkdir(parents=True)
    impatient = "import hsm.stdio, hsm.daemon; hsm.stdio._STARTING = 0.1; hsm.daemon.main()"
    with (run_dir / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        words = [sys.executable, "-c", impatient, *argv(tmp_path / "home")[3:]]
        ended = subprocess.run(words, input=GET_INFO, capture_output=True, timeout=TIMEOUT, check=False)
    assert ended.returncode == 1
    assert f"a service holds {run_dir}" in ended.stderr.decode()
    assert b"Traceback" not in ended.stderr


def test_it_waits_for_a_service_that_is_just_starting(tmp_path: Path) -> None:
    starting = service.Daemon(tmp_path / "home")
    try:
        lock = tmp_path / "home" / "run" / "lock"
        while not lock.exists():
            assert starting.process.poll() is None
        ended = run(tmp_path / "home", frame(GET_INFO))
        assert ended.returncode == 0, ended.stderr
        assert messages(ended.stdout)[0]["result"]["wire"] in ("unix", "stdio")
    finally:
        starting.process.poll() is None and starting.stop()
