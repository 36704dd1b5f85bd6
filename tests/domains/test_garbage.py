# SPDX-License-Identifier: Apache-2.0
"""The collector on domains that are folders: what is ours and half made goes, everything else stays."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hsm.contract.base import MIB, WAIT, ids, make, make_overlay, make_template, metadata_of, new_raw
from hsm.domains.base import NewVolume
from hsm.domains.local import LocalDomain
from hsm.formats import volume as volume_format
from libvdsm.api.types import ImageId, VolumeId
from tests.domains.tree import fingerprint


def collect(domain: LocalDomain) -> list[str]:
    """Give everything back that can be: what was left alone."""
    with domain.lease(WAIT):
        return [garbage.path for garbage in domain.garbage() if domain.reclaim(garbage) is None]


# ---- half made

Steps = list[Callable[[], object]]


def steps_of(domain: LocalDomain, new: NewVolume) -> Steps:
    """Everything that making a volume puts on storage, one thing after the other."""
    folder = Path(domain.images, str(new.image))
    own = folder / str(new.volume)
    made: Steps = [lambda: folder.mkdir(exist_ok=True), own.with_name(f"{new.volume}.lease").touch]
    if new.template is not None:
        template, volume = new.template
        source = Path(domain.images, str(template))
        for suffix in ("", ".lease", ".meta"):
            name = f"{volume}{suffix}"
            made.append(lambda name=name: os.link(source / name, folder / name))  # type: ignore[misc]
    metadata = volume_format.write(metadata_of(domain, new))
    temporary = own.with_name(f"{new.volume}.meta.1.0.new")
    made += [own.touch, lambda: os.truncate(own, MIB), temporary.touch, lambda: temporary.write_bytes(metadata)]
    return made


KINDS = ("image", "layer", "clone")
STAGES = [(kind, stage) for kind, count in zip(KINDS, (6, 6, 9), strict=True) for stage in range(1, count + 1)]


def half_made(domain: LocalDomain, kind: str) -> tuple[NewVolume, dict[str, str]]:
    """A volume to be made beside others, and what the domain looks like without it."""
    base, template = make(domain, new_raw()), make_template(domain)
    make_overlay(domain, template, clone=True)
    new = {
        "image": new_raw(),
        "layer": new_raw(base.image, first=False),
        "clone": new_raw(template=(template.image, template.volume)),
    }[kind]
    return new, fingerprint(Path(domain.root))


def test_the_stages_are_all_there_are(domain: LocalDomain) -> None:
    for kind in KINDS:
        new, _ = half_made(domain, kind)
        assert len(steps_of(domain, new)) == len([stage for name, stage in STAGES if name == kind])


@pytest.mark.parametrize(("kind", "stage"), STAGES)
def test_what_ended_at_any_stage_is_given_back_without_a_trace(domain: LocalDomain, kind: str, stage: int) -> None:
    new, before = half_made(domain, kind)
    for step in steps_of(domain, new)[:stage]:
        step()
    assert domain.find_volume(new.volume) is None
    assert collect(domain) == []
    assert domain.garbage() == []
    assert fingerprint(Path(domain.root)) == before


# Before the second stage a maker still holds the domain's lease, and no collector is at work.
@pytest.mark.parametrize(("kind", "stage"), [(kind, stage) for kind, stage in STAGES if stage >= 2])
def test_what_a_live_maker_has_made_so_far_is_left_alone(domain: LocalDomain, kind: str, stage: int) -> None:
    new, _ = half_made(domain, kind)
    steps = steps_of(domain, new)
    for step in steps[:2]:
        step()
    held = domain.acquire_files([(new.volume, domain.lease_path(new.image, new.volume), False)])
    for step in steps[2:stage]:
        step()
    before = {path: facts for path, facts in fingerprint(Path(domain.root)).items() if not path.endswith(".new")}
    collect(domain)
    after = {path: facts for path, facts in fingerprint(Path(domain.root)).items() if not path.endswith(".new")}
    assert after == before
    held.release()
    assert collect(domain) == []
    assert domain.garbage() == []


# ---- half deleted


@pytest.mark.parametrize("wipe", [False, True])
def test_a_deletion_that_ended_anywhere_is_brought_to_its_end(domain: LocalDomain, wipe: bool) -> None:
    template = make_template(domain)
    stays = fingerprint(Path(domain.root))
    for missing in range(8):
        clone = make_overlay(domain, template, clone=True)
        top = make_overlay(domain, clone)
        with domain.lease(WAIT):
            left = domain.unpublish_image(top.image, wipe=wipe)
        folder = Path(domain.root, left.path)
        # As the collector does it: data first, leases last.
        for path in sorted(folder.iterdir(), key=lambda path: (path.suffix == ".lease", path.suffix == ".meta"))[
            :missing
        ]:
            path.unlink()
        assert domain.reclaim(left) is not None
        assert domain.garbage() == []
        assert fingerprint(Path(domain.root)) == stays


def test_a_volume_s_deletion_that_ended_anywhere_is_brought_to_its_end(domain: LocalDomain) -> None:
    base = make(domain, new_raw())
    stays = fingerprint(Path(domain.root))
    for gone in ([], [""], ["", ".lease"]):
        top = make_overlay(domain, base)
        with domain.lease(WAIT):
            left = domain.unpublish_volume(top.image, top.volume, wipe=True)
        for suffix in gone:
            Path(domain.images, str(top.image), f"{top.volume}{suffix}").unlink()
        assert domain.reclaim(left) is not None
        assert domain.garbage() == []
        assert fingerprint(Path(domain.root)) == stays


# ---- not ours

FOREIGN_FILES = [
    "notes.txt",
    ".nfs000000000a1b2c3d00000001",
    "8C4D2A31-6A5F-4E0E-9D53-0D7A5C1F6B11",
    "8c4d2a316a5f4e0e9d530d7a5c1f6b11",
    "8c4d2a31-6a5f-4e0e-9d53-0d7a5c1f6b11.bak",
    "8c4d2a31-6a5f-4e0e-9d53-0d7a5c1f6b11.meta~",
    "8c4d2a31-6a5f-4e0e-9d53-0d7a5c1f6b11.meta.new.txt",
    "_remove_me_notes",
    "_remove_me_",
    "_remove_me_8c4d2a31-6a5f-4e0e-9d53-0d7a5c1f6b1",
    "remove_me_8c4d2a31-6a5f-4e0e-9d53-0d7a5c1f6b11",
    "lost+found",
]


@pytest.mark.parametrize("name", FOREIGN_FILES)
def test_files_of_others_are_never_touched(domain: LocalDomain, images: Path, name: str) -> None:
    image = make(domain, new_raw())
    half, _ = ids()
    (images / str(half)).mkdir()
    (images / str(half) / str(uuid.uuid4())).touch()
    for folder in (images, images / str(image.image), images / str(half), Path(domain.root, "dom_md")):
        (folder / name).write_text("somebody's")
    before = fingerprint(Path(domain.root))
    collect(domain)
    assert fingerprint(Path(domain.root)) == before, "nor what lies beside them in a folder that is not ours then"


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=40)))
def test_files_with_any_other_name_are_never_touched(domain: LocalDomain, images: Path, names: list[str]) -> None:
    folder = images / "8c4d2a31-6a5f-4e0e-9d53-0d7a5c1f6b11"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    made = []
    for name in set(names) - {".", ".."}:
        try:
            (folder / name).touch()
        except OSError:
            continue
        made.append(name)
    collect(domain)
    assert sorted(path.name for path in folder.iterdir()) == sorted(made) if made else not folder.exists()


def test_folders_and_links_are_nothing_that_we_make(domain: LocalDomain, images: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / str(uuid.uuid4())).write_text("data of somebody else")
    image = make(domain, new_raw())
    (images / str(uuid.uuid4())).symlink_to(elsewhere)
    (images / f"_remove_me_{uuid.uuid4()}").symlink_to(elsewhere)
    half = images / str(uuid.uuid4())
    (half / str(uuid.uuid4())).mkdir(parents=True)
    (half / str(uuid.uuid4()) / "inside").parent.mkdir()
    (images / str(image.image) / str(uuid.uuid4())).mkdir()
    (images / str(image.image) / str(uuid.uuid4())).symlink_to(elsewhere)
    before = fingerprint(tmp_path)
    collect(domain)
    assert fingerprint(tmp_path) == before


def test_garbage_beside_what_is_not_ours_is_still_given_back(domain: LocalDomain, images: Path) -> None:
    image = make(domain, new_raw())
    (images / str(image.image) / "notes").touch()
    stray = images / str(image.image) / str(uuid.uuid4())
    stray.touch()
    assert collect(domain) == []
    assert not stray.exists()


# ---- what would be lost


def remainder(domain: LocalDomain) -> tuple[NewVolume, NewVolume]:
    """A clone whose template's folder is gone: (template, clone)."""
    template = make_template(domain)
    clone = make_overlay(domain, template, clone=True)
    shutil.rmtree(Path(domain.images, str(template.image)))
    return template, clone


