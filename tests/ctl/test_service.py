# SPDX-License-Identifier: Apache-2.0
"""hsmctl and a real hsmd, from the first image to the last."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.ctl.conftest import Ctl, address, process
from tests.service import Daemon

UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def row(table: str, name: str) -> list[str]:
    """The cells of the row that begins with a name."""
    line = next(line for line in table.splitlines() if re.match(rf"{re.escape(name)}\s", line))
    return re.split(r"\s{2,}", line)


def test_an_image_is_created_and_listed(ctl: Ctl, name: str) -> None:
    said = ctl.ok("image", "create", name, "--size", "64M")
    found = re.fullmatch(rf"Created {name}, 64M, id ({UUID})\.\n", said)
    assert found
    cells = row(ctl.ok("image", "list"), name)
    assert cells[1:3] == [found[1], "64M"]
    assert cells[4:] == ["0", "-", "-"]


def test_the_answer_as_json_is_what_travels(ctl: Ctl, name: str) -> None:
    made = ctl.json("image", "create", name, "--size", "1.5M", "--description", "for tests")
    assert made["name"] == name
    assert made["capacity"] == 1536 * 1024
    assert isinstance(made["created"], float), "as declared, and as in every other answer"
    listed = ctl.json("image", "list")["items"]
    assert next(image for image in listed if image["id"] == made["id"])["description"] == "for tests"
    told = ctl.json("image", "info", name)
    assert told["isTemplate"] is False
    assert len(told["chain"]) == 1


def test_json_keeps_the_order_of_the_declaration(ctl: Ctl, name: str) -> None:
    made = ctl.json("image", "create", name, "--size", "1M")
    assert list(made)[:4] == ["id", "domain", "leaf", "capacity"]


def test_a_snapshot_shows_in_the_image_and_in_its_chain(ctl: Ctl, name: str) -> None:
    ctl.ok("image", "create", name, "--size", "64M")
    said = ctl.ok("image", "snapshot", name, "before-upgrade")
    assert said == f"Kept the present state of {name} as a snapshot named before-upgrade; it has 1 now.\n"
    told = ctl.ok("image", "info", name)
    assert re.search(rf"^Name: +{name}$", told, re.M)
    assert re.search(r"^Size: +64M \(67108864 bytes\)$", told, re.M)
    assert re.search(rf"^snapshot before-upgrade +{UUID} +qcow2 ", told, re.M)
    assert re.search(rf"^└─ present state +{UUID} +qcow2 ", told, re.M)


def test_templates_and_their_clones_are_told_apart(ctl: Ctl, name: str) -> None:
    ctl.ok("image", "create", name, "--size", "64M")
    assert ctl.ok("image", "make-template", name).startswith(f"Template {name}, 64M, ")
    assert ctl.ok("image", "clone", name, f"{name}-c", "--size", "128M").startswith(f"Cloned {name}: {name}-c, 128M")
    table = ctl.ok("image", "list")
    assert row(table, name)[5] == "template"
    assert row(table, f"{name}-c")[5] == f"clone of {name}"
    told = ctl.ok("image", "info", f"{name}-c")
    assert re.search(rf"^Clone of: +{name} \({UUID}\)$", told, re.M)
    assert re.search(rf"^template {name} ", told, re.M)


def test_only_templates_are_cloned_and_the_error_says_what_to_do(ctl: Ctl, name: str) -> None:
    ctl.ok("image", "create", name, "--size", "1M")
    message = ctl.refused("image", "clone", name, f"{name}-c")
    assert f"Image {name} (" in message
    assert "`hsmctl image make-template`" in message
    assert "(NotTemplate)" in message


def test_a_template_can_be_made_from_a_copy(ctl: Ctl, name: str) -> None:
    ctl.ok("image", "create", name, "--size", "1M")
    ctl.ok("image", "make-template", name, f"{name}-t")
    assert row(ctl.ok("image", "list"), name)[5] == "-"
    assert row(ctl.ok("image", "list"), f"{name}-t")[5] == "template"


def qcow2(path: Path, size: str = "16M") -> Path:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, size], check=True)
    subprocess.run(["qemu-io", "-c", "write -q -P 7 1M 64k", path], check=True, stdout=subprocess.DEVNULL)
    return path


def same(first: Path, second: Path) -> bool:
    return subprocess.run(["qemu-img", "compare", "-q", first, second], check=False).returncode == 0


def test_an_imported_file_comes_back_from_an_export(ctl: Ctl, name: str, tmp_path: Path) -> None:
    source = qcow2(tmp_path / "disk.qcow2")
    assert ctl.ok("image", "import", source, name).startswith(f"Imported {name}, 16M, ")
    target = tmp_path / "out.qcow2"
    assert ctl.ok("image", "export", name, target).startswith(f"Exported {name}: qcow2, ")
    assert same(source, target)
    raw = tmp_path / "out.raw"
    ctl.ok("image", "export", name, raw, "--format", "raw")
    assert raw.stat().st_size == 16 * 2**20


def test_an_import_without_a_name_takes_the_files(ctl: Ctl, name: str, tmp_path: Path) -> None:
    source = qcow2(tmp_path / f"{name}.qcow2")
    assert ctl.ok("image", "import", source).startswith(f"Imported {name}, ")
    assert f"named '{name}' already" in ctl.refused("image", "import", source)


def test_a_file_that_hsmctl_cannot_open_is_refused_before_anything_is_asked(ctl: Ctl, tmp_path: Path) -> None:
    message = ctl.refused("image", "import", tmp_path / "missing.qcow2")
    assert "missing.qcow2 cannot be opened: no such file or directory" in message


def test_an_unsafe_file_is_refused_by_the_service(ctl: Ctl, name: str, tmp_path: Path) -> None:
    backing = qcow2(tmp_path / "base.qcow2")
    source = tmp_path / "layer.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", backing, source], check=True)
    assert "(UnsafeImage)" in ctl.refused("image", "import", source, name)
    assert name not in ctl.ok("image", "list")


def test_an_export_overwrites_only_by_force(ctl: Ctl, name: str, tmp_path: Path) -> None:
    ctl.ok("image", "create", name, "--size", "1M")
    target = tmp_path / "out"
    target.write_text("precious")
    assert "--force" in ctl.refused("image", "export", name, target)
    assert target.read_text() == "precious"
    ctl.ok("image", "export", name, target, "--force")
    assert target.read_bytes()[:4] == b"QFI\xfb"


def test_an_export_that_fails_leaves_no_file(ctl: Ctl, name: str, tmp_path: Path) -> None:
    ctl.ok("image", "create", name, "--size", "1M")
    target = tmp_path / "out"
    ctl.ok("image", "prepare", name)
    assert "(ImageInUse)" in ctl.refused("image", "export", name, target)
    assert not target.exists()
    ctl.ok("image", "teardown", name)
    result = ctl("image", "export", name, target, "--format", "vdi")
    assert (result.status, target.exists()) == (2, False), "a format that is always refused"


def test_a_snapshot_is_exported_by_its_name(ctl: Ctl, name: str, tmp_path: Path) -> None:
    source = qcow2(tmp_path / "disk.qcow2")
    ctl.ok("image", "import", source, name)
    ctl.ok("image", "snapshot", name, "kept")
    ctl.ok("image", "export", name, tmp_path / "kept.qcow2", "--volume", "kept")
    assert same(source, tmp_path / "kept.qcow2")


def test_an_image_is_deleted(ctl: Ctl, name: str) -> None:
    ctl.ok("image", "create", name, "--size", "1M")
    assert ctl.ok("image", "rm", name) == f"Deleted image {name}.\n"
    assert f"there is no image '{name}' on domain default" in ctl.refused("image", "info", name)


def test_an_image_in_use_says_so(ctl: Ctl, name: str) -> None:
    ctl.ok("image", "create", name, "--size", "1M")
    said = ctl.ok("image", "prepare", name)
    assert re.search(r"^Path: +/.*", said, re.M)
    assert re.search(r"^Format: +qcow2$", said, re.M)
    assert row(ctl.ok("image", "list"), name)[6] == "writing"
    assert re.search(r"^In use here: +for writing, since ", ctl.ok("image", "info", name), re.M)
    message = ctl.refused("image", "delete", name)
    assert f"Image {name} (" in message
    assert "(ImageInUse)" in message
    assert ctl.ok("image", "teardown", name) == f"Image {name} is no longer in use here.\n"
    ctl.ok("image", "delete", name)


def test_a_name_that_exists_is_refused_unless_wanted(ctl: Ctl, name: str) -> None:
    first = ctl.json("image", "create", name, "--size", "1M")
    message = ctl.refused("image", "create", name, "--size", "1M")
    assert first["id"] in message
    assert "--allow-same-name" in message
    assert "(NameTaken)" in message
    second = ctl.json("image", "create", name, "--size", "1M", "--allow-same-name")
    message = ctl.refused("image", "delete", name)
    assert "(Ambiguous)" in message
    assert first["id"] in message
    assert second["id"] in message
    ctl.ok("image", "delete", second["id"])
    assert ctl.json("image", "info", name)["id"] == first["id"]


def test_the_same_creation_again_is_welcome(ctl: Ctl, name: str) -> None:
    first = ctl.json("image", "create", name, "--size", "1M")
    again = ["image", "create", name, "--size", "1M", "--id", first["id"], "--volume", first["leaf"]]
    assert ctl.json(*again)["id"] == first["id"]


def test_the_beginning_of_an_id_is_enough(ctl: Ctl, name: str) -> None:
    made = ctl.json("image", "create", name, "--size", "1M")
    assert ctl.json("image", "info", made["id"][:13])["id"] == made["id"]


def test_volumes_are_named_after_snapshots_and_images(ctl: Ctl, name: str) -> None:
    ctl.ok("image", "create", name, "--size", "1M")
    ctl.ok("image", "snapshot", name, f"{name}-s")
    assert ctl.json("volume", "info", f"{name}-s")["role"] == "internal"
    assert ctl.json("volume", "resize", name, "2M")["capacity"] == 2 * 2**20
    table = ctl.ok("volume", "list", "--image", name)
    assert [line.split("  ")[0] for line in table.splitlines()[1:]] == [name, name]
    assert ctl.ok("volume", "delete", name) == f"Deleted volume {name}.\n"
    assert ctl.json("image", "info", name)["snapshots"] == 0


def test_a_snapshot_name_of_two_images_needs_the_image(ctl: Ctl, name: str) -> None:
    for image in (f"{name}-a", f"{name}-b"):
        ctl.ok("image", "create", image, "--size", "1M")
        ctl.ok("image", "snapshot", image, name)
    message = ctl.refused("volume", "info", name)
    assert f"internal of image {name}-a" in message
    told = ctl.json("volume", "info", name, "--image", f"{name}-b")
    assert told["image"] == ctl.json("image", "info", f"{name}-b")["id"]


def test_a_task_can_be_left_alone_and_waited_for_later(ctl: Ctl, name: str) -> None:
    task = ctl.ok("image", "create", name, "--size", "1M", "--no-wait").strip()
    assert re.fullmatch(UUID, task)
    told = ctl.ok("task", "wait", task[:13])
    assert re.search(r"^State: +succeeded$", told, re.M)
    assert re.search(r"^Command: +image create$", told, re.M)
    assert row(ctl.ok("task", "list"), task)[1:4] == ["image create", "succeeded", "100%"]
    assert ctl.ok("task", "clear", task) == f"Task {task} is forgotten.\n"
    assert "(NoSuchTask)" in ctl.refused("task", "info", task)


def test_waiting_for_a_task_that_failed_ends_with_1(ctl: Ctl, name: str) -> None:
    ctl.ok("image", "create", name, "--size", "2M")
    volume = ctl.json("image", "info", name)["leaf"]
    result = ctl("volume", "resize", volume, "1M", "--no-wait")
    if result.status == 1:  # the service may refuse before a task begins
        assert "(CannotShrink)" in result.err
        return
    ended = ctl("task", "wait", result.out.strip())
    assert ended.status == 1
    assert "(CannotShrink)" in ended.out


def test_a_domain_is_made_used_and_destroyed(
    own_daemon: Daemon, ctl: Ctl, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctl.address = address(own_daemon)
    monkeypatch.chdir(tmp_path)
    os.mkdir("folder")
    assert ctl.ok("domain", "create", name, "folder").startswith(f"Made domain {name} at {tmp_path}/folder")
    message = ctl("image", "create", "web01", "--size", "1M")
    assert message.status == 2
    assert "there are 2 domains; say which with --domain or $HSM_DOMAIN" in message.err
    ctl.ok("image", "create", "web01", "--size", "1M", "--domain", name)
    monkeypatch.setenv("HSM_DOMAIN", name)
    assert row(ctl.ok("image", "list"), "web01")[2] == "1M"
    assert "1 volume looked at." in ctl.ok("domain", "check")
    assert re.search(r"^Images: +1$", ctl.ok("domain", "stats"), re.M)
    assert "holds 1 image(s)" in ctl.refused("domain", "format", name)
    assert ctl.ok("domain", "format", name, "--force") == f"Destroyed domain {name}.\n"
    monkeypatch.delenv("HSM_DOMAIN")
    assert name not in ctl.ok("domain", "list")


def test_a_list_of_several_domains_says_which(own_daemon: Daemon, ctl: Ctl, tmp_path: Path) -> None:
    ctl.address = address(own_daemon)
    (tmp_path / "d").mkdir()
    ctl.ok("domain", "create", "fast", tmp_path / "d")
    ctl.ok("image", "create", "web01", "--size", "1M", "--domain", "fast")
    ctl.ok("image", "create", "web01", "--size", "1M", "--domain", "default")
    table = ctl.ok("image", "list")
    assert table.splitlines()[0].split()[-1] == "DOMAIN"
    assert sorted(line.split()[-1] for line in table.splitlines()[1:]) == ["default", "fast"]


def test_an_image_says_which_domain_is_meant(own_daemon: Daemon, ctl: Ctl, tmp_path: Path) -> None:
    ctl.address = address(own_daemon)
    (tmp_path / "d").mkdir()
    ctl.ok("domain", "create", "fast", tmp_path / "d")
    for name, domain in (("both", "fast"), ("both", "default"), ("one", "fast")):
        ctl.ok("image", "create", name, "--size", "1M", "--domain", domain)
    one = ctl.json("image", "info", "one")
    assert ctl.json("image", "info", one["id"]) == ctl.json("image", "info", one["id"][:13]) == one
    unclear = ctl("image", "info", "both")
    assert unclear.status == 2
    assert "2 domains have an image 'both'; say which with --domain" in unclear.err
    assert ctl.json("image", "info", "both", "--domain", "fast")["domain"] == one["domain"]
    assert ctl("image", "info", "none").status == 2
    ctl.ok("image", "delete-many", "one")
    assert ctl("image", "info", one["id"]).status == 2


def test_garbage_is_collected(ctl: Ctl) -> None:
    assert ctl.ok("domain", "collect-garbage") == "There was no garbage.\n"


def test_the_service_tells_of_itself(ctl: Ctl) -> None:
    assert ctl.ok("host", "ping") == "The service answers.\n"
    assert "local" in ctl.ok("host", "capabilities")
    assert re.search(r"^Uptime: ", ctl.ok("host", "stats"), re.M)
    assert re.search(r"^tasks\.workers +8 ", ctl.ok("config", "get", "tasks"), re.M)
    assert "administer" in ctl.ok("session", "info")
    assert ctl.json("host", "capabilities")["api"] == "1.1"


def test_events_are_polled_and_listened_to(ctl: Ctl, shared_daemon: Daemon, name: str) -> None:
    with process("--connect", address(shared_daemon), "event", "listen", "--json", "--after", "0") as listener:
        assert listener.stdout is not None
        made = ctl.json("image", "create", name, "--size", "1M")
        for line in listener.stdout:
            event = json.loads(line)
            if event["name"] == "VolumeCreated" and event["data"]["image"] == made["id"]:
                break
        listener.send_signal(signal.SIGINT)
        assert listener.wait(10) == 130
    assert "VolumeCreated" in ctl.ok("event", "poll", "--after", "0")


def test_a_reader_that_has_enough_ends_the_command_quietly(shared_daemon: Daemon, ctl: Ctl, name: str) -> None:
    with process("--connect", address(shared_daemon), "event", "listen", "--after", "0") as listener:
        assert listener.stdout is not None
        assert listener.stderr is not None
        listener.stdout.close()
        ctl.ok("image", "create", name, "--size", "1M")
        assert listener.wait(10) == 141
        assert listener.stderr.read() == ""


def test_who_listens_is_told_what_is_lost(shared_daemon: Daemon) -> None:
    with process("--connect", address(shared_daemon), "event", "listen", "--after", "1") as listener:
        assert listener.stderr is not None
        assert listener.stderr.readline().startswith("hsmctl: events were missed: ")
        listener.terminate()
        listener.wait(10)


def test_the_service_is_reached_through_a_program(own_daemon: Daemon, ctl: Ctl, name: str, tmp_path: Path) -> None:
    ctl.address = f"exec:{sys.executable} -m hsm.daemon --home {own_daemon.home} --stdio"
    assert ctl.ok("image", "create", name, "--size", "1M").startswith(f"Created {name}")
    assert name in ctl.ok("image", "list")
    message = ctl.refused("image", "import", qcow2(tmp_path / "x.qcow2"))
    assert "run hsmctl on the host of the service" in message
    assert "(NotSupported)" in message


def interrupt_when_running(ctl: Ctl, command: subprocess.Popen[str], verb: str) -> None:
    """Press ^C once the command's task is at work."""
    until = time.monotonic() + 20
    while verb not in [task["verb"] for task in ctl.json("task", "list", "--state", "running")["items"]]:
        assert time.monotonic() < until, "the task has not begun"
        assert command.poll() is None, command.communicate()
    command.send_signal(signal.SIGINT)


