# SPDX-License-Identifier: Apache-2.0
"""What filters mean, operator by operator, and how those are refused that mean nothing."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

from libvdsm.api.errors import InvalidFilter
from libvdsm.query.fields import fields_of
from libvdsm.query.filter import NESTING, PATTERN, TERMS, parse
from tests.query.things import NOW, Colour, Part, Thing, thing

FULL = thing(
    number=0x3F2A << 112,
    title="Web 01",
    name="web01",
    used=3 * 2**30,
    seen_at=NOW - 7200,
    twin=UUID(int=7),
    shade=Colour.GREEN,
    tags=["backup", "env=prod"],
    inner=Part(size=10, ready=True, label="x"),
)
BARE = thing()


def holds(text: str, item: Thing) -> bool:
    return parse(text, Thing, NOW).holds(item)


@pytest.mark.parametrize(
    "text",
    [
        # texts
        "name = web01",
        'name = "web01"',
        "name = 'web01'",
        "name != web02",
        "name ~ web*",
        'name ~ "w?b[0-9]1"',
        'name ~ "web[!2-9]1"',
        "name ~ *",
        "name in (web00, web01)",
        "name not in (web00, web02)",
        'title = "Web 01"',
        'title != "web 01"',
        "name is present",
        "name is not absent",
        # ids
        "id = 3f2a0000-0000-0000-0000-000000000000",
        "id = 3F2A0000-0000-0000-0000-000000000000",
        "id ~ 3f2a*",
        "id != 00000000-0000-0000-0000-000000000007",
        "twin in (00000000-0000-0000-0000-000000000007)",
        # numbers
        "count = 3",
        "count != 4",
        "count < 4",
        "count <= 3",
        "count > 2.5",
        "count >= 3",
        "count in (1, 2, 3)",
        "share = 12.5",
        "share < 13",
        # sizes
        "size = 4K",
        "size = 4096",
        "size < 1M",
        "used > 2.5G",
        'used = "3 GiB"',
        "used in (1G, 3G)",
        # times
        "madeAt < now",
        "madeAt > now-2h",
        "madeAt <= now-1h",
        "madeAt >= now-3600s",
        "madeAt > now-1d and madeAt > now-1w",
        "madeAt > 2026-09-20",
        "seenAt < 2100-01-01",
        # booleans
        "good",
        "good = true",
        "good != false",
        "not part.ready",
        "inner.ready",
        # enumerations
        "colour = red",
        "colour != green",
        "shade in (red, green)",
        "shade not in (red)",
        # lists
        "tags has backup",
        'tags has "env=prod"',
        "tags ~ env*",
        "not tags has env",
        "tags is present",
        # structures
        "inner is present",
        "inner.label = x and inner.size >= 10",
        # together
        "name = x or name = web01 and count = 3",
        "(name = x or name = web01) and not (count = 4)",
        "not not good",
        "not (name = x or count = 4)",
        "good and(count=3)and name=web01",
        "  good  ",
    ],
)
def test_a_filter_holds(text: str) -> None:
    assert holds(text, FULL)
    assert not holds(f"not ({text})", FULL)


@pytest.mark.parametrize(
    "text",
    [
        "name = Web01",
        "name = web",
        "name ~ web",
        "name ~ WEB*",
        "name in (web)",
        'name = "web*"',
        "name is absent",
        "id = 00000000-0000-0000-0000-000000000000",
        "id ~ 3f2a",
        "count > 3",
        "size > 4K",
        "used <= 2G",
        "madeAt > now-30m",
        "seenAt > now-2h",
        "good = false",
        "part.ready",
        "colour = green",
        "shade = red",
        "tags has prod",
        "tags ~ prod",
        "inner.label != x",
        "name = web01 and count = 4",
        "(name = x or name = web01) and count = 4",
    ],
)
def test_a_filter_does_not_hold(text: str) -> None:
    assert not holds(text, FULL)
    assert holds(f"not ({text})", FULL)


@pytest.mark.parametrize("field", ["name", "used", "seenAt", "twin", "shade", "tags", "inner", "inner.ready"])
def test_presence(field: str) -> None:
    assert holds(f"{field} is present", FULL)
    assert not holds(f"{field} is absent", FULL)
    assert holds(f"{field} is absent", BARE)
    assert not holds(f"{field} is present", BARE)


@pytest.mark.parametrize(
    "text",
    ["name = x", "name ~ *", "name in (x)", "used < 9G", "used > 0", "seenAt <= now", "shade = red", "tags has x",
     "tags ~ *", "twin ~ *", "inner.ready", "inner.ready = false", "inner.size >= 0"],
)  # fmt: skip
def test_an_absent_value_is_like_nothing(text: str) -> None:
    assert not holds(text, BARE)
    assert holds(f"not {text}", BARE)


def test_an_absent_value_differs_from_everything() -> None:
    assert holds("name != x and used != 1 and shade != red and inner.ready != true and name not in (x)", BARE)


def test_a_quote_is_written_twice_inside_its_like() -> None:
    item = thing(name="""it's "so" \\n""")
    assert holds("""name = 'it''s "so" \\n'""", item)
    assert holds('''name = "it's ""so"" \\n"''', item)
    assert holds("""name = ''""", thing(name=""))


