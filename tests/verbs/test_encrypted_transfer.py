# SPDX-License-Identifier: Apache-2.0
"""Uploads that are encrypted where they arrive, and downloads of what is."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from libvdsm.api.errors import NoSuchSecret, SecretWrong
from libvdsm.api.transfer import TransferInfo, TransferState
from libvdsm.api.types import ImageInfo, SecretId
from libvdsm.declare import ApiError
from tests.transfers import http
from tests.verbs.conftest import Restart
from tests.verbs.copies import healthy
from tests.verbs.keys import Keys, written
from tests.verbs.provoked import provokes
from tests.verbs.scene import MIB, Scene, raised
from tests.verbs.test_transfer import download, finish, look, upload

DATA = os.urandom(MIB)


@pytest.fixture
def keys(scene: Scene) -> Keys:
    return Keys(scene)


@pytest.fixture
def secret(keys: Keys) -> SecretId:
    return keys.generated()


def arrived(scene: Scene, secret: SecretId) -> TransferInfo:
    made = upload(scene, name="safe", secret=secret)
    http.put(made, 0, DATA)
    scene.client.transfer.checkpoint(transfer=made.id, arrived=MIB)
    return made


def test_an_upload_is_encrypted_from_its_first_byte(scene: Scene, keys: Keys, secret: SecretId) -> None:
    made = arrived(scene, secret)
    assert written(scene.root, DATA[:64]) == []
    assert scene.look(made.image).secret == secret
    finish(scene, made, checksum=http.checksum(DATA))
    image = scene.look(made.image)
    assert (image.secret, keys.seen(image)) == (secret, DATA)
    assert written(scene.root, DATA[:64]) == []
    healthy(scene)


def test_it_goes_on_after_a_pause_and_a_restart(scene: Scene, secret: SecretId, restart: Restart) -> None:
    made = upload(scene, size=2 * MIB, secret=secret)
    http.put(made, 0, DATA)
    scene.client.transfer.checkpoint(transfer=made.id, arrived=MIB)
    scene.client.transfer.pause(transfer=made.id)
    scene.client.transfer.resume(transfer=made.id)
    scene = restart(scene.domain)
    again = scene.client.transfer.resume(transfer=made.id)
    http.put(again, MIB, DATA)
    scene.client.transfer.checkpoint(transfer=made.id, arrived=2 * MIB)
    finish(scene, again, checksum=http.checksum(2 * DATA))
    assert Keys(scene).seen(scene.look(made.image)) == 2 * DATA


def test_a_download_gives_what_a_guest_sees(scene: Scene, keys: Keys, secret: SecretId) -> None:
    image = scene.image(MIB, secret=secret)
    keys.io(image, "write -q -P 0x11 0 512k")
    image = scene.snapshot(image)
    made = download(scene, image)
    assert http.get(made, 0, MIB) == keys.seen(image)
    finish(scene, made)


def gone(keys: Keys, secret: SecretId) -> None:
    keys.scene.client.secret.delete(secret=secret, force=True)


def wrong(keys: Keys, secret: SecretId) -> None:
    keys.wrong(secret)


Spoil = Callable[[Keys, SecretId], None]


@provokes("Transfer.start", "NoSuchSecret")
def test_an_upload_needs_the_secret(scene: Scene, keys: Keys, secret: SecretId) -> None:
    gone(keys, secret)
    raised(NoSuchSecret, lambda: upload(scene, secret=secret))
    assert scene.client.transfer.list().items == []
    assert scene.client.image.list().items == []


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        pytest.param(gone, NoSuchSecret, marks=provokes("Transfer.start", "NoSuchSecret")),
        pytest.param(wrong, SecretWrong, marks=provokes("Transfer.start", "SecretWrong")),
    ],
)
def test_a_download_needs_the_right_one(
    scene: Scene, keys: Keys, secret: SecretId, spoil: Spoil, error: type[ApiError]
) -> None:
    image: ImageInfo = scene.image(MIB, secret=secret)
    spoil(keys, secret)
    assert raised(error, lambda: download(scene, image)).secret == secret
    assert scene.client.transfer.list().items == []


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        pytest.param(gone, NoSuchSecret, marks=provokes("Transfer.resume", "NoSuchSecret")),
        pytest.param(wrong, SecretWrong, marks=provokes("Transfer.resume", "SecretWrong")),
    ],
)
def test_going_on_needs_it_too(scene: Scene, keys: Keys, secret: SecretId, spoil: Spoil, error: type[ApiError]) -> None:
    made, value = arrived(scene, secret), keys.value(secret)
    scene.client.transfer.pause(transfer=made.id)
    spoil(keys, secret)
    raised(error, lambda: scene.client.transfer.resume(transfer=made.id))
    assert look(scene, made).state is TransferState.PAUSED
    gone(keys, secret)
    scene.client.secret.define(id=secret, value=value)
    finish(scene, scene.client.transfer.resume(transfer=made.id), checksum=http.checksum(DATA))


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        pytest.param(gone, NoSuchSecret, marks=provokes("Transfer.finish", "NoSuchSecret")),
        pytest.param(wrong, SecretWrong, marks=provokes("Transfer.finish", "SecretWrong")),
    ],
)
def test_so_does_comparing_what_came(
    scene: Scene, keys: Keys, secret: SecretId, spoil: Spoil, error: type[ApiError]
) -> None:
    made, value = arrived(scene, secret), keys.value(secret)
    spoil(keys, secret)
    checked: dict[str, Any] = {"checksum": http.checksum(DATA)}
    raised(error, lambda: finish(scene, made, **checked))
    gone(keys, secret)
    scene.client.secret.define(id=secret, value=value)
    finish(scene, made, **checked)
    assert keys.seen(scene.look(made.image)) == DATA
