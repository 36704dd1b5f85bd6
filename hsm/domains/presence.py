# SPDX-License-Identifier: Apache-2.0
"""Whether something is there, or an error.

``os.path.exists`` says no when the storage does not answer.  Much follows from what is not there: what has no
metadata is garbage, what is gone counts as deleted.  So here an error stays one.
"""

from __future__ import annotations

import os
import stat


def exists(path: str) -> bool:
    """Whether there is something under this name, a link that leads nowhere too."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def is_folder(path: str) -> bool:
    """Whether there is a folder under this name."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
