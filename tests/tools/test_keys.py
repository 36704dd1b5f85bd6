# SPDX-License-Identifier: Apache-2.0
"""Keys in the hands of programs, and what a program is told of a volume."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from pathlib import Path

import pytest

from hsm.formats import luks, qcow2
from hsm.tools.keys import Key, KeyRefused, handed
from hsm.tools.nodes import Source
from hsm.tools.qemu_img import QemuImg
from libvdsm.run import CommandError, Runner

MIB = 2**20
VALUE = b"open, sesame"


def key(value: bytes = VALUE) -> Key:
    return Key(uuid.uuid4(), value, generated=False)


def image(path: Path, secret: Key) -> Source:
    """An empty encrypted image."""
    length, content = qcow2.new(MIB, luks=luks.new(secret.secret, secret.value, luks.FEWEST))
    with path.open("wb") as file:
        file.truncate(length)
        for offset, data in content:
            file.seek(offset)
            file.write(data)
    return Source(str(path), "qcow2", key=secret)


@pytest.fixture
def tool() -> QemuImg:
    return QemuImg(Runner(), deadline=60, quick=60)


def test_a_program_reads_the_value_and_its_command_line_does_not_have_it() -> None:
    secret = key()
    with handed([secret]) as keys:
        [_, described] = keys.arguments
        [number] = keys.descriptors
        assert described == f"secret,id={secret.name},file=/dev/fd/{number}"
        assert number >= 16, "out of the way of what programs expect at low numbers"
        read = subprocess.run(["cat", f"/dev/fd/{number}"], capture_output=True, pass_fds=keys.descriptors, check=True)
    assert read.stdout == VALUE


def test_nobody_can_change_it_and_it_is_gone_afterwards() -> None:
    with handed([key()]) as keys:
        [number] = keys.descriptors
        with pytest.raises(PermissionError):
            os.pwrite(number, b"x", 0)
        assert not os.get_inheritable(number)
    with pytest.raises(OSError):
        os.fstat(number)


def test_one_key_is_handed_once_and_none_costs_nothing() -> None:
    first, second = key(), key()
    with handed([first, second, first]) as keys:
        assert len(keys.descriptors) == 2
    with handed([]) as keys:
        assert (keys.arguments, keys.descriptors) == ((), ())


def test_a_key_that_does_not_open_is_told_from_other_failures(tool: QemuImg, tmp_path: Path) -> None:
    right = key()
    source = image(tmp_path / "image", right)
    tool.try_keys(source)
    wrong = Key(right.secret, b"something else", generated=False)
    with pytest.raises(KeyRefused) as refused:
        tool.try_keys(Source(source.path, "qcow2", key=wrong))
    assert refused.value.secret == right.secret
    assert VALUE.decode() not in str(refused.value)
    with pytest.raises(CommandError) as other:
        tool.try_keys(Source(str(tmp_path / "missing"), "qcow2", key=right))
    assert not isinstance(other.value, KeyRefused)


def test_qemu_finds_our_header_sound_and_each_has_another_key(tool: QemuImg, tmp_path: Path) -> None:
    secret = key()
    first, second = (image(tmp_path / name, secret) for name in ("first", "second"))
    assert tool.check(first, stop=lambda: False) is None
    assert Path(first.path).read_bytes() != Path(second.path).read_bytes()
    assert VALUE not in Path(first.path).read_bytes()


def test_a_plain_volume_is_named_by_its_path(tmp_path: Path) -> None:
    plain = Source(str(tmp_path / "image"), "qcow2")
    assert (plain.target, plain.target_with_format) == (plain.path, ("-f", "qcow2"))
    assert json.loads(plain.argument.removeprefix("json:")).keys() == {"driver", "file"}


def test_with_one_encrypted_layer_every_layer_is_spelled_out() -> None:
    low, middle, top = key(), None, key()
    chain = Source("/top", "qcow2", key=top).on(
        Source("/middle", "qcow2", key=middle).on(Source("/low", "qcow2", key=low))
    )
    node = json.loads(chain.argument.removeprefix("json:"))
    names = [
        node["file"]["filename"],
        node["backing"]["file"]["filename"],
        node["backing"]["backing"]["file"]["filename"],
    ]
    assert names == ["/top", "/middle", "/low"]
    assert node["encrypt"]["key-secret"] == top.name
    assert "encrypt" not in node["backing"]
    assert chain.keys == (top, low)
    alone = json.loads(chain.itself.argument.removeprefix("json:"))
    assert (alone["backing"], chain.itself.keys) == (None, (top,))
    assert chain.target_with_format == ()
