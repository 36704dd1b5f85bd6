# SPDX-License-Identifier: Apache-2.0
"""Opening a file with a caller's rights.

The service opens its own user's files itself.  As root it lets a child that has become the caller do it, and gets the
open file back; as anybody else it cannot act for others, who pass an open file instead.
"""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys

from libvdsm.api.errors import NotSupported

_CHILD = "import os,socket,sys;s=socket.socket(fileno=0);socket.send_fds(s,[b'.'],[os.open(sys.argv[1],int(sys.argv[2]),0o644)])"
_DEADLINE = 30


def open_for(uid: int, path: str, *, write: bool) -> int:
    """A descriptor of ``path``, opened as user ``uid``.  Raises ``OSError``."""
    flags = (os.O_RDWR | os.O_CREAT if write else os.O_RDONLY) | os.O_CLOEXEC
    if uid == os.geteuid():
        return os.open(path, flags, 0o644)
    if os.geteuid() != 0:
        me = pwd.getpwuid(os.geteuid()).pw_name
        raise NotSupported(reason=f"the service runs as {me} and opens no files of others; pass an open file instead")
    account = pwd.getpwuid(uid)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        child = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _CHILD, path, str(flags)],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            user=uid,
            group=account.pw_gid,
            extra_groups=os.getgrouplist(account.pw_name, account.pw_gid),
            cwd="/",
            timeout=_DEADLINE,
            check=False,
        )
        if child.returncode != 0:
            reason = child.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise PermissionError(13, f"as user {account.pw_name}: {reason}")
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    return descriptors[0]
