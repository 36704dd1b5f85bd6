# SPDX-License-Identifier: Apache-2.0
"""What went in comes out: exports, compared with the file and with the chains."""

from __future__ import annotations

import shlex

from examples.demo.stage import Stage, reads

EXPORTED = "web01.raw"


def compare(stage: Stage) -> None:
    tell = stage.tell
    _as_it_was_imported(stage)
    tell.say("The present state of web01, four layers deep, as one raw file:")
    stage.hsmctl("image", "export", "web01", EXPORTED, "--format", "raw", slow=True)
    expected = (stage.writes.tuesday, stage.writes.today)
    wrong = [str(what) for what in expected if not reads(stage.work / EXPORTED, what, format="raw")]
    tell.claim("The file holds what was written on tuesday and after.", not wrong, wrong)
    path = stage.prepare("web01", read_only=True)
    stage.on_path(path, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", EXPORTED, "$path")
    stage.hsmctl("image", "teardown", "web01")
    tell.proved("The file and web01 are the same disk, bit for bit.")
    (stage.work / EXPORTED).unlink()
    tell.say("The service can tell as well: a checksum of what a guest sees, which reads no holes.")
    stage.seen, clone = stage.checksum("web01"), stage.checksum("web02")
    tell.claim("web01 and its linked clone web02 have the same.", stage.seen == clone, clone)


def _as_it_was_imported(stage: Stage) -> None:
    tell, image = stage.tell, stage.image
    file = shlex.quote(str(image.path.relative_to(stage.work)))
    tell.say("The first snapshot is the image as it was imported, and nothing that was written since:")
    stage.hsmctl("image", "export", "web01", "installed.raw", "--format", "raw", "--volume", "installed")
    stage.shell(f"qemu-img compare -f {image.format} -F raw {file} installed.raw")
    tell.proved("installed.raw is the imported image, and zeros behind its end.")
    if image.format == "raw":
        length = image.path.stat().st_size
        sums = {stage.shell(f"head -c {length} {name} | sha256sum") for name in (file, "installed.raw")}
        tell.claim("The checksums are the same.", len(sums) == 1, sums)
    (stage.work / "installed.raw").unlink()
