# SPDX-License-Identifier: Apache-2.0
"""``make demo`` with a small image and small writes: it proves its claims itself, so it has to end well."""

from __future__ import annotations

import itertools
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from examples.demo.writes import GIB, MIB, Write, Writes
from hsm.operations.making import round_up

ROOT = Path(__file__).parents[2]
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
PATIENCE = 240.0


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path, since sockets lie below it, that anybody may write to; nothing may be left in it."""
    folder = Path(tempfile.mkdtemp(prefix="t", dir="/var/tmp"))
    folder.chmod(0o777)
    try:
        yield folder
        assert list(folder.iterdir()) == []
        assert processes(folder) == []
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def image() -> Iterator[Path]:
    """A raw image of an odd size."""
    with tempfile.NamedTemporaryFile(prefix="hsm demo ", suffix=".img") as file:
        file.write(random.Random(1).randbytes(2 * MIB + 700))
        file.flush()
        Path(file.name).chmod(0o644)
        yield Path(file.name)


def processes(folder: Path) -> list[str]:
    """Processes that have a folder in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if f"{folder}/" in line:
                found.append(line)
    return found


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "examples.demo", *words]


def environment(place: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "TMPDIR": str(place), "HOME": str(place), "PYTHONDONTWRITEBYTECODE": "1"}


def run(place: Path, *words: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*prefix, *command(*words)],
        cwd=ROOT,
        env=environment(place),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@contextmanager
def started(place: Path, image: Path) -> Iterator[subprocess.Popen[str]]:
    """The demonstration at work, in a process group of its own as under a shell."""
    with subprocess.Popen(
        command("--small", "--image", str(image)),
        cwd=ROOT,
        env=environment(place),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def unprivileged() -> tuple[str, ...]:
    """What makes a command run as nobody, if we are root and nobody may read this tree."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        return ()
    able = subprocess.run([*NOBODY, sys.executable, "-c", "import examples, msgspec"], cwd=ROOT, check=False)
    return NOBODY if able.returncode == 0 else ()


def test_the_demonstration_proves_its_claims_without_rights_and_without_a_terminal(place: Path, image: Path) -> None:
    ended = run(place, "--small", "--image", str(image), prefix=unprivileged())
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    out = ended.stdout
    assert "\x1b" not in out
    assert "\r" not in out
    for line in (
        "$ hsmd --home service &",
        f"$ hsmctl image import 'source/{image.name}' web01",
        "$ hsmctl image resize web01 4G",
        "$ hsmctl image snapshot web01 tuesday",
        "$ hsmctl image clone web-base web02",
        "✓ Each snapshot still reads as it did when it was taken (qemu-io, read -P).",
        "✓ The checksums are the same.",
        "✓ The file and web01 are the same disk, bit for bit.",
        "✓ web01 and its linked clone web02 have the same.",
        "✓ The copy has failed, and says why.",
        "✓ There is no web03, whole or in part.",
        "No problems found: 0 images and 0 volumes looked at.",
        "✓ No garbage is left.",
        "✓ What the guest wrote meanwhile is there.",
        "✓ web03 is web01 on the other domain, in one layer.",
        "✓ A guest sees what it saw when web01 was exported.",
        "✓ web01 reads as on tuesday, and the snapshot is still there.",
        "✓ The layer of monday is gone, and what it held is not.",
        "✓ The template is gone, and web02 has all that it had.",
        "✓ While a guest writes web02, web01 has got no snapshot either.",
        "✓ The file is whole.",
        "✓ 2M were copied, and the backup is web02 as it is now.",
        "✓ It is the same upload, and it is finished.",
        "✓ web04 has the checksum that both ends compared.",
        "✓ Two of four fit.",
        "✓ db01 is there, and the task is in nobody else's list.",
        "✓ No image is left, and no file of one.",
        "✓ hsmd ends in good order.",
    ):
        assert line in out.splitlines()
    assert out.count("Images are identical.") == 3
    assert out.splitlines().count("^C") >= 2
    assert out.count("Template web-base") == 2  # made, and then not deleted while a clone stands on it
    assert re.fullmatch(r"All [4-9]\d claims were checked, and hold\.", out.splitlines()[-1])


def test_what_is_kept_can_be_played_on_with_as_it_says(place: Path, image: Path) -> None:
    ended = run(place, "--small", "--keep", "--image", str(image))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    said = [line.removeprefix("$ ") for line in ended.stdout.splitlines()]
    export, info, _, end = [line for line in said if line.startswith(("export", ".venv", "kill"))][-4:]
    hsmctl = str(Path(sys.executable).with_name("hsmctl"))
    try:
        shown = subprocess.run(
            f"{export}; {info.replace(info.split()[0], hsmctl)}",
            shell=True,
            capture_output=True,
            text=True,
            check=False,
        )
        assert shown.returncode == 0, shown.stderr
        assert "snapshot installed" in shown.stdout
    finally:
        pid = int(end.removeprefix("kill ").partition(";")[0])
        service = os.pidfd_open(pid)
        os.kill(pid, signal.SIGTERM)
        select.select([service], [], [], PATIENCE)
        os.close(service)
        subprocess.run(end.partition("; ")[2], shell=True, check=True)


def test_an_interrupted_demonstration_leaves_nothing(place: Path, image: Path) -> None:
    with started(place, image) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("$ qemu-io"):  # an image is prepared, and has a keeper
                break
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert err.strip() == "demo: interrupted; all is cleaned up"


def test_a_reader_who_has_seen_enough_ends_it(place: Path, image: Path) -> None:
    with started(place, image) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(PATIENCE) == 141


def test_an_image_that_refers_to_another_file_is_refused(place: Path, image: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", image, outside], check=True)
    ended = run(place, "--image", str(outside))
    assert ended.returncode == 1
    assert "give an image of your own: make demo IMAGE=path" in ended.stderr


def test_a_folder_whose_sockets_would_have_too_long_a_path_is_refused(place: Path, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    ended = run(deep, "--small")
    assert ended.returncode == 1
    assert "set TMPDIR to a shorter one" in ended.stderr
    assert list(deep.iterdir()) == []


@pytest.mark.parametrize("size", [1, 4_900_000, GIB, GIB + 1, 7 * GIB - 512])
def test_writes_lie_behind_the_image_and_fit_the_disk(size: int) -> None:
    writes = Writes.behind(size, large=GIB, small=64 * MIB)
    assert writes.capacity >= 4 * GIB
    assert writes.capacity == round_up(writes.capacity)
    for write in (writes.monday, writes.tuesday, writes.today, writes.meanwhile, writes.monday_alone, *writes.later):
        assert size <= write.offset
        assert write.offset + write.length <= writes.capacity
    apart = (writes.tuesday, writes.today, writes.meanwhile, writes.monday_alone, writes.later[1])
    ends = [(one.offset, one.offset + one.length) for one in sorted(apart, key=lambda write: write.offset)]
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(ends)), "none overwrites another"


def test_writes_are_told_exactly() -> None:
    assert str(Write(0x11, GIB, 64 * MIB)) == "-P 0x11 1G 64M"
    assert str(Write(0x55, GIB + GIB // 4, 16 * MIB)) == "-P 0x55 1.25G 16M"
    assert str(Write(0x66, GIB + 416 * MIB, MIB)) == "-P 0x66 1440M 1M"
