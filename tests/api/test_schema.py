# SPDX-License-Identifier: Apache-2.0
"""Rules that every declaration of the API keeps, and the schema document that is made from them."""

from __future__ import annotations

import ast
import inspect
import json
import re
import string
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from libvdsm.api import CLASSES, ERRORS, EVENTS, VERBS, VERSION, Api
from libvdsm.api.errors import COMMON, ConnectionFailed
from libvdsm.api.event import EventData
from libvdsm.api.types import OpenEnum
from libvdsm.declare import ApiError, Info, Right, Spec, Verb, error_fields
from libvdsm.generate import evolution, schema
from libvdsm.generate.__main__ import ROOT, main, stale
from libvdsm.generate.schema import Schema, fields_of, named_types, verbs_of

DOCUMENT = schema.document()
NAMED = named_types()
STRUCTURES = {
    name: kind for name, kind in NAMED.items() if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
} | EVENTS
ENUMERATIONS = {name: kind for name, kind in DOCUMENT["types"].items() if "enum" in kind}

each_verb = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
each_structure = pytest.mark.parametrize("kind", STRUCTURES.values(), ids=STRUCTURES)
each_error = pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)


def members() -> Iterator[tuple[str, Schema]]:
    """Every parameter, field, attribute and member, with the place where it stands."""
    for name, verb in verbs_of(DOCUMENT).items():
        yield from ((f"{name}({member['name']})", member["schema"]) for member in verb["params"])
    for name, kind in DOCUMENT["types"].items():
        yield from ((f"{name}.{member['name']}", member["schema"]) for member in fields_of(kind))
    for error in DOCUMENT["errors"]:
        yield from ((f"{error['name']}.{member['name']}", member["schema"]) for member in error["attributes"])
    for event in DOCUMENT["events"]:
        yield from ((f"{event['name']}.{member['name']}", member["schema"]) for member in event["members"])


def sent() -> Iterator[tuple[str, Schema]]:
    """Every value that a client sends."""
    return ((place, about) for place, about in members() if "(" in place)


def name_in(place: str) -> str:
    """``capacity`` of ``Image.create(capacity)`` and of ``ImageInfo.capacity``."""
    return re.split(r"[.(]", place)[-1].rstrip(")")


def values(about: Schema) -> Iterator[Schema]:
    """A value and what it is made of."""
    yield about
    for inner in ("items", "additionalProperties"):
        if isinstance(about.get(inner), dict):
            yield from values(about[inner])


# The document


def test_the_committed_document_is_fresh() -> None:
    assert stale(schema.files(), ROOT) == [], "run python -m libvdsm.generate schema"


def test_nothing_breaks_what_was_released() -> None:
    released = evolution.latest_released(ROOT, VERSION)
    assert released is not None, "run python -m libvdsm.generate released"
    assert evolution.compare(released, DOCUMENT) == []


def test_the_document_is_the_same_every_time() -> None:
    text = schema.render(DOCUMENT)
    assert schema.render(schema.document()) == text
    assert schema.render(json.loads(text)) == text


def test_every_reference_is_to_a_type_that_is_there() -> None:
    references = re.findall(r'"\$ref": "([^"]*)"', schema.render(DOCUMENT))
    assert {reference.removeprefix("#/types/") for reference in references} <= set(DOCUMENT["types"])


def test_one_generic_structure_is_one_type() -> None:
    assert all(name.isalnum() for name in DOCUMENT["types"])
    create = verbs_of(DOCUMENT)["Image.create"]
    assert create["result"] == {"$ref": "#/types/TaskInfo"}
    assert create["taskResult"] == {"$ref": "#/types/ImageInfo"}
    assert create["makesTask"]


def test_there_is_no_null() -> None:
    assert "null" not in re.findall(r'"type": "(\w+)"', schema.render(DOCUMENT))


def test_patterns_are_not_only_for_python() -> None:
    assert not [place for place, about in members() if re.search(r"\\[AZ]|\(\?", about.get("pattern", ""))]


def test_order_names_every_field_of_a_structure() -> None:
    for kind in DOCUMENT["types"].values():
        assert sorted(kind.get("order", [])) == sorted(kind.get("properties", {}))


def test_checking_writes_nothing_and_fails_where_a_file_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libvdsm.generate.__main__.ROOT", tmp_path)
    assert main(["schema", "--check"]) == 1
    assert not list(tmp_path.iterdir())
    assert main(["schema"]) == 0
    assert main(["schema", "--check"]) == 0
    assert main(["released"]) == 0
    assert (tmp_path / evolution.RELEASED / f"libvdsm-{VERSION}.json").read_text() == schema.render(DOCUMENT)


# Everything is documented


def test_every_class_is_listed_once_and_documented() -> None:
    assert set(CLASSES.values()) == set(inspect.get_annotations(Api, eval_str=True).values())
    assert not [group["name"] for group in DOCUMENT["classes"] if not group["doc"]]


