# SPDX-License-Identifier: Apache-2.0
"""A disk whose data is of no use to who finds it."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

from examples.demo.stage import Stage

_PATTERN = 0x5E
_LENGTH = 4 * 2**20


def encrypt(stage: Stage) -> None:
    tell = stage.tell
    tell.say("Some disks hold what nobody else should read. The key is a secret of this host, and never shown:")
    stage.hsmctl("secret", "generate", "vault-key")
    stage.hsmctl("image", "create", "vault", "--size", "1G", "--secret", "vault-key")
    _write(stage, stage.prepare("vault"))
    stage.hsmctl("image", "teardown", "vault")
    data, value = stage.leaf("vault").read_bytes(), _value(stage)
    tell.claim(
        "What lies on the storage is neither what was written nor the key.",
        bytes([_PATTERN]) * 64 not in data and value not in data,
    )
    tell.say("Everything goes on as with any other disk. A copy without encryption has to be asked for:")
    stage.hsmctl("image", "snapshot", "vault", "sealed")
    stage.hsmctl("image", "copy", "vault", "opened", "--collapse", "--decrypt")
    opened = stage.leaf("opened").read_bytes()
    tell.claim("The copy shows what was written.", bytes([_PATTERN]) * _LENGTH in opened)
    tell.claim("The key is in no log.", value not in stage.service.log.read_bytes())
    stage.hsmctl("image", "delete-many", "vault", "opened")
    stage.hsmctl("secret", "delete", "vault-key")


def _value(stage: Stage) -> bytes:
    """The secret, from where the service keeps it."""
    kept = next((stage.service.home / "state" / "secrets").iterdir())
    value: str = json.loads(kept.read_bytes())["value"]
    return value.encode()


def _write(stage: Stage, path: Path) -> None:
    """As a guest would, whose QEMU was given the secret."""
    node = {
        "driver": "qcow2",
        "file": {"driver": "file", "filename": str(path)},
        "encrypt": {"format": "luks", "key-secret": "key"},
    }
    write = f"write -P {_PATTERN:#04x} 0 4M"
    stage.tell.command(f"qemu-io --object secret,id=key,file=/dev/fd/0 … -c {shlex.quote(write)} $path < key")
    subprocess.run(
        ["qemu-io", "--object", "secret,id=key,file=/dev/fd/0", "-c", write, "json:" + json.dumps(node)],
        input=_value(stage), stdout=subprocess.DEVNULL, timeout=60, check=True,
    )  # fmt: skip
