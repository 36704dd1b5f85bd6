# SPDX-License-Identifier: Apache-2.0
"""A corpus of disk images that must not be opened: every known way to refer to another file, and damage.

Two tables, by the format that an image is and the reason for which it is refused. With those in LEAKING,
qemu-img 7.2 copies a file of the host, the canary of the lab, into its output when it is told that format.
With those in QUIET it fails, or reads something else.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from hsm.tools.inspection import Kind
from hsm.tools.vhd import BLOCKS, CAPACITY, IDENTITY, LOGICAL_SECTOR, METADATA, PARAMETERS, PARENT
from tests.tools.images import (
    AT_END,
    BACKING_FORMAT,
    CRYPTO_HEADER,
    DATA_FILE_NAME,
    EXTENT,
    KIB,
    MIB,
    REGIONS,
    SECRET,
    SECTOR,
    Image,
    Lab,
    backed_by,
    checked,
    dynamic,
    extensions,
    fixed,
    flat,
    flat_text,
    footer_of,
    footers,
    hint,
    iso,
    item,
    json_name,
    mapped_to_data_file,
    metadata,
    old,
    qcow2,
    sealed,
    sparse,
    stream,
    text,
    trailer,
    utf16,
    vdi,
    vhdx,
    with_item,
    with_region,
    without_capacity,
)

Table = dict[tuple[str, Kind], dict[str, Callable[[Lab], bytes | bytearray]]]
LEAKING: Table = {}
QUIET: Table = {}

# --- qcow2 --------------------------------------------------------------------------------------------------
LEAKING["qcow2", Kind.BACKING_FILE] = {
    "backing file": lambda lab: qcow2(lab, "-u", "-b", str(lab.canary), "-F", "raw"),
    "version 2 backing file": lambda lab: backed_by(old(lab), lab.secret),
    "backing file of no stated format": lambda lab: backed_by(qcow2(lab), lab.secret),
    "backing file with a relative name": lambda lab: backed_by(qcow2(lab), b"canary"),
    "backing file with a protocol": lambda lab: backed_by(qcow2(lab), b"file:" + lab.secret),
    "backing file that is a json program": lambda lab: backed_by(qcow2(lab), json_name(lab.canary)),
    "backing file named at the end of the first cluster": lambda lab: backed_by(
        qcow2(lab), lab.secret, 65536 - len(lab.secret)
    ),
}
QUIET["qcow2", Kind.BACKING_FILE] = {
    "backing file over the network": lambda lab: backed_by(qcow2(lab), b"nbd://127.0.0.1:1/secret"),
    "backing file named outside the first cluster": lambda lab: backed_by(qcow2(lab), lab.secret, 200 * KIB),
    "backing file with an empty name": lambda lab: qcow2(lab).put(">QI", 8, 1024, 0),
    "backing file name of a length but no place": lambda lab: qcow2(lab).put(">QI", 8, 0, 20),
    "backing format alone": lambda lab: extensions(qcow2(lab), (BACKING_FORMAT, b"raw")),
}
LEAKING["qcow2", Kind.DATA_FILE] = {"data file": lambda lab: mapped_to_data_file(lab, lab.secret)}


def data_file_name_without_the_feature(lab: Lab) -> Image:
    ignored = (0x12345678, b"of an unknown type")
    return extensions(qcow2(lab), ignored, (DATA_FILE_NAME, lab.secret))


QUIET["qcow2", Kind.DATA_FILE] = {
    "data file that is a json program": lambda lab: mapped_to_data_file(lab, json_name(lab.canary)),
    "data file without a name": lambda lab: extensions(mapped_to_data_file(lab, b"")),
    "data file name without the feature": data_file_name_without_the_feature,
    "version 2 data file name": lambda lab: extensions(old(lab), (DATA_FILE_NAME, lab.secret)),
    "raw data file without the feature": lambda lab: qcow2(lab).put(">Q", 88, 2),
}


def encrypted_with_luks(lab: Lab) -> Image:
    options = "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10"
    return qcow2(lab, "--object", SECRET, "-o", options)


QUIET["qcow2", Kind.ENCRYPTED] = {
    "encrypted with aes": lambda lab: old(lab).put(">I", 32, 1),
    "encrypted with luks": encrypted_with_luks,
    "encryption header alone": lambda lab: extensions(qcow2(lab), (CRYPTO_HEADER, struct.pack(">QQ", 64 * KIB, 4096))),
}
QUIET["qcow2", Kind.UNSUPPORTED] = {
    "unknown feature next to the known": lambda lab: qcow2(lab).put(">Q", 72, 1 << 5),
    "unknown feature in the highest bit": lambda lab: qcow2(lab).put(">Q", 72, 1 << 63),
    "version 4": lambda lab: qcow2(lab).put(">I", 4, 4),
    "version 0": lambda lab: qcow2(lab).put(">I", 4, 0),
    "unknown compression": lambda lab: qcow2(lab).put(">Q", 72, 1 << 3).put("B", 104, 2),
}


def huge_clusters(lab: Lab) -> Image:
    image = qcow2(lab, "-o", "cluster_size=2M").put(">I", 20, 22).put(">Q", 40, 8 * MIB)
    return image.put(">Q", 48, 4 * MIB).write(12 * MIB, b"\0")


QUIET["qcow2", Kind.DAMAGED] = {
    "compression without the feature": lambda lab: qcow2(lab).put("B", 104, 1),
    "marked as corrupt": lambda lab: qcow2(lab).put(">Q", 72, 1 << 1),
    "clusters too small": lambda lab: qcow2(lab).put(">I", 20, 8),
    "clusters too large": lambda lab: qcow2(lab).put(">I", 20, 63),
    "subclusters too small": lambda lab: qcow2(lab, "-o", "cluster_size=4k").put(">Q", 72, 1 << 4),
    "header too short": lambda lab: qcow2(lab).put(">I", 100, 72),
    "header longer than a cluster": lambda lab: qcow2(lab).put(">I", 100, 64 * KIB + 8),
    "cut within the header": lambda lab: qcow2(lab)[:80],
    "reference counts too wide": lambda lab: qcow2(lab).put(">I", 96, 7),
    "no reference counts": lambda lab: qcow2(lab).put(">I", 56, 0),
    "too many reference counts": lambda lab: qcow2(lab).put(">I", 56, 0xFFFFFFFF),
    "extension longer than the cluster": lambda lab: qcow2(lab).put(">II", 112, 0x12345678, 0xFFFFFFF0),
    "l1 too small": lambda lab: qcow2(lab).put(">Q", 24, 1 << 50),
    "l1 too large": lambda lab: qcow2(lab).put(">I", 36, 0xFFFFFFFF),
    "l1 outside the file": lambda lab: qcow2(lab).put(">Q", 40, 1 << 40),
    "l1 in the header": lambda lab: qcow2(lab).put(">Q", 40, 0),
    "l1 unaligned": lambda lab: qcow2(lab).put(">Q", 40, 0x30008),
    "capacity beyond all measure": lambda lab: qcow2(lab).put(">Q", 24, (1 << 64) - 512),
    "clusters of 4 MiB": huge_clusters,
    "l1 of more than 32 MiB": lambda lab: qcow2(lab).put(">I", 36, (4 << 20) + 1).write(33 * MIB, b"\0"),
    "extension cut off": lambda lab: extensions(qcow2(lab), (0x12345678, b""))[:124],
    "too many snapshots": lambda lab: qcow2(lab).put(">IQ", 60, 0x7FFFFFFF, 64 * KIB),
    "snapshots outside the file": lambda lab: qcow2(lab).put(">IQ", 60, 1, 1 << 50),
}

# --- VMDK ---------------------------------------------------------------------------------------------------
LEAKING["vmdk", Kind.EXTENTS] = {
    "text with a flat extent": lambda lab: flat_text(lab),
    "text with an extent of esx": lambda lab: text(f'RW 128 VMFS "{lab.canary}"', kind="vmfs"),
    "text with two extents": lambda lab: text(flat(lab), flat(lab), kind="twoGbMaxExtentFlat"),
    "text with a sparse extent": lambda lab: text(f'RW 128 SPARSE "{lab.canary_vmdk}"', kind="twoGbMaxExtentSparse"),
    "text with a relative extent": lambda lab: text(f'RW 128 FLAT "{lab.canary.name}" 0', kind="monolithicFlat"),
    "text of windows": lambda lab: flat_text(lab, newline="\r\n"),
    "text after comments and blank lines": lambda lab: b"#!/bin/sh\n  \n# a harmless script\n   \n" + flat_text(lab),
    "text without its first line": lambda lab: flat_text(lab).partition(b"\n")[2],
    "text that nobody probes": lambda lab: b"Dear reader,\n" * 100 + flat_text(lab).partition(b"\n")[2],
    "text and then a disk": lambda lab: flat_text(lab) + bytes(MIB),
    "without a capacity": lambda lab: without_capacity(lab),
    "without a capacity and a text far away": lambda lab: without_capacity(lab, 50),
}
QUIET["vmdk", Kind.EXTENTS] = {
    "text with an extent by protocol": lambda _: text('RW 128 FLAT "nbd:127.0.0.1:1" 0', kind="monolithicFlat"),
    "extent with a path": lambda lab: sparse(lab, f'RW 2048 SPARSE "{lab.canary}"'),
    "extent in the folder above": lambda lab: sparse(lab, 'RW 2048 SPARSE "..\\canary"'),
    "extent by protocol": lambda lab: sparse(lab, 'RW 2048 SPARSE "nbd:127.0.0.1:1"'),
    "extent that is flat": lambda lab: sparse(lab, 'RW 2048 FLAT "canary" 0'),
    "extent with tabs and small letters": lambda lab: sparse(lab, '\t rw\t2048\tflat\t"canary"\t0'),
    "extent with an offset": lambda lab: sparse(lab, 'RW 2048 SPARSE "canary" 4'),
    "extent of a device": lambda lab: sparse(lab, 'RW 2048 FLAT "sda" 0', kind="fullDevice"),
    "two extents": lambda lab: sparse(lab, 'RW 1024 SPARSE "disk.vmdk"', 'RW 1024 SPARSE "canary"'),
    "two extents one without access": lambda lab: sparse(lab, EXTENT, "NOACCESS 2048 ZERO"),
    "no extent": lambda lab: sparse(lab, "# none"),
    "of another type": lambda lab: sparse(lab, EXTENT, kind="twoGbMaxExtentSparse"),
    "extent of a disk described elsewhere": lambda lab: sparse(lab).put("<QQ", 28, 0, 0),
}


def vmdk_parent_after_the_declared_end_of_the_text(lab: Lab) -> Image:
    content = text(EXTENT, parent=lab.canary_cid).ljust(SECTOR, b"\n") + hint(lab).encode()
    return sparse(lab, content=content).put("<Q", 36, 1)


def vmdk_parent_of_a_streamoptimized_image(lab: Lab) -> Image:
    content = text(EXTENT, hint(lab), kind="streamOptimized", parent=lab.canary_cid)
    image = lab.image("vmdk", "-o", "subformat=streamOptimized")
    return image.write(SECTOR, content.ljust(20 * SECTOR, b"\0"))


LEAKING["vmdk", Kind.BACKING_FILE] = {
    "parent": lambda lab: sparse(lab, EXTENT, hint(lab), parent=lab.canary_cid),
    "parent in a comment": lambda lab: sparse(lab, "# " + hint(lab), EXTENT, parent=lab.canary_cid),
    "parent in an extent": lambda lab: sparse(lab, f'RW 2048 SPARSE "{hint(lab)}', parent=lab.canary_cid),
    "parent after the declared end of the text": vmdk_parent_after_the_declared_end_of_the_text,
    "parent of a streamoptimized image": vmdk_parent_of_a_streamoptimized_image,
}


def vmdk_parent_after_a_nul(lab: Lab) -> Image:
    content = text(EXTENT)
    return sparse(lab, content=content + b"\0" + hint(lab).encode())


QUIET["vmdk", Kind.BACKING_FILE] = {
    "parent in capitals": lambda lab: sparse(lab, EXTENT, hint(lab).upper()),
    "parent after a nul": vmdk_parent_after_a_nul,
    "parent without a name": lambda lab: sparse(lab, parent="12345678"),
}


def vmdk_with_two_texts(lab: Lab) -> Image:
    content = text(EXTENT)
    return sparse(lab, content=content + text(kind="monolithicFlat"))


def vmdk_with_a_second_text_after_a_nul(lab: Lab) -> Image:
    content = text(EXTENT)
    return sparse(lab, content=content + b"\0\0" + flat_text(lab))


def enormous(lab: Lab) -> Image:
    return sparse(lab).put("<QQ", 12, 1 << 54, 1 << 21).write(65 * MIB, b"\0")


QUIET["vmdk", Kind.DAMAGED] = {
    "extent of another size": lambda lab: sparse(lab, 'RW 4096 SPARSE "disk.vmdk"'),
    "without a type": lambda lab: sparse(lab, content=text(EXTENT).replace(b"createType", b"#")),
    "with two texts": vmdk_with_two_texts,
    "with a second text after a nul": vmdk_with_a_second_text_after_a_nul,
    "with half newlines": lambda lab: sparse(lab, f"#\r{flat(lab)}", EXTENT),
    "with other letters": lambda lab: sparse(lab, 'RW 2048 SPARSE "d\xefsk.vmdk"'),
    "with control characters": lambda lab: sparse(lab, f"#\x0b{flat(lab)}", EXTENT),
    "text in an odd place": lambda lab: sparse(lab).put("<Q", 28, 3),
    "text too long": lambda lab: sparse(lab).put("<Q", 36, 3000),
    "text of no length": lambda lab: sparse(lab).put("<Q", 36, 0),
    "after a transfer as text": lambda lab: sparse(lab).write(73, b"\n \n\n"),
    "grains of no size": lambda lab: sparse(lab).put("<Q", 20, 0),
    "tables too long": lambda lab: sparse(lab).put("<I", 44, 0x10000),
    "directory outside the file": lambda lab: sparse(lab).put("<Q", 56, 1 << 40),
    "footer with another capacity": lambda _: stream(capacity=0),
    "footer with another text": lambda _: stream(text=100),
    "footer with a little more capacity": lambda _: stream(capacity=2049),
    "footer in a file too short": lambda _: stream()[: 2 * SECTOR],
    "data outside the file": lambda lab: sparse(lab).put("<Q", 64, 1 << 40),
    "capacity beyond all measure": enormous,
    "footer that is elsewhere": lambda _: stream(directory=AT_END),
    "footer missing": lambda _: stream()[: -3 * SECTOR],
    "footer within a sector": lambda _: stream() + b"\0",
    "footer with something behind": lambda _: stream().put("<I", -SECTOR + 100, 1),
}
QUIET["vmdk", Kind.UNSUPPORTED] = {
    "with a file of changes": lambda lab: sparse(lab, f'changeTrackPath="{lab.canary}"', EXTENT),
    "with a line that is none": lambda lab: sparse(lab, "Hello!", EXTENT),
    "version 4": lambda lab: sparse(lab).put("<I", 4, 4),
}


def vmdk_of_esx_with_a_parent(lab: Lab) -> Image:
    content = text(hint(lab), kind="vmfsSparse", parent=lab.canary_cid)
    image = Image(struct.pack("<4s7I", b"COWD", 1, 3, 2048, 128, 40, 1, 60)).write(SECTOR, content)
    return image.write(60 * SECTOR, b"\0")


LEAKING["vmdk", Kind.UNSUPPORTED] = {"of esx with a parent": vmdk_of_esx_with_a_parent}

# --- VDI ----------------------------------------------------------------------------------------------------
QUIET["vdi", Kind.BACKING_FILE] = {
    "of type difference": lambda lab: vdi(lab).put("<I", 0x4C, 4),
    "of type undo": lambda lab: vdi(lab).put("<I", 0x4C, 3),
    "with a link": lambda lab: vdi(lab).put("16s", 0x1A8, b"another image   "),
    "with a parent": lambda lab: vdi(lab).put("16s", 0x1B8, b"another image   "),
}
QUIET["vdi", Kind.UNSUPPORTED] = {
    "of unknown type": lambda lab: vdi(lab).put("<I", 0x4C, 9),
    "version 2": lambda lab: vdi(lab).put("<I", 0x44, 0x00020000),
    "blocks of another size": lambda lab: vdi(lab).put("<I", 0x178, 4096),
}
QUIET["vdi", Kind.DAMAGED] = {
    "map unaligned": lambda lab: vdi(lab).put("<I", 0x154, 513),
    "map outside the file": lambda lab: vdi(lab).put("<I", 0x154, 1 << 30),
    "map in the header": lambda lab: vdi(lab).put("<I", 0x154, 0),
    "larger than its blocks": lambda lab: vdi(lab).put("<Q", 0x170, 1 << 40),
    "data beyond its end": lambda lab: vdi(lab).put("<I", 0x184, 1),
    "more blocks with data than there are": lambda lab: vdi(lab).put("<I", 0x184, 0x7FFFFFFF),
    "too many blocks": lambda lab: vdi(lab).put("<I", 0x180, 0x7FFFFFFF),
}

# --- VPC ----------------------------------------------------------------------------------------------------


def vpc_of_type_difference_in_the_footer_alone(lab: Lab) -> Image:
    image = dynamic(lab)
    start = len(image) - SECTOR
    return checked(image.put(">I", start + 60, 4), start)


QUIET["vpc", Kind.BACKING_FILE] = {
    "of type difference": lambda lab: footers(dynamic(lab), ">I", 60, 4),
    "of type difference in the footer alone": vpc_of_type_difference_in_the_footer_alone,
    "of type difference in the header alone": lambda lab: checked(dynamic(lab).put(">I", 60, 4), 0),
    "of type difference without a header": lambda lab: footers(fixed(lab), ">I", 60, 4),
    "with the uuid of a parent": lambda lab: dynamic(lab).put("16s", SECTOR + 40, b"another image   "),
    "with the name of a parent": lambda lab: dynamic(lab).write(SECTOR + 64, utf16(lab.canary)),
    "with the locator of a parent": lambda lab: dynamic(lab).put(">4sIIIQ", SECTOR + 576, b"W2ku", SECTOR, 20, 0, 4096),
}


def three_tib(lab: Lab) -> Image:
    image = dynamic(lab).put(">II", SECTOR + 28, 1536, 1 << 31)
    image.write(len(image) + 16 * SECTOR, image[:SECTOR])
    return footers(footers(image, ">4s", 28, b"win "), ">Q", 48, 3 << 40)


QUIET["vpc", Kind.DAMAGED] = {
    "copies that contradict": lambda lab: checked(dynamic(lab).put(">HBB", 56, 1, 16, 63), 0),
    "larger than 2 TiB": three_tib,
    "dynamic header that is none": lambda lab: dynamic(lab).write(SECTOR, b"cxparsec"),
    "table in the header": lambda lab: dynamic(lab).put(">Q", SECTOR + 16, 0),
    "wrong checksum": lambda lab: dynamic(lab).put(">I", 64, 0),
    "fixed with a header": lambda lab: footers(dynamic(lab), ">I", 60, 2),
    "dynamic without a header": lambda lab: footers(fixed(lab), ">I", 60, 3),
    "dynamic header outside the file": lambda lab: footers(dynamic(lab), ">Q", 16, 1 << 40),
    "table outside the file": lambda lab: dynamic(lab).put(">Q", SECTOR + 16, 1 << 40),
    "table too small": lambda lab: dynamic(lab).put(">I", SECTOR + 28, 0),
    "blocks of an odd size": lambda lab: dynamic(lab).put(">I", SECTOR + 32, 3 * MIB),
    "fixed larger than the file": lambda lab: footers(fixed(lab), ">HBB", 56, 60000, 16, 63),
    "footer within a sector": lambda lab: bytes(100) + fixed(lab),
}

# --- VHDX ---------------------------------------------------------------------------------------------------


def vhdx_with_a_parent(lab: Lab) -> Image:
    image = vhdx(lab)
    return with_item(image.put("<I", item(image, PARAMETERS) + 4, 2), PARENT, 4)


def vhdx_with_the_mark_of_a_parent(lab: Lab) -> Image:
    image = vhdx(lab)
    return image.put("<I", item(image, PARAMETERS) + 4, 2)


QUIET["vhdx", Kind.BACKING_FILE] = {
    "with a parent": vhdx_with_a_parent,
    "with the mark of a parent": vhdx_with_the_mark_of_a_parent,
    "with the locator of a parent": lambda lab: with_item(vhdx(lab), PARENT, 0),
}


def vhdx_with_a_log(lab: Lab) -> Image:
    image = vhdx(lab)
    for header in (64 * KIB, 128 * KIB):
        image.put("16s", header + 48, b"a log to replay ")
    return sealed(image)


def vhdx_with_a_log_in_the_one_whole_header(lab: Lab) -> Image:
    image = vhdx(lab)
    return sealed(image.put("16s", 64 * KIB + 48, b"a log to replay ")).put("<I", 128 * KIB + 4, 0)


def vhdx_regions_that_overlap(lab: Lab) -> Image:
    image = with_region(vhdx(lab), b"nobody knows it ", 0)
    return sealed(image.put("<Q", image.index(b"nobody knows it ") + 16, metadata(image)))


def vhdx_metadata_outside_the_file(lab: Lab) -> Image:
    image = vhdx(lab)
    return sealed(image.put("<Q", image.index(METADATA, REGIONS) + 16, 1 << 40))


def vhdx_two_whole_regions_of_metadata(lab: Lab) -> Image:
    image = with_region(vhdx(lab), METADATA, 0)
    return image.write(4 * MIB, image[metadata(image) :][: 128 * KIB])


def vhdx_region_between_two_mib(lab: Lab) -> Image:
    image = vhdx(lab)
    return sealed(image.put("<Q", image.index(BLOCKS, REGIONS) + 16, 4 * MIB + 4 * KIB))


def vhdx_without_a_table_of_blocks(lab: Lab) -> Image:
    image = vhdx(lab)
    return sealed(image.write(image.index(BLOCKS, REGIONS), b"nobody knows it "))


def vhdx_without_an_identity(lab: Lab) -> Image:
    image = vhdx(lab)
    return image.put("<16s8xI", image.index(IDENTITY, metadata(image)), b"nobody knows it ", 0)


def vhdx_metadata_without_a_name(lab: Lab) -> Image:
    image = vhdx(lab)
    return image.write(metadata(image), b"metadate")


def vhdx_item_outside_its_region(lab: Lab) -> Image:
    image = vhdx(lab)
    return image.put("<I", image.index(CAPACITY, metadata(image)) + 16, 2 * MIB)


def vhdx_blocks_of_an_odd_size(lab: Lab) -> Image:
    image = vhdx(lab)
    return image.put("<I", item(image, PARAMETERS), 3 * MIB)


def vhdx_of_odd_size(lab: Lab) -> Image:
    image = vhdx(lab)
    return image.put("<Q", item(image, CAPACITY), 1_000_001)


def vhdx_larger_than_its_table(lab: Lab) -> Image:
    image = vhdx(lab)
    return image.put("<Q", item(image, CAPACITY), 60 << 40)


QUIET["vhdx", Kind.DAMAGED] = {
    "with a log": vhdx_with_a_log,
    "with a log in the one whole header": vhdx_with_a_log_in_the_one_whole_header,
    "without a whole header": lambda lab: vhdx(lab).put("<I", 64 * KIB + 4, 0).put("<I", 128 * KIB + 4, 0),
    "wrong checksum of the regions": lambda lab: vhdx(lab).put("<I", REGIONS + 4, 0),
    "regions without a name": lambda lab: sealed(vhdx(lab).write(REGIONS, b"rego")),
    "region between two MiB": vhdx_region_between_two_mib,
    "without a table of blocks": vhdx_without_a_table_of_blocks,
    "without an identity": vhdx_without_an_identity,
    "metadata without a name": vhdx_metadata_without_a_name,
    "blocks of an odd size": vhdx_blocks_of_an_odd_size,
    "of odd size": vhdx_of_odd_size,
    "two whole regions of metadata": vhdx_two_whole_regions_of_metadata,
    "two regions of metadata": lambda lab: with_region(vhdx(lab), METADATA, 0),
    "regions that overlap": vhdx_regions_that_overlap,
    "metadata outside the file": vhdx_metadata_outside_the_file,
    "two capacities": lambda lab: with_item(vhdx(lab), CAPACITY, 4),
    "item outside its region": vhdx_item_outside_its_region,
    "larger than its table": vhdx_larger_than_its_table,
    "header alone": lambda lab: vhdx(lab)[: 4 * KIB],
}


def vhdx_with_large_sectors(lab: Lab) -> Image:
    image = vhdx(lab)
    return image.put("<I", item(image, LOGICAL_SECTOR), 4096)


QUIET["vhdx", Kind.UNSUPPORTED] = {
    "needs an unknown region": lambda lab: with_region(vhdx(lab), b"nobody knows it ", 1),
    "needs an unknown item": lambda lab: with_item(vhdx(lab), b"nobody knows it ", 4),
    "with large sectors": vhdx_with_large_sectors,
}

# --- formats that are not taken in --------------------------------------------------------------------------
LEAKING["qcow", Kind.UNSUPPORTED] = {
    "backing file": lambda lab: lab.image("qcow", "-u", "-b", str(lab.canary), "-F", "raw")
}
QUIET["qcow", Kind.UNSUPPORTED] = {"alone": lambda lab: lab.image("qcow")}
LEAKING["qed", Kind.UNSUPPORTED] = {
    "backing file": lambda lab: lab.image("qed", "-u", "-b", str(lab.canary), "-F", "raw")
}
QUIET["parallels", Kind.UNSUPPORTED] = {
    "parallels": lambda lab: lab.image("parallels"),
    "ploop": lambda _: b"WithoutFreeSpace" + struct.pack("<I", 2) + bytes(MIB),
}
QUIET["luks", Kind.UNSUPPORTED] = {
    "luks": lambda lab: lab.image("luks", "--object", SECRET, "-o", "key-secret=key,iter-time=10"),
    "version 2": lambda _: b"LUKS\xba\xbe" + struct.pack(">H", 2) + bytes(MIB),
}


def bochs(_: Lab) -> bytes:
    header = struct.pack("<32s16s16sII", b"Bochs Virtual HD Image", b"Redolog", b"Growing", 0x20000, SECTOR)
    return header + struct.pack("<IIIIQ", 1, SECTOR, SECTOR, 0, SECTOR) + bytes(MIB)


def cloop(_: Lab) -> bytes:
    script = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"
    return script.ljust(128, b"\0") + struct.pack(">II", 64 * KIB, 1) + bytes(MIB)


QUIET["bochs", Kind.UNSUPPORTED] = {"bochs": bochs}
QUIET["cloop", Kind.UNSUPPORTED] = {"cloop": cloop}
QUIET["dmg", Kind.UNSUPPORTED] = {
    "dmg": lambda _: bytes(MIB) + trailer(),
    "within a sector": lambda _: bytes(MIB + 100) + trailer(),
}
QUIET["cow", Kind.UNSUPPORTED] = {"cow": lambda _: b"OOOM" + struct.pack(">I", 2) + bytes(MIB)}

# --- two things at once -------------------------------------------------------------------------------------


def qcow2_and_vhd(lab: Lab) -> bytes:
    image = bytes(qcow2(lab))
    image += bytes(-len(image) % SECTOR)
    return image + footer_of(lab, len(image))


QUIET["qcow2+vpc", Kind.FORMAT_MISMATCH] = {"qcow2 and vhd": qcow2_and_vhd}
LEAKING["disk+qcow2", Kind.FORMAT_MISMATCH] = {"qcow2 and iso": lambda lab: iso(backed_by(qcow2(lab), lab.secret))}
QUIET["disk+qcow2", Kind.FORMAT_MISMATCH] = {"qcow2 and partitions": lambda lab: qcow2(lab).write(510, b"\x55\xaa")}
QUIET["qcow2+vdi", Kind.FORMAT_MISMATCH] = {"qcow2 and vdi": lambda lab: qcow2(lab).put("<I", 0x40, 0xBEDA107F)}
QUIET["dmg+qcow2", Kind.FORMAT_MISMATCH] = {"qcow2 and dmg": lambda lab: qcow2(lab) + trailer()}
LEAKING["disk+vmdk", Kind.FORMAT_MISMATCH] = {"vmdk text and iso": lambda lab: iso(flat_text(lab))}
QUIET["vdi+vmdk", Kind.FORMAT_MISMATCH] = {"vmdk and vdi": lambda lab: sparse(lab).put("<I", 0x40, 0xBEDA107F)}
LEAKING["vmdk+vpc", Kind.FORMAT_MISMATCH] = {
    "vmdk text and vhd": lambda lab: flat_text(lab).ljust(MIB, b"\0") + footer_of(lab, MIB)
}
QUIET["disk+vhdx", Kind.FORMAT_MISMATCH] = {"vhdx and gpt": lambda lab: vhdx(lab).write(512, b"EFI PART")}
QUIET["disk+vdi", Kind.FORMAT_MISMATCH] = {"vdi and partitions": lambda lab: vdi(lab).write(510, b"\x55\xaa")}
QUIET["dmg+vpc", Kind.FORMAT_MISMATCH] = {"vhd and dmg": lambda lab: dynamic(lab)[:-SECTOR] + trailer()}


@dataclass(frozen=True)
class Hostile:
    """An entry of the tables."""

    title: str
    format: str  # what it is, also as declared by an honest sender; "a+b" for two things at once
    kind: Kind
    build: Callable[[Lab], bytes | bytearray]

    @property
    def name(self) -> str:
        return f"{self.format}: {self.title}"


def _entries(table: Table) -> list[Hostile]:
    return [
        Hostile(title, fmt, kind, build) for (fmt, kind), builders in table.items() for title, build in builders.items()
    ]


LEAKS = _entries(LEAKING)
CORPUS = LEAKS + _entries(QUIET)
