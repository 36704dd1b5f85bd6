# SPDX-License-Identifier: Apache-2.0
"""Files that hsmctl opens for the service are never left half-written, and never overwritten by accident."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hsmctl.failure import Refusal
from hsmctl.files import check_connection, reading, writing
from libvdsm.api.errors import NotSupported


class TroubleError(Exception):
    pass


def write(path: Path, text: str, *, force: bool = False, wait: bool = True, trouble: bool = False) -> None:
    with writing(str(path), force=force, wait=wait) as descriptor:
        os.write(descriptor, text.encode())
        if trouble:
            raise TroubleError


def test_a_new_file_is_written(tmp_path: Path) -> None:
    write(tmp_path / "new", "data")
    assert (tmp_path / "new").read_text() == "data"


def test_a_half_written_file_is_removed(tmp_path: Path) -> None:
    with pytest.raises(TroubleError):
        write(tmp_path / "new", "da", trouble=True)
    assert os.listdir(tmp_path) == []


def test_an_existing_file_is_refused(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_text("precious")
    with pytest.raises(Refusal, match="exists already; take another name, or add --force"):
        write(old, "data")
    assert old.read_text() == "precious"


def test_an_existing_file_is_replaced_by_force_once_all_succeeded(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_text("precious")
    with pytest.raises(TroubleError):
        write(old, "da", force=True, trouble=True)
    assert old.read_text() == "precious"
    write(old, "data", force=True)
    assert old.read_text() == "data"
    assert os.listdir(tmp_path) == ["old"]


def test_a_file_that_nobody_waits_for_is_replaced_at_once(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_text("precious data")
    write(old, "new", force=True, wait=False)
    assert old.read_text() == "new"


def test_force_follows_a_link_and_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("precious")
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link", "data", force=True)
    assert (tmp_path / "real").read_text() == "data"
    assert (tmp_path / "link").is_symlink()


def test_a_device_is_written_in_place_and_never_removed(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(TroubleError):
        write(pipe, "data", force=True, trouble=True)
    assert pipe.is_fifo()


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_is_refused(tmp_path: Path, force: bool) -> None:
    with pytest.raises(Refusal, match="is a folder"):
        write(tmp_path, "data", force=force)
    with pytest.raises(Refusal, match="is a folder"), reading(str(tmp_path)):
        pass


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(Refusal, match=r"missing cannot be opened: no such file or directory"),
        reading(str(tmp_path / "missing")),
    ):
        pass
    with pytest.raises(Refusal, match=r"cannot be opened: no such file or directory"):
        write(tmp_path / "no" / "folder", "data")


@pytest.mark.parametrize("address", ["tcp:h:1", "http://h:1", "exec:ssh h hsmd --stdio", "http+unix:/x"])
def test_only_a_unix_socket_carries_open_files(address: str) -> None:
    with pytest.raises(NotSupported, match="run hsmctl on the host of the service"):
        check_connection(address)
    check_connection("unix:/run/hsm/hsm.sock")
