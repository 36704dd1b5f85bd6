# SPDX-License-Identifier: Apache-2.0
"""What has to be true whatever happened, read from the disk without the product's help, and compared with its word.

``look`` gives everything that is published as flat facts, so that two states can be compared and a difference read.
What is in a volume belongs to the facts.  ``remains`` names what lies on the disk and belongs to nothing published.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from libvdsm.api.types import ImageInfo
from libvdsm.client import Client
from tests.crash.contents import Contents, Unreadable
from tests.crash.fixture import MAIN, Home

Facts = dict[str, object]
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NIL = "00000000-0000-0000-0000-000000000000"
_SPECIAL = {"metadata", "ids", "leases", "inbox", "outbox", "xleases"}
_STATE = {
    "domains.json",
    "secrets",
    *(f"{name}.db{end}" for name in ("tasks", "audit", "transfers") for end in ("", "-wal", "-shm")),
}
ARRIVING = "arriving"
"""What a guest sees of a file of which nothing has been uploaded yet."""
_TOLD = ("LEGALITY", "CAP", "FORMAT", "TYPE", "PUUID", "GEN", "SEQ")


class Seen:
    """What is published in a home, and what is wrong with it."""

    def __init__(self, home: Home, contents: Contents) -> None:
        self.facts: Facts = {"attached": sorted(attached(home)), "secrets": sorted(secrets(home))}
        self.problems: list[str] = []
        self._contents = contents
        for folder in _domain_folders(home):
            if (folder / "dom_md" / "metadata").exists():
                self._domain(folder)

    def _domain(self, folder: Path) -> None:
        fields = _fields((folder / "dom_md" / "metadata").read_text())
        sealed = fields.pop("_SHA_CKSUM", "")
        sum_ = hashlib.sha1("".join(f"{key}={fields[key]}" for key in sorted(fields)).encode()).hexdigest()
        if sealed != sum_:
            self.problems.append(f"{folder.name}: its metadata's checksum is wrong")
        self.facts[f"{folder.name} name"] = fields["DESCRIPTION"]
        for image in sorted((folder / "images").iterdir()):
            if _ID.fullmatch(image.name):
                self._image(image)

    def _image(self, folder: Path) -> None:
        known = {path.name[:36]: self._metadata(path) for path in folder.glob("*.meta") if _ID.fullmatch(path.stem)}
        for volume, fields in sorted(known.items()):
            place = place_of(folder.parents[1].name, folder.name, volume)
            if not fields:
                continue
            if fields["IMAGE"] != folder.name:
                self._link(folder, volume, fields)
                continue
            told = {key: fields[key] for key in _TOLD} | {"template": fields["VOLTYPE"] == "SHARED"}
            self.facts[f"{place} metadata"] = told
            self.facts[f"{place} data"] = self._data(folder, volume, known)

    def _metadata(self, path: Path) -> dict[str, str]:
        text = path.read_text()
        if not text.endswith("\nEOF\n"):
            self.problems.append(f"{path}: no end")
            return {}
        fields = _fields(text.removesuffix("EOF\n"))
        if missing := {*_TOLD, "IMAGE", "DOMAIN", "VOLTYPE"} - fields.keys():
            self.problems.append(f"{path}: without {missing}")
            return {}
        if fields["DOMAIN"] != path.parents[2].name:
            self.problems.append(f"{path}: names another domain")
        return fields

    def _link(self, folder: Path, volume: str, fields: dict[str, str]) -> None:
        original = folder.parent / fields["IMAGE"] / volume
        if not original.exists() or not os.path.samefile(original, folder / volume):
            self.problems.append(f"{folder / volume}: not the template's file")

    def _data(self, folder: Path, volume: str, known: dict[str, dict[str, str]]) -> str:
        """What a guest sees, or what is wrong."""
        chain = [volume]
        while (parent := known[chain[-1]]["PUUID"]) != _NIL:
            if not known.get(parent) or parent in chain:
                self.problems.append(f"{folder / volume}: its chain breaks at {parent}")
                return "broken"
            chain.append(parent)
        files = [folder / name for name in chain]
        if missing := [file for file in files if not file.exists()]:
            self.problems.append(f"{missing[0]}: its data is not there")
            return "missing"
        format_ = "qcow2" if known[volume]["FORMAT"] == "COW" else "raw"
        if format_ == "qcow2" and known[volume]["LEGALITY"] == "ILLEGAL" and not _begins(files[0]):
            return ARRIVING
        try:
            if format_ == "qcow2" and (trouble := self._contents.trouble(files[0])):
                self.problems.append(f"{files[0]}: {trouble}")
            return self._contents.guest(files, format_)
        except Unreadable as error:
            self.problems.append(f"{files[0]}: {error}")
            return "unreadable"


def _begins(file: Path) -> bool:
    """Whether a qcow2 file has its header."""
    with file.open("rb") as opened:
        return opened.read(4) == b"QFI\xfb"


def look(home: Home, client: Client, contents: Contents) -> Seen:
    """Everything that is published, on the disk and by the service's word."""
    seen = Seen(home, contents)
    served = {str(item.id) for item in client.domain.list().items}
    if served != set(attached(home)):
        seen.problems.append(f"the service serves {served}, and its record says {seen.facts['attached']}")
    for item in client.domain.list().items:
        if item.problem is not None:
            seen.problems.append(f"domain {item.id}: {item.problem}")
            continue
        for volume in client.domain.dump(domain=item.id).volumes:
            seen.facts[f"{place_of(item.id, volume.image, volume.id)} told"] = {
                "name": volume.name,
                "description": volume.description,
                "role": volume.role.value,
                "capacity": volume.capacity,
                "damage": volume.damage,
                **({"tags": volume.tags} if volume.tags else {}),
                **({"compat": volume.compat.value} if volume.compat else {}),
            }
    _look_at_secrets(seen, client)
    _look_at_images(seen, client)
    return seen


