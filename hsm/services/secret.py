# SPDX-License-Identifier: Apache-2.0
"""Secret: the keys of encrypted images, kept on this host and never told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hsm import secrets
from hsm.operations.base import storage_errors
from hsm.operations.encryption import lock_secret, user_of
from hsm.paging import page
from hsm.secrets import SecretsFailed
from hsm.services.base import Service
from libvdsm.api.errors import InvalidParameter, NoSuchSecret, SecretExists, SecretInUse, SecretsUnusable
from libvdsm.api.secret import VALUE_LIMIT, Secret, SecretInfo, SecretPage
from libvdsm.api.types import Nothing, SecretId


class SecretService(Service, Secret):
    def define(
        self,
        *,
        value: str,
        name: str | None = None,
        description: str | None = None,
        id: SecretId | None = None,
    ) -> SecretInfo:
        if len(value.encode()) > VALUE_LIMIT:
            reason = f"value: it has {len(value.encode())} bytes as UTF-8, and {VALUE_LIMIT} are the limit"
            raise InvalidParameter(verb="Secret.define", reason=reason)
        return self._define(id, value, name, description)

    def generate(
        self, *, name: str | None = None, description: str | None = None, id: SecretId | None = None
    ) -> SecretInfo:
        return self._define(id, None, name, description)

    def _define(self, id_: SecretId | None, value: str | None, name: str | None, description: str | None) -> SecretInfo:
        secret = id_ or SecretId(self.new_id("secret"))
        with _failures():
            found, same = self.context.secrets.define(secret, value, name=name, description=description)
        if not same:
            reason = "it was not generated" if value is None else "its value is another one"
            raise SecretExists(secret=secret, reason=reason)
        return _told(found)

    def list(self, *, limit: int = 10_000, start: str | None = None) -> SecretPage:
        with _failures():
            infos = sorted((_told(secret) for secret in self.context.secrets.all()), key=_key)
        items, following = page(infos, _key, limit, start)
        return SecretPage(items=items, next=following)

    def get_info(self, *, secret: SecretId) -> SecretInfo:
        with _failures():
            found = self.context.secrets.find(secret)
        if found is None:
            raise NoSuchSecret(secret=secret)
        return _told(found)

    def delete(self, *, secret: SecretId, force: bool = False) -> Nothing:
        # Whoever is making an image with it has a lock too; so either is seen by the other.
        with self.parts.tasks.hold((lock_secret(secret),), self.context.lease_wait), _failures():
            if not force:
                self._unused(secret)
            self.context.secrets.delete(secret)
        return Nothing()

    def _unused(self, secret: SecretId) -> None:
        """No image that could be looked at needs it, and all could be."""
        if self.context.secrets.find(secret) is None:
            return
        for item in self.context.registry.all():
            domain = self.context.registry.get(item.id)
            with storage_errors(self.context, item.id):
                image = user_of(domain, secret)
            if image is not None:
                raise SecretInUse(secret=secret, image=image, domain=item.id)


def _key(info: SecretInfo) -> str:
    return f"{info.name or ''} {info.id}"


def _told(secret: secrets.Secret) -> SecretInfo:
    return SecretInfo(
        id=SecretId(secret.id),
        name=secret.name,
        description=secret.description,
        created=secret.created,
        generated=secret.generated,
    )


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except SecretsFailed as error:
        raise SecretsUnusable(reason=str(error)) from None
