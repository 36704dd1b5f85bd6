# SPDX-License-Identifier: Apache-2.0
"""A file that would make a disk of no use is told as such before it is one."""

from __future__ import annotations

import bz2
import gzip
import lzma
import subprocess
from pathlib import Path

import pytest

from tests.ctl.conftest import Ctl, address
from tests.service import Daemon

RAW = b"just some text\n" * 100


def test_what_is_taken_as_raw_is_told_and_what_is_said_to_be_raw_is_not(ctl: Ctl, name: str, tmp_path: Path) -> None:
    source = tmp_path / "notes.txt"
    source.write_bytes(RAW)
    assert "; the file was taken as raw." in ctl.ok("image", "import", source, name)
    assert "taken as raw" not in ctl.ok("image", "import", source, f"{name}-2", "--source-format", "raw")


@pytest.mark.parametrize("format_", ["qcow2", "vmdk", "vdi", "vhdx", "vpc"])
def test_an_image_is_not_called_raw(format_: str, ctl: Ctl, name: str, tmp_path: Path) -> None:
    source = tmp_path / "image"
    options = ["-o", "subformat=fixed"] if format_ == "vpc" else []
    subprocess.run(["qemu-img", "create", "-q", "-f", format_, *options, source, "1M"], check=True, timeout=30)
    assert "taken as raw" not in ctl.ok("image", "import", source, name)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; `hsmctl image create` makes an empty disk"),
        (gzip.compress(RAW, mtime=0), "is compressed with gzip; unpack it first, as with gunzip"),
        (lzma.compress(RAW), "is compressed with xz"),
        (bz2.compress(RAW), "is compressed with bzip2"),
        (b"\x28\xb5\x2f\xfd" + RAW, "is compressed with zstd"),
    ],
)
def test_empty_and_compressed_files_are_no_disks_unless_said_to_be(
    content: bytes, said: str, ctl: Ctl, name: str, tmp_path: Path
) -> None:
    source = tmp_path / "disk"
    source.write_bytes(content)
    message = ctl.refused("image", "import", source, name)
    assert said in message
    assert "--source-format raw" in message
    assert ctl("image", "info", name).status == 1
    if content:
        assert ctl.ok("image", "import", source, name, "--source-format", "raw").startswith("Imported ")


def test_lists_say_why_they_are_empty(own_daemon: Daemon, ctl: Ctl, name: str) -> None:
    ctl.address = address(own_daemon)
    assert ctl.ok("image", "list").startswith("There are no images yet. Make one")
    assert ctl.ok("transfer", "list").startswith("There are no transfers. `hsmctl image upload`")
    assert ctl.ok("transfer", "list", "--state", "running") == "None fits; without --state there may be some.\n"
    ctl.ok("image", "create", name, "--size", "1M")
    ctl.ok("transfer", "start", "download", name)
    downloads = ctl.ok("transfer", "list").splitlines()
    assert name in downloads[1], "an image that has a name is told by it"
    ctl.ok("transfer", "cancel", ctl.json("transfer", "list")["items"][0]["id"])
    ctl.ok("domain", "detach", "default")
    for words in (("image", "list"), ("domain", "list")):
        assert ctl.ok(*words).startswith("No domain is served. Make one with `hsmctl domain create NAME PATH`, or serve")


def test_a_disk_smaller_than_its_file_is_refused_in_words_about_the_file(ctl: Ctl, name: str, tmp_path: Path) -> None:
    source = tmp_path / "disk"
    source.write_bytes(RAW * 2000)
    message = ctl.refused("image", "import", source, name, "--size", "1M")
    assert message.startswith("hsmctl: error: The file holds a larger disk")
    assert "(CannotShrink)" in message
    assert "olume" not in message
