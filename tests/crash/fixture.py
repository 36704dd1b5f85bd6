# SPDX-License-Identifier: Apache-2.0
"""The home that each run begins with: three domains with images, and known data in every layer of them.

Made once by a real service and real tools, then copied.  The ids are always the same, so that one recording tells
where the calls of another run are.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

from libvdsm.api.types import DomainId, FileFormat, ImageId, SecretId, VolumeFormat, VolumeId
from libvdsm.client import Client
from tests.crash.hsmd import Hsmd, Nursery

MIB = 2**20
KIB = 2**10
NO_DEFAULT = "service.default_domain="


_names: dict[str, str] = {}


def _id(name: str) -> uuid.UUID:
    made = uuid.uuid5(uuid.NAMESPACE_URL, f"hsm-crash-test:{name}")
    _names[str(made)] = f"<{name}>"
    return made


def readable(text: str) -> str:
    """With names in place of the ids."""
    for id_, name in _names.items():
        text = text.replace(id_, name)
    return text


def image(name: str) -> ImageId:
    return ImageId(_id(f"image {name}"))


def volume(name: str) -> VolumeId:
    return VolumeId(_id(f"volume {name}"))


def domain(name: str) -> DomainId:
    return DomainId(_id(f"domain {name}"))


MAIN = domain("main")
"""the domain that most operations work on"""
SPARE = domain("spare")
"""attached, with one image: for what takes a domain away"""
LOOSE = domain("loose")
"""there, and not attached"""
SECRET, OTHER_SECRET = SecretId(_id("secret")), SecretId(_id("another secret"))
DISK, RAW, CHAIN, TEMPLATE, CLONE = (image(name) for name in ("disk", "raw", "chain", "template", "clone"))
SAFE, SAFE_TEMPLATE = image("safe"), image("safe template")
"""encrypted: with a snapshot, and a template"""
NEW, NEW_VOLUME = image("new"), volume("new")


@dataclass(frozen=True)
class Home:
    """A home on disk, and the places in it."""

    path: Path

    @property
    def domains(self) -> Path:
        return self.path / "domains"

    @property
    def spare(self) -> Path:
        return self.path / "spare"

    @property
    def loose(self) -> Path:
        return self.path / "loose"

    @property
    def room(self) -> Path:
        """A folder without domains."""
        return self.path / "room"

    @property
    def outside(self) -> Path:
        """Files to import, and the place to export to."""
        return self.path / "outside"

    def volume_file(self, image_: ImageId, volume_: VolumeId) -> Path:
        return self.domains / str(MAIN) / "images" / str(image_) / str(volume_)

    def copy(self, to: Path) -> Home:
        """The same somewhere else; holes and hard links stay what they are."""
        remove(to)
        subprocess.run(["cp", "-a", "--reflink=auto", str(self.path), str(to)], check=True)
        attached = to / "state" / "domains.json"
        if attached.exists():
            attached.write_text(attached.read_text().replace(f'"{self.path}/', f'"{to}/'))
        return Home(to)


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def pattern(seed: int, *pieces: tuple[int, int]) -> bytes:
    """Eight MiB of zeros, and of noise where ``pieces`` (offset, length) say."""
    noise = random.Random(seed)
    data = bytearray(8 * MIB)
    for offset, length in pieces:
        data[offset : offset + length] = noise.randbytes(length)
    return bytes(data)


SOURCE = pattern(1, (0, 64 * KIB), (2 * MIB, 64 * KIB), (4 * MIB, 64 * KIB), (6 * MIB, 64 * KIB), (8 * MIB - KIB, KIB))
"""the content of the files to import, and of the images made from them"""


def empty(folder: Path) -> Home:
    """A home that has never been served."""
    remove(folder)
    folder.mkdir(parents=True)
    return Home(folder)


def make(folder: Path, nursery: Nursery) -> Home:
    """The home that is copied for each run."""
    home = empty(folder)
    for place in (home.domains, home.spare, home.loose, home.room, home.outside):
        place.mkdir()
    _sources(home.outside)
    service = Hsmd(nursery, home.path, NO_DEFAULT)
    try:
        _images(service.serve(), home)
    finally:
        service.kill()
    _write(home.volume_file(CHAIN, volume("chain leaf")), 1, 3 * MIB, 64 * KIB)
    _write_safe(home, 3, 3 * MIB, 64 * KIB)
    _write(home.volume_file(CLONE, volume("clone")), 2, 5 * MIB, 64 * KIB)
    for left in (home.path / "hsmd.log", *(home.path / "state").glob("*.db*")):
        left.unlink()
    remove(home.path / "run")
    return home


def _sources(folder: Path) -> None:
    (folder / "source.raw").write_bytes(SOURCE)
    convert = ["qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2"]
    for name in ("source.qcow2", "shared.qcow2"):
        subprocess.run([*convert, str(folder / "source.raw"), str(folder / name)], check=True)
    # Anybody may write it, so the service takes a private copy before it trusts it.
    (folder / "shared.qcow2").chmod(0o666)


def _images(client: Client, home: Home) -> None:
    for id_, name, place in ((MAIN, "main", home.domains), (SPARE, "spare", home.spare), (LOOSE, "loose", home.loose)):
        client.wait(client.domain.create(name=name, path=str(place), id=id_))

    (home.outside / "keys").mkdir()
    for secret in (SECRET, OTHER_SECRET):
        client.secret.generate(id=secret)
        value = json.loads((home.path / "state" / "secrets" / str(secret)).read_bytes())["value"]
        (home.outside / "keys" / str(secret)).write_text(value)

    def take_in(domain_: DomainId, name: str, format_: VolumeFormat, secret: SecretId | None = None) -> None:
        with (home.outside / "source.raw").open("rb") as source:
            client.wait(
                client.image.import_(
                    domain=domain_,
                    source=source.fileno(),
                    source_format=FileFormat.RAW,
                    name=name,
                    format=format_,
                    id=image(name),
                    volume=volume(name),
                    secret=secret,
                )
            )

    take_in(MAIN, "disk", VolumeFormat.QCOW2)
    take_in(MAIN, "raw", VolumeFormat.RAW)
    take_in(MAIN, "chain", VolumeFormat.QCOW2)
    client.wait(client.image.snapshot(domain=MAIN, image=CHAIN, name="before", volume=volume("chain leaf")))
    take_in(MAIN, "safe", VolumeFormat.QCOW2, SECRET)
    client.wait(client.image.snapshot(domain=MAIN, image=SAFE, name="before", volume=volume("safe leaf")))
    take_in(MAIN, "safe template", VolumeFormat.QCOW2, SECRET)
    client.wait(client.image.make_template(domain=MAIN, image=SAFE_TEMPLATE))
    take_in(MAIN, "template", VolumeFormat.QCOW2)
    client.wait(client.image.make_template(domain=MAIN, image=TEMPLATE))
    client.wait(client.image.clone(domain=MAIN, template=TEMPLATE, name="clone", id=CLONE, volume=volume("clone")))
    # With the same ids, so that clones can go there.
    client.wait(client.image.copy(domain=MAIN, image=TEMPLATE, to=SPARE))
    take_in(SPARE, "spare", VolumeFormat.QCOW2)
    take_in(LOOSE, "loose", VolumeFormat.RAW)
    client.wait(client.domain.detach(domain=LOOSE))


def _write_safe(home: Home, seed: int, offset: int, length: int) -> None:
    """The same into the encrypted chain's leaf."""

    def node(name: str) -> dict[str, object]:
        file = {"driver": "file", "filename": str(home.volume_file(SAFE, volume(name)))}
        return {"driver": "qcow2", "file": file, "encrypt": {"format": "luks", "key-secret": "k"}}

    image = "json:" + json.dumps(node("safe leaf") | {"backing": node("safe")})
    key = f"secret,id=k,file={home.outside / 'keys' / str(SECRET)}"
    subprocess.run(
        ["qemu-io", "--object", key, "-c", f"write -P {seed + 0xA0} {offset} {length}", image],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def _write(file: Path, seed: int, offset: int, length: int) -> None:
    """Into a qcow2 volume, as a guest would."""
    subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", f"write -P {seed + 0xA0} {offset} {length}", str(file)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
