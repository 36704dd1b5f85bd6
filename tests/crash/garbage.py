# SPDX-License-Identifier: Apache-2.0
"""Garbage of every kind, as crashes of other days have left it."""

from __future__ import annotations

import os

from tests.crash.fixture import CHAIN, DISK, MAIN, TEMPLATE, Home, image, volume


def plant(home: Home) -> None:
    """Lay it out in the main domain."""
    root = home.domains / str(MAIN)
    images = root / "images"
    chain = images / str(CHAIN)
    _image(images / str(image("begun")), "begun")
    _image(images / f"_remove_me_{image('deleted')}", "deleted", meta=True)
    _image(images / f"_remove_me_ZERO_{image('wiped')}", "wiped", meta=True)
    # A clone that was not finished: all of the template's files are linked, its own are half there.
    clone = images / str(image("half a clone"))
    _image(clone, "half a clone")
    for suffix in ("", ".lease", ".meta"):
        name = f"{volume('template')}{suffix}"
        os.link(images / str(TEMPLATE) / name, clone / name)
    # In images that go on: a layer that was begun, one that was deleted, metadata that was not renamed into place.
    _image(chain, "begun layer")
    _image(chain, "deleted layer")
    (chain / f"_remove_me_{volume('deleted layer')}.meta").write_text("EOF\n")
    (images / str(DISK) / f"{volume('disk')}.meta.1.0.new").write_text("CAP=")
    (root / "dom_md" / "metadata.1.new").write_text("CLASS=")


def _image(folder: os.PathLike[str], name: str, *, meta: bool = False) -> None:
    os.makedirs(folder, exist_ok=True)
    base = os.path.join(folder, str(volume(name)))
    for suffix in ("", ".lease", *([".meta"] if meta else [])):
        with open(base + suffix, "wb") as file:
            file.write(b"" if suffix == ".lease" else b"left behind" * 1000)
