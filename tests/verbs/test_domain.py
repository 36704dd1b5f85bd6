# SPDX-License-Identifier: Apache-2.0
"""Domain: what each verb does, what it answers, and what it refuses.  Damage has a module of its own."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest

from hsm.formats import domain as domain_format
from libvdsm.api.domain import CheckReport, DomainInfo, DomainState, DomainStats, GarbageReport
from libvdsm.api.errors import (
    DomainDamaged,
    DomainExists,
    DomainInUse,
    DomainNotEmpty,
    DomainNotFound,
    InvalidParameter,
    NoSuchDomain,
    PathNotUsable,
    StorageFailed,
    UnknownDomainType,
)
from libvdsm.api.types import DomainId
from tests.domains.tree import fingerprint
from tests.formats import qemu
from tests.verbs.conftest import Restart
from tests.verbs.provoked import provokes
from tests.verbs.scene import GIB, MIB, Scene, raised


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


def create(scene: Scene, place: Path, name: str = "second", **params: Any) -> DomainInfo:
    return scene.wait(scene.client.domain.create(name=name, path=str(place), **params))


def attach(scene: Scene, place: Path, **params: Any) -> DomainInfo:
    return scene.wait(scene.client.domain.attach(path=str(place), **params))


def detach(scene: Scene, domain: DomainId) -> None:
    scene.wait(scene.client.domain.detach(domain=domain))


# ---- create


def test_create_makes_an_empty_domain_as_ovirt_has_it(scene: Scene, place: Path) -> None:
    id_ = DomainId(uuid.uuid4())
    made = create(scene, place, "fast disks", id=id_)
    assert made == DomainInfo(
        id=id_,
        type="local",
        state=DomainState.OK,
        path=str(place),
        name="fast disks",
        version=5,
        block_size=512,
        alignment=MIB,
    )
    assert scene.client.domain.get_info(domain=id_) == made
    root = place / str(id_)
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*")) == [
        "dom_md",
        "dom_md/ids",
        "dom_md/inbox",
        "dom_md/leases",
        "dom_md/metadata",
        "dom_md/outbox",
        "dom_md/xleases",
        "images",
    ]
    assert (root / "dom_md" / "inbox").stat().st_size == (root / "dom_md" / "outbox").stat().st_size == 16 * MIB
    fields = domain_format.parse((root / "dom_md" / "metadata").read_bytes()).fields
    assert dict(fields) == {
        "ALIGNMENT": "1048576",
        "BLOCK_SIZE": "512",
        "CLASS": "Data",
        "DESCRIPTION": "fast disks",
        "IOOPTIMEOUTSEC": "10",
        "LEASERETRIES": "3",
        "LEASETIMESEC": "60",
        "LOCKPOLICY": "",
        "LOCKRENEWALINTERVALSEC": "5",
        "POOL_UUID": "",
        "REMOTE_PATH": str(place),
        "ROLE": "Regular",
        "SDUUID": str(id_),
        "TYPE": "LOCALFS",
        "VERSION": "5",
    }
    image = scene.wait(scene.client.image.create(domain=id_, capacity=GIB))
    assert image.domain == id_


def test_the_same_creation_again_answers_the_same(scene: Scene, place: Path) -> None:
    made = create(scene, place, "a")
    scene.wait(scene.client.image.create(domain=made.id, capacity=MIB))
    before = fingerprint(place)
    assert create(scene, place, "a", id=made.id) == made
    assert fingerprint(place) == before


@provokes("Domain.create", "DomainExists", "PathNotUsable", "UnknownDomainType", "InvalidParameter")
def test_create_refuses(scene: Scene, place: Path) -> None:
    made = create(scene, place, "a")
    before = fingerprint(place)
    error = raised(DomainExists, lambda: create(scene, place, "b", id=made.id))
    assert error.domain == made.id
    assert "'a'" in error.reason
    assert raised(PathNotUsable, lambda: create(scene, place / "none")).path == str(place / "none")
    (place.parent / "file").touch()
    raised(PathNotUsable, lambda: create(scene, place.parent / "file"))
    error = raised(UnknownDomainType, lambda: create(scene, place, type="nfs"))
    assert (error.type, error.installed) == ("nfs", "local")
    raised(InvalidParameter, lambda: create(scene, place, ""))
    raised(InvalidParameter, lambda: create(scene, place, "a\nb"))
    raised(InvalidParameter, lambda: scene.client.domain.create(name="a", path="relative"))
    assert fingerprint(place) == before


def test_create_does_not_overwrite_a_domain_that_is_damaged_or_of_another_type(scene: Scene, place: Path) -> None:
    made = create(scene, place, "a")
    scene.wait(scene.client.image.create(domain=made.id, capacity=MIB))
    detach(scene, made.id)
    path = place / str(made.id) / "dom_md" / "metadata"
    fields = dict(domain_format.parse(path.read_bytes()).fields)
    for content in (
        domain_format.write(domain_format.DomainMetadata({**fields, "TYPE": "NFS"})),
        b"",
        path.read_bytes()[:50],
    ):
        path.write_bytes(content)
        before = fingerprint(place)
        raised(DomainExists, lambda: create(scene, place, "a", id=made.id))
        assert fingerprint(place) == before
    path.unlink()
    before = fingerprint(place)
    raised(DomainExists, lambda: create(scene, place, "a", id=made.id))
    assert fingerprint(place) == before, "images without metadata are no half-made domain"


# ---- attach, detach


def test_a_detached_domain_is_unchanged_and_can_be_attached_again(scene: Scene, place: Path) -> None:
    made = create(scene, place)
    image = scene.wait(scene.client.image.create(domain=made.id, capacity=MIB, name="a"))
    before = fingerprint(place)
    detach(scene, made.id)
    assert scene.client.domain.list().items == [scene.client.domain.get_info(domain=scene.domain)]
    raised(NoSuchDomain, lambda: scene.client.image.get_info(domain=made.id, image=image.id))
    assert attach(scene, place) == made
    assert attach(scene, place, id=made.id) == made, "again answers the same"
    assert scene.client.image.get_info(domain=made.id, image=image.id) == image
    assert fingerprint(place) == before


def test_domains_are_still_there_after_a_restart(scene: Scene, place: Path, restart: Restart) -> None:
    made = create(scene, place)
    after = restart(scene.domain)
    assert after.client.domain.get_info(domain=made.id) == made
    detach(after, made.id)
    raised(NoSuchDomain, lambda: after.client.domain.get_info(domain=made.id))


@provokes("Domain.attach", "DomainNotFound", "DomainExists", "UnknownDomainType", "DomainDamaged", "InvalidParameter")
def test_attach_refuses(scene: Scene, place: Path) -> None:
    raised(UnknownDomainType, lambda: attach(scene, place, type="gluster"))
    raised(InvalidParameter, lambda: scene.client.domain.attach(path=""))
    error = raised(DomainNotFound, lambda: attach(scene, place))
    assert (error.path, error.reason) == (str(place), "it holds 0 domains")
    raised(DomainNotFound, lambda: attach(scene, place / "none"))
    one = create(scene, place)
    create(scene, place)
    assert "holds 2 domains" in raised(DomainNotFound, lambda: attach(scene, place)).reason
    raised(DomainNotFound, lambda: attach(scene, place, id=uuid.uuid4()))
    copy = place.parent / "copy"
    shutil.copytree(place, copy)
    error = raised(DomainExists, lambda: attach(scene, copy, id=one.id))
    assert str(place) in error.reason
    detach(scene, one.id)
    metadata = place / str(one.id) / "dom_md" / "metadata"
    content = metadata.read_bytes()
    metadata.write_bytes(content.replace(b"second", b"edited"))
    assert "checksum" in raised(DomainDamaged, lambda: attach(scene, place, id=one.id)).reason
    other = domain_format.parse(content).with_description("x").fields
    metadata.write_bytes(domain_format.write(domain_format.DomainMetadata({**other, "TYPE": "NFS"})))
    assert "type NFS" in raised(DomainNotFound, lambda: attach(scene, place, id=one.id)).reason


def test_attaching_collects_garbage(scene: Scene, place: Path) -> None:
    made = create(scene, place)
    detach(scene, made.id)
    half = place / str(made.id) / "images" / str(uuid.uuid4())
    half.mkdir()
    (half / str(uuid.uuid4())).touch()
    attach(scene, place)
    assert not half.exists()


@provokes("Domain.detach", "DomainInUse")
@provokes("Domain.format", "DomainInUse")
def test_a_domain_in_use_is_neither_detached_nor_destroyed(scene: Scene) -> None:
    image = scene.image()
    scene.client.image.prepare(domain=scene.domain, image=image.id, read_only=True)
    assert "1 image(s)" in raised(DomainInUse, lambda: detach(scene, scene.domain)).reason
    format_ = scene.client.domain.format
    raised(DomainInUse, lambda: scene.wait(format_(domain=scene.domain, force=True)))
    scene.client.image.teardown(domain=scene.domain, image=image.id)
    detach(scene, scene.domain)


# ---- list, getInfo, getStats


def test_list_tells_domains_by_name_and_page_by_page(scene: Scene, tmp_path: Path) -> None:
    for name in ("b", "c", "a"):
        (tmp_path / name).mkdir()
        create(scene, tmp_path / name, name)
    listed = scene.client.domain.list()
    assert [domain.name for domain in listed.items] == ["a", "b", "c", "default"]
    assert listed.next is None
    pages, start = [], None
    while True:
        page = scene.client.domain.list(limit=3, start=start)
        pages.append([domain.name for domain in page.items])
        if (start := page.next) is None:
            break
    assert pages == [["a", "b", "c"], ["default"]]


def test_a_domain_that_cannot_be_reached_says_so_and_comes_back(scene: Scene, place: Path) -> None:
    made = create(scene, place)
    place.rename(place.parent / "elsewhere")
    lost = scene.client.domain.get_info(domain=made.id)
    assert (lost.id, lost.state, lost.path, lost.name) == (made.id, DomainState.UNAVAILABLE, str(place), None)
    assert "metadata does not exist" in (lost.problem or "")
    assert lost in scene.client.domain.list().items
    raised(StorageFailed, lambda: scene.client.domain.get_stats(domain=made.id))
    (place.parent / "elsewhere").rename(place)
    assert scene.client.domain.get_info(domain=made.id) == made


def test_get_stats_counts(scene: Scene) -> None:
    empty = scene.client.domain.get_stats(domain=scene.domain)
    beneath = os.statvfs(scene.root)
    assert empty == DomainStats(
        id=scene.domain,
        capacity=beneath.f_blocks * beneath.f_frsize,
        free=empty.free,
        images=0,
        volumes=0,
        actual_size=0,
        promised=0,
        garbage=0,
        prepared=0,
    )
    assert 0 < empty.free < empty.capacity
    template = scene.template(GIB)
    clone = scene.snapshot(scene.clone(template, capacity=2 * GIB))
    raw = scene.raw(4 * MIB)
    qemu.write(scene.data(raw), "raw", 1, 0, MIB)
    scene.client.image.prepare(domain=scene.domain, image=clone.id)
    (scene.images / f"_remove_me_{uuid.uuid4()}").mkdir()
    stats = scene.client.domain.get_stats(domain=scene.domain)
    files = [path for path in scene.images.glob("*/*") if path.suffix == "" and path.stat().st_nlink == 1]
    files.append(scene.data(template))
    assert stats.actual_size == sum(path.stat().st_blocks * 512 for path in files)
    assert (stats.images, stats.volumes, stats.promised) == (3, 4, GIB + 2 * GIB + 4 * MIB)
    assert (stats.garbage, stats.prepared) == (1, 1)


# ---- setDescription


@provokes("Domain.setDescription", "InvalidParameter")
def test_set_description_renames_a_domain(scene: Scene) -> None:
    before = domain_format.parse((scene.root / "dom_md" / "metadata").read_bytes())
    change = scene.client.domain.set_description
    renamed = scene.wait(change(domain=scene.domain, description="größer"))
    assert renamed.name == "größer"
    assert scene.client.domain.get_info(domain=scene.domain) == renamed
    after = domain_format.parse((scene.root / "dom_md" / "metadata").read_bytes())
    assert dict(after.fields) == {**before.fields, "DESCRIPTION": "größer"}
    assert scene.wait(change(domain=scene.domain, description="größer")) == renamed
    raised(InvalidParameter, lambda: change(domain=scene.domain, description="a\nb"))


# ---- format


@provokes("Domain.format", "DomainNotEmpty")
def test_format_destroys_an_empty_domain_and_a_full_one_only_by_force(scene: Scene, place: Path) -> None:
    made = create(scene, place)
    (place / "somebody else's").write_text("stays")
    image = scene.wait(scene.client.image.create(domain=made.id, capacity=MIB))
    before = fingerprint(place)
    format_ = scene.client.domain.format
    error = raised(DomainNotEmpty, lambda: scene.wait(format_(domain=made.id)))
    assert (error.domain, error.images) == (made.id, 1)
    assert fingerprint(place) == before
    scene.wait(format_(domain=made.id, force=True))
    assert [path.name for path in place.iterdir()] == ["somebody else's"]
    raised(NoSuchDomain, lambda: scene.client.domain.get_info(domain=made.id))
    raised(NoSuchDomain, lambda: scene.client.image.get_info(domain=made.id, image=image.id))
    empty = create(scene, place)
    scene.wait(format_(domain=empty.id))
    assert [path.name for path in place.iterdir()] == ["somebody else's"]


def test_format_does_not_take_a_damaged_domain_for_one_half_destroyed(scene: Scene, place: Path) -> None:
    made = create(scene, place)
    scene.wait(scene.client.image.create(domain=made.id, capacity=MIB))
    (place / str(made.id) / "dom_md" / "metadata").unlink()
    before = fingerprint(place)
    format_ = scene.client.domain.format
    raised(DomainDamaged, lambda: scene.wait(format_(domain=made.id)))
    raised(DomainDamaged, lambda: scene.wait(format_(domain=made.id, force=True)))
    assert fingerprint(place) == before


# ---- check, dump, collectGarbage


def test_check_counts_what_it_looked_at(scene: Scene) -> None:
    scene.clone(scene.template())
    report = scene.wait(scene.client.domain.check(domain=scene.domain))
    assert report == CheckReport(domain=scene.domain, healthy=True, images=2, volumes=2, problems=[])


def test_dump_tells_everything(scene: Scene) -> None:
    image, template = scene.snapshot(scene.image()), scene.template()
    name = f"_remove_me_{uuid.uuid4()}"
    (scene.images / name).mkdir()
    dump = scene.client.domain.dump(domain=scene.domain)
    assert dump.domain == scene.client.domain.get_info(domain=scene.domain)
    stored = domain_format.parse((scene.root / "dom_md" / "metadata").read_bytes())
    assert dump.metadata == dict(stored.fields)
    assert sorted(volume.id for volume in dump.volumes) == sorted(
        volume.id for found in (image, template) for volume in found.chain or []
    )
    assert (dump.damaged, dump.garbage, dump.next) == ([], [f"images/{name}"], None)
    first = scene.client.domain.dump(domain=scene.domain, limit=1)
    second = scene.client.domain.dump(domain=scene.domain, limit=1, start=first.next)
    assert [*first.volumes, *second.volumes] == dump.volumes
    assert second.next is None


def test_collect_garbage_gives_back_what_nobody_owns(scene: Scene) -> None:
    image = scene.raw()
    stray = scene.folder(image) / str(uuid.uuid4())
    stray.write_bytes(b"x" * 8192)
    foreign = scene.images / "somebody's notes"
    foreign.write_text("stays")
    report = scene.wait(scene.client.domain.collect_garbage(domain=scene.domain))
    path = f"images/{image.id}/{stray.name}"
    assert report == GarbageReport(domain=scene.domain, removed=[path], kept=[], freed=8192)
    assert not stray.exists()
    assert foreign.exists()
    assert scene.look(image).id == image.id
    again = scene.wait(scene.client.domain.collect_garbage(domain=scene.domain))
    assert again == GarbageReport(domain=scene.domain, removed=[], kept=[], freed=0)


def test_what_somebody_holds_is_kept_and_told(scene: Scene, maker: Any) -> None:
    image, volume = uuid.uuid4(), uuid.uuid4()
    with maker(image, volume):
        report = scene.wait(scene.client.domain.collect_garbage(domain=scene.domain))
        assert (report.removed, report.kept) == ([], [f"images/{image}"])
    report = scene.wait(scene.client.domain.collect_garbage(domain=scene.domain))
    assert (report.removed, report.kept) == ([f"images/{image}"], [])
