# SPDX-License-Identifier: Apache-2.0
"""Names and beginnings of ids mean one thing, or the error says what they could mean."""

from __future__ import annotations

import uuid
from typing import Any, cast

import pytest

from hsmctl.failure import Refusal
from hsmctl.names import Candidate, Names, choose, read_all, short
from libvdsm.api import Api
from libvdsm.api.domain import DomainInfo, DomainPage, DomainState
from libvdsm.api.types import DomainId

A = uuid.UUID("aaaa1111-0000-4000-8000-000000000001")
B = uuid.UUID("aaaa2222-0000-4000-8000-000000000002")
C = uuid.UUID("cccc3333-0000-4000-8000-000000000003")
KNOWN = [
    Candidate(A, "web01"),
    Candidate(B, "web02", "template"),
    Candidate(C, "web02"),
    Candidate(uuid.uuid4(), None),
]


def chosen(text: str) -> uuid.UUID:
    return choose(text, KNOWN, what="image", where=" on domain fast", see="hsmctl image list").id


def test_a_name_means_what_has_it() -> None:
    assert chosen("web01") == A


@pytest.mark.parametrize("text", ["aaaa1", "AAAA1111", "aaaa1111-0000-4", "cccc"])
def test_the_beginning_of_an_id_means_what_has_it(text: str) -> None:
    assert chosen(text) in (A, C)


def test_a_name_goes_before_the_beginning_of_an_id() -> None:
    known = [Candidate(A, "first"), Candidate(B, "aaaa1")]
    assert choose("aaaa1", known, what="image", where="", see="").id == B


def test_three_characters_are_too_few_for_the_beginning_of_an_id() -> None:
    with pytest.raises(Refusal, match="there is no image 'ccc' on domain fast; give at least 4 characters of an id"):
        chosen("ccc")
    with pytest.raises(Refusal, match="`hsmctl image list` shows what there is"):
        chosen("fff")


@pytest.mark.parametrize("text", ["web02", "aaaa"])
def test_what_could_mean_several_things_is_refused_with_a_list_of_them(text: str) -> None:
    with pytest.raises(Refusal) as caught:
        chosen(text)
    assert caught.value.name == "Ambiguous"
    message = str(caught.value)
    assert f"{text!r} means 2 images on domain fast; give more of the id:" in message
    assert f"  {B}  web02  template" in message


def test_what_means_nothing_is_refused_with_a_suggestion() -> None:
    with pytest.raises(Refusal, match=r"there is no image 'web1' on domain fast; did you mean web0[12] or web0[12]\?"):
        chosen("web1")
    with pytest.raises(Refusal, match="`hsmctl image list` shows what there is"):
        chosen("something-else")


class Deaf:
    """A service that must not be asked."""

    def __getattr__(self, name: str) -> Any:
        pytest.fail(f"the service was asked: {name}")


def test_whole_ids_are_taken_without_asking_the_service() -> None:
    names = Names(cast("Api", Deaf()))
    text = str(A)
    domain = names.domain(text)
    assert domain == A
    assert names.image(text, domain) == A
    assert names.volume(text, domain, None) == A
    assert names.task(text) == A


class Domains:
    """A service with some domains, listed one a page."""

    def __init__(self, *names: str) -> None:
        self.domain = self
        self.calls = 0
        self._items = [
            DomainInfo(id=DomainId(uuid.UUID(int=i)), type="local", state=DomainState.OK, path="/x", name=name)
            for i, name in enumerate(names)
        ]

    def list(self, start: str | None = None) -> DomainPage:
        self.calls += 1
        first = int(start or 0)
        following = str(first + 1) if first + 1 < len(self._items) else None
        return DomainPage(items=self._items[first : first + 1], next=following)


def names_of(*domains: str) -> Names:
    return Names(cast("Api", Domains(*domains)))


def test_the_only_domain_needs_no_name() -> None:
    names = names_of("fast")
    assert names.domain(None) == uuid.UUID(int=0)
    assert names.known == {uuid.UUID(int=0): "fast"}


def test_one_of_several_domains_has_to_be_named() -> None:
    with pytest.raises(Refusal, match=r"there are 2 domains; say which with --domain or \$HSM_DOMAIN") as caught:
        names_of("fast", "slow").domain(None)
    assert caught.value.status == 2
    assert "slow" in str(caught.value)


def test_without_any_domain_the_error_says_how_to_make_one() -> None:
    with pytest.raises(Refusal, match="hsmctl domain create"):
        names_of().domain(None)


def test_the_environment_names_the_domain_and_an_option_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSM_DOMAIN", "slow")
    assert names_of("fast", "slow").domain(None) == uuid.UUID(int=1)
    assert names_of("fast", "slow").domain("fast") == uuid.UUID(int=0)


def test_all_pages_are_read_and_only_once() -> None:
    service = Domains("a", "b", "c")
    names = Names(cast("Api", service))
    assert list(names.domain_names().values()) == ["a", "b", "c"]
    assert names.domain("c") == uuid.UUID(int=2)
    assert service.calls == 3
    page = read_all(service.list)
    assert [item.name for item in page.items] == ["a", "b", "c"]
    assert page.next is None


def test_short_ids_tell_all_of_them_apart() -> None:
    near = [
        uuid.UUID("12345678-aaaa-4000-8000-000000000001"),
        uuid.UUID("12345678-aabb-4000-8000-000000000001"),
    ]
    assert list(short([A, B]).values()) == ["aaaa1111", "aaaa2222"]
    assert list(short(near).values()) == ["12345678-aaa", "12345678-aab"]


def test_messages_carry_the_names_of_what_was_looked_up() -> None:
    names = names_of("fast")
    names.known[A] = "web01"
    assert names.explain(f"Image {A} is in use.") == f"Image web01 ({A}) is in use."
