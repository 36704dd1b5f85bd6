# SPDX-License-Identifier: Apache-2.0
"""The demonstration, as a table of contents.

python -m examples.demo [--image PATH] [--keep] [--small]
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from examples.demo import source
from examples.demo.chapters import (
    beginning,
    copies,
    crash,
    ending,
    finding,
    layers,
    owner,
    proof,
    secrets,
    space,
    transfers,
    undoing,
)
from examples.demo.folder import check_space, work_folder
from examples.demo.narrator import DemoFailed, Narrator
from examples.demo.service import Service
from examples.demo.stage import Stage
from examples.demo.writes import GIB, MIB, Writes
from hsmctl.codes import BROKEN_PIPE, FAILED, INTERRUPTED
from hsmctl.values import show_size
from libvdsm.declare import ApiError

CHAPTERS = (
    ("Start the service", beginning.start),
    ("Import the image, and grow it", beginning.import_image),
    ("Take three snapshots, and write in between", layers.snapshots),
    ("Make a template and a linked clone", layers.clone),
    ("Export, and compare", proof.compare),
    ("Kill the service in the middle of a copy", crash.kill),
    ("Move to another domain, and back", copies.move),
    ("Go back to a snapshot, and drop another", undoing.go_back),
    ("Give back what zeros take", space.give_back),
    ("Do without the template", undoing.flatten),
    ("Keep a disk secret", secrets.encrypt),
    ("Two disks at one instant", undoing.together),
    ("Back up what has changed", transfers.back_up),
    ("Upload, and be interrupted", transfers.upload),
    ("Find it again", finding.find),
    ("A program that owns its tasks", owner.own),
    ("Who did what", ending.look_back),
)
CLEANING = ("Clean up", ending.clean_up)

TITLE = "hsm: virtual disks for KVM hosts, on storage that may fail at any moment"
OPENING = """What follows happens as you read: every command is run, and every ✓ was checked; a claim that does not
hold ends the demonstration with an error."""


def main() -> int:
    words = _arguments()
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    tell = Narrator()
    # Being ended from outside cleans up just as ^C does, which a shell's & may have switched off.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        tell.opening(TITLE, OPENING)
        with work_folder(keep=words.keep) as work:
            tell_story(tell, work, words)
    except BrokenPipeError:
        # Whoever reads has seen enough; nothing more can be said there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except DemoFailed as error:
        tell.trouble(str(error))
        return FAILED
    except KeyboardInterrupt:
        tell.trouble(
            f"interrupted; {'the service is stopped, its files are kept' if words.keep else 'all is cleaned up'}"
        )
        return INTERRUPTED
    return 0


def tell_story(tell: Narrator, work: Path, words: argparse.Namespace) -> None:
    """All chapters, in a folder."""
    with tell.chapter("A real image"):
        image = _image(tell, work, words.image)
    large, small = (192 * MIB, 4 * MIB) if words.small else (GIB, 64 * MIB)
    check_space(work, 5 * (image.capacity + large + 2 * small))
    writes = Writes.behind(image.capacity, large=large, small=small)
    service = Service(work / "service")
    stage = Stage(tell, work, service, image, writes)
    with _ending(service, keep=words.keep):
        try:
            for title, chapter in CHAPTERS if words.keep else (*CHAPTERS, CLEANING):
                with tell.chapter(title):
                    chapter(stage)
        except BrokenPipeError:
            raise
        except (DemoFailed, ApiError, OSError, subprocess.SubprocessError) as error:
            raise DemoFailed(f"{error}\n\nThe end of hsmd's log:\n{service.last_words()}") from error
        tell.summary()
        if words.keep:
            _tell_how_to_go_on(tell, service)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description="The main job, on a real image.")
    parser.add_argument("--image", metavar="PATH", type=Path, help="work on this image instead of a boot ISO")
    parser.add_argument("--keep", action="store_true", help="keep everything, and the service running, to play on")
    parser.add_argument("--small", action="store_true", help="write less, as the tests do")
    return parser.parse_args()


def _image(tell: Narrator, work: Path, path: Path | None) -> source.Image:
    image = source.packaged(tell, work) if path is None else source.given(path)
    link = work / "source" / image.path.name
    link.parent.mkdir()
    link.symlink_to(image.path)
    tell.claim(f"{link.name}: {image.about}, {image.format}, {show_size(image.capacity)}.", image.capacity > 0)
    tell.say(f"The rest takes place in {work}.")
    return dataclasses.replace(image, path=link)


@contextmanager
def _ending(service: Service, *, keep: bool) -> Iterator[None]:
    """No process is left, unless all went well and they are to be kept."""
    kept = False
    try:
        yield
        kept = keep
    finally:
        if not kept:
            # Cleaning up takes seconds at most; a second ^C would only leave something behind.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            service.end()


def _tell_how_to_go_on(tell: Narrator, service: Service) -> None:
    hsmctl = os.path.relpath(Path(sys.executable).with_name("hsmctl"))
    tell.say("Everything is kept, and the service runs. Play on:")
    tell.command(f"export HSM_CONNECT={service.address} HSM_DOMAIN=default", silent=True)
    tell.command(f"{hsmctl} image info web01", silent=True)
    tell.command(f"{hsmctl} event listen")
    tell.say("And in the end, once no image is prepared any more:")
    tell.command(f"kill {service.pid}; rm -r {service.home.parent}")


def _end(number: int, _frame: object) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