def _look_at_secrets(seen: Seen, client: Client) -> None:
    told = sorted(str(item.id) for item in client.secret.list().items)
    if told != seen.facts["secrets"]:
        seen.problems.append(f"the service has the secrets {told}, and there are {seen.facts['secrets']}")


def _look_at_images(seen: Seen, client: Client) -> None:
    images = client.image.list().items
    for image in images:
        if image.secret:
            seen.facts[f"{image.id} secret"] = str(image.secret)
        if image.tags:
            seen.facts[f"{image.id} tags"] = image.tags
        twins = [twin for twin in images if twin.id == image.id and not twin.is_template and twin.pending is None]
        if len(twins) > 1:
            seen.problems.append(f"image {image.id} can be written on {len(twins)} domains")
        if image.damage is None and image.pending != "upload" and (known := _bitmaps(client, image)):
            seen.facts[f"{image.id} bitmaps"] = known
        if image.prepared is not None:
            seen.facts[f"{image.id} prepared"] = "reading" if image.prepared.read_only else "writing"
        if image.damage is not None:
            seen.problems.append(f"image {image.id}: {image.damage}")


def place_of(domain: object, image: object, volume: object) -> str:
    """What the facts of a volume begin with; most are about the main domain."""
    return f"{image}/{volume}" if str(domain) == str(MAIN) else f"{domain}/{image}/{volume}"


def _bitmaps(client: Client, image: ImageInfo) -> dict[str, object]:
    """Name -> what is marked, or why that is not known."""
    verbs, domain, id_ = client.bitmap, image.domain, image.id
    return {
        item.name: item.problem
        or [
            (extent.offset, extent.length)
            for extent in verbs.get_extents(domain=domain, image=id_, bitmap=item.name).items
        ]
        for item in verbs.list(domain=domain, image=id_).items
    }


def differences(one: Facts, other: Facts) -> list[str]:
    """In words."""
    return [
        f"{key}: {one.get(key, 'nothing')} -> {other.get(key, 'nothing')}"
        for key in sorted(one.keys() | other.keys())
        if one.get(key) != other.get(key)
    ]


def attached(home: Home) -> list[str]:
    """The ids in the record of attached domains."""
    record = home.path / "state" / "domains.json"
    return [item["id"] for item in json.loads(record.read_text())] if record.exists() else []


def secrets(home: Home) -> list[str]:
    """The ids of those that are defined."""
    folder = home.path / "state" / "secrets"
    return [name for name in os.listdir(folder) if _ID.fullmatch(name)] if folder.exists() else []


def remains(home: Home) -> Iterator[str]:
    """What is on the disk and belongs to nothing that is published or served."""
    for name in sorted(os.listdir(home.path / "state")):
        if name not in _STATE:
            yield f"state/{name}"
    if (folder := home.path / "state" / "secrets").exists():
        yield from (f"state/secrets/{name}" for name in os.listdir(folder) if not _ID.fullmatch(name))
    for place in (home.domains, home.spare, home.loose, home.room):
        for entry in sorted(place.iterdir()) if place.exists() else ():
            if not _ID.fullmatch(entry.name) or not (entry / "dom_md" / "metadata").exists():
                yield str(entry)
    for folder in _domain_folders(home):
        yield from _remains_of_domain(folder)


def _remains_of_domain(folder: Path) -> Iterator[str]:
    if (folder / "dom_md").is_dir():
        yield from (f"{folder}/dom_md/{name}" for name in os.listdir(folder / "dom_md") if name not in _SPECIAL)
    for image in (folder / "images").iterdir() if (folder / "images").is_dir() else ():
        names = os.listdir(image)
        published = {name[:36] for name in names if name.endswith(".meta") and _ID.fullmatch(name[:-5])}
        expected = {name + suffix for name in published for suffix in ("", ".meta", ".lease")}
        expected.add(f"{image.name}.hsm")  # what is in it is told by the service, and compared
        if not published or not _ID.fullmatch(image.name):
            yield str(image)
        yield from (f"{image}/{name}" for name in names if name not in expected)


def _domain_folders(home: Home) -> Iterator[Path]:
    for place in (home.domains, home.spare, home.loose, home.room):
        if place.is_dir():
            yield from (entry for entry in sorted(place.iterdir()) if _ID.fullmatch(entry.name))


def _fields(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())
