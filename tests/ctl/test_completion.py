# SPDX-License-Identifier: Apache-2.0
"""A shell completes commands, options and names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ctl.conftest import ROOT, Ctl, address
from tests.service import Daemon

pytest.importorskip("argcomplete")


def completed(line: str, tmp_path: Path, address: str) -> list[str]:
    """What a shell would offer at the end of a line."""
    answer = tmp_path / "answer"
    env = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line.encode())),
        "HSM_CONNECT": address,
    }
    words = [sys.executable, "-c", "from hsmctl.main import main; main()"]
    # argcomplete writes to descriptor 8 where it does not know the file's name, and debugs to 9
    subprocess.run(
        ["bash", "-c", 'exec 8>"$0" 9>/dev/null; exec "$@"', answer, *words], env=env, timeout=30, check=False
    )
    return sorted(answer.read_text().split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_script_for_each_shell(shell: str, offline: Ctl) -> None:
    assert "hsmctl" in offline.ok("completion", shell)


def test_bash_reads_its_script(offline: Ctl, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(offline.ok("completion", "bash"))
    shown = subprocess.run(
        ["bash", "-c", f"source {script}; complete -p hsmctl"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert shown.stdout.rstrip().endswith(" hsmctl")


def test_commands_complete(tmp_path: Path) -> None:
    assert completed("hsmctl ima", tmp_path, "unix:/nonexistent") == ["image"]
    assert completed("hsmctl image snapshot-", tmp_path, "unix:/nonexistent") == ["snapshot-many"]


def test_options_and_their_values_complete(tmp_path: Path) -> None:
    assert completed("hsmctl image create x --allo", tmp_path, "unix:/nonexistent") == [
        "--allocation",
        "--allow-same-name",
    ]
    assert completed("hsmctl image create x --format ", tmp_path, "unix:/nonexistent") == ["qcow2", "raw"]


def test_names_complete_by_asking_the_service(shared_daemon: Daemon, ctl: Ctl, name: str, tmp_path: Path) -> None:
    ctl.ok("image", "create", f"{name}-a", "--size", "1M")
    ctl.ok("image", "create", f"{name}-b", "--size", "1M")
    ctl.ok("image", "make-template", f"{name}-b")
    assert completed(f"hsmctl image info {name}", tmp_path, address(shared_daemon)) == [
        f"{name}-a",
        f"{name}-b",
    ]
    assert completed(f"hsmctl image clone {name}", tmp_path, address(shared_daemon)) == [f"{name}-b"]
    assert completed("hsmctl domain info de", tmp_path, address(shared_daemon)) == ["default"]


def test_without_a_service_names_complete_to_nothing_in_silence(tmp_path: Path) -> None:
    assert completed("hsmctl image info w", tmp_path, "unix:/nonexistent") == []
