# SPDX-License-Identifier: Apache-2.0
"""A new LUKS header, as it lies in a qcow2 file: the volume's own key, itself encrypted with a secret.

Each volume has a key of its own, at random, since two that shared one would show where their data is the same.  The
header is version 1 of the format, with what QEMU takes by default: AES-256 in XTS mode, SHA-256, one key slot in use.
QEMU reads it, and judges it in the tests.  It is written here, since QEMU measures the machine for seconds each time
that it makes one (``docs/decisions/0021-encryption.md``).
"""

from __future__ import annotations

import hashlib
import secrets
import struct
import uuid
from dataclasses import dataclass
from uuid import UUID

EXTENSION = 0x0537BE77
"""Of a qcow2 header: where the LUKS header is."""
METHOD = 2
"""What the qcow2 header calls encryption with LUKS."""
FEWEST, MANY = 1000, 1_000_000
"""Iterations of the key's derivation: for a secret that nobody can guess, and for one that people chose."""

_HEADER = struct.Struct(">6sH32s32s32sII20s32sI40s")
_SLOT = struct.Struct(">II32sII")
_MAGIC = b"LUKS\xba\xbe"
_SLOTS = 8
_ACTIVE, _FREE = 0x00AC71F3, 0x0000DEAD
_SECTOR = 512
_KEY = 64
"""Bytes: two keys of 256 bits, as XTS takes them."""
_STRIPES = 4000
_ALIGNED = 8
"""Sectors that each area begins at a multiple of."""
_HASH, _DIGEST = "sha256", 20


@dataclass(frozen=True, repr=False)
class Luks:
    """A new header: opened by ``secret``; the end of its ``length`` bytes, after ``start``, is zeros."""

    secret: UUID
    start: bytes
    length: int


def new(secret: UUID, value: bytes, iterations: int) -> Luks:
    """A header that a secret's value opens, after so many iterations."""
    key, key_salt, slot_salt = secrets.token_bytes(_KEY), secrets.token_bytes(32), secrets.token_bytes(32)
    area = -(-_KEY * _STRIPES // (_SECTOR * _ALIGNED)) * _ALIGNED
    places = [_ALIGNED + number * area for number in range(_SLOTS + 1)]
    header = _HEADER.pack(
        _MAGIC,
        1,
        b"aes",
        b"xts-plain64",
        _HASH.encode(),
        places[_SLOTS],
        _KEY,
        hashlib.pbkdf2_hmac(_HASH, key, key_salt, FEWEST, _DIGEST),
        key_salt,
        FEWEST,
        str(uuid.uuid4()).encode(),
    )
    header += _SLOT.pack(_ACTIVE, iterations, slot_salt, places[0], _STRIPES)
    header += b"".join(_SLOT.pack(_FREE, 0, bytes(32), places[slot], _STRIPES) for slot in range(1, _SLOTS))
    opening = hashlib.pbkdf2_hmac(_HASH, value, slot_salt, iterations, _KEY)
    material = _encrypted(opening, _split(key))
    return Luks(secret, header.ljust(places[0] * _SECTOR, b"\0") + material, places[_SLOTS] * _SECTOR)


def _split(key: bytes) -> bytes:
    """The key blown up, so that it is lost with any part of it: what is XORed and diffused in turn gives it back."""
    stripes = secrets.token_bytes(_KEY * (_STRIPES - 1))
    mixed = bytes(_KEY)
    for start in range(0, len(stripes), _KEY):
        mixed = _diffused(_xor(mixed, stripes[start : start + _KEY]))
    return stripes + _xor(mixed, key)


def _diffused(block: bytes) -> bytes:
    parts = (block[start : start + 32] for start in range(0, len(block), 32))
    return b"".join(hashlib.sha256(number.to_bytes(4, "big") + part).digest() for number, part in enumerate(parts))


def _xor(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one) ^ int.from_bytes(other)).to_bytes(len(one))


def _encrypted(key: bytes, data: bytes) -> bytes:
    """Sector by sector, the first being number 0."""
    # Here, since only who encrypts needs it.
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    done = []
    for number, start in enumerate(range(0, len(data), _SECTOR)):
        cipher = Cipher(algorithms.AES(key), modes.XTS(number.to_bytes(16, "little"))).encryptor()
        done.append(cipher.update(data[start : start + _SECTOR]) + cipher.finalize())
    return b"".join(done)


def placed(luks: Luks, cluster: int, at: int) -> tuple[bytes, int, list[tuple[int, bytes]]]:
    """The header extension's content, how many clusters it takes from offset ``at``, and (offset, bytes) to write."""
    return struct.pack(">QQ", at, luks.length), -(-luks.length // cluster), [(at, luks.start)]
