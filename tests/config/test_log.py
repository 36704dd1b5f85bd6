# SPDX-License-Identifier: Apache-2.0
"""The log: lines that people read and programs parse, each with its request, none forged by what is logged."""

from __future__ import annotations

import io
import json
import logging
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libvdsm import log as logs
from libvdsm.log import Log, request_id
from tests import service

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (DEBUG|INFO|WARNING|ERROR) +\[([\w.:-]+)\] ([\w.]+): (.*)")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Each test sets up its own log."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:], root.level = handlers, level


def text(event: str = "event", **facts: Any) -> str:
    """What one line is, without its end."""
    stream = io.StringIO()
    logs.setup(level="debug", stream=stream)
    Log("test.source").info(event, **facts)
    return stream.getvalue().removesuffix("\n")


def entry(event: str = "event", **facts: Any) -> Any:
    """What one line in JSON says."""
    stream = io.StringIO()
    logs.setup(level="debug", style="json", stream=stream)
    Log("test.source").info(event, **facts)
    [line] = stream.getvalue().splitlines()
    return json.loads(line)


def test_a_line_has_time_level_request_source_and_event() -> None:
    found = LINE.fullmatch(text("volume created"))
    assert found is not None
    assert found.groups() == ("INFO", "-", "test.source", "volume created")


def test_facts_follow_as_key_and_value() -> None:
    line = text(size=3, path="/a/é", name="with space", empty="", equal="a=b", quote='say "hi"', absent=None)
    assert line.endswith(': event size=3 path=/a/é name="with space" empty="" equal="a=b" quote="say \\"hi\\""')


@settings(deadline=None, max_examples=50)
@given(st.text())
def test_no_fact_makes_a_second_line_or_speaks_to_a_terminal(value: str) -> None:
    line = text(path=value)
    assert line.isprintable()
    assert line.splitlines() == [line]


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "\x1b[2J", "a\x85b", "a\u2028b", "\x7f", "\u202ereversed", "\udcff"])
def test_what_is_not_printed_is_escaped(value: str) -> None:
    line = text(path=value)
    written = line.partition("path=")[2]
    assert json.loads(written) == value
    line.encode()


def test_the_text_of_an_exception_makes_no_line_of_its_own() -> None:
    stream = io.StringIO()
    logs.setup(stream=stream)
    try:
        raise ValueError("bad\n2026-01-01 00:00:00.000 INFO    [-] hsm.daemon: all is well")
    except ValueError:
        Log("test").exception("failed")
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("test: failed")
    assert "Traceback" in rest[0]
    assert all(line.startswith("    ") for line in rest)


def test_json_has_the_same_members() -> None:
    found = entry("volume created", size=3, path="a\nb", nested={"x": [1]}, id=uuid.UUID(int=1), absent=None)
    assert found.pop("time") > 1.7e9
    assert found == {
        "level": "info",
        "request": "-",
        "source": "test.source",
        "event": "volume created",
        "size": 3,
        "path": "a\nb",
        "nested": {"x": [1]},
        "id": "00000000-0000-0000-0000-000000000001",
    }


@settings(deadline=None, max_examples=50)
@given(st.text(), st.dictionaries(st.text(), st.text()))
def test_every_line_of_json_is_json(value: str, nested: dict[str, str]) -> None:
    assert entry(value=value, nested=nested)["value"] == value


def test_json_holds_the_traceback() -> None:
    stream = io.StringIO()
    logs.setup(style="json", stream=stream)
    try:
        raise ValueError("bad")
    except ValueError:
        Log("test").exception("failed")
    assert "ValueError: bad" in json.loads(stream.getvalue())["traceback"]


def test_less_than_the_level_is_not_logged() -> None:
    stream = io.StringIO()
    logs.setup(level="warning", stream=stream)
    source = Log("test")
    source.debug("a")
    source.info("b")
    source.warning("c")
    source.error("d")
    assert [line.rpartition(" ")[2] for line in stream.getvalue().splitlines()] == ["c", "d"]


def test_a_log_may_go_to_a_file_and_goes_on_there(tmp_path: Path) -> None:
    file = tmp_path / "hsm.log"
    for event in ("erster", "größer"):
        logs.setup(file=str(file))
        Log("test").info(event)
        logging.getLogger().handlers[0].close()
    assert [line.rpartition(" ")[2] for line in file.read_text(encoding="utf-8").splitlines()] == ["erster", "größer"]


def test_a_line_carries_the_request_that_it_belongs_to() -> None:
    token = request_id.set("abc-123")
    try:
        assert "[abc-123]" in text()
        assert entry()["request"] == "abc-123"
    finally:
        request_id.reset(token)


def test_new_request_ids_differ() -> None:
    assert len({logs.new_request_id() for _ in range(1000)}) == 1000


def test_a_request_is_found_again_in_the_lines_of_the_task_that_it_starts(tmp_path: Path) -> None:
    stream = io.StringIO()
    with service.in_process(tmp_path / "home") as app:
        client = app.client()
        for task in client.task.list().items:
            client.wait(task, timeout=10)
        domain = client.domain.list().items[0].id
        logs.setup(level="info", style="json", stream=stream)
        token = request_id.set("my-request")
        try:
            made = client.image.create(domain=domain, capacity=2**20)
        finally:
            request_id.reset(token)
        client.wait(made, timeout=10)
        app.stop()
    entries = [json.loads(line) for line in stream.getvalue().splitlines()]
    ours = [found for found in entries if found["request"] == "my-request"]
    assert {found["source"] for found in ours} >= {"libvdsm.dispatch", "hsm.tasks"}
    assert made.request == "my-request"
    assert [found["task"] for found in ours if found["source"] == "hsm.tasks"] == [str(made.id)]