def test_every_verb_is_documented_in_a_sentence_first() -> None:
    assert not [name for name, verb in VERBS.items() if not re.match(r"[A-Z][^\n]*[.;:](\s|$)", verb.doc)]


def test_every_member_is_described() -> None:
    assert not [place for place, about in members() if not about.get("description")]


def test_every_type_is_described() -> None:
    assert not [name for name, kind in DOCUMENT["types"].items() if not kind["description"]]


def test_every_value_of_every_enumeration_is_described() -> None:
    assert not [
        f"{name}.{value}"
        for name, kind in ENUMERATIONS.items()
        for value, words in zip(kind["enum"], kind["enumDescriptions"], strict=True)
        if not words
    ]


def test_every_right_error_and_event_is_described() -> None:
    records = [*DOCUMENT["rights"], *DOCUMENT["errors"], *DOCUMENT["events"]]
    assert not [record["name"] for record in records if not record["doc"]]


# Verbs


@each_verb
def test_a_verb_says_since_when_and_which_right_it_needs(verb: Verb) -> None:
    major, minor = map(int, verb.declaration.since.split("."))
    assert (major, minor) <= tuple(map(int, VERSION.split(".")))
    assert verb.declaration.right in Right


@each_verb
def test_parameters_can_be_decoded_and_results_encoded(verb: Verb) -> None:
    msgspec.json.Decoder(verb.params)
    msgspec.json.Decoder(verb.result)


@each_verb
def test_wire_names_are_those_of_the_parameters_structure(verb: Verb) -> None:
    assert [p.wire for p in verb.parameters] == [
        field.encode_name for field in msgspec.structs.fields(verb.params)
    ]


@each_verb
def test_what_is_positional_is_a_parameter_and_optional_ones_come_last(verb: Verb) -> None:
    required = {parameter.name: parameter.required for parameter in verb.parameters}
    positional = [required[name] for name in verb.declaration.positional]
    if not verb.descriptors:  # a command line always needs the file, though a call may have its path instead
        assert positional == sorted(positional, reverse=True)


@each_verb
def test_a_verb_answers_a_structure_and_never_a_bare_list(verb: Verb) -> None:
    about = schema.schema_of(verb.result)
    assert DOCUMENT["types"][about["$ref"].rpartition("/")[2]]["type"] == "object"


@each_verb
def test_a_verb_that_lists_answers_pages(verb: Verb) -> None:
    if verb.name not in ("list", "poll", "dump"):
        return
    answer = fields_of(DOCUMENT["types"][schema.schema_of(verb.result)["$ref"].rpartition("/")[2]])
    assert "next" in {member["name"] for member in answer}
    if verb.name != "dump":
        assert "items" in {member["name"] for member in answer}
    parameters = {parameter.name for parameter in verb.parameters}
    assert "limit" in parameters
    assert parameters & {"start", "after"}


@each_verb
def test_a_verb_that_creates_takes_an_id_for_what_is_new(verb: Verb) -> None:
    if verb.name not in ("create", "clone", "import", "snapshot", "makeTemplate"):
        return
    new = [p for p in verb.parameters if p.name in ("id", "volume") and not p.required]
    assert new, "with the id from the caller, the same call again answers the same"
    assert all(schema.schema_of(parameter.type)["$ref"].endswith("Id") for parameter in new)


@each_verb
def test_what_changes_data_needs_more_than_the_right_to_look(verb: Verb) -> None:
    if schema.makes_task(verb):
        assert verb.declaration.right >= Right.OPERATE


@each_verb
def test_a_verb_that_may_wait_takes_a_timeout(verb: Verb) -> None:
    timeouts = [schema.schema_of(p.type) for p in verb.parameters if p.name == "timeout"]
    assert bool(timeouts) == verb.declaration.blocking
    assert all(about["unit"] == "seconds" and "maximum" in about for about in timeouts)


@each_verb
def test_a_verb_that_takes_an_open_file_takes_a_path_instead(verb: Verb) -> None:
    if verb.descriptors:
        assert "path" in {parameter.name for parameter in verb.parameters}


@each_verb
def test_a_verb_declares_no_error_twice_and_none_that_is_common(verb: Verb) -> None:
    declared = Counter(verb.declaration.errors)
    assert not [error.__name__ for error, times in declared.items() if times > 1]
    assert not set(declared) & set(COMMON)


# Values


def test_every_number_is_bounded() -> None:
    unbounded = [
        place
        for place, about in members()
        for value in values(about)
        if (value.get("type") == "integer" and not {"minimum", "maximum"} <= set(value))
        or (value.get("type") == "number" and "minimum" not in value)
    ]
    assert unbounded == []


def test_no_integer_leaves_64_bits() -> None:
    integers = [about for _, about in members() if about.get("type") == "integer"]
    assert all(-(2**63) <= about["minimum"] <= about["maximum"] < 2**63 for about in integers)


