# SPDX-License-Identifier: Apache-2.0
"""Configuration files: what they may say, and how somebody who wrote something else is told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import pytest
from msgspec import Meta, field

from libvdsm.config import ConfigError, Key, keys, load, parse_size, template, write_value


class Paint(msgspec.Struct, frozen=True, kw_only=True):
    color: Annotated[str, Meta(description="Which color.\nAny will do.")] = "red"
    layers: Annotated[int, Meta(ge=1, le=9, description="How many.")] = 2
    volume: Annotated[int, Meta(ge=0, le=2**40, description="In the pot.", extra={"unit": "bytes"})] = 2**30
    drying: Annotated[float, Meta(ge=0, description="Wait.", extra={"unit": "seconds"})] = 1.5
    shiny: Annotated[bool, Meta(description="Whether it shines.")] = False
    tools: Annotated[list[str], Meta(description="What with.")] = field(default_factory=lambda: ["brush", "roll"])


class Empty(msgspec.Struct, frozen=True, kw_only=True):
    note: Annotated[str, Meta(description="Anything.")] = ""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    paint: Paint = field(default_factory=Paint)
    empty: Empty = field(default_factory=Empty)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "test.conf"


def test_without_a_file_everything_has_its_default() -> None:
    assert load(Settings, None) == Settings()


def test_what_a_file_says_is_typed(file: Path) -> None:
    file.write_text(
        "; a comment\n# another\n\n[paint]\ncolor=blue = green\nlayers = 3\nvolume = 1.5G\n"
        "drying = 2\nshiny = on\ntools = brush,  sponge,\n[empty]\nnote =\n"
    )
    assert load(Settings, file).paint == Paint(
        color="blue = green",
        layers=3,
        volume=3 * 2**29,
        drying=2.0,
        shiny=True,
        tools=["brush", "sponge"],
    )


def test_a_section_may_be_taken_up_again(file: Path) -> None:
    file.write_text("[paint]\nlayers = 3\n[empty]\nnote = x\n[paint]\ncolor = blue\n")
    settings = load(Settings, file)
    assert (settings.paint.layers, settings.paint.color, settings.empty.note) == (3, "blue", "x")


def test_the_command_line_wins_over_the_file(file: Path) -> None:
    file.write_text("[paint]\nlayers = 3\ncolor = blue\n")
    settings = load(Settings, file, {"paint.layers": "4"})
    assert (settings.paint.layers, settings.paint.color) == (4, "blue")


def test_the_file_wins_over_defaults_made_for_the_place(file: Path) -> None:
    file.write_text("[paint]\nlayers = 3\n")
    settings = load(Settings, file, {"paint.color": "green"}, {"paint.layers": "5", "paint.color": "blue"})
    assert (settings.paint.layers, settings.paint.color) == (3, "green")
    assert load(Settings, None, None, {"paint.layers": "5"}).paint.layers == 5


BAD = {
    "an unknown section": ("[walls]\nlayers = 1", 2, "there is no section [walls]; the sections are empty, paint"),
    "an unknown key": ("[paint]\n\nlayer = 1", 3, "[paint] has no key 'layer'; its keys are color, layers"),
    "a key of another section": ("[empty]\nlayers = 1", 2, "[empty] has no key 'layers'; its keys are note"),
    "a key before any section": ("layers = 1", 1, "expected [section] or key = value"),
    "a line that is none": ("[paint]\nlayers", 2, "expected [section] or key = value, and found 'layers'"),
    "half a section": ("[paint\nlayers = 1", 1, "expected [section]"),
    "a number too small": ("[paint]\nlayers = 0", 2, "[paint] layers = 0: Expected `int` >= 1"),
    "a number too large": ("[paint]\nlayers = 10", 2, "[paint] layers = 10: Expected `int` <= 9"),
    "a word for a number": ("[paint]\nlayers = two", 2, "[paint] layers = two: expected a whole number"),
    "nothing for a number": ("[paint]\nlayers =", 2, "[paint] layers = : expected a whole number"),
    "a fraction for a whole number": ("[paint]\nlayers = 1.5", 2, "[paint] layers = 1.5"),
    "a comment behind a value": ("[paint]\nlayers = 1 # one", 2, "[paint] layers = 1 # one"),
    "a size that is none": ("[paint]\nvolume = 1 X", 2, "'1 X' is not a size; write for example 512M"),
    "a negative size": ("[paint]\nvolume = -1", 2, "'-1' is not a size"),
    "a size too large": ("[paint]\nvolume = 9P", 2, "[paint] volume = 9P: Expected `int` <="),
    "a word for a time": ("[paint]\ndrying = long", 2, "[paint] drying = long: expected a number"),
    "no number for a time": ("[paint]\ndrying = nan", 2, "[paint] drying = nan: Expected `float` >= 0"),
    "neither yes nor no": ("[paint]\nshiny = 1", 2, "[paint] shiny = 1: expected yes or no"),
}


@pytest.mark.parametrize(("text", "line", "reason"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_used_is_named_with_file_and_line(file: Path, text: str, line: int, reason: str) -> None:
    file.write_text(text + "\n[paint]\ncolor = good\n")
    with pytest.raises(ConfigError) as caught:
        load(Settings, file)
    assert str(caught.value).startswith(f"{file}:{line}: ")
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("paint.layers", "0", "--set paint.layers: [paint] layers = 0: Expected"),
        ("paint.layer", "1", "--set paint.layer: [paint] has no key 'layer'"),
        ("walls.color", "1", "--set walls.color: there is no section [walls]"),
        ("color", "1", "--set color: there is no section [color]"),
        ("", "", "--set : there is no section []"),
    ],
)
def test_what_the_command_line_says_wrongly_is_named_too(setting: str, value: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(Settings, None, {setting: value})
    assert str(caught.value).startswith(reason)


def test_a_file_that_is_not_there_is_an_error(file: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(Settings, file)
    assert str(caught.value) == f"{file}: cannot be read: No such file or directory"


def test_a_file_that_is_no_text_is_an_error(file: Path) -> None:
    file.write_bytes(b"[paint]\ncolor = \xff\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(Settings, file)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("512b", 512),
        ("1k", 1024),
        ("64M", 64 * 2**20),
        ("64 MiB", 64 * 2**20),
        ("64GB", 64 * 2**30),
        ("1.5T", 3 * 2**39),
        (" 2P ", 2**51),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_sizes_have_units_of_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "1.G", ".5G", "1,5G", "-1", "1e3", "1 2", "1GG", "0x10", "1G\n2", "inf"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


def test_a_template_sets_nothing(file: Path) -> None:
    file.write_text(template(Settings, "A heading\nof two lines"))
    assert load(Settings, file) == Settings()


def test_a_template_explains_every_key_with_its_unit_and_default() -> None:
    text = template(Settings, "A heading\n\nof three lines")
    assert text.startswith("# A heading\n#\n# of three lines\n\n[paint]\n")
    assert "\n# Which color.\n# Any will do.\n#color = red\n" in text
    assert "\n# In the pot. (bytes)\n#volume = 1073741824\n" in text
    assert "\n# What with.\n#tools = brush, roll\n" in text
    assert text.endswith("\n#note =\n")


@pytest.mark.parametrize("key", list(keys(Settings)), ids=lambda key: key.name)
def test_a_default_written_out_is_the_default(key: Key) -> None:
    found = load(Settings, None, {f"{key.section}.{key.name}": write_value(key.default)})
    assert getattr(getattr(found, key.section), key.name) == key.default
