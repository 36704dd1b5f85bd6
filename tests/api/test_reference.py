# SPDX-License-Identifier: Apache-2.0
"""The pages of the reference and the examples in them: they are fresh, they lead somewhere, they are right."""

from __future__ import annotations

import json
import re
import shlex
import typing
from pathlib import PurePosixPath
from typing import Any

import msgspec
import pytest

from hsmctl import parser
from libvdsm.api import ERRORS, EVENTS, VERBS
from libvdsm.api.errors import COMMON
from libvdsm.api.event import EventInfo
from libvdsm.api.types import ErrorInfo
from libvdsm.config import parse_size
from libvdsm.declare import Verb, camel, error_fields
from libvdsm.generate import examples, reference, schema
from libvdsm.generate.__main__ import ROOT, stale
from libvdsm.generate.examples import Examples, human_size, kebab
from libvdsm.generate.markdown import anchor
from libvdsm.generate.schema import fields_of, verbs_of
from libvdsm.wire import jsonrpc, xmlrpc
from libvdsm.wire.messages import Call

DOCUMENT = schema.document()
EXAMPLES = Examples(DOCUMENT)
PAGES = reference.files()

each_verb = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)


def decoded(value: Any, kind: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value), type=kind)


def section(verb: Verb) -> str:
    """What the reference says of one verb."""
    page = PAGES[f"{reference.FOLDER}/{verb.cls.lower()}.md"]
    return page.partition(f"## {verb.full}\n")[2].partition("\n## ")[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL)


# The pages


def test_the_committed_pages_are_fresh() -> None:
    assert stale(PAGES, ROOT) == [], "run python -m libvdsm.generate docs"


def test_no_page_is_left_of_what_is_no_longer_there() -> None:
    assert {f"{reference.FOLDER}/{file.name}" for file in (ROOT / reference.FOLDER).iterdir()} == set(PAGES)


def test_the_pages_are_the_same_every_time() -> None:
    assert reference.files() == PAGES


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)]*)\)", PAGES[name]):
        file, _, part = target.partition("#")
        if file.startswith("../../"):
            assert (ROOT / file.removeprefix("../../")).exists(), target
            continue
        page = PAGES[str(PurePosixPath(name).parent / file)]
        headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
        assert not part or part in map(anchor, headings), target


@pytest.mark.parametrize("name", PAGES)
def test_every_heading_of_a_page_can_be_linked_to(name: str) -> None:
    anchors = [anchor(heading) for heading in re.findall(r"^#+ (.*)$", PAGES[name], re.MULTILINE)]
    assert len(anchors) == len(set(anchors))


