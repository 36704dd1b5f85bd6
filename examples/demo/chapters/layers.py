# SPDX-License-Identifier: Apache-2.0
"""Snapshots with writes in between, and a linked clone."""

from __future__ import annotations

from examples.demo.stage import Stage, reads
from examples.demo.writes import MIB
from hsmctl.values import show_size
from libvdsm.api.types import VolumeInfo


def snapshots(stage: Stage) -> None:
    tell, writes = stage.tell, stage.writes
    tell.say(
        "A snapshot freezes the present state and puts a new layer on top. Whoever writes prepares the image first, "
        "which leases it to this host. Here qemu-io plays the guest."
    )
    stage.hsmctl("image", "snapshot", "web01", "installed")
    path = stage.prepare("web01", explain=True)
    stage.write(path, writes.monday)
    stage.hsmctl("image", "teardown", "web01")
    stage.hsmctl("image", "snapshot", "web01", "monday")

    tell.say(f"Twice more; tuesday overwrites {show_size(writes.tuesday.length)} in the middle of what monday wrote.")
    stage.write(stage.prepare("web01"), writes.tuesday)
    stage.hsmctl("image", "teardown", "web01")
    stage.hsmctl("image", "snapshot", "web01", "tuesday")
    stage.write(stage.prepare("web01"), writes.today)
    stage.hsmctl("image", "teardown", "web01")

    tell.say("The chain, each layer standing on the one above it:")
    stage.hsmctl("image", "info", "web01")
    chain = stage.info("web01").chain or []
    names = [volume.name for volume in chain]
    tell.claim("Three snapshots, and the present state.", names == ["installed", "monday", "tuesday", "web01"], names)
    large = writes.monday.length
    tell.claim(f"One layer holds {show_size(large)} of writes.", chain[1].actual_size >= large, chain[1])
    _every_layer_reads_as_it_was(stage, chain)


def _every_layer_reads_as_it_was(stage: Stage, chain: list[VolumeInfo]) -> None:
    """Nobody writes the image here, so that its layers may be looked at one by one."""
    tuesday, today = stage.writes.tuesday, stage.writes.today
    expected = {
        "installed": (tuesday.of(0), today.of(0)),
        "monday": (tuesday.of(stage.writes.monday.byte), today.of(0)),
        "tuesday": (tuesday, today.of(0)),
        "web01": (tuesday, today),
    }
    wrong = [
        volume.name
        for volume in chain
        for what in expected[volume.name or ""]
        if not reads(stage.images_folder / str(volume.image) / str(volume.id), what)
    ]
    stage.tell.claim("Each snapshot still reads as it did when it was taken (qemu-io, read -P).", not wrong, wrong)


def clone(stage: Stage) -> None:
    tell = stage.tell
    tell.say(
        "A linked clone stands on a template. An image without snapshots can become one itself; of web01, which has "
        "some, a copy is made."
    )
    stage.hsmctl("image", "make-template", "web01", "web-base", slow=True)
    stage.hsmctl("image", "clone", "web-base", "web02")
    stage.hsmctl("image", "list")
    stage.hsmctl("image", "info", "web02")
    template, made = stage.info("web-base"), stage.info("web02")
    whole = template.is_template and len(template.chain or []) == 1
    tell.claim("web-base is a template, all in one volume.", whole, template)
    linked = made.template == template.id and made.actual_size < MIB
    tell.claim(f"web02 stands on it, and takes {show_size(made.actual_size)} of its own.", linked, made)