def test_a_star_in_brackets_is_a_star() -> None:
    assert holds('name ~ "a[*]b[?]"', thing(name="a*b?"))
    assert not holds('name ~ "a[*]b[?]"', thing(name="a*bc"))


def test_words_of_the_language_are_values_in_quotes() -> None:
    assert holds('name = "and" or name in ("not", "or")', thing(name="or"))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-05-31", datetime(2026, 5, 31, tzinfo=UTC)),
        ("2026-05-31T18:30:05", datetime(2026, 5, 31, 18, 30, 5, tzinfo=UTC)),
        ("2026-05-31T18:30:05.25Z", datetime(2026, 5, 31, 18, 30, 5, 250_000, tzinfo=UTC)),
        ("2026-05-31T18:30:00+02:00", datetime(2026, 5, 31, 18, 30, tzinfo=timezone(timedelta(hours=2)))),
        ('"2026-05-31 18:30"', datetime(2026, 5, 31, 18, 30, tzinfo=UTC)),
        ("1790000000", datetime.fromtimestamp(1_790_000_000, UTC)),
        ("1790000000.5", datetime.fromtimestamp(1_790_000_000.5, UTC)),
        ("now", datetime.fromtimestamp(NOW, UTC)),
        ("now-1.5h", datetime.fromtimestamp(NOW - 5400, UTC)),
    ],
)
def test_times(text: str, moment: datetime) -> None:
    assert holds(f"madeAt = {text}", thing(made_at=moment.timestamp()))
    assert not holds(f"madeAt = {text}", thing(made_at=moment.timestamp() + 1))


def test_now_is_the_time_of_the_question() -> None:
    made = parse("madeAt > now-1h", Thing)
    assert made.holds(thing(made_at=time.time() - 3000))
    assert not made.holds(thing(made_at=time.time() - 4000))


@pytest.mark.parametrize(
    ("text", "field", "values"),
    [
        ("name = x", "name", {"x"}),
        ("name in (x, y) and good", "name", {"x", "y"}),
        ("name in (x, y) and name in (y, z)", "name", {"y"}),
        ("name = x or name = y", "name", {"x", "y"}),
        ("name = x and (count = 1 or count = 2)", "count", {1, 2}),
        ("name = x or count = 1", "name", None),
        ("not name = x", "name", None),
        ("name != x", "name", None),
        ("name ~ x", "name", None),
        ("name not in (x)", "name", None),
        ("colour = red", "colour", {Colour.RED}),
    ],
)
def test_a_filter_pins_what_a_field_has_to_be(text: str, field: str, values: set[Any] | None) -> None:
    pinned = parse(text, Thing, NOW).pins.get(field)
    assert pinned == (None if values is None else frozenset(values))


# ---- refusals

