# SPDX-License-Identifier: Apache-2.0
"""Every verb is a command, made from its declaration."""

from __future__ import annotations

import re
import shlex

import pytest

from hsmctl import commands
from hsmctl.commands import OWN, OWN_OF
from hsmctl.examples import EXAMPLES
from hsmctl.parser import build
from hsmctl.values import Kind
from libvdsm.api import VERBS
from libvdsm.declare import Verb
from tests.ctl.conftest import Ctl

OWNS = [*OWN, *(f"{class_} {name}" for class_, names in OWN_OF.items() for name in names)]
VERB = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)


def words_for(verb: Verb) -> list[str]:
    """A command line that gives a verb all that it needs."""
    values = {Kind.SIZE: "1G", Kind.NEW_ID: "0" * 8 + "-0000-4000-8000-" + "0" * 12}
    words = [verb.cls.lower(), commands.kebab(verb.name)]
    for argument in commands.arguments(verb):
        if argument.required:
            chosen = {"set-legality": "legal", "start": "download"}.get(commands.kebab(verb.name), "something")
            value = chosen if argument.kind is Kind.CHOICE else values.get(argument.kind, "something")
            words += [value] if argument.positional else [argument.option, value]
    return words


@VERB
def test_every_verb_is_a_command_that_parses(verb: Verb) -> None:
    assert build().parse_args(words_for(verb)).verb is verb


@VERB
def test_every_parameter_is_one_argument_and_a_path_yields_to_a_file(verb: Verb) -> None:
    offered = [argument.parameter.name for argument in commands.arguments(verb)]
    left_out = {"path"} if verb.descriptors else set()
    assert sorted(offered) == sorted({p.name for p in verb.parameters} - left_out)


@VERB
def test_every_command_has_help_with_an_example(verb: Verb, offline: Ctl) -> None:
    words = words_for(verb)[:2]
    shown = offline.ok(*words, "--help")
    assert f"usage: hsmctl {' '.join(words)} " in shown
    for argument in commands.arguments(verb):
        assert argument.shown in shown
    assert "examples:\n  " in shown
    assert EXAMPLES[verb.full]


@pytest.mark.parametrize("key", EXAMPLES)
def test_every_example_parses_as_the_command_that_it_explains(key: str) -> None:
    for example in EXAMPLES[key]:
        words = shlex.split(example.line.removeprefix("source <(").removesuffix(")"))
        words = words[: words.index(">")] if ">" in words else words
        assert words[0] == "hsmctl"
        parsed = build().parse_args(words[1:])
        assert getattr(parsed, "verb", None) is VERBS.get(key)
        assert getattr(parsed, "own", None) == (key if key in OWNS else None)


def test_examples_are_given_for_commands_only() -> None:
    assert set(EXAMPLES) == {*VERBS, *OWNS}


@VERB
def test_a_parser_made_for_one_command_line_is_like_the_whole_one(verb: Verb) -> None:
    words = words_for(verb)
    quick, whole = build(words).parse_args(words), build().parse_args(words)
    assert {k: v for k, v in vars(quick).items() if k != "parser"} == {
        k: v for k, v in vars(whole).items() if k != "parser"
    }


@pytest.mark.parametrize(
    ("line", "verb"),
    [
        ("image ls", "Image.list"),
        ("image info web01", "Image.getInfo"),
        ("image show web01", "Image.getInfo"),
        ("image rm web01", "Image.delete"),
        ("domain stats fast", "Domain.getStats"),
        ("host capabilities", "Host.getCapabilities"),
        ("event listen", "Event.subscribe"),
    ],
)
def test_commands_have_the_short_names_that_people_expect(line: str, verb: str) -> None:
    assert build().parse_args(line.split()).verb.full == verb


def arguments(full: str) -> dict[str, commands.Argument]:
    return {argument.parameter.name: argument for argument in commands.arguments(VERBS[full])}


def test_an_option_has_the_name_that_the_declaration_gives_it() -> None:
    assert arguments("Image.create")["capacity"].option == "--size"
    assert arguments("Image.import")["source_format"].option == "--source-format"