def test_an_interrupted_import_is_stopped_and_leaves_nothing(
    slow_daemon: Daemon, ctl: Ctl, name: str, tmp_path: Path
) -> None:
    ctl.address = address(slow_daemon)
    with process("--connect", address(slow_daemon), "image", "import", qcow2(tmp_path / "x.qcow2"), name) as command:
        interrupt_when_running(ctl, command, "Image.import")
        out, err = command.communicate(timeout=30)
    assert command.returncode == 130
    assert "hsmctl: asking the task to stop" in err
    assert "hsmctl: error: Stopped as asked, before anything was changed. (TaskStopped)" in err
    assert out == ""
    assert name not in ctl.ok("image", "list")


def test_an_interrupted_export_leaves_no_file(slow_daemon: Daemon, ctl: Ctl, name: str, tmp_path: Path) -> None:
    ctl.address = address(slow_daemon)
    ctl.ok("image", "create", name, "--size", "1M")
    target = tmp_path / "out.qcow2"
    with process("--connect", address(slow_daemon), "image", "export", name, target) as command:
        interrupt_when_running(ctl, command, "Image.export")
        command.communicate(timeout=30)
    assert command.returncode == 130
    assert not target.exists()


def connected(pid: int) -> bool:
    """Whether a process has a socket."""
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(f"/proc/{pid}/fd/{descriptor}").startswith("socket:"):
                return True
    return False


