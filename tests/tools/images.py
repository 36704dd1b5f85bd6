# SPDX-License-Identifier: Apache-2.0
"""Disk images in the making: what qemu-img creates, and hands that change it as no qemu-img would.

The offsets are those of the formats' specifications. `hostile` builds its corpus with these,
`test_inspection` also what is good and no tool at hand can make.
"""

import functools
import struct
import zlib
from pathlib import Path
from typing import Any

from hsm.tools.vhd import METADATA, crc32c
from tests.formats import qemu

SECRET = "secret,id=key,data=password"
CANARY = b"CANARY: what only the host may read\n"
SECTOR = 512
KIB = 1 << 10
MIB = 1 << 20


class Image(bytearray):
    """An image in the making."""

    def put(self, layout: str, offset: int, *values: Any) -> "Image":
        struct.pack_into(layout, self, offset, *values)
        return self

    def get(self, layout: str, offset: int) -> Any:
        (value,) = struct.unpack_from(layout, self, offset)
        return value

    def write(self, offset: int, data: bytes | bytearray) -> "Image":
        self.extend(bytes(max(0, offset + len(data) - len(self))))
        self[offset : offset + len(data)] = data
        return self


class Lab:
    """A directory with files that no image may reach, and images that qemu-img has made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.canary = folder / "canary"
        self.canary.write_bytes(CANARY * (64 * KIB // len(CANARY)) + bytes(64 * KIB % len(CANARY)))
        self.canary_vmdk = folder / "canary.vmdk"
        qemu.image_tool("convert", "-f", "raw", "-O", "vmdk", str(self.canary), str(self.canary_vmdk))
        self.seed = functools.cache(self._seed)

    @property
    def secret(self) -> bytes:
        """The name of the canary."""
        return bytes(self.canary)

    @property
    def canary_cid(self) -> str:
        return self.canary_vmdk.read_bytes().partition(b"\nCID=")[2][:8].decode()

    def _seed(self, fmt: str, *options: str, size: str = "1M") -> bytes:
        path = self.folder / "seed"
        qemu.image_tool("create", "-q", "-f", fmt, *options, str(path), size)
        content = path.read_bytes()
        path.unlink()
        return content

    def image(self, fmt: str, *options: str, size: str = "1M") -> Image:
        """A new empty image; each call returns a copy of its own."""
        return Image(self.seed(fmt, *options, size=size))


# --- qcow2 --------------------------------------------------------------------------------------------------

DATA_FILE_NAME, BACKING_FORMAT, CRYPTO_HEADER = 0x44415441, 0xE2792ACA, 0x0537BE77


def qcow2(lab: Lab, *options: str, size: str = "1M") -> Image:
    return lab.image("qcow2", *options, size=size)


def old(lab: Lab) -> Image:
    return qcow2(lab, "-o", "compat=0.10")


def extensions(image: Image, *entries: tuple[int, bytes]) -> Image:
    """Replace the header extensions."""
    offset = image.get(">I", 100) if image.get(">I", 4) == 3 else 72
    for kind, content in entries:
        padded = content + bytes(-len(content) % 8)
        image.put(">II", offset, kind, len(content)).write(offset + 8, padded)
        offset += 8 + len(padded)
    return image.put(">II", offset, 0, 0)


def backed_by(image: Image, name: bytes, offset: int = 1024) -> Image:
    return extensions(image).write(offset, name).put(">QI", 8, offset, len(name))


def mapped_to_data_file(lab: Lab, name: bytes) -> Image:
    """A qcow2 whose tables map everything to a raw data file, whose name is then changed."""
    options = f"data_file={lab.folder}/data,data_file_raw=on,preallocation=metadata"
    return extensions(qcow2(lab, "-o", options, size="64k"), (DATA_FILE_NAME, name))


def json_name(path: Path) -> bytes:
    return b'json:{"driver":"raw","file":{"driver":"file","filename":"%s"}}' % bytes(path)


# --- VMDK ---------------------------------------------------------------------------------------------------

HEADER = "<4sIIQQQQIQQQB4sH"
AT_END = (1 << 64) - 1
EXTENT = 'RW 2048 SPARSE "disk.vmdk"'


def text(*lines: str, kind: str = "monolithicSparse", parent: str = "ffffffff", newline: str = "\n") -> bytes:
    head = ["# Disk DescriptorFile", "version=1", "CID=12345678", f"parentCID={parent}"]
    return newline.join([*head, f'createType="{kind}"', "", *lines, ""]).encode("latin-1")


def flat(lab: Lab) -> str:
    return f'RW 128 FLAT "{lab.canary}" 0'


def flat_text(lab: Lab, **options: str) -> bytes:
    return text(flat(lab), kind="monolithicFlat", **options)


def sparse(lab: Lab, *lines: str, content: bytes = b"", **options: str) -> Image:
    """A monolithicSparse image of 1 MiB with another text."""
    image = lab.image("vmdk")
    content = content or text(*(lines or [EXTENT]), **options)
    return image.write(SECTOR, content.ljust(20 * SECTOR, b"\0"))


def without_capacity(lab: Lab, sector: int = 1) -> Image:
    """qemu then takes the text for the whole truth."""
    content = flat_text(lab)
    image = sparse(lab).write(sector * SECTOR, content.ljust(20 * SECTOR, b"\0"))
    return image.put("<Q", 12, 0).put("<Q", 28, sector)


def hint(lab: Lab) -> str:
    return f'parentFileNameHint="{lab.canary_vmdk}"'


def stream(data: bytes = b"", **footer: Any) -> Image:
    """A streamOptimized image as VMware writes it, with a footer; `footer` changes fields of that alone."""
    capacity, grain = 2048, 128
    fields: dict[str, Any] = {
        "magic": b"KDMV", "version": 3, "flags": 0x30001, "capacity": capacity, "grain": grain, "text": 1,
        "sectors": 20, "entries": 512, "spare": 0, "directory": AT_END, "overhead": 128, "unclean": 0,
        "newlines": b"\n \r\n", "compression": 1,
    }  # fmt: skip
    image = Image(struct.pack(HEADER, *fields.values()).ljust(SECTOR, b"\0"))
    image.write(SECTOR, text(EXTENT, kind="streamOptimized"))
    grains = [0] * 512
    end = 128 * SECTOR
    for number in range(-(-len(data) // (grain * SECTOR))):
        piece = zlib.compress(data[number * grain * SECTOR :][: grain * SECTOR].ljust(grain * SECTOR, b"\0"))
        image.write(end, struct.pack("<QI", number * grain, len(piece)) + piece)
        grains[number] = end // SECTOR
        end = -(-len(image) // SECTOR) * SECTOR
    image.write(end, struct.pack("<QII496x", 4, 0, 1) + struct.pack("<512I", *grains))
    directory = end // SECTOR + 6
    image.write(end + 5 * SECTOR, struct.pack("<QII496x", 1, 0, 2) + struct.pack("<I508x", end // SECTOR + 1))
    image.write(len(image), struct.pack("<QII496x", 1, 0, 3))
    fields |= {"directory": directory} | footer
    image.write(len(image), struct.pack(HEADER, *fields.values()).ljust(SECTOR, b"\0"))
    return image.write(len(image), bytes(SECTOR))


# --- VDI ----------------------------------------------------------------------------------------------------


def vdi(lab: Lab) -> Image:
    return lab.image("vdi")


# --- VPC ----------------------------------------------------------------------------------------------------


def dynamic(lab: Lab) -> Image:
    return lab.image("vpc")


def fixed(lab: Lab) -> Image:
    return lab.image("vpc", "-o", "subformat=fixed")


def utf16(path: Path) -> bytes:
    return str(path).encode("utf-16-be")


def checked(image: Image, offset: int) -> Image:
    """Make the checksum of a footer right again."""
    sector = image[offset : offset + SECTOR]
    return image.put(">I", offset + 64, ~(sum(sector) - sum(sector[64:68])) & 0xFFFFFFFF)


def footers(image: Image, layout: str, offset: int, *values: Any) -> Image:
    """Change a field in all copies of the footer."""
    for start in (0, len(image) - SECTOR):
        if image[start : start + 8] == b"conectix":
            checked(image.put(layout, start + offset, *values), start)
    return image


# --- VHDX ---------------------------------------------------------------------------------------------------

REGIONS = 192 * KIB


def vhdx(lab: Lab) -> Image:
    return lab.image("vhdx")


def sealed(image: Image) -> Image:
    """Make the checksums right again."""
    for offset, length in ((64 * KIB, 4 * KIB), (128 * KIB, 4 * KIB), (REGIONS, 64 * KIB)):
        image.put("<I", offset + 4, 0)
        image.put("<I", offset + 4, crc32c(bytes(image[offset : offset + length])))
    return image


def metadata(image: Image) -> int:
    return int(image.get("<Q", image.index(METADATA, REGIONS) + 16))


def item(image: Image, guid: bytes) -> int:
    start = metadata(image)
    return start + int(image.get("<I", image.index(guid, start) + 16))


def with_item(image: Image, guid: bytes, flags: int) -> Image:
    start = metadata(image)
    count = image.get("<H", start + 10)
    image.put("<H", start + 10, count + 1)
    return image.put("<16sIII", start + 32 + 32 * count, guid, 0x11000, 64, flags)


def with_region(image: Image, guid: bytes, flags: int) -> Image:
    count = image.get("<I", REGIONS + 8)
    image.put("<I", REGIONS + 8, count + 1)
    return sealed(image.put("<16sQII", REGIONS + 16 + 32 * count, guid, 4 * MIB, MIB, flags))


# --- two things at once -------------------------------------------------------------------------------------


def trailer() -> bytes:
    return struct.pack(">4sII500x", b"koly", 4, SECTOR)


def footer_of(lab: Lab, length: int) -> Image:
    """A VHD's footer to be put behind so many bytes."""
    image = Image(fixed(lab)[-SECTOR:]).put(">QQHBB", 40, length, length, 65535, 16, 255)
    return checked(image, 0)


def iso(image: bytes | bytearray) -> Image:
    return Image(bytes(image).ljust(64 * KIB, b"\0")).write(32 * KIB, b"\x01CD001\x01")
