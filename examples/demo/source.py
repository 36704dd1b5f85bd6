# SPDX-License-Identifier: Apache-2.0
"""A real image to work with: the one that was given, or a boot image out of a package of this distribution.

The package is only downloaded and unpacked, never installed, and its image is kept for the next time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from examples.demo.narrator import DemoFailed, Narrator
from examples.demo.service import ROOT
from hsm.tools import inspection
from libvdsm.run import Runner

_PATIENCE = 120.0
_INSTEAD = "give an image of your own: make demo IMAGE=path"

CACHES = (
    ROOT / "build" / "demo",
    Path(os.environ.get("XDG_CACHE_HOME") or f"{os.environ.get('HOME', '')}/.cache") / "hsm-demo",
)
"""Where the image is kept: in this tree, or in the user's own cache where the tree is somebody else's."""


@dataclass(frozen=True)
class Package:
    """A package that holds a boot image."""

    name: str
    image: str
    about: str


DEBIAN = (
    Package("grub-rescue-pc", "grub-rescue-cdrom.iso", "the rescue ISO of Debian's package grub-rescue-pc"),
    Package("ipxe", "ipxe.iso", "the boot ISO of Debian's package ipxe"),
)
FEDORA = (
    Package("ipxe-bootimgs-x86", "ipxe.iso", "the boot ISO of Fedora's package ipxe-bootimgs-x86"),
    Package("ipxe-bootimgs", "ipxe.iso", "the boot ISO of Fedora's package ipxe-bootimgs"),
)


@dataclass(frozen=True)
class Image:
    """A file, and what the service finds it to be."""

    path: Path
    format: str
    capacity: int
    about: str


def given(path: Path) -> Image:
    """The image that the user wants."""
    return _inspected(path.resolve(), "your own image")


def packaged(tell: Narrator, work: Path) -> Image:
    """A boot image of this distribution: from an earlier run, or downloaded now."""
    packages = DEBIAN if shutil.which("apt-get") else FEDORA
    for package in packages:
        for cache in CACHES:
            if (cache / package.image).exists():
                tell.say(f"The image is {package.about}, kept since an earlier run in {_short(cache)}.")
                return _inspected(cache / package.image, package.about)
    reasons = []
    for package in packages:
        try:
            return _inspected(_fetched(tell, package, work), package.about)
        except (OSError, subprocess.SubprocessError) as error:
            reasons.append(f"{package.name}: {_reason(error)}")
    lines = "\n  ".join(reasons)
    raise DemoFailed(f"no package with a boot image could be downloaded; {_INSTEAD}\n  {lines}")


def _fetched(tell: Narrator, package: Package, work: Path) -> Path:
    tell.say(f"The image is {package.about}: the package is downloaded and unpacked, not installed.")
    with tempfile.TemporaryDirectory(prefix="package-", dir=work) as folder:
        unpack = _unpack_debian if shutil.which("apt-get") else _unpack_fedora
        unpack(tell, package, Path(folder))
        found = sorted(Path(folder).rglob(package.image))
        if not found:
            raise FileNotFoundError(f"it holds no {package.image}")
        for cache in CACHES:
            with suppress(OSError):
                return _kept(found[0], cache)
        return found[0].rename(work / package.image)


def _kept(image: Path, cache: Path) -> Path:
    cache.mkdir(parents=True, exist_ok=True)
    fresh = cache / f"{image.name}.{os.getpid()}"
    shutil.copyfile(image, fresh)
    return fresh.rename(cache / image.name)


def _unpack_debian(tell: Narrator, package: Package, folder: Path) -> None:
    tell.command(f"apt-get download {package.name}", silent=True)
    try:
        _run("apt-get", "-q", *_OWN_USER, "download", package.name, folder=folder)
    except subprocess.CalledProcessError:
        # No lists of packages on this host: some of our own, which needs no rights.
        lists, cached = folder / "lists", folder / "cache"
        for made in (lists / "partial", cached / "archives" / "partial"):
            made.mkdir(parents=True)
        own = (*_OWN_USER, "-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={cached}")
        tell.command(
            "apt-get update", "into a folder of its own, since this host has no lists of packages", silent=True
        )
        _run("apt-get", "-q", *own, "-o", "APT::Update::Error-Mode=any", "update", folder=folder)
        tell.command(f"apt-get download {package.name}", silent=True)
        _run("apt-get", "-q", *own, "download", package.name, folder=folder)
    file = _only(folder.glob("*.deb"))
    tell.command(f"dpkg-deb -x {file.name} .", silent=True)
    _run("dpkg-deb", "-x", file.name, ".", folder=folder)


_OWN_USER = ("-o", "APT::Sandbox::User=root")
"""apt's own user cannot write into a folder of ours."""


def _unpack_fedora(tell: Narrator, package: Package, folder: Path) -> None:
    tell.command(f"dnf download {package.name}", silent=True)
    _run("dnf", "-q", "download", "--destdir", str(folder), package.name, folder=folder)
    file = _only(folder.glob("*.rpm"))
    tell.command(f"rpm2archive {file.name} && tar -xzf {file.name}.tgz", silent=True)
    _run("rpm2archive", file.name, folder=folder)
    _run("tar", "-xzf", _only(folder.glob("*.tgz")).name, folder=folder)


def _run(*argv: str, folder: Path) -> None:
    subprocess.run(argv, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, check=True)


def _only(found: Iterator[Path]) -> Path:
    for path in found:
        return path
    raise FileNotFoundError("nothing was downloaded")


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        said = error.stderr.decode(errors="replace").strip().splitlines()
        return f"{error.cmd[0]} failed: {said[-1] if said else f'status {error.returncode}'}"
    return str(error)


def _short(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _inspected(path: Path, about: str) -> Image:
    """What the file is, as the service itself would find."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise DemoFailed(f"{path}: {error.strerror}; {_INSTEAD}") from None
    try:
        found = inspection.inspect(descriptor, None, runner=Runner())
    except inspection.Refused as refused:
        raise DemoFailed(f"{path}: {refused.detail}; {_INSTEAD}") from None
    finally:
        os.close(descriptor)
    return Image(path, found.format, found.capacity, about)