def test_an_interrupt_of_who_only_waits_does_not_stop_the_task(
    slow_daemon: Daemon, ctl: Ctl, name: str, tmp_path: Path
) -> None:
    ctl.address = address(slow_daemon)
    ctl.ok("image", "create", name, "--size", "1M")
    task = ctl.ok("image", "export", name, tmp_path / "out.qcow2", "--no-wait").strip()
    with process("--connect", address(slow_daemon), "task", "wait", task) as command:
        until = time.monotonic() + 20
        while not connected(command.pid):
            assert time.monotonic() < until, "it has not connected"
        interrupt_when_running(ctl, command, "Image.export")
        command.communicate(timeout=30)
    assert command.returncode == 130
    result = ctl("task", "wait", task, "--timeout", "0.1")
    assert result.status == 1
    assert "the task has not ended within 100 ms" in result.err
    assert ctl.json("task", "stop", task)["state"] in ("stopping", "stopped")


def test_a_service_that_goes_away_ends_with_3(own_daemon: Daemon, ctl: Ctl) -> None:
    ctl.address = address(own_daemon)
    ctl.ok("host", "ping")
    own_daemon.process.terminate()
    own_daemon.process.wait(10)
    result = ctl("host", "ping")
    assert result.status == 3
    assert "Is hsmd running?" in result.err


def test_a_service_that_goes_away_while_a_task_is_waited_for_ends_with_3(
    slow_daemon: Daemon, ctl: Ctl, name: str, tmp_path: Path
) -> None:
    ctl.address = address(slow_daemon)
    ctl.ok("image", "create", name, "--size", "1M")
    target = tmp_path / "out.qcow2"
    with process("--connect", address(slow_daemon), "image", "export", name, target) as command:
        until = time.monotonic() + 20
        while not ctl.json("task", "list", "--state", "running")["items"]:
            assert time.monotonic() < until
        # It knows the task when it has asked for it: more calls are counted than ours.
        first, ours = ctl.json("host", "stats")["calls"], 1
        while ctl.json("host", "stats")["calls"] <= first + ours:
            ours += 1
            assert time.monotonic() < until
        slow_daemon.kill()
        _, err = command.communicate(timeout=30)
    assert command.returncode == 3
    assert re.search(rf"`hsmctl task info {UUID}` tells what became of the task", err)
    assert not target.exists()


def test_a_copy_that_would_have_its_source_s_name_is_refused_in_few_words(ctl: Ctl, name: str) -> None:
    ctl.ok("image", "create", name, "--size", "1M")
    assert ctl.refused("image", "copy", name, name).count(name) == 1
