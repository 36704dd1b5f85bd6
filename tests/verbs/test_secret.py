# SPDX-License-Identifier: Apache-2.0
"""Secrets: kept, listed, forgotten, and never told."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from hsm.operations.base import lock_domain
from hsm.operations.encryption import lock_secret
from libvdsm.api import VERBS
from libvdsm.api.errors import (
    DomainDamaged,
    InvalidParameter,
    NoSuchSecret,
    SecretExists,
    SecretInUse,
    SecretsUnusable,
    StorageFailed,
    Unavailable,
)
from libvdsm.api.types import SecretId
from tests.verbs.conftest import Restart
from tests.verbs.keys import Keys, told, written
from tests.verbs.provoked import provokes
from tests.verbs.scene import MIB, Scene, raised

VALUE = "sesame, öffne dich"


@pytest.fixture
def keys(scene: Scene) -> Keys:
    return Keys(scene)


def test_a_secret_is_kept_and_told_without_its_value(scene: Scene, keys: Keys) -> None:
    api = scene.client.secret
    made = api.define(value=VALUE, name="shop", description="the shop's")
    assert scene.client.secret.get_info(secret=made.id) == made
    assert (made.name, made.description, made.generated) == ("shop", "the shop's", False)
    assert api.get_info(secret=made.id) == made
    assert [item.id for item in api.list().items] == [made.id]
    assert keys.value(made.id) == VALUE
    assert VALUE not in told(made) + told(api.list())


def test_nobody_else_can_read_it(scene: Scene, keys: Keys) -> None:
    file = keys.file(scene.client.secret.define(value=VALUE).id)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_a_generated_one_has_256_bits_and_is_no_other(scene: Scene, keys: Keys) -> None:
    first, second = (scene.client.secret.generate() for _ in range(2))
    assert first.generated
    assert len(keys.value(first.id)) == 43, "256 bits, six to a character"
    assert keys.value(first.id) != keys.value(second.id)


def test_secrets_are_listed_by_name_and_in_pages(scene: Scene) -> None:
    api = scene.client.secret
    for name in ("b", "c", "a"):
        api.generate(name=name)
    page = api.list(limit=2)
    assert [item.name for item in page.items] == ["a", "b"]
    assert [item.name for item in api.list(start=page.next).items] == ["c"]


@provokes("Secret.define", "SecretExists")
@provokes("Secret.generate", "SecretExists")
def test_the_same_again_answers_the_same_and_another_value_is_refused(scene: Scene) -> None:
    api, id_ = scene.client.secret, SecretId(uuid.uuid4())
    made = api.define(value=VALUE, id=id_, name="first")
    assert api.define(value=VALUE, id=id_, name="second") == made
    assert raised(SecretExists, lambda: api.define(value=VALUE + "!", id=id_)).secret == id_
    raised(SecretExists, lambda: api.generate(id=id_))
    generated = api.generate()
    assert api.generate(id=generated.id) == generated


@provokes("Secret.getInfo", "NoSuchSecret")
def test_what_is_forgotten_is_gone(scene: Scene, keys: Keys) -> None:
    api = scene.client.secret
    made = api.define(value=VALUE)
    api.delete(secret=made.id)
    assert raised(NoSuchSecret, lambda: api.get_info(secret=made.id)).secret == made.id
    assert written(keys.state, VALUE.encode()) == []
    api.delete(secret=made.id)


def test_secrets_outlive_the_service(scene: Scene, restart: Restart) -> None:
    made = scene.client.secret.define(value=VALUE)
    assert restart(scene.domain).client.secret.list().items == [made]


def test_what_a_crash_left_of_one_is_taken_away(scene: Scene, keys: Keys, restart: Restart) -> None:
    made = scene.client.secret.define(value=VALUE)
    left = keys.file(SecretId(uuid.uuid4())).with_suffix(".new")
    left.write_text("half")
    assert restart(scene.domain).client.secret.list().items == [made]
    assert not left.exists()


@pytest.mark.parametrize("value", ["", "x" * 1025, "two\nlines", "NUL\0"])
def test_values_that_are_none(scene: Scene, keys: Keys, value: str) -> None:
    error = raised(InvalidParameter, lambda: scene.client.secret.define(value=value))
    assert not value or value not in error.message


def test_a_value_is_measured_in_bytes(scene: Scene) -> None:
    error = raised(InvalidParameter, lambda: scene.client.secret.define(value="ö" * 513))
    assert "1026 bytes" in error.message
    scene.client.secret.define(value="ö" * 512)


@provokes("Secret.delete", "SecretInUse")
def test_a_secret_that_an_image_needs_stays(scene: Scene, keys: Keys) -> None:
    api, secret = scene.client.secret, keys.generated()
    image = scene.image(MIB, secret=secret)
    error = raised(SecretInUse, lambda: api.delete(secret=secret))
    assert (error.secret, error.image, error.domain) == (secret, image.id, scene.domain)
    assert api.get_info(secret=secret).id == secret
    scene.wait(scene.client.image.delete(domain=scene.domain, image=image.id))
    api.delete(secret=secret)
    assert api.list().items == []


def test_with_force_it_goes_all_the_same(scene: Scene, keys: Keys) -> None:
    secret = keys.generated()
    scene.image(MIB, secret=secret)
    scene.client.secret.delete(secret=secret, force=True)
    assert scene.client.secret.list().items == []


def test_a_secret_that_an_image_is_being_made_with_is_not_forgotten(scene: Scene, keys: Keys) -> None:
    secret = keys.generated()
    with scene.app.tasks.hold((lock_secret(secret, shared=True), lock_domain(scene.domain)), 1.0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(scene.app.context), "lease_wait", 0.05)
            raised(Unavailable, lambda: scene.client.secret.delete(secret=secret))


@provokes("Secret.delete", "StorageFailed")
def test_nothing_is_forgotten_while_a_domain_cannot_be_looked_at(scene: Scene, keys: Keys) -> None:
    secret = keys.generated()
    scene.images.rename(scene.images.with_name("away"))
    raised(StorageFailed, lambda: scene.client.secret.delete(secret=secret))
    scene.client.secret.delete(secret=secret, force=True)


@provokes("Secret.delete", "DomainDamaged")
def test_nor_while_one_is_damaged(scene: Scene, keys: Keys, restart: Restart) -> None:
    secret = keys.generated()
    metadata = scene.root / "dom_md" / "metadata"
    metadata.write_text("nothing of use")
    again = restart(scene.domain, service__default_domain="")
    raised(DomainDamaged, lambda: again.client.secret.delete(secret=secret))


@pytest.mark.parametrize(
    "verb",
    [
        pytest.param(verb.full, marks=provokes(verb.full, "SecretsUnusable"))
        for verb in VERBS.values()
        if verb.cls == "Secret"
    ],
)
def test_a_broken_place_says_so(scene: Scene, keys: Keys, verb: str) -> None:
    api = scene.client.secret
    broken = api.define(value=VALUE)
    keys.file(broken.id).write_text(f'{{"value": "{VALUE}"')
    folder = keys.file(broken.id).parent
    if verb == "Secret.delete":
        folder.rename(folder.with_name("away"))
        folder.write_text("no folder")
    calls: dict[str, Callable[[], object]] = {
        "Secret.define": lambda: api.define(value=VALUE, id=broken.id),
        "Secret.generate": lambda: api.generate(id=broken.id),
        "Secret.list": api.list,
        "Secret.getInfo": lambda: api.get_info(secret=broken.id),
        "Secret.delete": lambda: api.delete(secret=broken.id, force=True),
    }
    assert VALUE not in raised(SecretsUnusable, calls[verb]).message


def test_the_value_is_nowhere_but_in_its_file(scene: Scene, keys: Keys, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    api, value = scene.client.secret, "a value that is told nobody"
    made = api.define(value=value, name="shop")
    raised(SecretExists, lambda: api.define(value=value + "?", id=made.id))
    raised(InvalidParameter, lambda: api.define(value=value * 100))
    raised(InvalidParameter, lambda: api.define(value=value, name="\n"))
    scene.snapshot(scene.image(MIB, secret=made.id))
    keys.wrong(made.id)
    api.delete(secret=made.id, force=True)
    api.define(value=value, id=made.id)
    for record in scene.client.audit.list().items:
        assert value not in told(record)
        if record.verb == "Secret.define":
            assert record.params["value"] == "(secret)"
    assert value not in caplog.text
    assert value not in told(scene.client.event.poll(after=0, timeout=0))
    home = keys.state.parent
    assert written(home, value.encode(), but=keys.file(made.id)) == []
    assert json.loads(keys.file(made.id).read_text())["value"] == value


def test_the_objects_do_not_show_it(scene: Scene, keys: Keys) -> None:
    made = scene.client.secret.define(value=VALUE)
    found = scene.app.context.secrets.find(made.id)
    key = scene.app.context.secrets.key(made.id)
    assert VALUE not in f"{found!r} {key!r} {found} {key}"
    assert key is not None
    assert key.value == VALUE.encode()


def test_the_folder_is_made_when_it_is_needed(keys: Keys) -> None:
    assert not Path(keys.state, "secrets").exists()
