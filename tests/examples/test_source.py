# SPDX-License-Identifier: Apache-2.0
"""Where the demonstration's image comes from.  Package managers are played by scripts: tests have no network."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from examples.demo import source
from examples.demo.narrator import DemoFailed, Narrator

CONTENT = b"boot me " * 1024

APT = """#!/bin/sh
# Has lists of packages only where its caller has made some.
case "$*" in
*Dir::State::Lists=*" update") : > lists/fetched ;;
*" download grub-rescue-pc") [ -e lists/fetched ] && cp "$PACKAGE" . ;;
*) echo "E: Unable to locate package" >&2; exit 100 ;;
esac
"""
DNF = """#!/bin/sh
[ "$*" = "-q download --destdir $PWD ipxe-bootimgs-x86" ] && echo package > ipxe.rpm
"""
RPM2ARCHIVE = """#!/bin/sh
mkdir -p usr/share/ipxe && printf "%s" "$CONTENT" > usr/share/ipxe/ipxe.iso && tar -czf "$1.tgz" usr && rm -r usr
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of $PATH, with what any system has."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "cp", "mkdir", "rm", "tar", "gzip", "dpkg-deb"):
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(source, "CACHES", (tmp_path / "cache",))
    return folder


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def fetch(tmp_path: Path) -> source.Image:
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    return source.packaged(Narrator(), work)


def debian_package(tmp_path: Path) -> Path:
    content = tmp_path / "content"
    (content / "DEBIAN").mkdir(parents=True)
    control = (
        "Package: grub-rescue-pc\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@example.org>\nDescription: x\n"
    )
    (content / "DEBIAN" / "control").write_text(control)
    iso = content / "usr" / "lib" / "grub-rescue" / "grub-rescue-cdrom.iso"
    iso.parent.mkdir(parents=True)
    iso.write_bytes(CONTENT)
    package = tmp_path / "grub-rescue-pc_1_all.deb"
    subprocess.run(["dpkg-deb", "--build", content, package], check=True, capture_output=True)
    return package


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_on_debian_lists_of_packages_are_fetched_into_a_folder_of_ones_own_where_the_host_has_none(
    tmp_path: Path, tools: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PACKAGE", str(debian_package(tmp_path)))
    program(tools, "apt-get", APT)
    found = fetch(tmp_path)
    assert found.path.read_bytes() == CONTENT
    assert (found.format, found.capacity) == ("raw", len(CONTENT))
    out = capsys.readouterr().out
    assert out.index("$ apt-get update") < out.rindex("$ apt-get download grub-rescue-pc") < out.index("$ dpkg-deb -x")


def test_on_fedora_a_boot_image_comes_from_a_package_of_fedora(
    tmp_path: Path, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTENT", CONTENT.decode())
    program(tools, "dnf", DNF)
    program(tools, "rpm2archive", RPM2ARCHIVE)
    assert fetch(tmp_path).path.read_bytes() == CONTENT


def test_the_image_is_kept_for_the_next_time(
    tmp_path: Path, tools: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONTENT", CONTENT.decode())
    program(tools, "dnf", DNF)
    program(tools, "rpm2archive", RPM2ARCHIVE)
    first = fetch(tmp_path)
    (tools / "dnf").unlink()
    capsys.readouterr()
    assert fetch(tmp_path) == first
    assert "kept since an earlier run" in " ".join(capsys.readouterr().out.split())


def test_where_nothing_can_be_kept_the_image_is_used_all_the_same(
    tmp_path: Path, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(source, "CACHES", (tmp_path / "file" / "cache",))
    monkeypatch.setenv("CONTENT", CONTENT.decode())
    program(tools, "dnf", DNF)
    program(tools, "rpm2archive", RPM2ARCHIVE)
    found = fetch(tmp_path)
    assert found.path.read_bytes() == CONTENT
    assert os.listdir(tmp_path / "work") == ["ipxe.iso"]


def test_without_a_network_it_says_what_to_do(tmp_path: Path, tools: Path) -> None:
    program(tools, "apt-get", '#!/bin/sh\necho "E: Temporary failure resolving" >&2\nexit 100\n')
    with pytest.raises(DemoFailed, match=r"make demo IMAGE=path(.|\n)*grub-rescue-pc: apt-get failed: E: Temporary"):
        fetch(tmp_path)
