# SPDX-License-Identifier: Apache-2.0
"""Links to a template's volume in domains that are folders: three files with another name in a clone's folder."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from uuid import UUID

from hsm.domains import durable
from hsm.domains.names import LEASE, META
from hsm.formats import volume as volume_format


def remove(path: str, image: UUID) -> None:
    """Take the link at ``path`` out of an image's folder.  What is no link, or the last one, is never touched.

    Its metadata goes first: what is left then is garbage by anybody's judgement.
    """
    folder = os.path.dirname(path)
    with suppress(FileNotFoundError):
        with open(path + META, "rb") as file:
            home = volume_format.parse(file.read(volume_format.LIMIT)).image
        if home == image or os.stat(path).st_nlink < 2:
            raise OSError(errno.EBUSY, "it is no link to a template's volume, or the last one", path)
        os.unlink(path + META)
        durable.sync_folders(folder)
    with suppress(FileNotFoundError):
        os.unlink(path + LEASE)
    with suppress(FileNotFoundError):
        if os.stat(path).st_nlink > 1:
            os.unlink(path)
    durable.sync_folders(folder)
