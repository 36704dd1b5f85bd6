# SPDX-License-Identifier: Apache-2.0
"""The program that `inspection` runs in a child: finds the format of the bytes, and has its header checked.

It gives up everything that it does not need before it reads the first byte. Three judges have to agree that
a file is one image of one format: the signatures here, which know whatever qemu would probe; the checker of
that format; and oslo.utils' format_inspector, which OpenStack keeps up with what is found.
"""

import contextlib
import io
import json
import logging
import re
import resource
from dataclasses import asdict

from oslo_utils.imageutils import format_inspector

from hsm.tools import headers, vhd, vmdk
from hsm.tools.headers import MIB, SECTOR, Reader, require
from hsm.tools.inspection import Inspected, Kind, Refused

CHECKS = {
    "raw": headers.raw,
    "qcow2": headers.qcow2,
    "vdi": headers.vdi,
    "vpc": vhd.vpc,
    "vhdx": vhd.vhdx,
    "vmdk": vmdk.vmdk,
}

# What the first bytes must be for qemu, or for its users, to take a file for a format; wider than its probes.
HEADS = {
    name: re.compile(pattern, re.DOTALL)
    for name, pattern in {
        "qcow": rb"QFI\xfb\0\0\0\x01",
        "qcow2": rb"QFI\xfb(?!\0\0\0\x01)",
        "qed": rb"QED\0",
        "vdi": rb".{64}\x7f\x10\xda\xbe",
        "vhdx": rb"vhdxfile",
        "vpc": rb"conectix",
        "vmdk": rb"KDMV|COWD",
        "parallels": rb"WithoutFreeSpace|WithouFreSpacExt",  # and ploop, which has the same header
        "luks": rb"LUKS\xba\xbe",
        "bochs": rb"Bochs Virtual HD Image",
        "cloop": rb"#!/bin/sh\n#V2\.0 Format\n",
        "cow": rb"OOOM",
    }.items()
}
# A VMDK can be all text, up to the first NUL. qemu probes for a version after comments and blank lines, and
# when told the format it asks for no more than a createType.
VMDK_VERSION = re.compile(rb"(?:[ \t\r]*(?:#[^\n]*)?\n)*[ \t]*version[ \t]*=")
VMDK_WORDS = (b"createtype", b"disk descriptorfile")
DMG_TRAILER = b"koly\0\0\0\4\0\0\2\0"
PARTITIONED = re.compile(rb".{510}\x55\xaa|.{512}EFI PART|.{32769}(?:CD001|NSR0[23]|BEA01)", re.DOTALL)


def main(order: str) -> None:
    descriptor, declared, seconds = json.loads(order)
    logging.disable()
    confine(seconds)
    try:
        answer = asdict(judge(Reader(descriptor), declared))
    except Refused as refused:
        answer = {"kind": refused.kind, "detail": refused.detail, "found": refused.found}
    print(json.dumps(answer))


def confine(seconds: int) -> None:
    """From here on: this long, this much memory, and no other file, read or written. All imports are done."""
    for limit, wanted in {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_AS: 256 * MIB,  # 24 MiB are in use at this point
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: 0,
        resource.RLIMIT_NPROC: 0,
    }.items():
        _, most = resource.getrlimit(limit)
        value = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(limit, (value, value))


def judge(file: Reader, declared: str | None) -> Inspected:
    """The verdict on one file, in this process."""
    claims = signatures(file)
    found = "+".join(sorted(claims)) or "raw"
    try:
        require(len(claims) <= 1, Kind.FORMAT_MISMATCH, f"it is several things at once: {found}")
        require(declared in (None, found), Kind.FORMAT_MISMATCH, _difference(found))
        require(found in CHECKS, Kind.UNSUPPORTED, f"images of format {found} are not taken in")
        capacity = CHECKS[found](file)
        second_opinion(file, found)
    except Refused as refused:
        refused.found = found
        raise
    return Inspected(found, capacity)


def _difference(found: str) -> str:
    """Why a file is what it is, and not what it was declared to be."""
    return "nothing in it marks another format" if found == "raw" else f"it has the marks of {found}"


def signatures(file: Reader) -> set[str]:
    """All formats that somebody could take the file for; none for raw.

    A partition table or an ISO is what raw disks, and fixed VHDs, contain. With any other header in front of
    it, it is a second meaning.
    """
    head = file.upto(0, MIB)
    claims = {name for name, pattern in HEADS.items() if pattern.match(head)}
    text = head.partition(b"\0")[0].lower()
    if VMDK_VERSION.match(text) or any(word in text for word in VMDK_WORDS):
        claims.add("vmdk")
    if claims and PARTITIONED.match(head):
        claims.add("disk")
    tail = file.upto(max(0, file.end - 2 * SECTOR), 2 * SECTOR)
    if DMG_TRAILER in tail:
        claims.add("dmg")
    if vhd.VPC_COOKIE in (file.upto(end - SECTOR, 8) for end in (file.size, file.end) if end >= SECTOR):
        claims.add("vpc")
    return claims


# The names that oslo.utils has for what is not an image, and for one format.
NOT_IMAGES = {"raw", "iso", "gpt"}
OTHER_NAMES = {"vhd": "vpc"}
# The formats for which it does more than to recognise them, and the check that is left out: it calls
# subclusters an unknown feature, while `headers.qcow2` knows all bits.
ITS_CHECKS = {"qcow2", "vmdk"}
OVERRULED = {"unknown_features"}
ITS_KINDS = {"backing_file": Kind.BACKING_FILE, "data_file": Kind.DATA_FILE, "descriptor": Kind.EXTENTS}


def second_opinion(file: Reader, found: str) -> None:
    """Ask oslo.utils, which reads streams from end to end: it gets the first MiB and the last three sectors.

    Nothing that it looks at lies elsewhere, but for the metadata of VHDX, which `vhd` reads. The first sector
    comes alone, for it takes the first piece for the whole text of a VMDK.
    """
    stream = io.BytesIO(file.upto(0, MIB) + file.upto(max(MIB, file.size - 3 * SECTOR), 3 * SECTOR))
    with contextlib.closing(format_inspector.InspectWrapper(stream)) as wrapper:
        wrapper.read(SECTOR)
        while wrapper.read(64 << 10):
            pass
    for opinion in wrapper.formats or ():
        name = OTHER_NAMES.get(opinion.NAME, opinion.NAME)
        if name in NOT_IMAGES:
            continue
        if name != found:
            raise Refused(Kind.FORMAT_MISMATCH, f"oslo.utils takes it for {name}")
        if name in ITS_CHECKS:
            _its_checks(opinion)


def _its_checks(opinion: format_inspector.FileInspector) -> None:
    try:
        opinion.safety_check()
    except format_inspector.ImageFormatError as error:
        raise Refused(Kind.DAMAGED, f"oslo.utils: {error}") from error
    except format_inspector.SafetyCheckFailed as failed:
        for check in sorted(failed.failures.keys() - OVERRULED):
            kind = ITS_KINDS.get(check, Kind.DAMAGED)
            raise Refused(kind, f"oslo.utils: {failed.failures[check]}") from failed