def test_the_last_link_of_a_template_is_kept_in_what_was_deleted(domain: LocalDomain) -> None:
    template, clone = remainder(domain)
    with domain.lease(WAIT):
        left = domain.unpublish_image(clone.image, wipe=True)
    before = fingerprint(Path(domain.root))
    assert collect(domain) == [left.path]
    assert fingerprint(Path(domain.root)) == before
    assert Path(domain.root, left.path, str(template.volume)).read_bytes()[:8] == b"template"


def test_the_last_link_of_a_template_is_kept_in_what_was_never_made(domain: LocalDomain) -> None:
    _, clone = remainder(domain)
    Path(domain.images, str(clone.image), f"{clone.volume}.meta").unlink()
    before = fingerprint(Path(domain.root))
    assert collect(domain) == [f"images/{clone.image}"]
    assert fingerprint(Path(domain.root)) == before


def test_what_a_published_volume_stands_on_is_kept_though_its_metadata_is_lost(domain: LocalDomain) -> None:
    base = make(domain, new_raw(), content=[(0, b"precious")])
    top = make_overlay(domain, base)
    Path(domain.images, str(base.image), f"{base.volume}.meta").unlink()
    before = fingerprint(Path(domain.root))
    assert domain.garbage() == []
    collect(domain)
    assert fingerprint(Path(domain.root)) == before
    assert top.image == base.image