@pytest.mark.parametrize("name", PAGES)
def test_every_table_has_as_many_cells_in_each_row(name: str) -> None:
    for table in re.findall(r"(?:^\|.*\n)+", PAGES[name], re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1, table


@pytest.mark.parametrize("name", PAGES)
def test_nothing_of_python_is_left_in_the_text(name: str) -> None:
    assert not re.search(r"\bNone\b|\bTrue\b|\bFalse\b|(?<!`)``(?!`)|'\$ref'|snake_case", PAGES[name])


@each_verb
def test_a_verb_has_an_example_on_every_wire_and_an_answer(verb: Verb) -> None:
    text = section(verb)
    call, answer, *_ = blocks(text, "json")
    assert json.loads(call)["method"] == verb.full
    assert "result" in json.loads(answer)
    assert f"<methodName>{verb.full}</methodName>" in blocks(text, "xml")[0]
    assert blocks(text, "sh")[0].startswith(f"hsmctl {verb.cls.lower()} {kebab(verb.name)}")


@each_verb
def test_a_verb_is_told_with_all_its_parameters_and_errors(verb: Verb) -> None:
    text = section(verb)
    assert all(f"| `{parameter.wire}` |" in text for parameter in verb.parameters)
    assert all(f"[{error.__name__}](errors.md" in text for error in verb.declaration.errors)


# The examples are right


@each_verb
@pytest.mark.parametrize("descriptors", [True, False], ids=["with open files", "without"])
def test_example_parameters_are_parameters(verb: Verb, descriptors: bool) -> None:
    params = EXAMPLES.params(verb.full, descriptors=descriptors)
    decoded(params, verb.params)
    assert {p.wire for p in verb.parameters if p.required} <= set(params)


@each_verb
def test_an_example_result_is_a_result(verb: Verb) -> None:
    result = EXAMPLES.result(verb.full)
    assert msgspec.to_builtins(decoded(result, verb.result)) == result


@each_verb
def test_the_result_of_an_example_task_is_one(verb: Verb) -> None:
    if schema.makes_task(verb):
        result = EXAMPLES.task_result(verb.full)
        assert msgspec.to_builtins(decoded(result, verb.task_result)) == result


@pytest.mark.parametrize("name", EVENTS)
def test_an_example_event_is_an_event(name: str) -> None:
    event = EXAMPLES.event(name)
    decoded(event, EventInfo)
    assert msgspec.to_builtins(decoded(event["data"], EVENTS[name])) == event["data"]


@pytest.mark.parametrize("name", ERRORS)
def test_an_example_error_is_an_error(name: str) -> None:
    error = EXAMPLES.error(name)
    assert decoded(error, ErrorInfo).code == ERRORS[name].code
    attributes = {
        field: decoded(error["data"][camel(field)], annotation)
        for field, annotation in error_fields(ERRORS[name]).items()
        if camel(field) in error["data"]
    }
    assert ERRORS[name](**attributes).data() == error["data"]


@each_verb
def test_the_json_of_a_page_is_what_the_wire_understands(verb: Verb) -> None:
    text = section(verb)
    message, answer, *_ = blocks(text, "json")
    (call,), batch = jsonrpc.decode_calls(message.encode())
    assert isinstance(call, Call)
    assert (call.verb, call.id, batch) == (verb.full, 1, False)
    assert isinstance(call.params, msgspec.Raw)
    msgspec.json.decode(call.params, type=verb.params)
    reply = jsonrpc.decode_reply(answer.encode())
    msgspec.json.decode(typing.cast("Any", reply).result, type=verb.result)


@each_verb
def test_the_xml_of_a_page_is_what_the_wire_understands(verb: Verb) -> None:
    call = xmlrpc.decode_call(blocks(section(verb), "xml")[0].encode())
    assert call.verb == verb.full
    assert call.params == EXAMPLES.params(verb.full, descriptors=False)


def test_the_errors_of_the_overview_are_what_the_wires_understand() -> None:
    overview = PAGES[f"{reference.FOLDER}/index.md"]
    expected = decoded(EXAMPLES.error("NoSpace"), ErrorInfo)
    message = next(block for block in blocks(overview, "json") if '"error"' in block)
    document = next(block for block in blocks(overview, "xml") if "<fault>" in block)
    assert typing.cast("Any", jsonrpc.decode_reply(message.encode())).error == expected
    assert xmlrpc.decode_reply(document.encode()).error == expected


def test_the_json_of_each_event_is_what_the_wire_understands() -> None:
    page = PAGES[f"{reference.FOLDER}/events.md"]
    told = [jsonrpc.decode_reply(block.encode()) for block in blocks(page, "json")]
    assert [typing.cast("Any", notification).event.name for notification in told] == list(EVENTS)


# The command line


@each_verb
def test_a_command_line_has_positional_parameters_first_and_options_that_exist(verb: Verb) -> None:
    words = shlex.split(blocks(section(verb), "sh")[0])
    positional, options = words[3:], [word for word in words if word.startswith("--")]
    if options:
        positional = words[3 : words.index(options[0])]
    known = {p.extra.get("option", kebab(p.wire)) + ("-file" if p.secret else "") for p in verb.parameters}
    given = EXAMPLES.params(verb.full)
    lists = [given[camel(name)] for name in verb.declaration.positional if isinstance(given.get(camel(name)), list)]
    assert len(positional) == len(verb.declaration.positional) + sum(len(several) - 1 for several in lists)
    assert {option.removeprefix("--").removeprefix("no-") for option in options} <= known


@each_verb
def test_hsmctl_understands_the_command_line(verb: Verb) -> None:
    words = shlex.split(blocks(section(verb), "sh")[0])[1:]
    assert parser.build(words).parse_args(words).verb is verb


def test_command_lines_are_written_as_people_write_them() -> None:
    assert EXAMPLES.command("Image.create") == "hsmctl image create web01 --domain fast --size 64G"
    assert EXAMPLES.command("Image.prepare") == "hsmctl image prepare web01 --read-only"
    assert EXAMPLES.command("Image.makeTemplate") == "hsmctl image make-template web01 debian13"
    assert EXAMPLES.command("Image.import") == "hsmctl image import web01.qcow2 web01 --domain fast"


@pytest.mark.parametrize("size", [0, 1, 1000, 1024, 1536 * 2**20, 64 * 2**30, 2**40, 2**63 - 1])
def test_sizes_can_be_read_back(size: int) -> None:
    assert parse_size(human_size(size)) == size


@pytest.mark.parametrize(
    ("name", "word"), [("list", "list"), ("getInfo", "get-info"), ("collectGarbage", "collect-garbage")]
)
def test_verbs_are_in_kebab_case(name: str, word: str) -> None:
    assert kebab(name) == word


# The values that are written down


def test_every_value_that_is_written_down_is_used() -> None:
    owners = {name: verb["params"] for name, verb in verbs_of(DOCUMENT).items()}
    owners |= {name: fields_of(kind) for name, kind in DOCUMENT["types"].items()}
    owners |= {error["name"]: error["attributes"] for error in DOCUMENT["errors"]}
    owners |= {event["name"]: event["members"] for event in DOCUMENT["events"]}
    places = {f"{owner}.{member['name']}" for owner, members in owners.items() for member in members}
    places |= {member["name"] for members in owners.values() for member in members}
    assert set(examples._VALUES) - places == set()


def test_ids_of_different_things_differ() -> None:
    result = EXAMPLES.result("Image.getInfo")
    assert len({result["id"], result["domain"], result["leaf"]}) == 3
    clone = EXAMPLES.params("Image.clone")
    assert clone["template"] != result["id"]


def test_the_image_in_a_call_is_the_image_in_its_answer() -> None:
    assert EXAMPLES.params("Image.getInfo")["image"] == EXAMPLES.result("Image.getInfo")["id"]


def test_common_errors_are_told_once() -> None:
    page = PAGES[f"{reference.FOLDER}/errors.md"]
    assert page.count("Any verb may answer it.") == len(COMMON)