def test_every_text_that_is_sent_is_bounded_and_without_control_characters() -> None:
    for place, about in sent():
        if about.get("type") == "string":
            assert about.get("maxLength"), place
            assert not re.search(about["pattern"], "a\0b"), place
            assert not re.search(about["pattern"], "/a\0b"), place


def test_every_text_that_is_answered_is_bounded() -> None:
    endless = [
        place
        for place, about in members()
        for value in values(about)
        if value.get("type") == "string" and "maxLength" not in value and place != "DomainDump.metadata"
    ]
    assert endless == []


def test_every_size_and_time_has_a_unit() -> None:
    words = re.compile("size|capacity|space|^length|timeout|memory|duration|uptime", re.IGNORECASE)
    sizes = [(place, about) for place, about in members() if words.search(name_in(place))]
    assert not [
        place for place, about in sizes if about.get("type") in ("integer", "number") and "unit" not in about
    ]


def test_enumerations_may_grow() -> None:
    assert not [name for name, kind in ENUMERATIONS.items() if not kind["open"]]


@pytest.mark.parametrize("name", ENUMERATIONS)
def test_a_client_reads_a_value_that_it_does_not_know_as_unknown(name: str) -> None:
    kind = NAMED[name]
    assert issubclass(kind, OpenEnum)
    assert kind("a value from the future") is kind["UNKNOWN"]
    assert all(re.fullmatch("[a-z][A-Za-z0-9]*", member.value) for member in kind)


def test_members_are_named_in_camel_case() -> None:
    assert not [place for place, _ in members() if not re.fullmatch("[a-z][A-Za-z0-9]*", name_in(place))]


# Structures


@each_structure
def test_a_structure_is_one_that_is_sent_or_one_that_is_answered(kind: type[msgspec.Struct]) -> None:
    assert issubclass(kind, Info) != issubclass(kind, Spec)
    assert kind.__struct_config__.forbid_unknown_fields == issubclass(kind, Spec)
    assert kind.__struct_config__.frozen


@each_structure
def test_a_structure_says_itself_that_it_is_frozen_and_by_keyword(kind: type[msgspec.Struct]) -> None:
    # Neither is inherited everywhere: kw_only not at run time, frozen not in mypy.
    definition = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(definition, ast.ClassDef)
    said = {keyword.arg: ast.unparse(keyword.value) for keyword in definition.keywords}
    assert said.get("frozen") == said.get("kw_only") == "True"


def test_no_structure_is_declared_that_never_travels() -> None:
    declared = {
        cls for base in (Info, Spec) for cls in descendants(base) if cls.__module__.startswith("libvdsm.api")
    }
    assert declared - set(STRUCTURES.values()) == {EventData}


def descendants(cls: type) -> Iterator[type]:
    children: list[type] = cls.__subclasses__()
    for child in children:
        yield child
        yield from descendants(child)


@each_structure
def test_what_may_be_absent_in_an_answer_is_absent_by_default(kind: type[msgspec.Struct]) -> None:
    if issubclass(kind, Info):
        assert [
            field.name for field in msgspec.structs.fields(kind) if not field.required and field.default
        ] == []


# Errors


def placeholders(error: type[ApiError]) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(error.template) if name}


@each_error
def test_a_message_uses_only_attributes_that_are_always_there(error: type[ApiError]) -> None:
    always = {name for name in error_fields(error) if name not in vars(error)}
    assert placeholders(error) <= always


@each_error
def test_a_message_is_a_sentence(error: type[ApiError]) -> None:
    assert re.match(r"[A-Z{].*[.?]$", error.template)


def test_numbers_of_errors_are_unique() -> None:
    codes = Counter(error.code for error in ERRORS.values())
    assert [code for code, times in codes.items() if times > 1] == []
    assert all(100 <= code < 1000 for code in codes)


def test_every_error_may_be_met() -> None:
    met = {error for verb in VERBS.values() for error in verb.declaration.errors} | set(COMMON)
    assert [name for name, error in ERRORS.items() if error not in met] == [ConnectionFailed.__name__]


def test_a_hint_in_a_message_names_a_verb_that_there_is() -> None:
    texts = [(error.__name__, error.template) for error in ERRORS.values()]
    texts += [(place, about["description"]) for place, about in members()]
    texts += [(name, verb.doc) for name, verb in VERBS.items()]
    classes = "|".join(CLASSES)
    for place, text in texts:
        for name in re.findall(rf"\b(?:{classes})\.[a-z]\w*", text):
            assert name in VERBS, f"{place} mentions {name}"


# Events


def test_events_are_named_for_what_happened() -> None:
    assert not [name for name in EVENTS if not re.fullmatch("([A-Z][a-z]+)+(ed|Down)", name)]


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_says_what_it_is_about_in_plain_values(name: str) -> None:
    about: dict[str, Any] = {member["name"]: member["schema"] for member in members_of_event(name)}
    assert any(value.get("$ref", "").endswith("Id") for value in about.values())


def members_of_event(name: str) -> list[Any]:
    found: list[Any] = next(event["members"] for event in DOCUMENT["events"] if event["name"] == name)
    return found
