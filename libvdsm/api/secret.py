# SPDX-License-Identifier: Apache-2.0
"""Secret: the keys of encrypted images, kept on this host and never told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated

from msgspec import Meta

from libvdsm.api.errors import (
    DomainDamaged,
    NoSuchSecret,
    SecretExists,
    SecretInUse,
    SecretsUnusable,
    StorageFailed,
)
from libvdsm.api.types import Cursor, Limit, Line, Name, Nothing, SecretId, Time
from libvdsm.declare import Info, Right, verb

VALUE_LIMIT = 1024
"""Bytes that a value has at most, as UTF-8."""


class SecretInfo(Info, frozen=True, kw_only=True):
    """What may be told of a secret: all but its value."""

    id: Annotated[SecretId, Meta(description="the secret; images that are encrypted with it name it so")]
    created: Annotated[Time, Meta(description="when it was defined on this host")]
    generated: Annotated[bool, Meta(description="whether the service made its value, of 256 random bits")]
    name: Annotated[Name, Meta(description="what people call it")] | None = None
    description: Annotated[Line, Meta(description="the user's text")] | None = None


class SecretPage(Info, frozen=True, kw_only=True):
    """Secrets of this host, by name."""

    items: Annotated[list[SecretInfo], Meta(description="the secrets")]
    next: (
        Annotated[Cursor, Meta(description="give it as `start` to read on; absent: this was the last page")] | None
    ) = None


_Secret = Annotated[SecretId, Meta(description="the secret")]
_NewSecret = Annotated[
    SecretId, Meta(description="id for it, the same on every host that has it; absent: one is chosen")
]
_Name = Annotated[Name, Meta(description="what people call it; need not be unique")]
_Description = Annotated[Line, Meta(description="any text")]
_Value = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=VALUE_LIMIT,
        pattern="^[^\\x00-\\x1f\\x7f\\ud800-\\udfff\\ufffe\\uffff]*\\Z",
        description="what opens the volumes, as it is given to QEMU: one line of text, at most 1024 bytes as UTF-8",
        extra={"secret": True},
    ),
]


class Secret(ABC):
    """The keys of encrypted images on this host.

    An image that is encrypted names its secret by id.  Whoever reads or writes its data needs the secret to be defined
    on the host where that is done.  No verb answers a secret's value.
    """

    @verb(since="1.1", right=Right.OPERATE, errors=(SecretExists, SecretsUnusable), positional=("name",))
    @abstractmethod
    def define(
        self,
        *,
        value: _Value,
        name: _Name | None = None,
        description: _Description | None = None,
        id: _NewSecret | None = None,
    ) -> SecretInfo:
        """Keep a secret on this host.

        With an `id` that is there and the same value, it is answered as it is there; with another value the call is
        refused, since images may be encrypted with the one that is there.
        """

    @verb(since="1.1", right=Right.OPERATE, errors=(SecretExists, SecretsUnusable), positional=("name",))
    @abstractmethod
    def generate(
        self,
        *,
        name: _Name | None = None,
        description: _Description | None = None,
        id: _NewSecret | None = None,
    ) -> SecretInfo:
        """Make a secret of 256 random bits and keep it on this host.

        It is on this host alone, and no verb answers it: keep a copy of its file, as the guide says, or lose with this
        host what is encrypted with it.  With an `id` of a generated one, that is answered.
        """

    @verb(since="1.1", right=Right.READ, errors=(SecretsUnusable,))
    @abstractmethod
    def list(self, *, limit: Limit = 10_000, start: Cursor | None = None) -> SecretPage:
        """List the secrets of this host, by name, without their values."""

    @verb(since="1.1", right=Right.READ, errors=(NoSuchSecret, SecretsUnusable), positional=("secret",))
    @abstractmethod
    def get_info(self, *, secret: _Secret) -> SecretInfo:
        """Tell about one secret, without its value."""

    @verb(
        since="1.1",
        right=Right.OPERATE,
        errors=(SecretInUse, SecretsUnusable, StorageFailed, DomainDamaged),
        positional=("secret",),
    )
    @abstractmethod
    def delete(
        self,
        *,
        secret: _Secret,
        force: Annotated[bool, Meta(description="also if images are encrypted with it")] = False,
    ) -> Nothing:
        """Forget a secret on this host.  What is gone counts as deleted.

        Refused while an image of an attached domain is encrypted with it, or a domain cannot be looked at.
        """
