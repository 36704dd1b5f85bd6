# SPDX-License-Identifier: Apache-2.0
"""Out and in over a connection, interrupted, and gone on with; and backups of what has changed."""

from __future__ import annotations

import signal
from collections.abc import Callable

from examples.demo.narrator import DemoFailed
from examples.demo.stage import PATIENCE, Stage
from hsmctl.codes import INTERRUPTED
from hsmctl.values import show_size
from libvdsm.api.transfer import TransferInfo, TransferState

_BACKUP = "backup.raw"
_ATTEMPTS = 5
_DOWNLOAD = ("image", "download", "web02", _BACKUP, "--format", "raw")
_UPLOAD = ("image", "upload", _BACKUP, "web04")


def back_up(stage: Stage) -> None:
    tell, writes = stage.tell, stage.writes
    tell.say(
        "A bitmap records from now on what is written to web02. Then all of it is downloaded, and ^C comes between:"
    )
    stage.hsmctl("bitmap", "add", "web02", "since-backup")

    def begin_anew() -> None:
        (stage.work / _BACKUP).unlink()

    _interrupted(stage, _DOWNLOAD, begin_anew)
    part = stage.work / f"{_BACKUP}.part"
    tell.claim(
        "What had come is kept beside the place of the file, which is not there.",
        part.stat().st_blocks and not (stage.work / _BACKUP).exists(),
    )
    tell.say("The same command again goes on. In the end both sides compare a checksum:")
    stage.hsmctl(*_DOWNLOAD)
    tell.claim("The file is whole.", (stage.work / _BACKUP).exists() and not part.exists())

    tell.say("The guest goes on writing. The bitmap knows where, so only that has to be copied:")
    for what in writes.later:
        stage.write(stage.prepare("web02"), what)
        stage.hsmctl("image", "teardown", "web02")
    listed = stage.read("bitmap", "extents", "web02", "since-backup").splitlines()[1:]
    parts = [tuple(map(int, line.split())) for line in listed]
    path = stage.prepare("web02", read_only=True)
    for offset, length in parts:
        place = f"driver=raw,offset={offset},size={length},file.driver="
        stage.on_path(
            path,
            *("qemu-img", "convert", "-n", "--image-opts", "--target-image-opts"),
            f"{place}qcow2,file.file.driver=file,file.file.filename=$path",
            f"{place}file,file.filename={_BACKUP}",
        )
    stage.on_path(path, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", _BACKUP, "$path")
    stage.hsmctl("image", "teardown", "web02")
    moved, written = sum(length for _, length in parts), sum(what.length for what in writes.later)
    tell.claim(f"{show_size(moved)} were copied, and the backup is web02 as it is now.", moved == written, parts)


def upload(stage: Stage) -> None:
    tell = stage.tell
    tell.say("The backup becomes a disk again. ^C comes between, and then hsmd is killed as well:")
    interrupted = _interrupted(stage, _UPLOAD, lambda: stage.hsmctl("image", "delete", "web04"))
    stage.service.kill()
    tell.command(f"kill -KILL {stage.service.pid}", "hsmd")
    tell.command("hsmd --home service &", silent=True)
    stage.service.start()
    stage.hsmctl("transfer", "list", "--state", "interrupted")
    with stage.service.client() as client:
        known = client.transfer.get_info(transfer=interrupted.id)
    tell.claim(
        f"The first {show_size(known.arrived)} are on stable storage, and nobody takes the rest for a disk.",
        known.arrived and known.state is TransferState.INTERRUPTED,
        known,
    )
    tell.say("The same command again:")
    stage.hsmctl(*_UPLOAD)
    with stage.service.client() as client:
        ended = client.transfer.get_info(transfer=interrupted.id)
    tell.claim("It is the same upload, and it is finished.", ended.state is TransferState.FINISHED, ended)
    tell.claim("web04 has the checksum that both ends compared.", stage.checksum("web04") == ended.checksum, ended)
    (stage.work / _BACKUP).unlink()


def _interrupted(stage: Stage, words: tuple[str, ...], undo: Callable[[], None]) -> TransferInfo:
    """Begin to move a file, and press ^C in the middle; ``undo`` is for one that was too fast."""
    for _ in range(_ATTEMPTS):
        with stage.service.client() as client:
            stage.tell.command(f"hsmctl {' '.join(words)}")
            command = stage.begin(client, *words)
            for _ in command.running():
                moving = client.transfer.list(state=TransferState.RUNNING).items
                if moving and (moving[0].moved or 0) >= stage.writes.monday.length // 4:
                    command.process.send_signal(signal.SIGINT)
                    break
            command.process.wait(PATIENCE)
            if command.process.returncode == INTERRUPTED:
                stage.tell.output("^C")
                stage.finish(command, INTERRUPTED)
                return moving[0]
            stage.finish(command, 0)
        stage.tell.say("That was too fast for a ^C; once more.")
        undo()
    raise DemoFailed(f"{_ATTEMPTS} times it was over before it could be interrupted")
