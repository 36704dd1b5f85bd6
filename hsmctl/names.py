# SPDX-License-Identifier: Apache-2.0
"""Names and beginnings of ids, and what they mean to a service.

What the service lists is asked for once per command.  A whole id is taken as it is, without asking.
"""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec

from hsmctl.codes import USAGE
from hsmctl.failure import Refusal
from hsmctl.values import parse_id
from libvdsm.api import Api
from libvdsm.api.audit import AuditRecord
from libvdsm.api.domain import DomainInfo
from libvdsm.api.types import (
    DomainId,
    ImageId,
    ImageInfo,
    PreparedInfo,
    SecretId,
    TaskId,
    TaskInfo,
    TransferId,
    VolumeId,
    VolumeInfo,
    VolumeRole,
)
from libvdsm.declare import ApiError

ENVIRONMENT = "HSM_DOMAIN"
_NAMING = ("Image.create", "Image.clone", "Image.import", "Image.makeTemplate", "Image.copy", "Volume.copy")
"""The verbs whose ``name`` is that of the image that they make."""
_SHORTEST = 4
"""Characters of an id that are taken for its beginning: with fewer, a mistyped name would hit too easily."""
_SHOWN = 8


def named_by(record: AuditRecord) -> str | None:
    """What a call of the past named the image that its record is about, if it made that."""
    name = record.params.get("name")
    # What was refused early is recorded with the image that was to be copied.
    if record.verb not in _NAMING or not name or record.params.get("image") == str(record.image):
        return None
    return str(name)


def read_all(page_at: Callable[[str | None], Any]) -> Any:
    """All pages of an answer as one, given what asks for the page at a cursor."""
    first = page = page_at(None)
    if page.next is None:
        return first
    items = list(first.items)
    while page.next is not None:
        page = page_at(page.next)
        items += page.items
    return msgspec.structs.replace(first, items=items, next=None)


@dataclass(frozen=True)
class Candidate:
    """One thing that a text can mean; ``about`` tells people which it is."""

    id: UUID
    name: str | None
    about: str = ""


def begins(id_: UUID, text: str) -> bool:
    """Whether a text is the beginning of an id, and long enough for that."""
    plain = text.lower().replace("-", "")
    return len(plain) >= _SHORTEST and id_.hex.startswith(plain)


def choose(text: str, candidates: Sequence[Candidate], *, what: str, where: str, see: str) -> Candidate:
    """The one candidate with this name, or else with an id that begins so; otherwise an error that helps."""
    found = [candidate for candidate in candidates if candidate.name == text]
    if not found:
        found = [candidate for candidate in candidates if begins(candidate.id, text)]
    if len(found) == 1:
        return found[0]
    if found:
        lines = "\n".join(f"  {c.id}  {c.name or '-'}{'  ' + c.about if c.about else ''}" for c in found[:20])
        more = f"\n  and {len(found) - 20} more" if len(found) > 20 else ""
        msg = f"{text!r} means {len(found)} {what}s{where}; give more of the id:\n{lines}{more}"
        raise Refusal("Ambiguous", msg)
    close = difflib.get_close_matches(text, {c.name for c in candidates if c.name}, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(close)}?" if close else f"`{see}` shows what there is."
    plain = text.lower().replace("-", "")
    if 0 < len(plain) < _SHORTEST and any(candidate.id.hex.startswith(plain) for candidate in candidates):
        hint = f"give at least {_SHORTEST} characters of an id."
    msg = f"there is no {what} {text!r}{where}; {hint}"
    raise Refusal("NoMatch", msg)