def test_a_boolean_is_a_flag_and_one_that_is_true_by_default_can_be_turned_off() -> None:
    assert arguments("Image.prepare")["read_only"].option == "--read-only"
    assert arguments("Volume.measure")["chain"].option == "--no-chain"
    words = build().parse_args(["volume", "measure", "x", "--no-chain"])
    assert words.param_chain is False
    assert build().parse_args(["volume", "measure", "x"]).param_chain is None


def test_a_file_is_needed_although_the_service_knows_another_way() -> None:
    source = arguments("Image.import")["source"]
    assert (source.kind, source.positional, source.required) == (Kind.FILE, True, True)


@pytest.mark.parametrize(
    ("full", "parameter", "kind"),
    [
        ("Image.create", "volume", Kind.NEW_ID),
        ("Image.create", "id", Kind.NEW_ID),
        ("Image.snapshot", "volume", Kind.NEW_ID),
        ("Image.clone", "template", Kind.IMAGE),
        ("Image.export", "volume", Kind.VOLUME),
        ("Volume.create", "parent", Kind.VOLUME),
        ("Volume.create", "image", Kind.IMAGE),
        ("Volume.delete", "volume", Kind.VOLUME),
        ("Task.wait", "timeout", Kind.SECONDS),
        ("Domain.create", "path", Kind.PATH),
    ],
)
def test_ids_of_new_things_are_told_from_names_of_existing_ones(full: str, parameter: str, kind: Kind) -> None:
    assert arguments(full)[parameter].kind is kind


def test_the_domain_may_be_left_out_but_not_where_it_could_be_destroyed() -> None:
    assert not arguments("Image.create")["domain"].required
    assert not arguments("Domain.getStats")["domain"].required
    assert arguments("Domain.format")["domain"].required
    assert arguments("Domain.detach")["domain"].required


def test_options_for_all_commands_may_stand_anywhere() -> None:
    for words in (["--json", "image", "list"], ["image", "list", "--json"], ["image", "--json", "list"]):
        assert build(words).parse_args(words).json
    words = ["--connect", "unix:/a", "image", "list"]
    assert build(words).parse_args(words).connect == "unix:/a"


