# SPDX-License-Identifier: Apache-2.0
"""Damage, planted: one function per way in which a domain can be broken, by kind of ``hsm.operations.checking``."""

from __future__ import annotations

import os
import shutil
import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from libvdsm.api.types import ImageId, ImageInfo, VolumeId
from tests.formats import qemu
from tests.verbs.scene import Scene


@dataclass(frozen=True)
class World:
    """A healthy domain with one of everything."""

    scene: Scene
    base: VolumeId
    """the oldest of the three volumes of ``chain``"""
    middle: VolumeId
    chain: ImageInfo
    raw: ImageInfo
    template: ImageInfo
    clone: ImageInfo


def build(scene: Scene) -> World:
    """An image with two snapshots, a raw image, a template and its clone, each with data."""
    chain = scene.image(name="chain")
    base = chain.leaf
    qemu.write(scene.data(chain), "qcow2", 0x11)
    chain = scene.snapshot(chain, name="first")
    middle = chain.leaf
    chain = scene.snapshot(chain, name="second")
    qemu.write(scene.data(chain), "qcow2", 0x22)
    raw = scene.raw(name="raw")
    qemu.write(scene.data(raw), "raw", 0x33)
    template = scene.template(name="template")
    clone = scene.clone(template, name="clone")
    return World(scene, base, middle, chain, raw, template, clone)


@dataclass(frozen=True)
class Planted:
    """Where the damage is, as a check has to tell it."""

    image: ImageId | None = None
    volume: VolumeId | None = None
    path: str | None = None
    also: frozenset[str] = field(default_factory=frozenset)
    """kinds that follow from it"""
    unusable: ImageInfo | None = None
    """an image that no verb may use any more, as it was"""


Plant = Callable[[World], Planted]
PLANTS: dict[str, tuple[str, Plant]] = {}
"""Name -> (kind, how it is planted)."""


def plants(kind: str) -> Callable[[Plant], Plant]:
    def register(function: Plant) -> Plant:
        PLANTS[function.__name__] = (kind, function)
        return function

    return register


def _volume(image: ImageInfo, volume: VolumeId | None = None, *also: str, usable: bool = False) -> Planted:
    found = volume or image.leaf
    path = f"images/{image.id}/{found}"
    return Planted(image.id, found, path, frozenset(also), None if usable else image)


@plants("domainMetadata")
def a_domains_metadata_that_somebody_edited(world: World) -> Planted:
    path = world.scene.root / "dom_md" / "metadata"
    path.write_text(path.read_text().replace("DESCRIPTION=", "DESCRIPTION=x"))
    return Planted(path="dom_md/metadata")


@plants("volumeMetadata")
def metadata_that_is_cut_off(world: World) -> Planted:
    path = world.scene.meta(world.chain)
    path.write_bytes(path.read_bytes()[:100])
    return _volume(world.chain)


@plants("volumeMetadata")
def metadata_that_is_empty(world: World) -> Planted:
    world.scene.meta(world.chain, world.base).write_bytes(b"")
    return _volume(world.chain, world.base)


@plants("volumeMetadata")
def metadata_with_a_word_that_nobody_knows(world: World) -> Planted:
    world.scene.edit(world.raw, FORMAT="VHD")
    return _volume(world.raw)


@plants("dataMissing")
def data_that_is_gone(world: World) -> Planted:
    world.scene.data(world.raw).unlink()
    return _volume(world.raw)


@plants("dataMissing")
def data_in_the_middle_of_a_chain_that_is_gone(world: World) -> Planted:
    world.scene.data(world.chain, world.middle).unlink()
    return _volume(world.chain, world.middle)


@plants("header")
def a_header_that_is_overwritten(world: World) -> Planted:
    with world.scene.data(world.chain).open("r+b") as file:
        file.write(bytes(512))
    return _volume(world.chain)


@plants("header")
def data_that_is_cut_to_nothing(world: World) -> Planted:
    os.truncate(world.scene.data(world.chain, world.middle), 0)
    return _volume(world.chain, world.middle)


@plants("dataFile")
def a_header_that_keeps_its_data_elsewhere(world: World) -> Planted:
    with world.scene.data(world.clone).open("r+b") as file:
        file.seek(72)
        file.write(struct.pack(">Q", 1 << 2))
    return _volume(world.clone)


def _rebase(world: World, image: ImageInfo, name: str, format_: str = "qcow2", volume: VolumeId | None = None) -> None:
    path = world.scene.data(image, volume)
    qemu.image_tool("rebase", "-u", "-f", "qcow2", "-b", name, "-F", format_, path)


