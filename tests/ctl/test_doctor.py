# SPDX-License-Identifier: Apache-2.0
"""The doctor says what a host lacks, and what to do about it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hsmctl import connection
from hsmctl.doctor import TOOLS, Tool, examine_tool
from tests.ctl.conftest import Ctl, address
from tests.service import Daemon

QEMU_IMG = next(tool for tool in TOOLS if tool.name == "qemu-img")


def program(folder: Path, text: str) -> None:
    path = folder / "qemu-img"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_a_tool_is_told_with_its_version(tmp_path: Path) -> None:
    program(tmp_path, "echo 'qemu-img version 7.2.22 (Debian 1:7.2)'")
    finding = examine_tool(QEMU_IMG, path=str(tmp_path))
    assert (finding.state, finding.detail) == ("ok", f"7.2.22, {tmp_path}/qemu-img")


def test_a_missing_tool_is_told_with_what_to_install(tmp_path: Path) -> None:
    finding = examine_tool(QEMU_IMG, path=str(tmp_path))
    assert finding.state == "missing"
    assert finding.advice == "Install qemu-utils or qemu-img"


def test_a_tool_that_does_not_run_counts_as_missing(tmp_path: Path) -> None:
    program(tmp_path, "echo 'libfoo.so: cannot open' >&2; exit 127")
    finding = examine_tool(QEMU_IMG, path=str(tmp_path))
    assert finding.state == "missing"
    assert "libfoo.so: cannot open" in finding.detail


def test_an_optional_tool_is_only_mentioned(tmp_path: Path) -> None:
    assert examine_tool(Tool("strace", "strace", "info", "is nice"), path=str(tmp_path)).state == "info"


def test_where_all_is_well_the_doctor_ends_with_0(ctl: Ctl, shared_daemon: Daemon) -> None:
    report = ctl.json("doctor")
    assert report["healthy"] is True
    states = {finding["subject"]: finding["state"] for finding in report["findings"]}
    assert states["qemu-img"] == states["service"] == states["domain default"] == states["rights"] == "ok"
    text = ctl.ok("doctor")
    assert text.splitlines()[-1] == "Nothing that is required is missing."
    assert address(shared_daemon) in text


def test_without_a_service_the_doctor_ends_with_1_and_says_how_to_start_one(
    offline: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hsmctl.doctor.default_sockets", lambda: [Path("/nonexistent/hsm.sock")])
    monkeypatch.setattr(connection, "default_sockets", lambda: [Path("/nonexistent/hsm.sock")])
    result = offline("doctor")
    assert result.status == 1
    assert "Start one with `hsmd`" in result.out
    assert result.out.splitlines()[-1] == "Missing: service."
    report = json.loads(offline("doctor", "--json").out)
    assert report["healthy"] is False
