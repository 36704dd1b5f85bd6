# SPDX-License-Identifier: Apache-2.0
"""hsmctl secret: values come in unseen, and images say what they are encrypted with."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from hsmctl import secrets
from hsmctl.failure import Refusal
from tests import service
from tests.ctl.conftest import ROOT, Ctl, address
from tests.formats import qemu
from tests.verbs.keys import value_of, written


def test_a_value_comes_from_a_file(ctl: Ctl, name: str, tmp_path: Path, shared_daemon: service.Daemon) -> None:
    file = tmp_path / "value"
    file.write_text("open sesame\n")
    told = ctl.ok("secret", "define", name, "--value-file", file)
    made = ctl.json("secret", "info", name)
    assert told == f"Secret {name} is defined here, id {made['id']}.\n"
    assert value_of(shared_daemon.home / "state", made["id"]) == "open sesame", "without the line end"
    [line] = [line for line in ctl.ok("secret", "list").splitlines() if name in line]
    assert "given" in line
    assert "open sesame" not in ctl.ok("secret", "list", "--json") + ctl.ok("audit")
    ctl.ok("secret", "delete", name)
    assert name not in ctl.ok("secret", "list")


def test_or_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("sésame\r\n".encode())))
    assert secrets.read_value("-") == "sésame"


def test_or_is_asked_for_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    answers = iter(["one", "one", "one", "two"])
    assert secrets.read_value(None, lambda _: next(answers)) == "one"
    with pytest.raises(Refusal, match="not the same"):
        secrets.read_value(None, lambda _: next(answers))


def test_at_a_terminal_nothing_of_it_is_shown(name: str, shared_daemon: service.Daemon) -> None:
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "hsmctl.main", "--connect", address(shared_daemon), "secret", "define", name]
    running = subprocess.Popen(
        argv, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, start_new_session=True, env=dict(os.environ)
    )
    os.close(theirs)
    said = b""
    for prompt in (b"Value: ", b"Again: "):
        while prompt not in said:
            said += os.read(ours, 1024)
        os.write(ours, b"typed by somebody\n")
    while b"is defined here" not in said:
        said += os.read(ours, 1024)
    assert running.wait(30) == 0
    os.close(ours)
    assert b"typed by somebody" not in said


def test_without_a_terminal_it_says_how(ctl: Ctl, name: str) -> None:
    refused = ctl("secret", "define", name)
    assert (refused.status, refused.out) == (2, "")
    assert "--value-file" in refused.err


@pytest.mark.parametrize("content", [None, b"\xff\xfe"], ids=["no file", "no text"])
def test_a_file_without_a_value(ctl: Ctl, name: str, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "value"
    if content is not None:
        file.write_bytes(content)
    assert "NoValue" in ctl.refused("secret", "define", name, "--value-file", file)


def test_a_value_is_no_argument(ctl: Ctl, name: str) -> None:
    refused = ctl("secret", "define", name, "--value", "open sesame")
    assert refused.status == 2
    assert "there is no option --value" in refused.err
    assert "open sesame" not in refused.err


def test_an_image_tells_its_secret_by_name(ctl: Ctl, name: str) -> None:
    ctl.ok("secret", "generate", name)
    ctl.ok("image", "create", name, "--size", "1M", "--secret", name)
    secret = ctl.json("secret", "info", name)["id"]
    assert f"luks, secret {name} ({secret})" in ctl.ok("image", "info", name)
    assert f"luks, secret {name} ({secret})" in ctl.ok("image", "prepare", name)
    ctl.ok("image", "teardown", name)
    assert "SecretInUse" in ctl.refused("secret", "delete", name)
    ctl.ok("secret", "delete", name, "--force")
    assert f"luks, secret that is not here ({secret})" in ctl.ok("image", "info", name)
    ctl.ok("image", "delete", name)


def test_an_empty_list_says_what_to_do(capsys: pytest.CaptureFixture[str], own_daemon: service.Daemon) -> None:
    assert Ctl(capsys, address(own_daemon)).ok("secret", "list").startswith("This host has no secrets.")


@pytest.mark.parametrize("format_", ["raw", "qcow2"])
def test_a_file_is_encrypted_where_it_arrives(
    ctl: Ctl, name: str, tmp_path: Path, shared_daemon: service.Daemon, format_: str
) -> None:
    data = os.urandom(2**20)
    file, back = tmp_path / "disk", tmp_path / "back"
    file.write_bytes(data)
    if format_ == "qcow2":
        file = tmp_path / "disk.qcow2"
        qemu.image_tool("convert", "-O", "qcow2", tmp_path / "disk", file)
    ctl.ok("secret", "generate", name)
    ctl.ok("image", "upload", file, name, "--secret", name)
    assert ctl.json("image", "info", name)["encryption"] == "luks"
    assert written(shared_daemon.home / "domains", data[:64]) == []
    ctl.ok("image", "download", name, back, "--format", "raw")
    assert back.read_bytes() == data
    ctl.ok("image", "delete", name)
    ctl.ok("secret", "delete", name)
