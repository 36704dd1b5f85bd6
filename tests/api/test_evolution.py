# SPDX-License-Identifier: Apache-2.0
"""The rules of evolution, one by one: what a change to the API may do within a major version."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from libvdsm.generate.evolution import compare, latest_released, release
from libvdsm.generate.schema import Document, Schema

RELEASED: Document = {
    "version": "1.3",
    "common": ["InvalidRequest"],
    "classes": [
        {
            "name": "Image",
            "verbs": [
                {
                    "name": "create",
                    "since": "1.0",
                    "right": "operate",
                    "blocking": False,
                    "positional": ["name"],
                    "errors": ["NoSpace"],
                    "params": [
                        {
                            "name": "size",
                            "required": True,
                            "schema": {
                                "type": "integer",
                                "minimum": 1,
                                "maximum": 100,
                                "unit": "bytes",
                                "option": "size",
                            },
                        },
                        {
                            "name": "name",
                            "required": False,
                            "schema": {
                                "type": "string",
                                "minLength": 1,
                                "maxLength": 64,
                                "pattern": "^[a-z]*$",
                            },
                        },
                        {"name": "wipe", "required": False, "schema": {"type": "boolean", "default": False}},
                        {"name": "source", "required": False, "schema": {"$ref": "#/types/Source"}},
                        {"name": "format", "required": False, "schema": {"$ref": "#/types/Format"}},
                    ],
                    "result": {"$ref": "#/types/TaskInfo"},
                    "makesTask": True,
                    "taskResult": {"$ref": "#/types/ImageInfo"},
                },
                {
                    "name": "getInfo",
                    "since": "1.0",
                    "right": "read",
                    "blocking": False,
                    "positional": [],
                    "errors": [],
                    "params": [],
                    "result": {"$ref": "#/types/ImageInfo"},
                    "makesTask": False,
                },
            ],
        }
    ],
    "errors": [
        {"name": "InvalidRequest", "code": 100, "attributes": []},
        {
            "name": "NoSpace",
            "code": 410,
            "template": "No space: {reason}.",
            "attributes": [
                {"name": "reason", "required": True, "schema": {"type": "string", "maxLength": 200}}
            ],
        },
    ],
    "events": [
        {
            "name": "ImageDeleted",
            "members": [{"name": "image", "required": True, "schema": {"$ref": "#/types/ImageId"}}],
        },
    ],
    "types": {
        "ImageId": {"type": "string", "format": "uuid"},
        "TaskInfo": {"type": "object", "properties": {}, "order": []},
        "ImageInfo": {
            "type": "object",
            "properties": {
                "id": {"$ref": "#/types/ImageId"},
                "format": {"$ref": "#/types/Format"},
                "state": {"$ref": "#/types/State"},
                "layers": {"type": "integer", "minimum": 1, "maximum": 100, "description": "how many"},
                "name": {"type": "string", "maxLength": 64},
            },
            "required": ["id", "format", "layers"],
            "order": ["id", "format", "layers", "name"],
        },
        "Source": {
            "type": "object",
            "properties": {"path": {"type": "string", "maxLength": 100}},
            "required": ["path"],
            "order": ["path"],
        },
        "Format": {"type": "string", "enum": ["raw", "qcow2"], "enumDescriptions": ["a", "b"], "open": True},
        "State": {"type": "string", "enum": ["ok", "bad"], "enumDescriptions": ["a", "b"], "open": False},
    },
}

Edit = Callable[[Any], object]


def violations(edit: Edit, *, version: str = "1.4") -> list[str]:
    """What the rules say of the released document after an edit."""
    new = copy.deepcopy(RELEASED)
    new["version"] = version
    edit(new)
    return compare(RELEASED, new)


def verb(document: Document, name: str = "create") -> Document:
    found: Document = next(verb for verb in document["classes"][0]["verbs"] if verb["name"] == name)
    return found


def param(document: Document, name: str) -> Document:
    found: Document = next(member for member in verb(document)["params"] if member["name"] == name)
    return found


def field(document: Document, name: str, owner: str = "ImageInfo") -> Schema:
    found: Schema = document["types"][owner]["properties"][name]
    return found


def a_new_verb(**facts: Any) -> Document:
    fresh = copy.deepcopy(verb(RELEASED, "getInfo"))
    return fresh | {"name": "getStats", "since": "1.4"} | facts


def add_field(document: Document, owner: str, *, required: bool) -> None:
    structure = document["types"][owner]
    structure["properties"]["extra"] = {"type": "boolean"}
    structure["order"].append("extra")
    if required:
        structure["required"].append("extra")


def test_an_unchanged_document_breaks_no_rule() -> None:
    assert violations(lambda new: None) == []
    assert violations(lambda new: None, version="1.3") == []


def test_texts_and_the_order_of_fields_are_free() -> None:
    def edit(new: Document) -> None:
        field(new, "layers")["description"] = "how many layers it has"
        verb(new)["doc"] = "Make one."
        new["errors"][1]["template"] = "Full: {reason}."
        new["types"]["Format"]["enumDescriptions"] = ["c", "d"]
        new["types"]["ImageInfo"]["order"].reverse()

    assert violations(edit, version="1.3") == []


def test_a_new_major_version_may_change_everything() -> None:
    assert violations(lambda new: new["classes"].clear(), version="2.0") == []


def test_the_version_never_falls() -> None:
    assert violations(lambda new: None, version="1.2") == ["version 1.2 is lower than 1.3, which is released"]


def test_versions_are_compared_as_numbers() -> None:
    assert violations(lambda new: None, version="1.10") == []


REMOVALS: dict[str, Edit] = {
    "class Image was removed": lambda new: new["classes"].pop(),
    "Image.create was removed": lambda new: new["classes"][0]["verbs"].pop(0),
    "parameter wipe of Image.create was removed": lambda new: verb(new)["params"].pop(2),
    "error NoSpace of Image.create was removed": lambda new: verb(new)["errors"].clear(),
    "common error InvalidRequest was removed": lambda new: new["common"].clear(),
    "error NoSpace was removed": lambda new: new["errors"].pop(),
    "attribute reason of error NoSpace was removed": lambda new: new["errors"][1]["attributes"].clear(),
    "event ImageDeleted was removed": lambda new: new["events"].clear(),
    "member image of event ImageDeleted was removed": lambda new: new["events"][0]["members"].clear(),
    "type ImageInfo was removed": lambda new: new["types"].pop("ImageInfo"),
    "field name of ImageInfo was removed": lambda new: (
        new["types"]["ImageInfo"]["properties"].pop("name"),
        new["types"]["ImageInfo"]["order"].remove("name"),
    ),
    "value raw of Format was removed": lambda new: new["types"]["Format"]["enum"].remove("raw"),
}


@pytest.mark.parametrize("violation", REMOVALS)
def test_nothing_is_removed(violation: str) -> None:
    def edit(new: Document) -> None:
        REMOVALS[violation](new)
        # What is left must not refer to what is gone, so that only the removal is seen.
        if violation == "type ImageInfo was removed":
            verb(new)["taskResult"] = verb(new, "getInfo")["result"] = {"$ref": "#/types/TaskInfo"}

    assert violation in violations(edit)


def test_of_what_is_removed_as_a_whole_the_parts_are_not_named() -> None:
    assert violations(lambda new: new["events"].clear()) == ["event ImageDeleted was removed"]


RETYPINGS: dict[str, Edit] = {
    "type of parameter size of Image.create changed from integer to string": (
        lambda new: param(new, "size")["schema"].update(type="string")
    ),
    "unit of parameter size of Image.create changed from bytes to MiB": (
        lambda new: param(new, "size")["schema"].update(unit="MiB")
    ),
    "option of parameter size of Image.create changed from size to length": (
        lambda new: param(new, "size")["schema"].update(option="length")
    ),
    "presence of parameter wipe of Image.create changed from": (
        lambda new: param(new, "wipe")["schema"].update(default=True)
    ),
    "position of parameter name of Image.create changed from 0 to nothing": (
        lambda new: verb(new)["positional"].clear()
    ),
    "descriptor of parameter size of Image.create changed from nothing to true": (
        lambda new: param(new, "size")["schema"].update(descriptor=True)
    ),
    "type of field layers of ImageInfo changed from integer to number": (
        lambda new: field(new, "layers").update(type="number")
    ),
    "unit of field layers of ImageInfo changed from nothing to bytes": (
        lambda new: field(new, "layers").update(unit="bytes")
    ),
    "$ref of field id of ImageInfo changed": lambda new: field(new, "id").update({"$ref": "#/types/Format"}),
    "format of type ImageId changed from uuid to nothing": lambda new: new["types"]["ImageId"].pop("format"),
    "open of type Format changed from true to false": lambda new: new["types"]["Format"].update(open=False),
    "result.$ref of Image.getInfo changed": (
        lambda new: verb(new, "getInfo").update(result={"$ref": "#/types/TaskInfo"})
    ),
    "taskResult.$ref of Image.create changed": (
        lambda new: verb(new).update(taskResult={"$ref": "#/types/TaskInfo"})
    ),
    "makesTask of Image.getInfo changed from false to true": lambda new: verb(new, "getInfo").update(
        makesTask=True
    ),
    "blocking of Image.getInfo changed from false to true": lambda new: verb(new, "getInfo").update(
        blocking=True
    ),
    "since of Image.getInfo changed from 1.0 to 1.1": lambda new: verb(new, "getInfo").update(since="1.1"),
    "code of error NoSpace changed from 410 to 411": lambda new: new["errors"][1].update(code=411),
}


@pytest.mark.parametrize("violation", RETYPINGS)
def test_nothing_is_retyped(violation: str) -> None:
    found = violations(RETYPINGS[violation])
    assert len(found) == 1
    assert found[0].startswith(violation)


NARROWINGS: dict[str, Edit] = {
    "minimum": lambda schema: schema.update(minimum=2),
    "maximum": lambda schema: schema.update(maximum=99),
    "multipleOf": lambda schema: schema.update(multipleOf=512),
}
WIDENINGS: dict[str, Edit] = {
    "a lower minimum": lambda schema: schema.update(minimum=0),
    "no minimum": lambda schema: schema.pop("minimum"),
    "a higher maximum": lambda schema: schema.update(maximum=101),
    "no maximum": lambda schema: schema.pop("maximum"),
}


@pytest.mark.parametrize("fact", NARROWINGS)
def test_what_clients_send_is_never_accepted_more_narrowly(fact: str) -> None:
    assert fact in violations(lambda new: NARROWINGS[fact](param(new, "size")["schema"]))[0]


@pytest.mark.parametrize("edit", WIDENINGS.values(), ids=WIDENINGS)
def test_what_clients_send_may_be_accepted_more_widely(edit: Edit) -> None:
    assert violations(lambda new: edit(param(new, "size")["schema"])) == []


@pytest.mark.parametrize("edit", WIDENINGS.values(), ids=WIDENINGS)
def test_what_the_service_answers_never_becomes_wider(edit: Edit) -> None:
    assert "of field layers of ImageInfo changed" in violations(lambda new: edit(field(new, "layers")))[0]


@pytest.mark.parametrize("fact", ["minimum", "maximum"])
def test_what_the_service_answers_may_become_narrower(fact: str) -> None:
    assert violations(lambda new: NARROWINGS[fact](field(new, "layers"))) == []


def test_lengths_of_text_are_bounds_too() -> None:
    assert violations(lambda new: param(new, "name")["schema"].update(maxLength=63))
    assert violations(lambda new: param(new, "name")["schema"].update(minLength=2))
    assert violations(lambda new: field(new, "name").update(maxLength=65))
    assert violations(lambda new: field(new, "path", "Source").update(maxLength=99))
    assert violations(lambda new: field(new, "path", "Source").update(maxLength=101)) == []


def test_bounds_of_what_travels_both_ways_stay() -> None:
    def use_info_as_a_parameter(document: Document) -> Document:
        document["classes"][0]["verbs"][0]["params"].append(
            {"name": "like", "required": False, "schema": {"$ref": "#/types/ImageInfo"}}
        )
        return document

    old = use_info_as_a_parameter(copy.deepcopy(RELEASED))
    for bound in (99, 101):
        new = use_info_as_a_parameter(copy.deepcopy(RELEASED)) | {"version": "1.4"}
        field(new, "layers")["maximum"] = bound
        assert compare(old, new) == [f"maximum of field layers of ImageInfo changed from 100 to {bound}"]


def test_a_pattern_of_what_clients_send_may_only_be_dropped() -> None:
    assert violations(lambda new: param(new, "name")["schema"].update(pattern="^[a-z0-9]*$"))
    assert violations(lambda new: param(new, "size")["schema"].update(pattern="^[0-9]*$"))
    assert violations(lambda new: param(new, "name")["schema"].pop("pattern")) == []


def test_a_pattern_may_be_promised_of_answers() -> None:
    assert violations(lambda new: field(new, "name").update(pattern="^[a-z]*$")) == []


def test_a_parameter_never_becomes_required() -> None:
    assert "presence of parameter name" in violations(lambda new: param(new, "name").update(required=True))[0]


def test_a_required_parameter_may_become_optional_with_a_default_or_without() -> None:
    assert violations(lambda new: param(new, "size").update(required=False)) == []

    def with_default(new: Document) -> None:
        param(new, "size")["required"] = False
        param(new, "size")["schema"]["default"] = 50

    assert violations(with_default) == []


def test_a_field_that_is_always_there_stays_there() -> None:
    assert (
        "presence of field layers"
        in violations(lambda new: new["types"]["ImageInfo"]["required"].remove("layers"))[0]
    )


def test_a_field_may_be_there_always_from_now_on() -> None:
    assert violations(lambda new: new["types"]["ImageInfo"]["required"].append("name")) == []


def test_a_verb_never_needs_a_stricter_right() -> None:
    assert violations(lambda new: verb(new).update(right="administer")) == [
        "right of Image.create changed from operate to administer"
    ]


def test_a_verb_may_need_less_of_a_right() -> None:
    assert violations(lambda new: verb(new).update(right="read")) == []


ADDITIONS: dict[str, Edit] = {
    "class Volume": lambda new: new["classes"].append({"name": "Volume", "verbs": []}),
    "Image.getStats": lambda new: new["classes"][0]["verbs"].append(a_new_verb()),
    "parameter extra of Image.create": lambda new: verb(new)["params"].append(
        {"name": "extra", "required": False, "schema": {"type": "boolean", "default": False}}
    ),
    "error InvalidRequest of Image.create": lambda new: verb(new)["errors"].append("InvalidRequest"),
    "field extra of ImageInfo": lambda new: add_field(new, "ImageInfo", required=False),
    "value vmdk of Format": lambda new: new["types"]["Format"]["enum"].append("vmdk"),
    "error IsTemplate": lambda new: new["errors"].append(
        {"name": "IsTemplate", "code": 305, "attributes": []}
    ),
    "attribute domain of error NoSpace": lambda new: new["errors"][1]["attributes"].append(
        {"name": "domain", "required": False, "schema": {"type": "string"}}
    ),
    "event ImageCreated": lambda new: new["events"].append({"name": "ImageCreated", "members": []}),
    "member extra of event ImageDeleted": lambda new: new["events"][0]["members"].append(
        {"name": "extra", "required": False, "schema": {"type": "string"}}
    ),
}


@pytest.mark.parametrize("what", ADDITIONS)
def test_what_is_added_raises_the_minor_version(what: str) -> None:
    assert violations(ADDITIONS[what], version="1.4") == []
    assert f"{what} was added: the version must be raised above 1.3" in violations(
        ADDITIONS[what], version="1.3"
    )


def test_an_allowed_change_raises_the_minor_version_too() -> None:
    assert violations(lambda new: verb(new).update(right="read"), version="1.3") == [
        "right of Image.create changed from operate to read: the version must be raised above 1.3"
    ]


def test_a_new_parameter_is_optional() -> None:
    member = {"name": "extra", "required": True, "schema": {"type": "boolean"}}
    assert violations(lambda new: verb(new)["params"].append(member)) == [
        "parameter extra of Image.create was added and is required"
    ]


@pytest.mark.parametrize("owner", ["ImageInfo", "Source"])
def test_a_new_field_is_optional_in_answers_and_in_what_is_sent(owner: str) -> None:
    assert violations(lambda new: add_field(new, owner, required=True)) == [
        f"field extra of {owner} was added and is required"
    ]


def test_a_new_attribute_or_member_is_optional() -> None:
    member = {"name": "extra", "required": True, "schema": {"type": "string"}}
    assert violations(lambda new: new["errors"][1]["attributes"].append(member)) == [
        "attribute extra of error NoSpace was added and is required"
    ]
    assert violations(lambda new: new["events"][0]["members"].append(member)) == [
        "member extra of event ImageDeleted was added and is required"
    ]


def test_what_is_required_in_something_new_is_no_violation() -> None:
    def edit(new: Document) -> None:
        params = [{"name": "image", "required": True, "schema": {"$ref": "#/types/ImageId"}}]
        new["classes"][0]["verbs"].append(a_new_verb(params=params, result={"$ref": "#/types/Stats"}))
        new["types"]["Stats"] = {
            "type": "object",
            "properties": {"size": {"type": "integer"}},
            "required": ["size"],
            "order": ["size"],
        }

    assert violations(edit) == []


def test_an_enumeration_that_clients_take_for_complete_does_not_grow() -> None:
    assert violations(lambda new: new["types"]["State"]["enum"].append("so-so")) == [
        "value so-so of State was added to what clients take for complete"
    ]


@pytest.mark.parametrize("since", ["1.3", "1.5"])
def test_a_new_verb_says_since_which_version(since: str) -> None:
    assert violations(lambda new: new["classes"][0]["verbs"].append(a_new_verb(since=since))) == [
        f"Image.getStats is new in 1.4, and says since {since}"
    ]


def test_a_deprecated_verb_names_a_replacement_that_exists() -> None:
    def deprecate(new: Document, replaced_by: str | None) -> None:
        new["classes"][0]["verbs"].append(a_new_verb())
        verb(new, "getInfo")["deprecated"] = {"since": "1.4", "replacedBy": replaced_by}

    assert violations(lambda new: deprecate(new, "Image.getStats")) == []
    for missing in ("Image.getAll", None):
        found = violations(lambda new, missing=missing: deprecate(new, missing))  # type: ignore[misc]
        assert len(found) == 1
        assert "does not exist" in found[0]


def test_a_verb_is_not_deprecated_since_a_version_to_come() -> None:
    deprecated = {"since": "1.5", "replacedBy": "Image.create"}
    assert violations(lambda new: verb(new, "getInfo").update(deprecated=deprecated)) == [
        "Image.getInfo is deprecated since 1.5, which is not there yet"
    ]


def test_the_highest_release_of_the_major_version_counts(tmp_path: Path) -> None:
    for version in ("1.9", "1.10", "2.0"):
        release(tmp_path, RELEASED | {"version": version})
    latest = latest_released(tmp_path, "1.11")
    assert latest is not None
    assert latest["version"] == "1.10"
    assert latest_released(tmp_path, "3.0") is None


def test_what_is_released_is_never_overwritten(tmp_path: Path) -> None:
    file = release(tmp_path, RELEASED)
    before = file.read_text()
    assert release(tmp_path, RELEASED) == file
    with pytest.raises(FileExistsError, match="raise the version"):
        release(tmp_path, RELEASED | {"common": []})
    assert file.read_text() == before


def test_before_the_first_release_it_may_be_overwritten(tmp_path: Path) -> None:
    file = release(tmp_path, RELEASED)
    release(tmp_path, RELEASED | {"common": []}, before_release=True)
    assert '"common": []' in file.read_text()


@pytest.mark.parametrize("since", ["1.3", "1.5"])
def test_a_new_parameter_or_field_that_says_since_which_version_says_it_rightly(since: str) -> None:
    member = {"name": "filter", "required": False, "schema": {"type": "string", "since": since}}
    assert violations(lambda new: verb(new, "getInfo")["params"].append(member)) == [
        f"parameter filter of Image.getInfo is new in 1.4, and says since {since}"
    ]
    member["schema"] = {"type": "string", "since": "1.4"}
    assert violations(lambda new: verb(new, "getInfo")["params"].append(member)) == []
