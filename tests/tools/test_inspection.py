# SPDX-License-Identifier: Apache-2.0
"""Which images from outside are refused, and why; which are taken in, and how large; what the child may do.

Judged in this process where there is much to judge, since a child takes 150 ms to start; through a child
where that is what is tested. What qemu-img does is the measure in both directions: it follows what is refused
here, and it follows nothing in what is accepted.
"""

import contextlib
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hsm.tools import headers, inspection, judgement
from hsm.tools.headers import Reader
from hsm.tools.inspection import FORMATS, Inspected, Kind, Refused, inspect
from hsm.tools.judgement import judge
from libvdsm.run import Runner
from tests.formats import qemu
from tests.tools.good import GOOD, Build
from tests.tools.hostile import CORPUS, LEAKS, Hostile
from tests.tools.images import (
    CANARY,
    EXTENT,
    KIB,
    MIB,
    SECTOR,
    Image,
    Lab,
    checked,
    qcow2,
    sealed,
    sparse,
    stream,
    text,
)

Verdict = Inspected | Refused


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


RUNNER = Runner()


def judged(path: Path, declared: str | None) -> Verdict:
    with opened(path) as descriptor:
        try:
            return judge(Reader(descriptor), declared)
        except Refused as refused:
            return refused


def inspected(path: Path, declared: str | None, *, deadline: float = 30) -> Verdict:
    with opened(path) as descriptor:
        try:
            return inspect(descriptor, declared, runner=RUNNER, deadline=deadline)
        except Refused as refused:
            return refused


def qemu_info(path: Path, *options: str) -> tuple[dict[str, Any], str]:
    """What `qemu-img info` prints, and what it complains about."""
    argv = ["qemu-img", "info", "--output=json", *options, str(path)]
    done = subprocess.run(argv, capture_output=True, check=False, text=True, timeout=30)
    return (json.loads(done.stdout) if done.returncode == 0 else {}), done.stderr


def reason(verdict: Verdict) -> Kind | None:
    return verdict.kind if isinstance(verdict, Refused) else None


