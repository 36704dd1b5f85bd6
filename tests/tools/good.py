# SPDX-License-Identifier: Apache-2.0
"""Disk images that are what they seem: as qemu-img makes them in all its ways, as others do, and raw ones."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.formats import qemu
from tests.tools.images import (
    EXTENT,
    KIB,
    MIB,
    SECTOR,
    Image,
    Lab,
    fixed,
    footers,
    iso,
    qcow2,
    sparse,
    stream,
)

Build = Callable[[Lab, Path], None]


def created(fmt: str, *options: str, size: str = "5M") -> Build:
    return lambda _, path: void(qemu.create(path, fmt, size, *options))


def converted(fmt: str, *options: str) -> Build:
    """With data in it: 200 KiB that do not compress, twice the same, and holes."""

    def build(lab: Lab, path: Path) -> None:
        source = path.with_suffix(".source")
        noise = os.urandom(100 * KIB)
        source.write_bytes(noise + bytes(3 * MIB) + noise + bytes(2 * MIB + 312 * KIB))
        qemu.image_tool("convert", "-f", "raw", "-O", fmt, *options, str(source), str(path))

    return build


def written(content: Callable[[Lab], bytes | bytearray]) -> Build:
    return lambda lab, path: void(path.write_bytes(content(lab)))


def void(_: object) -> None:
    """For side effects in a lambda."""


def followed_by(build: Build, *commands: tuple[str, ...]) -> Build:
    def all_of_it(lab: Lab, path: Path) -> None:
        build(lab, path)
        for command in commands:
            qemu.image_tool(*command, str(path))

    return all_of_it


def with_a_bitmap(lab: Lab, path: Path) -> None:
    converted("qcow2")(lab, path)
    qemu.image_tool("bitmap", "--add", str(path), "changes")


def changed(build: Build, change: Callable[[Image], Image]) -> Build:
    def both(lab: Lab, path: Path) -> None:
        build(lab, path)
        path.write_bytes(change(Image(path.read_bytes())))

    return both


def ext4(_: Lab, path: Path) -> None:
    argv = ["/sbin/mke2fs", "-q", "-t", "ext4", str(path), "4M"]
    subprocess.run(argv, check=True, capture_output=True, timeout=30)


def mbr() -> Image:
    return Image(MIB).put("<B3xB3xII", 446, 0x80, 0x83, 8, 2040).write(510, b"\x55\xaa")


def gpt() -> Image:
    return mbr().put("<B3xB3xII", 446, 0, 0xEE, 1, 2047).write(512, b"EFI PART")


def hybrid() -> Image:
    """A bootable ISO that is also a disk, as distributions publish them."""
    return iso(gpt()).write(0, b"\x45\x52\x08\x00").put("<B3xB3xII", 462, 0, 0xEF, 4, 4)


def made_by(maker: bytes) -> Callable[[Lab], Image]:
    return lambda lab: footers(lab.image("vpc"), ">4s", 28, maker)


def virtualbox(lab: Lab) -> Image:
    uuid = 'ddb.uuid.image="6d4d3c0b-7f1f-4f53-9d5c-0c5f2f1a6b11"'
    return sparse(lab, EXTENT.replace("disk", "Debian 12 (copy)"), "", "# The disk Data Base", uuid, newline="\r\n")


GOOD: dict[str, tuple[str, Build]] = {
    "empty": ("raw", written(lambda _: b"")),
    "one byte": ("raw", written(lambda _: b"x")),
    "not full sectors": ("raw", written(lambda _: b"x" * 1000)),
    "zeroes": ("raw", created("raw")),
    "noise": ("raw", converted("raw")),
    "text": ("raw", written(lambda _: b"#!/bin/sh\n\n# version=1\necho hello\n" * 100)),
    "partitions": ("raw", written(lambda _: mbr())),
    "partitions, GPT": ("raw", written(lambda _: gpt())),
    "ISO": ("raw", written(lambda _: iso(b""))),
    "ISO, hybrid": ("raw", written(lambda _: hybrid())),
    "UDF": ("raw", written(lambda _: iso(b"").write(32 * KIB, b"\x00BEA01\x01"))),
    "ext4": ("raw", ext4),
    "a qcow2 further in": ("raw", written(lambda lab: bytes(SECTOR) + qcow2(lab))),
    "qcow2": ("qcow2", created("qcow2")),
    "qcow2 version 2": ("qcow2", created("qcow2", "-o", "compat=0.10")),
    "qcow2 version 2 with data": ("qcow2", converted("qcow2", "-o", "compat=0.10")),
    "qcow2 of no size": ("qcow2", created("qcow2", size="0")),
    "qcow2 of 60 TiB": ("qcow2", created("qcow2", size="60T")),
    "qcow2 of odd size": ("qcow2", changed(created("qcow2"), lambda image: image.put(">Q", 24, 1_000_001))),
    "qcow2 with data": ("qcow2", converted("qcow2")),
    "qcow2 compressed": ("qcow2", converted("qcow2", "-c")),
    "qcow2 compressed with zstd": ("qcow2", converted("qcow2", "-c", "-o", "compression_type=zstd")),
    "qcow2 clusters of 512": ("qcow2", converted("qcow2", "-o", "cluster_size=512")),
    "qcow2 clusters of 2 MiB": ("qcow2", converted("qcow2", "-o", "cluster_size=2M")),
    "qcow2 subclusters": ("qcow2", converted("qcow2", "-o", "extended_l2=on,cluster_size=128k")),
    "qcow2 smallest subclusters": ("qcow2", created("qcow2", "-o", "extended_l2=on,cluster_size=16k")),
    "qcow2 wide counts": ("qcow2", created("qcow2", "-o", "refcount_bits=64")),
    "qcow2 narrow counts": ("qcow2", created("qcow2", "-o", "refcount_bits=1")),
    "qcow2 preallocated": ("qcow2", created("qcow2", "-o", "preallocation=metadata")),
    "qcow2 dirty": (
        "qcow2",
        changed(created("qcow2", "-o", "lazy_refcounts=on"), lambda image: image.put(">Q", 72, 1)),
    ),
    "qcow2 with snapshots": (
        "qcow2",
        followed_by(converted("qcow2"), ("snapshot", "-c", "one"), ("snapshot", "-c", "two")),
    ),
    "qcow2 with a bitmap": ("qcow2", with_a_bitmap),
    "qcow2 without a backing file any more": (
        "qcow2",
        followed_by(
            created("qcow2", "-u", "-b", "gone", "-F", "qcow2"),
            ("rebase", "-u", "-f", "qcow2", "-b", ""),
        ),
    ),
    "vmdk": ("vmdk", created("vmdk")),
    "vmdk with data": ("vmdk", converted("vmdk")),
    "vmdk of 1 TiB": ("vmdk", created("vmdk", size="1T")),
    "vmdk for SCSI": ("vmdk", created("vmdk", "-o", "adapter_type=lsilogic,hwversion=11")),
    "vmdk version 6": ("vmdk", created("vmdk", "-o", "compat6")),
    "vmdk streamOptimized": ("vmdk", created("vmdk", "-o", "subformat=streamOptimized")),
    "vmdk streamOptimized with data": ("vmdk", converted("vmdk", "-o", "subformat=streamOptimized")),
    "vmdk streamOptimized by VMware": ("vmdk", written(lambda _: stream(b"guest" * 50_000))),
    "vmdk by ovftool": ("vmdk", written(lambda lab: sparse(lab, EXTENT.replace("RW", "RDONLY")))),
    "vmdk by VirtualBox": ("vmdk", written(virtualbox)),
    "vdi": ("vdi", created("vdi")),
    "vdi with data": ("vdi", converted("vdi")),
    "vdi static": ("vdi", created("vdi", "-o", "static=on")),
    "vdi of odd size": ("vdi", changed(created("vdi"), lambda image: image.put("<Q", 0x170, 1_000_001))),
    "vhdx": ("vhdx", created("vhdx")),
    "vhdx with data": ("vhdx", converted("vhdx")),
    "vhdx fixed": ("vhdx", created("vhdx", "-o", "subformat=fixed")),
    "vhdx with large blocks": ("vhdx", created("vhdx", "-o", "block_size=256M,log_size=2M", size="3G")),
    "vpc": ("vpc", created("vpc")),
    "vpc with data": ("vpc", converted("vpc")),
    "vpc by size": ("vpc", created("vpc", "-o", "force_size=on", size="5000K")),
    "vpc fixed": ("vpc", created("vpc", "-o", "subformat=fixed")),
    "vpc fixed by size": ("vpc", created("vpc", "-o", "subformat=fixed,force_size=on", size="5000K")),
    "vpc fixed with partitions": ("vpc", written(lambda lab: fixed(lab).write(0, gpt()[: 64 * KIB]))),
    "vpc fixed with a footer of 511 bytes": ("vpc", written(lambda lab: fixed(lab)[:-1])),
    "vpc by Virtual PC": ("vpc", written(made_by(b"vpc "))),
    "vpc by Hyper-V": ("vpc", written(made_by(b"win "))),
    "vpc by disk2vhd": ("vpc", written(made_by(b"d2v "))),
    "vpc by XenServer": ("vpc", written(made_by(b"tap\0"))),
    "vpc by nobody known": ("vpc", written(made_by(b"what"))),
    "vpc on a larger device": ("vpc", written(lambda lab: lab.image("vpc") + bytes(MIB))),
}
