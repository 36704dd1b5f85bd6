# SPDX-License-Identifier: Apache-2.0
"""Which drivers are there, and which domains are served, also after a restart."""

from __future__ import annotations

import json
import shutil
import uuid
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from hsm.domains import registry as module
from hsm.domains.base import Domain
from hsm.domains.local import LocalDomain
from hsm.domains.registry import Attached, Registry, installed_drivers
from libvdsm.api.domain import DomainState
from libvdsm.api.errors import DomainDamaged, NoSuchDomain, StorageFailed, UnknownDomainType
from libvdsm.api.types import DomainId
from tests import service

DRIVERS: dict[str, type[Domain]] = {"local": LocalDomain}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "domains.json"


@pytest.fixture
def registry(file: Path) -> Registry:
    return Registry(DRIVERS, file)


def attached(domain: Domain) -> Attached:
    return Attached(domain.id, domain.type, domain.path)


# ---- drivers


def test_drivers_are_found_by_entry_point() -> None:
    assert installed_drivers() == DRIVERS


def test_a_driver_that_cannot_be_loaded_is_told_and_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    points = [
        EntryPoint("local", "hsm.domains.local:LocalDomain", "hsm.domains"),
        EntryPoint("gone", "hsm.no_such_module:Domain", "hsm.domains"),
        EntryPoint("old", "hsm.domains.local:NoSuchClass", "hsm.domains"),
    ]
    monkeypatch.setattr(module, "entry_points", lambda group: points if group == "hsm.domains" else [])
    assert installed_drivers() == DRIVERS
    told = [vars(record)["facts"]["driver"] for record in caplog.records]
    assert told == ["hsm.no_such_module:Domain", "hsm.domains.local:NoSuchClass"]


def test_an_unknown_type_is_told_with_those_that_there_are(registry: Registry) -> None:
    assert registry.driver("local") is LocalDomain
    with pytest.raises(UnknownDomainType) as caught:
        registry.driver("gluster")
    assert (caught.value.type, caught.value.installed) == ("gluster", "local")


# ---- domains


def test_what_is_attached_is_served_and_remembered(registry: Registry, domain: LocalDomain, file: Path) -> None:
    registry.attach(attached(domain), domain)
    assert registry.get(domain.id) is domain
    assert registry.find(domain.id) == attached(domain)
    assert json.loads(file.read_text()) == [{"id": str(domain.id), "type": "local", "path": domain.path}]
    later = Registry(DRIVERS, file)
    assert later.all() == [attached(domain)]
    opened = later.get(domain.id)
    assert (opened.id, opened.path) == (domain.id, domain.path)
    assert later.get(domain.id) is opened


def test_what_is_detached_is_forgotten(registry: Registry, domain: LocalDomain, file: Path) -> None:
    registry.attach(attached(domain), domain)
    registry.detach(domain.id)
    for found in (registry, Registry(DRIVERS, file)):
        assert found.all() == []
        for ask in (found.get, found.find):
            with pytest.raises(NoSuchDomain):
                ask(domain.id)


def test_a_domain_that_cannot_be_opened_is_tried_again(registry: Registry, domain: LocalDomain, file: Path) -> None:
    registry.attach(attached(domain), domain)
    later = Registry(DRIVERS, file)
    root, away = Path(domain.root), Path(domain.root + ".away")
    root.rename(away)
    with pytest.raises(StorageFailed, match=str(root)):
        later.get(domain.id)
    away.rename(root)
    metadata = root / "dom_md" / "metadata"
    content = metadata.read_bytes()
    metadata.write_bytes(content[:20])
    with pytest.raises(DomainDamaged):
        later.get(domain.id)
    metadata.write_bytes(content)
    assert later.get(domain.id).metadata().id == domain.id


def test_a_memory_that_cannot_be_written_changes_nothing(registry: Registry, domain: LocalDomain, file: Path) -> None:
    registry.attach(attached(domain), domain)
    before = file.read_bytes()
    file.with_name(file.name + ".new").mkdir()
    other = LocalDomain.create(DomainId(uuid.uuid4()), domain.path, "other")
    with pytest.raises(OSError, match="directory"):
        registry.attach(attached(other), other)
    with pytest.raises(OSError, match="directory"):
        registry.detach(domain.id)
    assert registry.all() == [attached(domain)]
    assert file.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"{", b"[{}]", b'[{"id":1}]', b"\xff"])
def test_a_memory_that_cannot_be_read_is_told_and_left_as_it_is(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(OSError, match=r"domains\.json") as caught:
        Registry(DRIVERS, file)
    assert "cannot be read" in str(caught.value)
    assert file.read_bytes() == content


def test_a_domain_whose_driver_is_gone_is_told_as_unavailable_and_can_be_detached(tmp_path: Path) -> None:
    home = tmp_path / "home"
    id_ = uuid.uuid4()
    (home / "state").mkdir(parents=True)
    (home / "state" / "domains.json").write_text(json.dumps([{"id": str(id_), "type": "zfs", "path": "/tank"}]))
    with service.in_process(home) as app:
        client = app.client()
        info = client.domain.get_info(domain=DomainId(id_))
        assert (info.state, info.type) == (DomainState.UNAVAILABLE, "zfs")
        assert "'zfs'" in (info.problem or "")
        assert client.image.list().items == []
        with pytest.raises(StorageFailed, match="'zfs'"):
            client.wait(client.image.create(domain=DomainId(id_), capacity=1))
        client.wait(client.domain.detach(domain=DomainId(id_)))
        assert client.domain.list().items == []


def test_a_domain_that_was_moved_is_attached_at_its_new_place(registry: Registry, domain: LocalDomain) -> None:
    registry.attach(attached(domain), domain)
    place = Path(domain.path, "elsewhere")
    place.mkdir()
    shutil.move(domain.root, place)
    registry.detach(domain.id)
    moved = LocalDomain.open(domain.id, str(place))
    registry.attach(attached(moved), moved)
    assert registry.get(domain.id).path == str(place)


def test_a_default_domain_that_was_detached_stays_so_and_one_that_was_destroyed_is_made_anew(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with service.in_process(home) as app:
        client = app.client()
        default = client.domain.list().items[0]
        client.wait(client.domain.detach(domain=default.id))
    with service.in_process(home) as app:
        client = app.client()
        assert client.domain.list().items == []
        client.wait(client.domain.attach(path=default.path))
        client.wait(client.domain.format(domain=default.id))
    with service.in_process(home) as app:
        assert [domain.name for domain in app.client().domain.list().items] == ["default"]
    (home / "state" / "domains.json").unlink()
    with service.in_process(home) as app:
        assert [domain.name for domain in app.client().domain.list().items] == ["default"], "found where it is"