def each(entries: Iterable[Hostile]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("entry", [pytest.param(entry, id=entry.name) for entry in entries])


# --- hostile images -----------------------------------------------------------------------------------------


@each(CORPUS)
def test_a_hostile_image_is_refused_whatever_it_is_declared_as(entry: Hostile, lab: Lab, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(entry.build(lab))
    verdicts = {declared: judged(image, declared) for declared in (None, entry.format, *FORMATS)}
    expected = dict.fromkeys(verdicts, Kind.FORMAT_MISMATCH) | {None: entry.kind, entry.format: entry.kind}
    assert {declared: reason(verdict) for declared, verdict in verdicts.items()} == expected
    assert {verdict.found for verdict in verdicts.values() if isinstance(verdict, Refused)} == {entry.format}


@each(LEAKS)
def test_qemu_would_have_read_a_file_of_the_host(entry: Hostile, lab: Lab) -> None:
    image, output = lab.folder / "leaking", lab.folder / "leaked"
    image.write_bytes(entry.build(lab))
    fmt = entry.format.removeprefix("disk+").removesuffix("+vpc")
    qemu.image_tool("convert", "-f", fmt, "-O", "raw", str(image), str(output))
    with output.open("rb") as content:
        assert CANARY in content.read(MIB)


PROBED = {
    "qcow2": "backing file",
    "vmdk": "text after comments and blank lines",
    "vdi": "of type difference",
    "vpc": "of type difference",
    "vhdx": "with a log",
    "qcow": "alone",
    "qed": "backing file",
    "parallels": "parallels",
    "luks": "luks",
    "bochs": "bochs",
    "cloop": "cloop",
}


@pytest.mark.parametrize(("fmt", "title"), PROBED.items(), ids=PROBED)
def test_qemu_would_have_found_the_format_in_a_raw_image(fmt: str, title: str, lab: Lab, tmp_path: Path) -> None:
    entry = next(entry for entry in CORPUS if (entry.format, entry.title) == (fmt, title))
    image = tmp_path / "image.raw"
    image.write_bytes(entry.build(lab))
    found, complaint = qemu_info(image)
    assert found.get("format") == fmt or "VHDX image file" in complaint
    assert reason(judged(image, "raw")) is Kind.FORMAT_MISMATCH


@each(entry for entry in LEAKS if entry.format == "qcow2")
def test_a_second_judge_is_asked_who_knows_nothing_of_the_first(
    entry: Hostile, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "image"
    image.write_bytes(entry.build(lab))
    monkeypatch.setitem(judgement.CHECKS, "qcow2", headers.raw)
    assert reason(judged(image, "qcow2")) is entry.kind
    monkeypatch.setattr(judgement, "signatures", lambda _: set())
    assert reason(judged(image, "raw")) is Kind.FORMAT_MISMATCH


def test_the_detail_names_the_file_that_would_have_been_read(lab: Lab, tmp_path: Path) -> None:
    image = tmp_path / "image"
    qemu.image_tool("create", "-q", "-u", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw", str(image), "1M")
    assert str(judged(image, None)) == "backing-file: it is a difference to the backing file '/etc/shadow'"
    assert str(judged(image, "vmdk")) == "format-mismatch: it has the marks of qcow2"


def test_a_header_that_is_cut_off_or_names_nothing_is_told_as_such(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"QFI\xfb")
    assert str(judged(image, None)) == "damaged: it ends within its qcow2 header"
    image.write_bytes(struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 0, 12, 16, 2**20, 0, 1, 0, 0, 1, 0, 0).ljust(512, b"\0"))
    assert str(judged(image, None)) == "backing-file: its header speaks of a backing file, and names none"


def test_the_detail_is_one_printable_line_whatever_the_name_is(lab: Lab, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(qcow2(lab).write(1024, b"\x1b[2J\n\xff" * 300).put(">QI", 8, 1024, 1023))
    detail = str(judged(image, None))
    assert detail.isprintable()
    assert detail.isascii()
    assert len(detail) < 1000


# --- good images --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fmt", "build"), GOOD.values(), ids=GOOD)
def test_a_good_image_is_taken_in_with_the_size_that_qemu_sees(
    fmt: str, build: Build, lab: Lab, tmp_path: Path
) -> None:
    image = tmp_path / "image"
    build(lab, image)
    info, complaint = qemu_info(image, "-f", fmt)
    assert not complaint
    expected = Inspected(fmt, info["virtual-size"])
    assert judged(image, fmt) == expected
    assert judged(image, None) == expected
    assert reason(judged(image, "vdi" if fmt != "vdi" else "raw")) is Kind.FORMAT_MISMATCH


def test_the_size_of_raw_is_in_whole_sectors(tmp_path: Path) -> None:
    sizes = {0: 0, 1: 512, 512: 512, 513: 1024}
    for size, capacity in sizes.items():
        (tmp_path / "image").write_bytes(bytes(size))
        assert judged(tmp_path / "image", "raw") == Inspected("raw", capacity)


def test_the_stream_with_a_footer_is_one_that_qemu_reads(tmp_path: Path) -> None:
    """The images with bad footers prove something only if the good one is good."""
    data = os.urandom(150 * KIB)
    (tmp_path / "image").write_bytes(stream(data))
    qemu.image_tool("convert", "-f", "vmdk", "-O", "raw", str(tmp_path / "image"), str(tmp_path / "raw"))
    assert (tmp_path / "raw").read_bytes().startswith(data)


def test_a_name_that_lies_changes_nothing(lab: Lab, tmp_path: Path) -> None:
    for name in ("image.raw", "image.iso", "image.vmdk", "image.dmg"):
        (tmp_path / name).write_bytes(qcow2(lab))
        assert judged(tmp_path / name, None) == Inspected("qcow2", MIB)


def test_a_file_that_shrinks_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(bytes(2 * MIB))
    with opened(tmp_path / "image") as descriptor:
        file = Reader(descriptor)
        os.truncate(tmp_path / "image", MIB)
        with pytest.raises(Refused, match="shrinks"):
            judge(file, "raw")


def test_what_is_no_file_is_refused() -> None:
    for path in ("/dev/zero", "/tmp"):
        assert reason(judged(Path(path), None)) is Kind.UNSUPPORTED


def test_a_block_device_has_the_size_of_the_device(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(qcow2(lab) + bytes(MIB))
    argv = ["losetup", "--find", "--show", "--read-only", str(tmp_path / "image")]
    attached = subprocess.run(argv, capture_output=True, check=False, text=True, timeout=30)
    if attached.returncode != 0:
        pytest.skip(f"no loop device: {attached.stderr.strip()}")
    device = Path(attached.stdout.strip())
    try:
        assert judged(device, None) == Inspected("qcow2", MIB)
        with opened(device) as descriptor:
            assert Reader(descriptor).size == (tmp_path / "image").stat().st_size // SECTOR * SECTOR
    finally:
        subprocess.run(["losetup", "--detach", str(device)], check=True, timeout=30)


# --- mutations ----------------------------------------------------------------------------------------------

# Where the headers of the formats are, besides at the start and at the end.
PLACES = [0, 0, 0, 64, SECTOR, 64 * KIB, 128 * KIB, 192 * KIB, 2 * MIB, 3 * MIB, 3 * MIB + 64 * KIB]
NUMBERS = [0, 1, 2, 4, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, (1 << 63) - 1, (1 << 64) - 1]
numbers = st.sampled_from(NUMBERS).flatmap(
    lambda number: st.sampled_from([number.to_bytes(8, "big"), number.to_bytes(8, "little")])
)
near = st.integers(0, 160) | st.integers(0, 1024) | st.integers(0, 64 * KIB)
offsets = st.builds(int.__add__, st.sampled_from(PLACES), near) | st.integers(-1600, -1)
contents = st.binary(min_size=1, max_size=8) | numbers | numbers.map(lambda number: number[:4])
fuzz = settings(
    max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
mutations = st.lists(st.tuples(offsets, contents), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def seeds(lab: Lab) -> dict[str, bytes]:
    chosen = ["qcow2 clusters of 512", "qcow2 version 2", "qcow2 subclusters", "qcow2 with snapshots", "vmdk",
              "vmdk streamOptimized by VMware", "vdi with data", "vhdx", "vpc", "vpc fixed"]  # fmt: skip
    images = {}
    for name in chosen:
        GOOD[name][1](lab, lab.folder / "image")
        images[name] = (lab.folder / "image").read_bytes()
    return images


def mutated(image: Image, changes: list[tuple[int, bytes]], *, seal: bool) -> Image:
    for offset, content in changes:
        start = offset % len(image)
        image[start : start + len(content)] = content[: len(image) - start]
    if seal and image[:8] == b"vhdxfile":
        return sealed(image)
    if seal:
        for start in (0, len(image) - SECTOR):
            if image[start : start + 8] == b"conectix":
                checked(image, start)
    return image


def assert_held(image: Path, verdict: Verdict, lab: Lab) -> None:
    """What was accepted is for qemu of that format and size, and leads nowhere; or qemu refuses it too."""
    if isinstance(verdict, Refused):
        return
    info, complaint = qemu_info(image, "-f", verdict.format)
    assert str(lab.folder / "canary") not in complaint
    if not info:
        return
    assert info["virtual-size"] == verdict.capacity
    assert not {key for key in info if "backing" in key}
    specific = info.get("format-specific", {}).get("data", {})
    assert "data-file" not in specific
    assert {extent["filename"] for extent in specific.get("extents", [])} <= {str(image)}


@settings(max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_mutated_image_is_judged_and_leads_nowhere(data: st.DataObject, seeds: dict[str, bytes], lab: Lab) -> None:
    name = data.draw(st.sampled_from(sorted(seeds)))
    image = mutated(Image(seeds[name]), data.draw(mutations), seal=data.draw(st.booleans()))
    path = lab.folder / "mutated"
    path.write_bytes(image)
    for declared in (None, GOOD[name][0]):
        assert_held(path, judged(path, declared), lab)


LINES = [
    EXTENT, 'RW 2048 SPARSE "CANARY"', 'RW 128 FLAT "CANARY" 0', 'RW 2048 FLAT "disk.vmdk" 0', "version=1",
    "CID=12345678", "parentCID=ffffffff", "parentCID=12345678", 'createType="monolithicSparse"',
    'createType="monolithicFlat"', 'createType="streamOptimized"', 'parentFileNameHint="CANARY.vmdk"',
    '# parentFileNameHint="CANARY.vmdk"', 'ddb.x = "parentFileNameHint="', 'ddb.adapterType = "ide"',
    'encoding="UTF-8"', 'isNativeSnapshot="no"', "# Extent description", "",
]  # fmt: skip
ENDS = ["\n", "\n", "\n", "\r\n", "\r", "\0", "\n\0", " \n", "\x0b", "\n\n", ""]
STARTS = ["", "", "", "", " ", "\t", "#"]
texts = st.lists(st.tuples(st.sampled_from(STARTS), st.sampled_from(LINES), st.sampled_from(ENDS)), max_size=6)


@settings(max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(lines=texts, sectors=st.sampled_from([20, 20, 20, 1, 2, 0, 21]), header=st.booleans())
def test_a_vmdk_of_any_text_leads_nowhere(
    lines: list[tuple[str, str, str]], sectors: int, header: bool, lab: Lab
) -> None:
    added = "".join(start + line + end for start, line, end in lines).replace("CANARY", str(lab.canary))
    content = (text() + added.encode()) if header else added.encode()
    path = lab.folder / "text"
    path.write_bytes(sparse(lab, content=content or b"\n").put("<Q", 36, sectors))
    assert_held(path, judged(path, "vmdk"), lab)
    path.write_bytes(content)
    assert reason(judged(path, "vmdk")) in {Kind.EXTENTS, Kind.FORMAT_MISMATCH}
    assert_held(path, judged(path, None), lab)


# --- the child ----------------------------------------------------------------------------------------------

ONE_OF_EACH = {entry.kind: entry for entry in reversed(CORPUS)}.values()


@each(ONE_OF_EACH)
def test_through_a_child_the_verdict_is_the_same(entry: Hostile, lab: Lab, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(entry.build(lab))
    here, there = judged(image, entry.format), inspected(image, entry.format)
    assert isinstance(here, Refused)
    assert isinstance(there, Refused)
    assert (there.kind, there.detail, there.found) == (here.kind, here.detail, here.found)


@pytest.mark.parametrize("name", ["empty", "ISO, hybrid", "qcow2 with data", "vmdk streamOptimized by VMware", "vhdx"])
def test_through_a_child_good_images_are_taken_in(name: str, lab: Lab, tmp_path: Path) -> None:
    image = tmp_path / "image"
    GOOD[name][1](lab, image)
    verdict = inspected(image, None)
    assert isinstance(verdict, Inspected)
    assert verdict == judged(image, None)


def test_the_descriptor_is_left_as_it_was(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(qcow2(lab))
    with opened(tmp_path / "image") as descriptor:
        (tmp_path / "image").unlink()
        os.lseek(descriptor, 7, os.SEEK_SET)
        assert inspect(descriptor, "qcow2", runner=RUNNER) == Inspected("qcow2", MIB)
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 7
        assert not os.get_inheritable(descriptor)


BROKEN = {
    "crash": "import os; os.abort()",
    "exit": "raise SystemExit(1)",
    "silence": "pass",
    "noise": "print('hello')",
    "half": 'print(\'{"format": "raw"\')',
    "two answers": 'print(\'{"format": "raw", "capacity": 1}\\n{"format": "raw", "capacity": 1}\')',
    "a format of its own": 'print(\'{"format": "dmg", "capacity": 1}\')',
    "a negative size": 'print(\'{"format": "raw", "capacity": -1}\')',
    "a size in words": 'print(\'{"format": "raw", "capacity": "1"}\')',
    "a kind of its own": 'print(\'{"kind": "fine", "detail": "", "found": null}\')',
    "depth": "print('[' * 100000)",
    "an answer and a crash": 'import os; print(\'{"format": "raw", "capacity": 1}\', flush=True); os.abort()',
}


@pytest.mark.parametrize("program", BROKEN.values(), ids=BROKEN)
def test_a_child_that_does_not_answer_makes_the_image_damaged(
    program: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(inspection, "_PROGRAM", program)
    (tmp_path / "image").write_bytes(bytes(SECTOR))
    assert reason(inspected(tmp_path / "image", None)) is Kind.DAMAGED


def test_a_child_that_takes_too_long_makes_the_image_damaged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(inspection, "_PROGRAM", "import signal; signal.pause()")
    (tmp_path / "image").write_bytes(bytes(SECTOR))
    before = time.monotonic()
    verdict = inspected(tmp_path / "image", None, deadline=0.2)
    assert reason(verdict) is Kind.DAMAGED
    assert time.monotonic() - before < 10


CONFINED = {
    "read another file": ("open('/etc/hostname')", "Too many open files"),
    "write a file that is open": ("import os; os.write(log, b'x')", "File too large"),
    "take all memory": ("bytes(1 << 30)", "MemoryError"),
}


@pytest.mark.parametrize(("deed", "error"), CONFINED.values(), ids=CONFINED)
def test_the_child_cannot(deed: str, error: str, tmp_path: Path) -> None:
    assert error in confined(f"log = os.open({str(tmp_path / 'log')!r}, os.O_CREAT | os.O_WRONLY)", deed).stderr
    assert not (tmp_path / "log").read_bytes()


def test_the_child_cannot_run_forever() -> None:
    assert confined("", "while True: pass", seconds=1).returncode < 0


def confined(before: str, deed: str, *, seconds: int = 20) -> subprocess.CompletedProcess[str]:
    program = f"import os, signal; {before or 'pass'}\nfrom hsm.tools.judgement import confine\n"
    program += f"signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nconfine({seconds})\n{deed}\n"
    argv = [sys.executable, "-c", program]
    root = Path(inspection.__file__).parents[2]
    done = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode != 0
    return done


def test_the_daemon_loads_no_parser() -> None:
    program = "import sys, hsm.tools.inspection; print({'oslo_utils', 'hsm.tools.headers'} & sys.modules.keys())"
    root = Path(inspection.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