def test_nothing_is_taken_beside_metadata_that_cannot_be_read(domain: LocalDomain) -> None:
    base = make(domain, new_raw(), content=[(0, b"precious")])
    top = make_overlay(domain, base)
    folder = Path(domain.images, str(base.image))
    (folder / f"{base.volume}.meta").unlink()
    (folder / f"{top.volume}.meta").write_bytes(b"cut off")
    before = fingerprint(Path(domain.root))
    collect(domain)
    assert fingerprint(Path(domain.root)) == before


def test_an_image_whose_only_metadata_cannot_be_read_is_kept(domain: LocalDomain) -> None:
    new = make(domain, new_raw())
    Path(domain.images, str(new.image), f"{new.volume}.meta").write_bytes(b"")
    before = fingerprint(Path(domain.root))
    assert domain.garbage() == []
    collect(domain)
    assert fingerprint(Path(domain.root)) == before


def test_temporary_files_beside_published_metadata_are_given_back(domain: LocalDomain) -> None:
    new = make(domain, new_raw())
    before = fingerprint(Path(domain.root))
    Path(domain.images, str(new.image), f"{new.volume}.meta.1.7.new").write_bytes(b"half")
    Path(domain.root, "dom_md", "metadata.1.new").write_bytes(b"half")
    assert len(domain.garbage()) == 2
    assert collect(domain) == []
    assert fingerprint(Path(domain.root)) == before


def test_ids_in_names_are_compared_whole(domain: LocalDomain) -> None:
    """One volume's renamed metadata says nothing of another one whose id begins the same."""
    new = make(domain, new_raw())
    near = VolumeId(uuid.UUID(int=new.volume.int ^ 1))
    folder = Path(domain.images, str(new.image))
    (folder / f"_remove_me_{near}.meta").write_bytes(b"")
    assert collect(domain) == []
    assert sorted(path.name for path in folder.iterdir()) == [
        str(new.volume),
        f"{new.volume}.lease",
        f"{new.volume}.meta",
    ]
    assert domain.image(ImageId(new.image)) is not None
