# SPDX-License-Identifier: Apache-2.0
"""Domains that oVirt made are attached and used as they are; older ones are read, and left alone."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

import pytest

from libvdsm.api.domain import DomainState
from libvdsm.api.errors import DomainReadOnly
from libvdsm.api.types import DomainId, FileFormat, ImageId, ImageInfo, Legality, VolumeFormat, VolumeId, VolumeRole
from tests.domains.tree import fingerprint
from tests.formats import qemu
from tests.service import Daemon
from tests.verbs.foreign import Foreign
from tests.verbs.provoked import provokes
from tests.verbs.scene import MIB, Scene, raised


class Theirs:
    """An oVirt domain: an image with a snapshot, a template of raw data with a clone, a raw disk without lease."""

    def __init__(self, path: Path, version: int = 5) -> None:
        path.mkdir()
        self.made = made = Foreign(path, version)
        self.chain, self.template, self.clone, self.raw = (uuid.uuid4() for _ in range(4))
        alias = '{"DiskAlias":"web01_Disk1","DiskDescription":"root disk"}'
        self.base = made.volume(self.chain, VOLTYPE="INTERNAL", DESCRIPTION=alias)
        qemu.write(made.folder(self.chain) / str(self.base), "qcow2", 0x11)
        self.leaf = made.volume(self.chain, self.base, DESCRIPTION=alias, newer=True)
        qemu.write(made.folder(self.chain) / str(self.leaf), "qcow2", 0x22, 65536)
        self.shared = made.volume(self.template, raw=True, VOLTYPE="SHARED", TYPE="PREALLOCATED")
        qemu.write(made.folder(self.template) / str(self.shared), "raw", 0x33)
        made.share(self.template, self.shared, self.clone)
        self.thin = made.volume(self.clone, self.shared, DESCRIPTION='{"DiskAlias":"clone"}')
        self.plain = made.volume(
            self.raw, raw=True, lease=False, DESCRIPTION="no JSON here", GEN="999", DISKTYPE="ISOF"
        )
        qemu.write(made.folder(self.raw) / str(self.plain), "raw", 0x44)


@pytest.fixture
def theirs(scene: Scene, tmp_path: Path) -> Theirs:
    """An oVirt domain, attached; the scene is moved to it."""
    return move_to(scene, Theirs(tmp_path / "ovirt"))


def move_to(scene: Scene, theirs: Theirs) -> Theirs:
    info = scene.wait(scene.client.domain.attach(path=str(theirs.made.path)))
    scene.domain, scene.root = info.id, theirs.made.root
    scene.images = scene.root / "images"
    return theirs


def image(scene: Scene, id_: uuid.UUID) -> ImageInfo:
    return scene.look(ImageId(id_))


def test_attaching_and_looking_changes_nothing(scene: Scene, tmp_path: Path) -> None:
    theirs = Theirs(tmp_path / "ovirt")
    before = fingerprint(theirs.made.path)
    move_to(scene, theirs)
    info = scene.client.domain.get_info(domain=scene.domain)
    assert (info.id, info.state, info.version, info.name) == (theirs.made.id, DomainState.OK, 5, "local-data")
    names = {found.id: found.name for found in scene.client.image.list(domain=scene.domain).items}
    assert names == {theirs.chain: "web01_Disk1", theirs.clone: "clone", theirs.template: None, theirs.raw: None}
    report = scene.wait(scene.client.domain.check(domain=scene.domain, deep=True))
    assert report.healthy
    assert [(problem.kind, problem.volume) for problem in report.problems] == [("leaseMissing", theirs.plain)]
    assert fingerprint(theirs.made.path) == before


def test_their_images_are_told_as_ours(scene: Scene, theirs: Theirs) -> None:
    chain = image(scene, theirs.chain)
    assert (chain.name, chain.description, chain.leaf, chain.snapshots) == ("web01_Disk1", "root disk", theirs.leaf, 1)
    assert chain.damage is None
    assert chain.chain is not None
    base, leaf = chain.chain
    assert (base.role, base.name, base.created) == (VolumeRole.INTERNAL, None, 1_600_000_000)
    assert (leaf.role, leaf.parent, leaf.backing_file) == (
        VolumeRole.LEAF,
        theirs.base,
        f"../{theirs.chain}/{theirs.base}",
    )
    clone = image(scene, theirs.clone)
    assert (clone.template, clone.is_template, clone.name) == (theirs.template, False, "clone")
    assert image(scene, theirs.template).is_template
    raw = image(scene, theirs.raw)
    assert (raw.description, raw.name) == ("no JSON here", None)
    assert (raw.chain or [])[0].generation == 999


def test_their_images_are_used(scene: Scene, theirs: Theirs, tmp_path: Path) -> None:
    for id_ in (theirs.chain, theirs.clone, theirs.raw):
        prepared = scene.client.image.prepare(domain=scene.domain, image=ImageId(id_))
        qemu.write(prepared.path, prepared.format.value, 0x55, 512 * 1024)
        scene.client.image.teardown(domain=scene.domain, image=ImageId(id_))
    expected = {
        theirs.chain: bytes([0x11]) * 65536 + bytes([0x22]) * 65536,
        theirs.clone: bytes([0x33]) * 65536,
        theirs.raw: bytes([0x44]) * 65536,
    }
    for id_, data in expected.items():
        target = tmp_path / "out"
        export = scene.client.image.export
        scene.wait(export(domain=scene.domain, image=ImageId(id_), path=str(target), format=FileFormat.RAW))
        assert target.read_bytes() == data.ljust(512 * 1024, b"\0") + b"\x55" * 65536 + bytes(512 * 1024 - 65536)


def test_their_images_are_changed_and_stay_theirs(scene: Scene, theirs: Theirs) -> None:
    chain = scene.snapshot(image(scene, theirs.chain), name="s")
    assert (chain.snapshots, chain.name) == (2, "web01_Disk1")
    qemu.check(scene.data(chain))
    other = scene.clone(image(scene, theirs.template), name="second")
    assert qemu.holds(scene.data(other), "qcow2", 0x33)
    resize = scene.client.volume.resize
    assert scene.wait(resize(domain=scene.domain, volume=VolumeId(theirs.plain), capacity=2 * MIB)).generation == 0
    assert "DISKTYPE=ISOF\n" in scene.meta(image(scene, theirs.raw)).read_text()
    scene.wait(scene.client.image.delete(domain=scene.domain, image=ImageId(theirs.clone)))
    scene.wait(scene.client.volume.delete(domain=scene.domain, volume=chain.leaf))
    assert image(scene, theirs.chain).leaf == theirs.leaf
    assert json.loads(scene.metadata(image(scene, theirs.chain)).description)["DiskAlias"] == "web01_Disk1"
    assert scene.wait(scene.client.domain.check(domain=scene.domain, deep=True)).problems == []


ODD = [
    ("a name longer than ours may be", json.dumps({"DiskAlias": "n" * 190})),
    ("a name with a line break", json.dumps({"DiskAlias": "a\nb", "DiskDescription": "c\td"})),
    ("a text that would become lines", '{"DiskDescription":"a\\nLEGALITY=ILLEGAL\\nEOF"}'),
    ("half a character", '{"DiskAlias":"a\\ud800b"}'),
    ("members that are no text", '{"DiskAlias":5,"DiskDescription":["x"]}'),
    ("half of a JSON object", '{"DiskAlias":"web'),
    ("another JSON value", '["DiskAlias"]'),
    ("nothing", ""),
    ("words", "just a text = with an equals sign"),
]


@pytest.mark.parametrize("text", [text for _, text in ODD], ids=[name for name, _ in ODD])
def test_whatever_stands_in_a_description_the_image_is_told_and_used(scene: Scene, theirs: Theirs, text: str) -> None:
    id_ = uuid.uuid4()
    theirs.made.volume(id_, DESCRIPTION=text)
    info = image(scene, id_)
    assert info.damage is None
    assert id_ in [found.id for found in scene.client.image.list(domain=scene.domain).items]
    assert scene.client.volume.get_info(domain=scene.domain, volume=info.leaf).id == info.leaf
    assert scene.metadata(info).description == text
    scene.client.image.prepare(domain=scene.domain, image=info.id)
    scene.client.image.teardown(domain=scene.domain, image=info.id)
    assert scene.snapshot(info).snapshots == 1
    members = json.loads(text) if text.startswith('{"') and text.endswith("}") else {}
    if isinstance(members.get("DiskAlias"), str):
        assert json.loads(scene.metadata(scene.look(info)).description)["DiskAlias"] == members["DiskAlias"]


def test_what_vdsm_deletes_is_not_listed_and_is_given_back(scene: Scene, theirs: Theirs) -> None:
    id_ = uuid.uuid4()
    theirs.made.volume(id_)
    folder = theirs.made.folder(id_)
    folder.rename(folder.with_name(f"_remove_me_{id_}"))
    assert id_ not in [found.id for found in scene.client.image.list(domain=scene.domain).items]
    report = scene.wait(scene.client.domain.collect_garbage(domain=scene.domain))
    assert report.removed == [f"images/_remove_me_{id_}"]


# ---- version 4


def test_an_older_domain_is_read(scene: Scene, tmp_path: Path) -> None:
    theirs = Theirs(tmp_path / "old", version=4)
    before = fingerprint(theirs.made.path)
    move_to(scene, theirs)
    info = scene.client.domain.get_info(domain=scene.domain)
    assert (info.state, info.version, info.block_size, info.alignment) == (DomainState.OK, 4, 512, MIB)
    chain = image(scene, theirs.chain)
    assert (chain.name, chain.capacity, chain.snapshots, chain.damage) == ("web01_Disk1", MIB, 1, None)
    assert scene.wait(scene.client.domain.check(domain=scene.domain, deep=True)).healthy
    assert len(scene.client.domain.dump(domain=scene.domain).volumes) == 5
    target = tmp_path / "out"
    scene.wait(scene.client.image.export(domain=scene.domain, image=chain.id, path=str(target)))
    assert qemu.holds(target, "qcow2", 0x11)
    assert qemu.holds(target, "qcow2", 0x22, 65536)
    assert fingerprint(theirs.made.path) == before


@provokes("Image.snapshot", "DomainReadOnly")
@provokes("Image.delete", "DomainReadOnly")
@provokes("Volume.resize", "DomainReadOnly")
def test_an_older_domain_is_not_changed(scene: Scene, tmp_path: Path) -> None:
    theirs = move_to(scene, Theirs(tmp_path / "old", version=4))
    before = fingerprint(theirs.made.path)
    chain, template, client = image(scene, theirs.chain), image(scene, theirs.template), scene.client
    given: dict[str, Any] = {"domain": scene.domain}
    for change in (
        lambda: scene.image(),
        lambda: scene.snapshot(chain),
        lambda: scene.clone(template),
        lambda: scene.wait(client.image.make_template(**given, image=ImageId(theirs.raw))),
        lambda: scene.wait(client.image.delete(**given, image=chain.id)),
        lambda: scene.wait(client.volume.resize(**given, volume=chain.leaf, capacity=2 * MIB)),
        lambda: scene.wait(client.volume.resize(**given, volume=VolumeId(theirs.plain), capacity=2 * MIB)),
        lambda: scene.wait(client.volume.set_description(**given, volume=chain.leaf, description="x")),
        lambda: scene.wait(client.volume.set_legality(**given, volume=chain.leaf, legality=Legality.ILLEGAL)),
        lambda: scene.wait(client.volume.delete(**given, volume=chain.leaf)),
        lambda: scene.wait(client.domain.set_description(**given, description="x")),
        lambda: scene.wait(client.domain.format(**given, force=True)),
    ):
        error = raised(DomainReadOnly, change)
        assert error.domain == theirs.made.id
        assert {path: facts for path, facts in fingerprint(theirs.made.path).items() if ".lease" not in path} == {
            path: facts for path, facts in before.items() if ".lease" not in path
        }


# ---- what ours look like to them


def test_our_files_have_the_permissions_that_theirs_have(daemon: Daemon) -> None:
    with daemon.client() as client:
        info = client.domain.list().items[0]
        domain: DomainId = info.id
        for format_ in (VolumeFormat.RAW, VolumeFormat.QCOW2):
            for allocation in ("sparse", "preallocated"):
                given: dict[str, Any] = {"format": format_, "allocation": allocation}
                client.wait(client.image.create(domain=domain, capacity=MIB, **given))
    files = [path for path in (Path(info.path) / str(domain)).rglob("*") if path.is_file()]
    assert len(files) == 6 + 4 * 3
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o660"}
    assert {path.stat().st_uid for path in files} == {os.getuid()}