KNOWN = ", ".join(fields_of(Thing))
INSIDE = "or one of its own fields, such as inner.…"


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("nmae = x", 1, f"there is no field 'nmae'; the fields are {KNOWN}"),
        ("made_at = 1", 1, f"there is no field 'made_at'; the fields are {KNOWN}"),
        ("parts is present", 1, f"there is no field 'parts'; the fields are {KNOWN}"),
        ("part is present", 1, f"there is no field 'part'; the fields are {KNOWN}"),
        ("part.nothing = 1", 1, f"there is no field 'part.nothing'; the fields are {KNOWN}"),
        ("'name' = x", 1, f"expected a field ({KNOWN}), found 'name'"),
        ("", 1, f"expected a field ({KNOWN}), found the end"),
        ("good and", 9, f"expected a field ({KNOWN}), found the end"),
        ("good and or good", 10, f"expected a field ({KNOWN}), found 'or'"),
        ("()", 2, f"expected a field ({KNOWN}), found ')'"),
        ("name", 5, "expected how to compare name (=, !=, ~, in, is present, is absent), found the end"),
        ("count 3", 7, "expected how to compare count (=, !=, <, <=, >, >=, in), found '3'"),
        ("inner", 6, f"expected how to compare inner (is present, is absent; {INSIDE}), found the end"),
        ("name < x", 6, "name cannot be compared with <, only with =, !=, ~, in, is present, is absent"),
        ("colour ~ r*", 8, "colour cannot be compared with ~, only with =, !=, in"),
        ("good > false", 6, "good cannot be compared with >, only with =, !="),
        ("good in (true)", 6, "good cannot be compared with in, only with =, !="),
        ("tags = x", 6, "tags cannot be compared with =, only with has, ~, is present, is absent"),
        ("name has x", 6, "name cannot be compared with has, only with =, !=, ~, in, is present, is absent"),
        ("count is present", 7, "count is always present; it is compared with =, !=, <, <=, >, >=, in"),
        ("name is", 8, "expected present or absent, found the end"),
        ("name is not", 12, "expected present or absent, found the end"),
        ("name is here", 9, "expected present or absent, found 'here'"),
        ("name not x", 10, "expected in, found 'x'"),
        ("name =", 7, "expected a text, found the end"),
        ("name = =", 8, "expected a text, found '='"),
        ("name = and", 8, "expected a text; if 'and' is meant, put it in quotes"),
        ("name ~ )", 8, "expected a pattern, such as web*, found ')'"),
        ("size > big", 8, "size is compared with a size, such as 512M or 64G, not with 'big'"),
        ("size > -1", 8, "size is compared with a size, such as 512M or 64G, not with '-1'"),
        ("count = three", 9, "count is compared with a number, not with 'three'"),
        ("count = 4K", 9, "count is compared with a number, not with '4K'"),
        ("count = \u0663", 9, "count is compared with a number, not with '\u0663'"),
        ("good = yes", 8, "good is compared with true or false, not with 'yes'"),
        ("colour = blue", 10, "colour is compared with one of red, green, not with 'blue'"),
        ("colour = unknown", 10, "colour is compared with one of red, green, not with 'unknown'"),
        ("name in x", 9, "expected ( and values, found 'x'"),
        ("name in ()", 10, "expected a text, found ')'"),
        ("name in (x y)", 12, "expected a comma or ), found 'y'"),
        ("name in (x,", 12, "expected a text, found the end"),
        ("(good", 6, "expected and, or, or ), found the end"),
        ("good)", 5, "expected and, or, or the end, found ')'"),
        ("good AND good", 6, "expected and, or, or the end, found 'AND'"),
        ("name = x y", 10, "expected and, or, or the end, found 'y'"),
        ('name = "x', 8, "this quote is not closed"),
        ("name = 'x''", 8, "this quote is not closed"),
        ("name ! x", 6, "'!' stands for nothing here"),
    ],
)  # fmt: skip
def test_what_is_no_filter_is_refused_with_place_and_reason(text: str, position: int, reason: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        parse(text, Thing, NOW)
    assert (caught.value.position, caught.value.reason) == (position, reason)
    assert f"at character {position}: {reason}" in str(caught.value)


@pytest.mark.parametrize("text", ["3f2a", "3f2a0000000000000000000000000000", "{3f2a0000-0000-0000-0000-000000000000}"])
def test_an_id_is_whole_or_refused(text: str) -> None:
    with pytest.raises(InvalidFilter, match="a whole id"):
        parse(f'id = "{text}"', Thing)


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "now+1h", "now-1y", "now-", "-5", "1e3"])
def test_a_time_is_one_or_refused(text: str) -> None:
    with pytest.raises(InvalidFilter, match=r"a time, such as 2026-05-31, .* not with"):
        parse(f"madeAt > {text}", Thing)


# ---- bounds


def test_parentheses_are_bounded() -> None:
    assert holds("(" * NESTING + "good" + ")" * NESTING, FULL)
    with pytest.raises(InvalidFilter, match=f"more than {NESTING} deep"):
        parse("(" * (NESTING + 1) + "good" + ")" * (NESTING + 1), Thing)
    with pytest.raises(InvalidFilter, match=f"more than {NESTING} deep"):
        parse("(" * 4096, Thing)


def test_parentheses_beside_each_other_are_not_inside_each_other() -> None:
    assert holds(" and ".join(["(good)"] * (2 * NESTING)), FULL)


def test_any_number_of_nots_is_one_or_none() -> None:
    assert holds("not " * 1000 + "good", FULL)
    assert not holds("not " * 1001 + "good", FULL)


def test_the_number_of_values_is_bounded() -> None:
    assert holds(" or ".join(["count=3"] * TERMS), FULL)
    for text in (
        " or ".join(["count=3"] * (TERMS + 1)),
        " or ".join(["good"] * (TERMS + 1)),
        " or ".join(["name is absent"] * (TERMS + 1)),
        f"count in ({','.join(['3'] * (TERMS + 1))})",
    ):
        with pytest.raises(InvalidFilter, match=f"more than {TERMS} values"):
            parse(text, Thing)


def test_the_length_of_a_pattern_is_bounded() -> None:
    assert holds(f"name ~ {'*' * PATTERN}", FULL)
    with pytest.raises(InvalidFilter, match=f"at most {PATTERN} characters"):
        parse(f"name ~ {'*' * (PATTERN + 1)}", Thing)


@pytest.mark.parametrize(
    "pattern", ["*a" * 100 + "b", "*" * 200 + "b", "*?" * 100 + "b", "*[ab]" * 50 + "c", "?*" * 120]
)
def test_no_pattern_takes_long(pattern: str) -> None:
    """With plain backtracking, the first would not end in this universe's time."""
    text = "a" * 4096
    condition = parse(f'name ~ "{pattern}"', Thing)
    began = time.process_time()
    condition.holds(thing(name=text))
    assert time.process_time() - began < 1.0


def test_an_error_repeats_no_more_than_a_piece_of_what_it_was_given() -> None:
    with pytest.raises(InvalidFilter) as caught:
        parse("size = " + "x" * 4000, Thing)
    assert len(caught.value.reason) < 150
