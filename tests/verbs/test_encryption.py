# SPDX-License-Identifier: Apache-2.0
"""A life of an encrypted image: every change of it, read back through the key; and what lies on storage meanwhile."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from libvdsm.api.errors import (
    CannotEncrypt,
    InvalidParameter,
    NeedsCollapse,
    NoSuchSecret,
    SecretWrong,
    UnsupportedImage,
    VolumeExists,
)
from libvdsm.api.image_layers import MergeDirection
from libvdsm.api.transfer import Content, Direction
from libvdsm.api.types import (
    Allocation,
    DomainId,
    Encryption,
    FileFormat,
    ImageId,
    ImageInfo,
    SecretId,
    TaskInfo,
    VolumeFormat,
    VolumeId,
    VolumeInfo,
)
from tests.formats import qemu
from tests.verbs.copies import copy, healthy, path_of
from tests.verbs.keys import Keys, written
from tests.verbs.layers import DOWN, UP
from tests.verbs.provoked import provokes
from tests.verbs.samples import Samples, declaring
from tests.verbs.scene import MIB, Scene, raised

PATTERN = b"what nobody is to read at rest" * 2
MISSING = SecretId(uuid.UUID("00000000-0000-4000-8000-00000000dead"))


@pytest.fixture
def keys(scene: Scene) -> Keys:
    return Keys(scene)


@pytest.fixture
def secret(keys: Keys) -> SecretId:
    return keys.generated()


@pytest.fixture
def other_secret(scene: Scene) -> SecretId:
    return scene.client.secret.define(value="another one").id


@pytest.fixture
def image(scene: Scene, secret: SecretId) -> ImageInfo:
    return scene.image(8 * MIB, name="safe", secret=secret)


@pytest.fixture
def chain(scene: Scene, keys: Keys, image: ImageInfo) -> ImageInfo:
    """Four layers of different sizes, with data, other data over it, zeros over data, and discarded ranges."""
    keys.io(image, "write -q -P 0x11 0 2M")
    layers = (
        (8, ("write -q -P 0x22 1M 1M",)),
        (4, ("write -q -P 0x33 1280k 640k", "write -q -z 0 256k", "discard -q 1920k 64k")),
        (6, ("write -q -P 0x44 100k 4k", "write -q -P 0x55 5M 64k")),
    )
    for number, (size, commands) in enumerate(layers):
        image = scene.snapshot(image, name=f"snapshot {number}")
        if size * MIB != image.capacity:
            resize = scene.client.volume.resize
            scene.wait(resize(domain=scene.domain, volume=image.leaf, capacity=size * MIB, shrink=True))
        image = scene.look(image)
        keys.io(image, *commands)
    return image


def test_an_image_names_its_secret(scene: Scene, image: ImageInfo, secret: SecretId) -> None:
    assert (image.encryption, image.secret) == (Encryption.LUKS, secret)
    assert image.chain is not None
    assert [volume.encryption for volume in image.chain] == [Encryption.LUKS]
    prepared = scene.client.image.prepare(domain=scene.domain, image=image.id)
    assert (prepared.encryption, prepared.secret) == (Encryption.LUKS, secret)
    assert scene.look(image).prepared == prepared
    healthy(scene)


def test_a_plain_one_names_none(scene: Scene) -> None:
    plain = scene.image(MIB)
    assert (plain.encryption, plain.secret) == (None, None)


def test_the_data_at_rest_shows_neither_the_data_nor_the_key(
    scene: Scene, keys: Keys, image: ImageInfo, secret: SecretId, tmp_path: Path
) -> None:
    pattern = tmp_path / "pattern"
    pattern.write_bytes(PATTERN * 1000)
    keys.io(image, f"write -q -s {pattern} 0 1M")
    assert PATTERN in keys.seen(image)
    root = scene.root
    assert written(root, PATTERN) == []
    assert written(root, keys.value(secret).encode()) == []


def test_qemu_finds_nothing_wrong_with_a_header_of_ours(scene: Scene, keys: Keys, image: ImageInfo) -> None:
    told = qemu.info(scene.data(image), "qcow2")
    luks = told["format-specific"]["data"]["encrypt"]
    assert (luks["cipher-alg"], luks["cipher-mode"], luks["ivgen-alg"], luks["hash-alg"]) == (
        *("aes-256", "xts", "plain64"),
        "sha256",
    )
    assert [slot["active"] for slot in luks["slots"]] == [True] + [False] * 7
    assert luks["slots"][0]["iters"] == 1000, "nobody guesses 256 bits"
    keys.io(image, "write -q -P 1 0 8M", "read -q -P 1 0 8M")
    with keys.opened(image) as (arguments, _):
        options = f"driver=qcow2,file.filename={scene.data(image)},encrypt.key-secret=k0"
        qemu.image_tool("check", *arguments, "--image-opts", options)


def test_a_secret_that_people_chose_is_derived_slowly(scene: Scene, other_secret: SecretId) -> None:
    told = qemu.info(scene.data(scene.image(MIB, secret=other_secret)), "qcow2")
    assert told["format-specific"]["data"]["encrypt"]["slots"][0]["iters"] == 1_000_000


def test_two_volumes_have_two_keys(scene: Scene, keys: Keys, image: ImageInfo) -> None:
    first = scene.data(image)
    keys.io(image, "write -q -P 1 0 64k")
    image = scene.snapshot(image)
    keys.io(image, "write -q -P 1 0 64k")
    clusters = [
        {data[at : at + 65536] for at in range(2**16, len(data), 2**16)}
        for data in (first.read_bytes(), scene.data(image).read_bytes())
    ]
    shared = {cluster for cluster in clusters[0] & clusters[1] if cluster.count(0) < 1000}
    assert shared == set()


def test_the_same_call_again(scene: Scene, secret: SecretId, other_secret: SecretId) -> None:
    ids: dict[str, Any] = {"id": ImageId(uuid.uuid4()), "volume": VolumeId(uuid.uuid4())}
    made = scene.image(MIB, secret=secret, **ids)
    assert scene.image(MIB, secret=secret, **ids) == made
    raised(VolumeExists, lambda: scene.image(MIB, secret=other_secret, **ids))


# ---- what cannot be


@provokes("Image.create", "CannotEncrypt")
@pytest.mark.parametrize("form", [{"format": VolumeFormat.RAW}, {"allocation": Allocation.PREALLOCATED}], ids=str)
def test_only_sparse_qcow2_is_encrypted(scene: Scene, secret: SecretId, form: dict[str, Any]) -> None:
    raised(CannotEncrypt, lambda: scene.image(MIB, secret=secret, **form))


@provokes("Image.import", "CannotEncrypt")
def test_nor_is_a_raw_import(scene: Scene, secret: SecretId, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(PATTERN)
    call = scene.client.image.import_
    raised(
        CannotEncrypt,
        lambda: call(domain=scene.domain, path=str(tmp_path / "source"), format=VolumeFormat.RAW, secret=secret),
    )


@provokes("Image.copy", "CannotEncrypt")
@pytest.mark.parametrize(
    "form",
    [{"compress": True}, {"format": VolumeFormat.RAW}, {"cluster_size": 4096}, {"allocation": Allocation.PREALLOCATED}],
    ids=str,
)
def test_nor_a_copy_that_cannot_be(scene: Scene, image: ImageInfo, form: dict[str, Any]) -> None:
    raised(CannotEncrypt, lambda: copy(scene, image, **form))


@provokes("Volume.copy", "CannotEncrypt")
def test_nor_a_copy_of_a_state(scene: Scene, image: ImageInfo) -> None:
    call = scene.client.volume.copy
    raised(CannotEncrypt, lambda: scene.wait(call(domain=scene.domain, volume=image.leaf, compress=True)))


@provokes("Transfer.start", "CannotEncrypt")
@pytest.mark.parametrize("form", [{"format": VolumeFormat.RAW}, {"content": Content.FILE}], ids=str)
def test_nor_such_uploads(scene: Scene, secret: SecretId, form: dict[str, Any]) -> None:
    start = scene.client.transfer.start
    raised(
        CannotEncrypt,
        lambda: start(domain=scene.domain, direction=Direction.UPLOAD, size=MIB, secret=secret, **form),
    )


def test_a_copy_is_either_encrypted_or_not(scene: Scene, image: ImageInfo, secret: SecretId) -> None:
    raised(InvalidParameter, lambda: copy(scene, image, secret=secret, decrypt=True))


def test_a_chain_is_encrypted_anew_only_when_collapsed(scene: Scene, chain: ImageInfo, other_secret: SecretId) -> None:
    raised(NeedsCollapse, lambda: copy(scene, chain, secret=other_secret))
    raised(NeedsCollapse, lambda: copy(scene, chain, decrypt=True))


def test_a_file_that_is_encrypted_itself_is_not_imported(scene: Scene, image: ImageInfo, tmp_path: Path) -> None:
    shutil.copy(scene.data(image), tmp_path / "encrypted.qcow2")
    call = scene.client.image.import_
    error = raised(
        UnsupportedImage, lambda: scene.wait(call(domain=scene.domain, path=str(tmp_path / "encrypted.qcow2")))
    )
    assert "decrypt it first" in error.message


# ---- its life


def test_snapshots_and_going_back(scene: Scene, keys: Keys, image: ImageInfo, secret: SecretId) -> None:
    keys.io(image, "write -q -P 1 0 1M")
    later = scene.snapshot(image, name="before")
    keys.io(later, "write -q -P 2 0 1M", "read -q -P 0 1M 7M")
    assert later.secret == secret
    back = scene.wait(scene.client.image.revert(domain=scene.domain, image=image.id, volume=image.leaf))
    keys.io(back, "read -q -P 1 0 1M", "write -q -P 3 1M 1M", "read -q -P 3 1M 1M")
    healthy(scene)


def test_several_at_once(scene: Scene, keys: Keys, image: ImageInfo, other_secret: SecretId) -> None:
    second, plain = scene.image(MIB, secret=other_secret), scene.image(MIB)
    keys.io(image, "write -q -P 1 0 1M")
    group = scene.client.image.snapshot_many(domain=scene.domain, images=[image.id, second.id, plain.id])
    made = scene.wait(group).items
    assert [info.secret for info in made] == [image.secret, other_secret, None]
    keys.io(made[0], "read -q -P 1 0 1M", "write -q -P 2 0 1M")
    keys.io(made[1], "write -q -P 2 0 1M")
    healthy(scene)


@pytest.mark.parametrize(("base", "top"), [(0, 1), (1, 2), (0, 2), (1, 3), (0, 3)])
@pytest.mark.parametrize("direction", [DOWN, UP], ids=["down", "up"])
def test_merging(scene: Scene, keys: Keys, chain: ImageInfo, base: int, top: int, direction: MergeDirection) -> None:
    volumes = [volume.id for volume in chain.chain or []]
    before = keys.states(chain)
    merge = scene.client.image.merge
    done = scene.wait(
        merge(domain=scene.domain, image=chain.id, base=volumes[base], top=volumes[top], direction=direction)
    )
    left = volumes[base] if direction is DOWN else volumes[top]
    expected = {id_: seen for id_, seen in before.items() if id_ not in volumes[base : top + 1]}
    assert keys.states(done) == {**expected, left: before[volumes[top]]}
    healthy(scene)


def test_flattening(scene: Scene, keys: Keys, chain: ImageInfo) -> None:
    before = keys.seen(chain)
    flat = scene.wait(scene.client.image.flatten(domain=scene.domain, image=chain.id, discard_snapshots=True))
    assert keys.seen(flat) == before
    healthy(scene)


def template_of(scene: Scene, keys: Keys, pattern: int, secret: SecretId | None) -> ImageInfo:
    made = scene.image(4 * MIB, secret=secret)
    keys.io(made, f"write -q -P {pattern} 0 2M")
    return scene.wait(scene.client.image.make_template(domain=scene.domain, image=made.id))


@pytest.mark.parametrize("below", ["encrypted", "plain"])
@pytest.mark.parametrize("own", ["as it is", "another"])
def test_clones(scene: Scene, keys: Keys, secret: SecretId, other_secret: SecretId, below: str, own: str) -> None:
    template = template_of(scene, keys, 0x11, secret if below == "encrypted" else None)
    clone = scene.clone(template, **({"secret": other_secret} if own == "another" else {}))
    assert clone.secret == (other_secret if own == "another" else template.secret), "never plain over encrypted"
    keys.io(clone, "write -q -P 0x22 1M 1M", "read -q -P 0x11 0 1M")
    clone = scene.snapshot(clone)
    keys.io(clone, "read -q -P 0x22 1M 1M", "write -q -P 0x33 3M 1M")
    before = keys.seen(clone)
    moved = scene.wait(
        scene.client.image.rebase(domain=scene.domain, image=clone.id, template=template_of(scene, keys, 0x44, None).id)
    )
    assert keys.seen(moved) == before
    healthy(scene)
    encrypted = template_of(scene, keys, 0x55, secret).id
    if clone.secret is None:
        rebase = scene.client.image.rebase
        raised(CannotEncrypt, lambda: scene.wait(rebase(domain=scene.domain, image=clone.id, template=encrypted)))
        return
    moved = scene.wait(scene.client.image.rebase(domain=scene.domain, image=clone.id, template=encrypted))
    assert keys.seen(moved) == before
    alone = scene.wait(scene.client.image.rebase(domain=scene.domain, image=clone.id))
    assert keys.seen(alone) == before
    healthy(scene)


@provokes("Image.rebase", "CannotEncrypt")
def test_a_plain_image_does_not_come_to_stand_on_an_encrypted_template(
    scene: Scene, keys: Keys, secret: SecretId
) -> None:
    clone = scene.clone(template_of(scene, keys, 0x11, None))
    template = template_of(scene, keys, 0x22, secret).id
    rebase = scene.client.image.rebase
    raised(CannotEncrypt, lambda: scene.wait(rebase(domain=scene.domain, image=clone.id, template=template)))
    healthy(scene)


def test_a_template_from_a_copy(scene: Scene, keys: Keys, chain: ImageInfo, secret: SecretId) -> None:
    made = scene.wait(scene.client.image.make_template(domain=scene.domain, image=chain.id, name="base"))
    assert (made.secret, made.is_template) == (secret, True)
    assert keys.seen(made) == keys.seen(chain)
    healthy(scene)


def test_a_copy_as_it_is(scene: Scene, keys: Keys, chain: ImageInfo, secret: SecretId, other: DomainId) -> None:
    for to in (scene.domain, other):
        done = copy(scene, chain, to=to, checksum=True).image
        assert done.secret == secret
        assert keys.seen(done) == keys.seen(chain)
    healthy(scene, other)


def test_a_copy_as_it_is_needs_no_key(scene: Scene, keys: Keys, chain: ImageInfo, secret: SecretId) -> None:
    before, value = keys.seen(chain), keys.value(secret)
    scene.client.secret.delete(secret=secret, force=True)
    done = copy(scene, chain).image
    scene.client.secret.define(id=secret, value=value)
    assert keys.seen(done) == before


@pytest.mark.parametrize("way", ["same", "another", "none"])
def test_a_collapsed_copy(
    scene: Scene, keys: Keys, chain: ImageInfo, secret: SecretId, other_secret: SecretId, way: str
) -> None:
    ways: dict[str, dict[str, Any]] = {"same": {}, "another": {"secret": other_secret}, "none": {"decrypt": True}}
    done = copy(scene, chain, collapse=True, checksum=True, **ways[way]).image
    assert done.secret == {"same": secret, "another": other_secret, "none": None}[way]
    assert keys.seen(done) == keys.seen(chain)
    healthy(scene)


def test_a_plain_image_is_encrypted_by_copying_it(scene: Scene, keys: Keys, secret: SecretId) -> None:
    plain = scene.raw(MIB)
    qemu.write(scene.data(plain), "raw", 0x11, 0, MIB)
    done = copy(scene, plain, format=VolumeFormat.QCOW2, secret=secret, checksum=True).image
    assert keys.seen(done) == b"\x11" * MIB
    healthy(scene)


def test_a_copy_of_one_state(scene: Scene, keys: Keys, chain: ImageInfo, secret: SecretId) -> None:
    volume = (chain.chain or [])[1].id
    done = scene.wait(scene.client.volume.copy(domain=scene.domain, volume=volume, decrypt=True)).image
    assert keys.seen(done) == keys.seen(chain, volume)
    assert done.secret is None


def test_a_move_takes_the_reference_along(
    scene: Scene, keys: Keys, chain: ImageInfo, secret: SecretId, other: DomainId
) -> None:
    before = keys.seen(chain)
    done = scene.wait(scene.client.image.move(domain=scene.domain, image=chain.id, to=other, checksum=True)).image
    assert (done.secret, keys.seen(done)) == (secret, before)
    healthy(scene, other)


def test_in_and_out(scene: Scene, keys: Keys, secret: SecretId, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(MIB))
    call = scene.client.image.import_
    made = scene.wait(call(domain=scene.domain, path=str(source), secret=secret))
    assert made.secret == secret
    assert keys.seen(made) == source.read_bytes()
    target.touch()
    export = scene.client.image.export
    scene.wait(export(domain=scene.domain, image=made.id, path=str(target), format=FileFormat.RAW))
    assert target.read_bytes() == source.read_bytes()
    measured = scene.client.volume.measure(domain=scene.domain, volume=made.leaf)
    assert measured.required >= MIB


def test_sizes_and_bitmaps(scene: Scene, keys: Keys, image: ImageInfo) -> None:
    scene.wait(scene.client.bitmap.add(domain=scene.domain, image=image.id, bitmap="monday"))
    keys.io(image, "write -q -P 1 0 1M")
    later = scene.snapshot(image)
    keys.io(later, "write -q -P 2 2M 1M")
    bitmaps = scene.client.bitmap
    [bitmap] = bitmaps.list(domain=scene.domain, image=image.id).items
    assert (bitmap.usable, len(bitmap.layers)) == (True, 2)
    found = bitmaps.get_extents(domain=scene.domain, image=image.id, bitmap="monday").items
    assert [(extent.offset, extent.length) for extent in found] == [(0, MIB), (2 * MIB, MIB)]
    merge = scene.client.image.merge
    merged = scene.wait(
        merge(domain=scene.domain, image=image.id, base=image.leaf, top=later.leaf, direction=MergeDirection.DOWN)
    )
    found = bitmaps.get_extents(domain=scene.domain, image=image.id, bitmap="monday").items
    assert [(extent.offset, extent.length) for extent in found] == [(0, MIB), (2 * MIB, MIB)]
    scene.wait(bitmaps.clear(domain=scene.domain, image=image.id, bitmap="monday"))
    scene.wait(bitmaps.remove(domain=scene.domain, image=image.id, bitmap="monday"))
    resize = scene.client.volume.resize
    scene.wait(resize(domain=scene.domain, volume=merged.leaf, capacity=16 * MIB))
    keys.io(scene.look(image), "read -q -P 0 8M 8M")
    scene.wait(resize(domain=scene.domain, volume=merged.leaf, capacity=MIB, shrink=True))
    keys.io(scene.look(image), "read -q -P 1 0 1M")
    healthy(scene)


def test_checksums_are_those_of_the_plain_data(scene: Scene, keys: Keys, chain: ImageInfo) -> None:
    plain = copy(scene, chain, collapse=True, decrypt=True).image
    first, second = (
        scene.wait(scene.client.image.checksum(domain=scene.domain, image=found.id)) for found in (chain, plain)
    )
    assert first == second


# ---- without the key


def encrypted_samples(scene: Scene, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Samples:
    """All images of the samples, encrypted with one secret."""
    secret = keys.generated()
    create = scene.client.image.create

    def encrypted(**params: Any) -> TaskInfo[ImageInfo]:
        return create(**{"secret": secret, **params})

    with monkeypatch.context() as patch:
        patch.setattr(scene.client.image, "create", encrypted)
        made = Samples(scene, tmp_path)
    made.secret = secret
    return made


NAMING = ("Image.create", "Image.import", "Volume.create")
"""They make what is new, and read nothing."""
READING = tuple(verb for verb in declaring("SecretWrong", without=NAMING) if not verb.startswith("Secret"))
CHANGED: dict[str, dict[str, Any]] = {
    "Image.copy": {"collapse": True},
    "Image.move": {"checksum": True},
    "Image.makeTemplate": {"name": "base"},
    "Volume.copy": {"decrypt": True},
}
"""What has the sample of a verb look into the data."""


def refused(samples: Samples, verb: str) -> Callable[[], Any]:
    return lambda: samples.call(verb, **CHANGED.get(verb, {}))


@pytest.mark.parametrize("verb", [pytest.param(verb, marks=provokes(verb, "NoSuchSecret")) for verb in READING])
def test_without_the_secret_nothing_begins(
    scene: Scene, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    samples = encrypted_samples(scene, keys, tmp_path, monkeypatch)
    before = scene.look(samples.image), scene.look(samples.marked)
    scene.client.secret.delete(secret=samples.secret, force=True)
    assert raised(NoSuchSecret, refused(samples, verb)).secret == samples.secret
    assert (scene.look(samples.image), scene.look(samples.marked)) == before


@pytest.mark.parametrize("verb", [pytest.param(verb, marks=provokes(verb, "SecretWrong")) for verb in READING])
def test_with_another_value_of_it_neither(
    scene: Scene, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    samples = encrypted_samples(scene, keys, tmp_path, monkeypatch)
    before = scene.look(samples.image), scene.look(samples.marked)
    keys.wrong(samples.secret)
    assert raised(SecretWrong, refused(samples, verb)).secret == samples.secret
    assert (scene.look(samples.image), scene.look(samples.marked)) == before


@pytest.mark.parametrize(
    "verb", [pytest.param(verb, marks=provokes(verb, "NoSuchSecret")) for verb in ("Image.create", "Image.import")]
)
def test_nothing_is_encrypted_with_what_is_not_there(scene: Scene, tmp_path: Path, verb: str) -> None:
    samples = Samples(scene, tmp_path)
    assert raised(NoSuchSecret, lambda: samples.call(verb, secret=MISSING)).secret == MISSING


@provokes("Image.clone", "NoSuchSecret")
def test_nor_is_a_clone(scene: Scene) -> None:
    template = scene.template(MIB)
    assert raised(NoSuchSecret, lambda: scene.clone(template, secret=MISSING)).secret == MISSING


@provokes("Volume.create", "NoSuchSecret", "SecretWrong")
def test_nor_a_volume_on_top_of_what_is(scene: Scene, keys: Keys, image: ImageInfo, secret: SecretId) -> None:
    create = scene.client.volume.create

    def on_top() -> VolumeInfo:
        return scene.wait(create(domain=scene.domain, image=image.id, parent=image.leaf))

    value = keys.value(secret)
    keys.wrong(secret)
    raised(SecretWrong, on_top)
    scene.client.secret.delete(secret=secret, force=True)
    raised(NoSuchSecret, on_top)
    scene.client.secret.define(id=secret, value=value)
    assert on_top().encryption is Encryption.LUKS
    healthy(scene)


def test_the_error_tells_which_of_two_secrets_is_wrong(
    scene: Scene, keys: Keys, secret: SecretId, other_secret: SecretId
) -> None:
    clone = scene.clone(template_of(scene, keys, 0x11, secret), secret=other_secret)
    keys.wrong(secret)
    calls: tuple[Callable[[], object], ...] = (
        lambda: scene.wait(scene.client.image.checksum(domain=scene.domain, image=clone.id)),
        lambda: copy(scene, clone, collapse=True),
        lambda: scene.wait(scene.client.image.flatten(domain=scene.domain, image=clone.id)),
    )
    for call in calls:
        assert raised(SecretWrong, call).secret == secret
    assert scene.look(clone).pending is None


def test_what_needs_no_key_works_without(scene: Scene, keys: Keys, chain: ImageInfo, secret: SecretId) -> None:
    scene.client.secret.delete(secret=secret, force=True)
    assert scene.look(chain).secret == secret
    assert scene.client.image.list(domain=scene.domain).items[0].encryption is Encryption.LUKS
    scene.wait(scene.client.image.set_tags(domain=scene.domain, image=chain.id, tags=["tagged"]))
    set_description = scene.client.volume.set_description
    scene.wait(set_description(domain=scene.domain, volume=chain.leaf, description="described"))
    assert scene.look(chain).secret == secret, "attributes keep it"
    [missing, *_] = scene.wait(scene.client.domain.check(domain=scene.domain, deep=True)).problems
    assert (missing.kind, missing.severity) == ("secretMissing", "warning")
    assert scene.wait(scene.client.domain.check(domain=scene.domain)).healthy
    scene.client.image.prepare(domain=scene.domain, image=chain.id)
    scene.client.image.teardown(domain=scene.domain, image=chain.id)
    scene.wait(scene.client.volume.delete(domain=scene.domain, volume=chain.leaf))
    scene.wait(scene.client.image.delete(domain=scene.domain, image=chain.id, wipe=True))


# ---- damage


def test_an_encrypted_volume_of_an_image_without_a_secret_is_damage(scene: Scene, image: ImageInfo) -> None:
    (scene.folder(image) / f"{image.id}.hsm").unlink(missing_ok=True)
    for left in scene.folder(image).glob(f"{image.id}.*"):
        left.unlink()
    assert "name no secret" in (scene.look(image).damage or "")
    kinds = [found.kind for found in scene.wait(scene.client.domain.check(domain=scene.domain, deep=True)).problems]
    assert kinds == ["encryption"]


def test_a_plain_volume_of_an_encrypted_image_is_damage(scene: Scene, image: ImageInfo) -> None:
    scene.data(image).unlink()
    qemu.create(scene.data(image), "qcow2", 8 * MIB)
    assert "is not encrypted" in (scene.look(image).damage or "")
    kinds = [found.kind for found in scene.wait(scene.client.domain.check(domain=scene.domain)).problems]
    assert kinds == ["encryption"]


def test_the_old_encryption_of_qemu_is_damage(scene: Scene) -> None:
    image = scene.image(MIB)
    with scene.data(image).open("r+b") as data:
        data.seek(32)
        data.write((1).to_bytes(4, "big"))
    assert "old way" in (scene.look(image).damage or "")


# ---- programs


def test_no_program_shows_a_value(
    scene: Scene, keys: Keys, chain: ImageInfo, secret: SecretId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Command lines and environments of all that is started, and all files but the secret's own."""
    started: list[str] = []
    value = keys.value(secret)

    class Recorded(subprocess.Popen[bytes]):
        def __init__(self, argv: list[str], **given: Any) -> None:
            started.append(" ".join(argv))
            assert given.get("env") is None
            super().__init__(argv, **given)
            for what in ("cmdline", "environ"):
                # A program that has ended by now shows nothing any more.
                with suppress(ProcessLookupError):
                    assert value.encode() not in Path(f"/proc/{self.pid}/{what}").read_bytes()

    monkeypatch.setattr("libvdsm.run.subprocess.Popen", Recorded)
    test_flattening(scene, keys, chain)
    copy(scene, chain, collapse=True, decrypt=True, checksum=True)
    assert [line for line in started if "secret,id=" in line]
    assert not [line for line in started if value in line]
    assert written(keys.state.parent, value.encode(), but=keys.file(secret)) == []
    assert path_of(scene, chain).exists()
