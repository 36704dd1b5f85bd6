# SPDX-License-Identifier: Apache-2.0
"""What is written down of parameters: nothing secret, nothing that cannot travel, nothing long, whatever was sent."""

from __future__ import annotations

import json
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm.audit.params import NOT_VALID, SECRET, About, Form, Given, text
from libvdsm.api import VERBS
from libvdsm.declare import Verb
from libvdsm.wire.messages import Call
from libvdsm.wire.xmlrpc import decode_call, encode_call
from tests.audit.made_up import DOMAIN, LOCK, raw


def shown(verb: Verb, given: Given) -> dict[str, Any]:
    return Form(verb).shown(given)


def about(verb: Verb, params: dict[str, Any]) -> About:
    return Form(verb).about(params)


HIDDEN = "correcthorsebattery"


def test_what_is_given_is_shown_as_it_travels() -> None:
    given = {"domain": str(DOMAIN), "label": "größer", "lines": ["a", "b"]}
    assert shown(LOCK, raw(**given)) == given
    assert shown(LOCK, given) == given, "and from wires that give plain values"


def test_secrets_are_replaced_also_within_others() -> None:
    keys = [{"kind": "luks", "passphrase": HIDDEN}]
    told = shown(LOCK, raw(domain=str(DOMAIN), passphrase=HIDDEN, keys=keys))
    assert told == {"domain": str(DOMAIN), "passphrase": SECRET, "keys": SECRET}


@pytest.mark.parametrize(
    "given",
    [
        {"passphrase": HIDDEN.upper()},
        {"passphrase": [HIDDEN]},
        {"passphrase": HIDDEN * 100},
        {"keys": HIDDEN},
        {"passfrase": HIDDEN},
        {"label": {"passphrase": HIDDEN}},
        {"lines": HIDDEN},
        {HIDDEN: 1},
    ],
)
def test_a_secret_in_a_call_that_is_refused_is_not_told_either(given: dict[str, Any]) -> None:
    """Also where it does not fit, or has come into a wrong place."""
    told = json.dumps(shown(LOCK, raw(domain=str(DOMAIN), **given)))
    assert HIDDEN not in told.lower()
    assert str(DOMAIN) in told


def test_what_does_not_fit_and_what_is_unknown_is_not_repeated() -> None:
    told = shown(LOCK, raw(domain="nonsense", label=5, nonsense="x", id=None))
    assert told == {"domain": NOT_VALID, "label": NOT_VALID}


def test_open_files_are_left_out() -> None:
    assert shown(LOCK, raw(domain=str(DOMAIN), source=0)) == {"domain": str(DOMAIN)}


@pytest.mark.parametrize("given", [b"", b"[1]", b"null", b'"x"', b"{", b"\xff", b"[" * 5000, b'{"a": 1' + b"0" * 5000])
def test_what_are_no_parameters_at_all_shows_nothing(given: bytes) -> None:
    assert shown(LOCK, msgspec.Raw(given)) == {}


def test_long_texts_and_lists_are_cut_and_say_so() -> None:
    told = shown(LOCK, raw(label="x" * 5000, lines=["y"] * 500))
    assert told["label"] == "x" * 1024 + "… (5000 characters)"
    assert told["lines"] == ["y"] * 100 + ["… (500 items)"]
    assert text("/" + "p" * 1023) == "/" + "p" * 1023, "the longest path stays whole"


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_can_travel_afterwards(given: str) -> None:
    """Also one with halves of characters, which no encoding has."""
    told = text(given)
    assert json.loads(msgspec.json.encode(told)) == told
    travelled = decode_call(encode_call(Call("Box.lock", {"label": told})))
    assert travelled.params == {"label": told}


@given(
    st.dictionaries(st.sampled_from(["domain", "id", "label", "lines", "keys", "passphrase"]), st.text() | st.none())
)
def test_nothing_that_is_sent_makes_it_fail(given: dict[str, Any]) -> None:
    json.dumps(shown(LOCK, given))


def test_what_a_call_is_about_stands_in_its_parameters() -> None:
    volume = uuid.uuid4()
    found = about(LOCK, shown(LOCK, raw(domain=str(DOMAIN), id=str(volume))))
    assert (found.domain, found.image, found.volume) == (DOMAIN, None, volume)
    found = about(LOCK, shown(LOCK, raw(domain="nonsense")))
    assert (found.domain, found.image, found.volume) == (None, None, None)


def test_of_a_new_image_its_own_id_is_taken_and_not_its_template_s() -> None:
    verb = VERBS["Image.clone"]
    template, image, volume = (str(uuid.uuid4()) for _ in range(3))
    found = about(verb, shown(verb, raw(domain=str(DOMAIN), template=template, id=image, volume=volume)))
    assert (str(found.domain), str(found.image), str(found.volume)) == (str(DOMAIN), image, volume)
    assert about(verb, shown(verb, raw(domain=str(DOMAIN), template=template))).image is None
