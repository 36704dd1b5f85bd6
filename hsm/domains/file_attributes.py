# SPDX-License-Identifier: Apache-2.0
"""An image's attributes in a domain that is a folder: one file in the image's folder, and none while there are none."""

from __future__ import annotations

import os
from contextlib import suppress
from uuid import UUID

from hsm.domains import durable
from hsm.domains.names import ATTRIBUTES
from hsm.formats import attributes as attributes_format
from hsm.formats.attributes import Attributes


def _path(folder: str) -> str:
    return f"{folder}/{os.path.basename(folder)}{ATTRIBUTES}"


def read(folder: str) -> Attributes:
    """The attributes of the image in a folder.  Raises ``BadAttributes``."""
    try:
        with open(_path(folder), "rb") as file:
            data = file.read(2 * attributes_format.LIMIT)
    except FileNotFoundError:
        return attributes_format.NONE
    return attributes_format.parse(data, UUID(os.path.basename(folder)))


def replace(folder: str, attributes: Attributes, *, suffix: str) -> None:
    """Replace the attributes of the image in a folder, durably."""
    path = _path(folder)
    if attributes == attributes_format.NONE:
        with suppress(FileNotFoundError):
            os.unlink(path)
            durable.sync_folders(folder)
    else:
        data = attributes_format.write(attributes, UUID(os.path.basename(folder)))
        durable.replace(path, data, suffix=suffix)
