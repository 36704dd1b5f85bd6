# SPDX-License-Identifier: Apache-2.0
"""Encrypted images in tests: read and written through their keys with QEMU's own tools, and what lies on storage."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from libvdsm.api.types import ImageId, ImageInfo, SecretId, VolumeFormat, VolumeId
from tests.verbs.copies import path_of
from tests.verbs.scene import Scene


def value_of(state: Path, secret: UUID) -> str:
    """A secret's value, from its file: the service never tells it."""
    found: str = json.loads((state / "secrets" / str(secret)).read_bytes())["value"]
    return found


class Keys:
    """The secrets of a scene's host, and what they open."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.state = Path(scene.app.config.service.state_dir)

    def generated(self, name: str = "key") -> SecretId:
        return self.scene.client.secret.generate(name=name).id

    def value(self, secret: UUID) -> str:
        return value_of(self.state, secret)

    def file(self, secret: UUID) -> Path:
        return self.state / "secrets" / str(secret)

    def wrong(self, secret: SecretId) -> None:
        """Have another value under the same id, as a host that was set up wrongly."""
        self.scene.client.secret.delete(secret=secret, force=True)
        self.scene.client.secret.define(id=secret, value="not that")

    @contextmanager
    def opened(self, image: ImageInfo, volume: VolumeId | None = None) -> Iterator[tuple[list[str], dict[str, Any]]]:
        """Arguments that give a program all keys, and the node of an image's state."""
        domain = self.scene.app.context.registry.get(image.domain)
        record = domain.image(image.id)
        assert record is not None
        with tempfile.TemporaryDirectory() as folder:
            arguments: list[str] = []

            def node(volume_: VolumeId) -> dict[str, Any]:
                found = record.volumes[volume_]
                path = str(path_of(self.scene, image, volume_))
                made: dict[str, Any] = {
                    "driver": found.metadata.format.value,
                    "file": {"driver": "file", "filename": path},
                }
                if found.header is not None and found.header.encrypted:
                    home = domain.image(ImageId(found.metadata.image))
                    assert home is not None
                    assert home.attributes.secret is not None
                    key = home.attributes.secret
                    file = Path(folder, str(key))
                    file.write_text(self.value(key))
                    arguments.extend(["--object", f"secret,id=k{len(arguments)},file={file}"])
                    made["encrypt"] = {"format": "luks", "key-secret": f"k{len(arguments) - 2}"}
                if found.metadata.parent is not None:
                    made["backing"] = node(VolumeId(found.metadata.parent))
                elif found.metadata.format is VolumeFormat.QCOW2:
                    made["backing"] = None
                return made

            top = node(volume or image.leaf)
            yield arguments, top

    def io(self, image: ImageInfo, *commands: str) -> None:
        """What a guest does to the present state."""
        with self.opened(image) as (arguments, node):
            words = [word for command in commands for word in ("-c", command)]
            argv = ["qemu-io", *arguments, *words, "json:" + json.dumps(node)]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert "failed" not in done.stdout, done.stdout

    def seen(self, image: ImageInfo, volume: VolumeId | None = None) -> bytes:
        """What a guest sees of a state."""
        with self.opened(image, volume) as (arguments, node), tempfile.NamedTemporaryFile() as flat:
            argv = ["qemu-img", "convert", *arguments, "-O", "raw", "json:" + json.dumps(node), flat.name]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
            assert done.returncode == 0, done.stderr
            return Path(flat.name).read_bytes()

    def states(self, image: ImageInfo) -> dict[VolumeId, bytes]:
        """What each own layer shows."""
        chain = self.scene.look(image).chain or []
        return {volume.id: self.seen(image, volume.id) for volume in chain if volume.image == image.id}


def written(folder: Path, text: bytes, *, but: Path | None = None) -> list[Path]:
    """The files below a folder that hold a text, and are not the one that may."""
    files = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return [file for file in files if file != but and file.is_file() and text in file.read_bytes()]


def told(info: msgspec.Struct) -> str:
    return msgspec.json.encode(info).decode()