@plants("backing")
def a_header_that_names_a_file_of_the_host(world: World) -> Planted:
    _rebase(world, world.chain, "/etc/hostname", "raw")
    return _volume(world.chain)


@plants("backing")
def a_header_that_names_another_volume(world: World) -> Planted:
    _rebase(world, world.chain, str(world.base))
    return _volume(world.chain)


@plants("backing")
def a_header_that_names_the_right_volume_of_another_place(world: World) -> Planted:
    _rebase(world, world.chain, f"/tmp/{world.chain.id}/{world.middle}")
    return _volume(world.chain)


@plants("backing")
def a_header_that_names_a_network_address(world: World) -> Planted:
    _rebase(world, world.chain, f"nbd://example.com/{world.chain.id}/{world.middle}", "raw")
    return _volume(world.chain)


@plants("backing")
def a_header_without_the_parent_that_the_metadata_name(world: World) -> Planted:
    path = world.scene.data(world.chain, world.middle)
    path.unlink()
    qemu.create(path, "qcow2", "1G")
    return _volume(world.chain, world.middle)


@plants("backing")
def a_header_with_a_parent_that_the_metadata_do_not_name(world: World) -> Planted:
    qemu.create(world.scene.folder(world.chain) / "other", "raw", "1G")
    _rebase(world, world.chain, "other", "raw", world.base)
    (world.scene.folder(world.chain) / "other").unlink()
    return _volume(world.chain, world.base)


@plants("backing")
def a_header_that_takes_its_qcow2_parent_for_raw(world: World) -> Planted:
    _rebase(world, world.chain, str(world.middle), "raw")
    return _volume(world.chain)


@plants("backing")
def a_header_that_has_qemu_guess_what_its_raw_parent_is(world: World) -> Planted:
    scene = world.scene
    guessed = scene.snapshot(world.raw)
    path = scene.data(guessed)
    content = bytearray(path.read_bytes()[:4096])
    at = content.index(struct.pack(">II", 0xE2792ACA, 3))
    content[at : at + 4] = struct.pack(">I", 0x12345678)  # an extension that nobody knows
    with path.open("r+b") as file:
        file.write(content)
    return _volume(guessed)


@plants("capacity")
def a_header_that_is_larger_than_the_metadata(world: World) -> Planted:
    qemu.image_tool("resize", "-q", "-f", "qcow2", world.scene.data(world.chain), "2G")
    return _volume(world.chain)


@plants("capacity")
def a_header_that_is_smaller_than_the_metadata(world: World) -> Planted:
    world.scene.edit(world.chain, world.middle, CAP=str(2**31))
    return _volume(world.chain, world.middle)


@plants("tooShort")
def raw_data_whose_end_is_missing(world: World) -> Planted:
    os.truncate(world.scene.data(world.raw), world.raw.capacity - 512)
    return _volume(world.raw)


@plants("parentMissing")
def a_parent_that_is_gone(world: World) -> Planted:
    world.scene.meta(world.chain, world.base).unlink()
    world.scene.data(world.chain, world.base).unlink()
    world.scene.lease(world.chain, world.base).unlink()
    return _volume(world.chain, world.middle)


@plants("parentMissing")
def a_parent_whose_metadata_is_gone(world: World) -> Planted:
    world.scene.meta(world.chain, world.base).unlink()
    return _volume(world.chain, world.middle)


@plants("circle")
def volumes_that_stand_on_each_other(world: World) -> Planted:
    world.scene.edit(world.chain, world.base, PUUID=str(world.chain.leaf))
    return _volume(world.chain, world.base, "backing", "leaves", "role")


@plants("leaves")
def two_newest_volumes(world: World) -> Planted:
    scene, other = world.scene, VolumeId(uuid.uuid4())
    for suffix in ("", ".meta", ".lease"):
        shutil.copy2(f"{scene.data(world.chain)}{suffix}", f"{scene.data(world.chain, other)}{suffix}")
    return Planted(image=world.chain.id, path=f"images/{world.chain.id}", unusable=world.chain)


@plants("identity")
def metadata_of_another_domain(world: World) -> Planted:
    world.scene.edit(world.chain, DOMAIN=str(uuid.uuid4()))
    return _volume(world.chain)