def test_the_first_help_names_every_class_and_every_verb(offline: Ctl) -> None:
    shown = offline.ok("--help")
    for verb in VERBS.values():
        assert f"  {verb.cls.lower()} " in shown
        assert commands.short_name(verb) in shown
    for name in OWN:
        assert f"  {name} " in shown
    for names in OWN_OF.values():
        assert all(name in shown for name in names)
    assert "exit codes:" in shown


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("iamge list", "there is no command 'iamge'; did you mean image?"),
        ("image crate", "there is no command 'crate'; did you mean create?"),
        ("image create web01", "missing: --size"),
        ("image create web01 --size big", "--size: 'big' is not a size; write for example 512M, 64G or 1.5T"),
        ("image create web01 --size 0", "--size: it has to be at least 1"),
        ("image create web01 --size 1G --fromat raw", "there is no option --fromat; did you mean --format?"),
        ("image create web01 --size 1G --format rwa", "--format: there is no value 'rwa'; did you mean raw?"),
        ("image create web01 web02 --size 1G", "too many arguments: web02"),
        ("image create web01 --size 1G --id 12", "--id: '12' is not an id"),
        ("image create web01 --size 10", "--size: 10 is 10 bytes; did you mean 10G? Write 10B for bytes"),
        ("image create web01 --size 1048575", "--size: 1048575 is 1048575 bytes; did you mean 1048575M?"),
        ("volume resize web01 20", "SIZE: 20 is 20 bytes; did you mean 20G?"),
        ("snapshot web01", "there is no command 'snapshot'; did you mean image snapshot?"),
        ("upload disk.img", "there is no command 'upload'; did you mean image upload?"),
        ("list", "there is no command 'list'; did you mean image list or domain list or volume list?"),
        ("host info", "there is no command 'info'; there is ping,"),
        ("image create web01 --size 1G -x", "there is no option -x\n"),
        ("image delete web01 web02", "too many arguments: web02; delete-many takes several"),
        ("image import -", "FILE: '-' is not supported"),
        ("image export web01 -", "FILE: '-' is not supported"),
        ("task wait abcd --timeout soon", "--timeout: 'soon' is not a time"),
        ("task list --limit many", "--limit: 'many' is not a whole number"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_says_what_is_wrong(line: str, message: str, offline: Ctl) -> None:
    result = offline(*line.split())
    assert result.status == 2
    assert f"hsmctl: error: {message}" in result.err
    assert "usage: hsmctl" in result.err
    assert "--help" in result.err


@pytest.mark.parametrize(
    ("line", "dest", "value"),
    [
        ("image import ok.qcow2 --format raw okraw", "param_name", "okraw"),
        ("image import --format raw ok.qcow2 okraw", "param_name", "okraw"),
        ("image import ok.qcow2 okraw --format raw", "param_name", "okraw"),
        ("image snapshot web01 --json monday", "param_name", "monday"),
        ("image upload ok.qcow2 --json okraw", "name", "okraw"),
        ("image clone base --size 10G web01", "param_name", "web01"),
    ],
)
def test_options_may_stand_between_arguments(line: str, dest: str, value: str) -> None:
    words, rest = build(line.split()).parse_known_args(line.split())
    assert getattr(words, dest) == value
    assert rest == []


def test_a_small_size_is_taken_with_its_unit_and_a_large_one_without() -> None:
    for text, size in (("10B", 10), ("512K", 2**19), ("1048576", 2**20)):
        assert build().parse_args(["image", "create", "x", "--size", text]).param_capacity == size
    assert build().parse_args(["volume", "measure", "x"]).verb.full == "Volume.measure"


@pytest.mark.parametrize("line", ["iamge list", "image create web01", "image", "", "image list --nosuch"])
def test_a_wrong_command_line_is_told_as_json_too(line: str, offline: Ctl) -> None:
    result = offline(*line.split(), "--json")
    assert (result.status, result.out) == (2, "")
    assert result.error["name"] == "UsageError"
    assert result.error["data"]["usage"].startswith("usage: hsmctl")
    assert "code" not in result.error


@pytest.mark.parametrize("line", ["", "image", "task"])
def test_a_command_line_without_a_command_is_answered_with_help(line: str, offline: Ctl) -> None:
    result = offline(*line.split())
    assert result.status == 2
    assert result.out.startswith("usage: hsmctl")


def test_help_speaks_of_commands_and_options_where_the_api_speaks_of_verbs_and_parameters(
    offline: Ctl,
) -> None:
    shown = " ".join(offline.ok("image", "create", "--help").split())
    assert "With --id and --volume, the same call again answers the same." in shown
    assert "`hsmctl host capabilities`" in offline.ok("domain", "create", "--help")


def test_no_help_is_wider_than_a_terminal(monkeypatch: pytest.MonkeyPatch, offline: Ctl) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for verb in VERBS.values():
        for line in offline.ok(*words_for(verb)[:2], "--help").splitlines():
            assert len(line) <= 100, line


def test_the_version_tells_the_api_too(offline: Ctl) -> None:
    assert ", API 1." in offline.ok("--version")


def test_formats_of_exports_are_those_that_work(offline: Ctl) -> None:
    assert "--format {raw,qcow2}" in offline.ok("image", "export", "--help")
    assert "--source-format {raw,qcow2,vmdk,vdi,vhdx,vpc}" in offline.ok("image", "import", "--help")


@pytest.mark.parametrize("class_", ["host", "image", "event", "volume"])
def test_the_texts_of_commands_stand_in_one_column(class_: str, offline: Ctl) -> None:
    shown = offline.ok(class_, "--help").partition("commands:\n")[2].partition("\n\n")[0]
    for line in shown.splitlines():
        assert re.fullmatch(r"  [a-z-]+(, [a-z-]+)*|(  [a-z(),  -]{22} | {25})\S.*", line), line


def test_the_help_of_listening_speaks_to_people(offline: Ctl) -> None:
    shown = offline.ok("event", "listen", "--help")
    assert "Print events as they happen" in shown
    assert "notifications" not in shown