class Names:
    """What names mean, for one command."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.known: dict[UUID, str] = {}
        """Names of what was looked up, for messages."""
        self._listed: dict[DomainId, list[ImageInfo]] = {}

    def domain(self, text: str | None, image: str | None = None) -> DomainId:
        """The domain that is named; without a name the environment's, then the only one, or the only one with this image."""
        text = text or os.environ.get(ENVIRONMENT)
        if text:
            whole = parse_id(text)
            see = "hsmctl domain list"
            return DomainId(whole or self._chosen(text, self.domain_candidates(), "domain", "", see))
        domains = self._domains
        if not domains:
            msg = "no domain is served yet; make one with `hsmctl domain create NAME PATH`, or attach one"
            raise Refusal("NoDomain", msg)
        places = self._with_image(image) if image and len(domains) > 1 else []
        domains = places or domains
        if len(domains) == 1:
            self.known[domains[0].id] = domains[0].name or ""
            return domains[0].id
        lines = "\n".join(f"  {domain.id}  {domain.name or '-'}" for domain in domains)
        what = f"{len(domains)} domains have an image {image!r}" if places else f"there are {len(domains)} domains"
        msg = f"{what}; say which with --domain or ${ENVIRONMENT}:\n{lines}"
        raise Refusal("DomainNeeded", msg, status=USAGE)

    def _with_image(self, text: str) -> list[DomainInfo]:
        """The domains on which a text means an image: as a name, or where there is none, as an id."""
        whole, named, begun = parse_id(text), [], []
        for domain in self._domains:
            try:
                candidates = self.image_candidates(domain.id)
            except ApiError:
                # It cannot be asked now; who means it says so.
                continue
            if any(candidate.name == text for candidate in candidates):
                named.append(domain)
            elif any(candidate.id == whole if whole else begins(candidate.id, text) for candidate in candidates):
                begun.append(domain)
        return named or begun

    def image(self, text: str, domain: DomainId) -> ImageId:
        if whole := parse_id(text):
            return ImageId(whole)
        candidates = self.image_candidates(domain)
        return ImageId(self._chosen(text, candidates, "image", self._on(domain), "hsmctl image list"))

    def volume(self, text: str, domain: DomainId, image: ImageId | None) -> VolumeId:
        if whole := parse_id(text):
            return VolumeId(whole)
        where = self._on(domain) if image is None else f" in image {self.known.get(image) or image}"
        candidates = self.volume_candidates(domain, image)
        return VolumeId(self._chosen(text, candidates, "volume or snapshot", where, "hsmctl volume list"))

    def task(self, text: str) -> TaskId:
        if whole := parse_id(text):
            return TaskId(whole)
        return TaskId(self._chosen(text, self.task_candidates(), "task", "", "hsmctl task list"))

    def transfer(self, text: str) -> TransferId:
        if whole := parse_id(text):
            return TransferId(whole)
        return TransferId(self._chosen(text, self.transfer_candidates(), "transfer", "", "hsmctl transfer list"))

    def secret(self, text: str) -> SecretId:
        if whole := parse_id(text):
            return SecretId(whole)
        return SecretId(self._chosen(text, self.secret_candidates(), "secret", "", "hsmctl secret list"))

    def refuse_taken(self, cls: str, name: str, given_id: UUID | None, domain: DomainId | None) -> None:
        """Refuse a name that another has; the same id again is a repetition, and welcome."""
        candidates = self.domain_candidates() if domain is None else self.image_candidates(domain)
        for candidate in candidates:
            if candidate.name == name and candidate.id != given_id:
                what = cls.lower()
                where = "" if domain is None else self._on(domain)
                # Names are put beside ids later on, and this one has been said.
                which = "" if candidate.id in self.known else f" ({candidate.id})"
                msg = (
                    f"there is {'an' if what[0] in 'aeiou' else 'a'} {what} named {name!r} already{where}{which}; "
                    "take another name, or add --allow-same-name"
                )
                raise Refusal("NameTaken", msg)

    def explain(self, text: str) -> str:
        """A message with the names beside the ids of what was looked up."""
        for id_, name in self.known.items():
            if name:
                text = text.replace(str(id_), f"{name} ({id_})", 1)
        return text

    def domain_candidates(self) -> list[Candidate]:
        return [Candidate(domain.id, domain.name, domain.state.value) for domain in self._domains]

    def image_candidates(self, domain: DomainId) -> list[Candidate]:
        return [Candidate(i.id, i.name, "template" if i.is_template else "") for i in self._images(domain)]

    def domain_names(self) -> dict[UUID, str]:
        """Of all domains, for tables; an id where a domain has no name."""
        return {domain.id: domain.name or str(domain.id) for domain in self._domains}

    def image_names(self, domain: DomainId) -> dict[UUID, str]:
        """Of the images on a domain, for tables; none, where it cannot be asked."""
        try:
            return {image.id: image.name for image in self._images(domain) if image.name}
        except ApiError:
            return {}

    def encryption(self, of: ImageInfo | PreparedInfo) -> str | None:
        """How an image is encrypted, with the name of its secret where this host has it."""
        if of.encryption is None or of.secret is None:
            return None
        name = next((known.name for known in self.secret_candidates() if known.id == of.secret), None)
        return f"{of.encryption.value}, secret {name or 'that is not here'} ({of.secret})"

    def former_image_name(self, image: ImageId) -> str | None:
        """Of an image that is gone: what the call that made it said."""
        for verb in _NAMING:
            made = self._api.audit.list(image=image, verb=verb, limit=1).items
            if made and (name := named_by(made[0])):
                return name
        return None

    def task_candidates(self) -> list[Candidate]:
        return [Candidate(task.id, None, f"{task.verb}, {task.state.value}") for task in self._tasks]

    def transfer_candidates(self) -> list[Candidate]:
        page = read_all(lambda start: self._api.transfer.list(start=start))
        return [Candidate(item.id, None, f"{item.direction.value}, {item.state.value}") for item in page.items]

    def secret_candidates(self) -> list[Candidate]:
        page = read_all(lambda start: self._api.secret.list(start=start))
        return [Candidate(item.id, item.name, "generated" if item.generated else "") for item in page.items]

    def volume_candidates(self, domain: DomainId, image: ImageId | None) -> list[Candidate]:
        volumes = self._volumes(domain, image)
        images = {v.image: v.name for v in volumes if v.role is not VolumeRole.INTERNAL}
        return [Candidate(v.id, v.name, f"{v.role.value} of image {images.get(v.image) or v.image}") for v in volumes]

    def _chosen(self, text: str, candidates: Sequence[Candidate], what: str, where: str, see: str) -> UUID:
        chosen = choose(text, candidates, what=what, where=where, see=see)
        self.known[chosen.id] = chosen.name or ""
        return chosen.id

    def _on(self, domain: UUID) -> str:
        return f" on domain {self.known.get(domain) or domain}"

    @functools.cached_property
    def _domains(self) -> list[DomainInfo]:
        return list(read_all(lambda start: self._api.domain.list(start=start)).items)

    @functools.cached_property
    def _tasks(self) -> list[TaskInfo[Any]]:
        return list(read_all(lambda start: self._api.task.list(start=start)).items)

    def _images(self, domain: DomainId) -> list[ImageInfo]:
        if domain not in self._listed:
            page = read_all(lambda start: self._api.image.list(domain=domain, start=start))
            self._listed[domain] = list(page.items)
        return self._listed[domain]

    def _volumes(self, domain: DomainId, image: ImageId | None) -> list[VolumeInfo]:
        return list(read_all(lambda start: self._api.volume.list(domain=domain, image=image, start=start)).items)


def short(ids: Iterable[UUID]) -> dict[UUID, str]:
    """Beginnings of ids, all of one length, that tell them apart; at least eight characters."""
    known = dict.fromkeys(ids)
    for length in range(_SHOWN, 36):
        if length in (9, 14, 19, 24):  # would end in a dash
            continue
        if len({str(id_)[:length] for id_ in known}) == len(known):
            return {id_: str(id_)[:length] for id_ in known}
    return {id_: str(id_) for id_ in known}