@plants("templateMissing")
def a_clones_link_that_is_a_copy(world: World) -> Planted:
    link = world.scene.data(world.clone, world.template.leaf)
    content = link.read_bytes()
    link.unlink()
    link.write_bytes(content)
    return _volume(world.clone, world.template.leaf)


@plants("templateMissing")
def a_template_that_is_gone(world: World) -> Planted:
    shutil.rmtree(world.scene.folder(world.template))
    return _volume(world.clone, world.template.leaf)


@plants("templateMissing")
def metadata_that_give_a_volume_to_another_image(world: World) -> Planted:
    world.scene.edit(world.raw, IMAGE=str(uuid.uuid4()))
    return _volume(world.raw, None, "garbage")


@plants("notTemplate")
def a_template_that_became_an_image_again(world: World) -> Planted:
    world.scene.edit(world.template, VOLTYPE="LEAF")
    return _volume(world.clone, world.template.leaf)


@plants("rawParent")
def a_raw_volume_with_a_parent(world: World) -> Planted:
    world.scene.edit(world.raw, PUUID=str(uuid.uuid4()))
    return _volume(world.raw, None, "parentMissing")


@plants("attributes")
def attributes_that_are_cut_off(world: World) -> Planted:
    (world.scene.folder(world.raw) / f"{world.raw.id}.hsm").write_text('{"version":1,"ima')
    return Planted(image=world.raw.id, path=f"images/{world.raw.id}/{world.raw.id}.hsm", unusable=world.raw)


@plants("attributes")
def attributes_that_a_newer_service_wrote(world: World) -> Planted:
    text = f'{{"version":2,"image":"{world.raw.id}","colour":"blue"}}'
    (world.scene.folder(world.raw) / f"{world.raw.id}.hsm").write_text(text)
    return Planted(image=world.raw.id, path=f"images/{world.raw.id}/{world.raw.id}.hsm", unusable=world.raw)


@plants("unfinished")
def a_shrinking_that_was_interrupted(world: World) -> Planted:
    intent = f'{{"kind":"shrink","volume":"{world.raw.leaf}","capacity":512}}'
    text = f'{{"version":1,"image":"{world.raw.id}","intent":{intent}}}'
    (world.scene.folder(world.raw) / f"{world.raw.id}.hsm").write_text(text)
    return Planted(image=world.raw.id, path=f"images/{world.raw.id}")


@plants("illegal")
def a_volume_that_is_marked(world: World) -> Planted:
    world.scene.edit(world.chain, world.middle, LEGALITY="ILLEGAL")
    return _volume(world.chain, world.middle, usable=True)


@plants("role")
def a_frozen_volume_that_is_called_a_leaf(world: World) -> Planted:
    world.scene.edit(world.chain, world.middle, VOLTYPE="LEAF")
    return _volume(world.chain, world.middle, usable=True)


@plants("encryption")
def an_image_whose_attributes_name_a_secret_and_that_is_not_encrypted(world: World) -> Planted:
    text = f'{{"version":1,"image":"{world.raw.id}","secret":"{uuid.uuid4()}"}}'
    (world.scene.folder(world.raw) / f"{world.raw.id}.hsm").write_text(text)
    return _volume(world.raw)


@plants("secretMissing")
def an_encrypted_image_whose_secret_is_forgotten(world: World) -> Planted:
    secrets = world.scene.client.secret
    secret = secrets.generate().id
    image = world.scene.image(name="safe", secret=secret)
    secrets.delete(secret=secret, force=True)
    return _volume(image, usable=True)


@plants("leaseMissing")
def a_lease_file_that_is_gone(world: World) -> Planted:
    world.scene.lease(world.raw).unlink()
    return _volume(world.raw, usable=True)


@plants("clusters")
def a_cluster_that_lies_outside_the_file(world: World) -> Planted:
    with world.scene.data(world.chain).open("r+b") as file:
        file.seek(3 * 65536)  # the first entry of the first-level table
        file.write(struct.pack(">Q", (1 << 63) | (1 << 40)))
    return _volume(world.chain, usable=True)


@plants("garbage")
def a_volume_that_was_begun_and_never_published(world: World) -> Planted:
    volume = VolumeId(uuid.uuid4())
    world.scene.data(world.raw, volume).touch()
    return Planted(path=f"images/{world.raw.id}/{volume}")


@plants("garbage")
def an_image_that_was_deleted_and_not_given_back(world: World) -> Planted:
    name = f"_remove_me_{uuid.uuid4()}"
    (world.scene.images / name).mkdir()
    return Planted(path=f"images/{name}")
