# SPDX-License-Identifier: Apache-2.0
"""What the chapters act on: the service, the work folder, and commands that are shown and run.

What a reader could type is run as a command.  The client is there for what a person cannot do: looking at a task
fifty times a second, and asserting what the output only shows.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.demo.content import Fingerprint, fingerprint
from examples.demo.narrator import DemoFailed, Narrator
from examples.demo.service import ENVIRONMENT, Service
from examples.demo.source import Image
from examples.demo.writes import Write, Writes
from hsmctl.codes import BROKEN_PIPE, INTERRUPTED
from libvdsm.api.types import ImageInfo, TaskId, TaskInfo
from libvdsm.client import Client

PATIENCE = 600.0
"""Seconds that any one command may take; the copy of an image that a user gave may be long."""
_LOOK = 0.02
ARCHIVE = "archive"
"""The second domain, and the folder that it lies in."""


@dataclass(frozen=True)
class Command:
    """hsmctl in the background, and the newest task from before it was started."""

    client: Client
    process: subprocess.Popen[str]
    before: TaskId

    def task(self) -> TaskInfo[Any] | None:
        """The task that it began, if it has."""
        newest = self.client.task.list(limit=1).items[0]
        return None if newest.id == self.before else newest

    def running(self) -> Iterator[None]:
        """Again and again until the command has ended."""
        until = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            if time.monotonic() > until:
                self.process.kill()
                raise DemoFailed(f"a command has not ended within {PATIENCE:.0f} s")
            yield
            time.sleep(_LOOK)

    def looks(self) -> Iterator[TaskInfo[Any]]:
        """Its task, again and again until the command has ended."""
        for _ in self.running():
            if (task := self.task()) is not None:
                yield task


class Stage:
    """One run of the demonstration."""

    def __init__(self, tell: Narrator, work: Path, service: Service, image: Image, writes: Writes) -> None:
        self.tell = tell
        self.work = work
        self.service = service
        self.image = image
        self.writes = writes
        self.seen = ""
        """The checksum of what a guest sees in web01, once that is known."""
        path = f"{Path(sys.executable).parent}:{ENVIRONMENT.get('PATH', os.defpath)}"
        self._environment = {**ENVIRONMENT, "HSM_CONNECT": service.address, "PATH": path}

    # ---- commands that are shown

    def hsmctl(self, *words: str, why: str = "", status: int = 0, slow: bool = False) -> None:
        """Show a command and run it; ``slow``: with a bar that stays to be read, which hsmctl's own does not."""
        self.tell.command(shlex.join(["hsmctl", *words]), why)
        if not slow:
            self._run(_argv(words), status)
            return
        with self.service.client() as client:
            command = self.begin(client, *words)
            for task in command.looks():
                self.tell.bar(task.progress)
            if (last := command.task()) is not None:
                self.tell.bar(last.progress, last=True)
        self.finish(command, status)

    def read(self, *words: str) -> str:
        """Show a command and run it; what it wrote, shown and given."""
        self.tell.command(shlex.join(["hsmctl", *words]))
        said = self._said(words)
        self.tell.output(said)
        return said

    def begin(self, client: Client, *words: str) -> Command:
        """Run hsmctl in the background; it draws no bar of its own."""
        newest = client.task.list(limit=1).items[0].id
        process = subprocess.Popen(
            _argv(words),
            cwd=self.work,
            env=self._environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        return Command(client, process, newest)

    def finish(self, command: Command, status: int) -> None:
        """Wait for a command in the background, and show what it wrote."""
        said, _ = command.process.communicate(timeout=PATIENCE)
        self.tell.output(said)
        _expect(command.process.returncode, status)

    def shell(self, line: str) -> str:
        """Show a line for the shell, run it, and show and give what it printed."""
        self.tell.command(line)
        ended = subprocess.run(
            ["/bin/sh", "-c", line], cwd=self.work, env=self._environment, text=True, timeout=PATIENCE, check=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.tell.output(ended.stdout)
        return ended.stdout

    def on_path(self, path: Path, *words: str) -> None:
        """A QEMU tool on the path of a prepared image, which is ``$path`` in the words and on the screen."""
        self.tell.command(" ".join(word if "$path" in word else shlex.quote(word) for word in words))
        self._run([word.replace("$path", str(path)) for word in words], 0)

    def prepare(self, name: str, *, read_only: bool = False, explain: bool = False) -> Path:
        """Make an image ready for use: its path.  ``explain``: as a person would, with all that is answered."""
        words = ["image", "prepare", name, *(["--read-only"] if read_only else [])]
        if explain:
            self.read(*words)
            prepared = self.info(name).prepared
            assert prepared is not None
            return Path(prepared.path)
        self.tell.command(f"path=$({shlex.join(['hsmctl', *words, '--json'])} | jq -r .path)", silent=True)
        return Path(json.loads(self._said([*words, "--json"]))["path"])

    def write(self, path: Path, what: Write) -> None:
        """Have qemu-io write as a guest would."""
        self.on_path(path, "qemu-io", "-f", "qcow2", "-c", f"write {what}", "$path")

    def export(self, name: str, value: str) -> None:
        """A variable for all commands from here on."""
        self.tell.command(f"export {name}={value}", silent=True)
        self._environment[name] = value

    def unset(self, name: str) -> None:
        """The same, without the variable."""
        self.tell.command(f"unset {name}", silent=True)
        del self._environment[name]

    # ---- looking

    @property
    def images_folder(self) -> Path:
        """Where the default domain keeps the images' files."""
        return next((self.service.home / "domains").glob("*-*/images"))

    @property
    def archived_folder(self) -> Path:
        """The same of the second domain."""
        return next((self.work / ARCHIVE).glob("*-*/images"))

    def fingerprint(self) -> Fingerprint:
        return fingerprint(self.images_folder)

    def images(self) -> dict[str, ImageInfo]:
        """Those of all domains."""
        with self.service.client() as client:
            return {image.name or "": image for image in client.image.list().items}

    def checksum(self, name: str) -> str:
        """Of what a guest sees in an image; shown."""
        return self.read("image", "checksum", name).split()[0]

    def leaf(self, name: str) -> Path:
        """The file of an image's present state, which nobody writes now."""
        image = self.info(name)
        return self.images_folder / str(image.id) / str(image.leaf)

    def snapshot(self, image: str, name: str) -> Path:
        """The file of a state that was kept."""
        found = self.info(image)
        volume = next(volume for volume in found.chain or [] if volume.name == name)
        return self.images_folder / str(found.id) / str(volume.id)

    def info(self, name: str) -> ImageInfo:
        """All about an image, its chain included."""
        with self.service.client() as client:
            found = next(image for image in client.image.list().items if image.name == name)
            return client.image.get_info(domain=found.domain, image=found.id)

    def _said(self, words: Sequence[str]) -> str:
        ended = subprocess.run(
            _argv(words), cwd=self.work, env=self._environment, text=True, timeout=PATIENCE, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        )  # fmt: skip
        _expect(ended.returncode, 0)
        return ended.stdout

    def _run(self, argv: Sequence[str], status: int) -> None:
        ended = subprocess.run(
            argv, cwd=self.work, env=self._environment, timeout=PATIENCE, check=False,
            stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT,
        )  # fmt: skip
        _expect(ended.returncode, status)


def reads(path: Path, what: Write, *, format: str = "qcow2") -> bool:
    """Whether a guest would read there what was written."""
    argv = ["qemu-io", "-r", "-f", format, "-c", f"read {what}", str(path)]
    return subprocess.run(argv, capture_output=True, timeout=PATIENCE, check=False).returncode == 0


def _argv(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-P", "-m", "hsmctl", *words]


def _expect(found: int, status: int) -> None:
    if found == status:
        return
    if found in (INTERRUPTED, -signal.SIGINT):
        # ^C reaches the command and us, in any order.
        raise KeyboardInterrupt
    if found in (BROKEN_PIPE, -signal.SIGPIPE):
        raise BrokenPipeError
    raise DemoFailed(f"the command ended with status {found}, and not {status}")
