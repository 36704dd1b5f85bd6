# SPDX-License-Identifier: Apache-2.0
"""The arguments of the commands that move local files."""

from __future__ import annotations

import argparse

_DOMAIN = "the domain (name or id; otherwise $HSM_DOMAIN, or the only one)"

Group = argparse._ArgumentGroup  # noqa: SLF001  argparse has no other name for it


def add_upload(positional: Group, options: Group) -> list[argparse.Action]:
    """Those that no file name completes."""
    positional.add_argument("file", metavar="FILE", help="the local file; qcow2 is seen as such, all else is raw")
    name = positional.add_argument(
        "name", metavar="NAME", nargs="?", help="of the new image; otherwise the file's name without its suffix"
    )
    domain = options.add_argument("--domain", metavar="DOMAIN", help=_DOMAIN)
    _format(options, "how the data is laid out")
    description = options.add_argument("--description", metavar="DESCRIPTION", help="any text")
    secret = options.add_argument(
        "--secret", metavar="SECRET", help="a secret of the service's host to encrypt the image with (name or id)"
    )
    options.add_argument("--allow-same-name", action="store_true", help="even if another image has that name")
    return [name, domain, description, secret]


def add_download(positional: Group, options: Group) -> list[argparse.Action]:
    """Those that no file name completes."""
    image = positional.add_argument("image", metavar="IMAGE", help="the image (name or id)")
    positional.add_argument(
        "file", metavar="FILE", help="the local file, which must not exist, unless --force is given"
    )
    domain = options.add_argument("--domain", metavar="DOMAIN", help=_DOMAIN)
    _format(options, "format of the file")
    volume = options.add_argument(
        "--volume", metavar="VOLUME", help="a snapshot's state (name or id); otherwise the present one"
    )
    options.add_argument("--force", action="store_true", help="replace FILE if it exists")
    return [image, domain, volume]


def _format(options: Group, text: str) -> None:
    options.add_argument("--format", choices=("qcow2", "raw"), default="qcow2", help=f"{text} (default: qcow2)")
