# SPDX-License-Identifier: Apache-2.0
"""``hsmctl image upload`` and ``hsmctl image download``: their arguments, and what they print."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hsmctl import failure, output
from hsmctl.codes import INTERRUPTED, OK
from hsmctl.connection import open_client
from hsmctl.failure import Refusal
from hsmctl.names import Names
from hsmctl.transfer import downloading, uploading
from hsmctl.transfer.patience import Service
from hsmctl.values import show_size
from hsmctl.waiting import patience
from libvdsm.api.types import VolumeFormat
from libvdsm.declare import ApiError


@dataclass(frozen=True)
class _Run:
    """A command at work."""

    service: Service
    names: Names
    words: argparse.Namespace


def run(words: argparse.Namespace) -> int:
    """Run the command that the words name; the exit status."""
    client, _ = open_client(words.connect, patience(words.connect_timeout))
    service, names = Service(words.connect, client), Names(client)
    try:
        _COMMANDS[words.own](_Run(service, names, words))
    except KeyboardInterrupt:
        refusal = Refusal("Interrupted", f"interrupted; {_left(service)}", status=INTERRUPTED)
        return failure.report(refusal, as_json=words.json)
    except (ApiError, Refusal) as error:
        return failure.report(error, as_json=words.json, explain=names.explain)
    except OSError as error:
        return failure.report(Refusal("TransferBroken", f"{error}; {_left(service)}"), as_json=words.json)
    finally:
        service.client.close()
    return OK


def _left(service: Service) -> str:
    """What can be done with what was begun."""
    if service.transfer is None:
        return "nothing was begun"
    return (
        "the same command again goes on. Until then nobody else can use the image; to give up: "
        f"hsmctl transfer cancel {service.transfer}"
    )


def _upload(run: _Run) -> None:
    words, names = run.words, run.names
    path = Path(words.file)
    wanted = uploading.Wanted(
        path=path,
        domain=names.domain(words.domain),
        name=words.name or path.stem,
        format=VolumeFormat(words.format),
        description=words.description,
        secret=names.secret(words.secret) if words.secret else None,
    )

    def before() -> None:
        if not words.allow_same_name:
            names.refuse_taken("Image", wanted.name, None, wanted.domain)

    image = uploading.upload(run.service, wanted, before)
    _print(words, image, f"Uploaded {image.name or image.id}, {show_size(image.capacity)}, id {image.id}.")


def _download(run: _Run) -> None:
    words, names = run.words, run.names
    domain = names.domain(words.domain, words.image)
    image = names.image(words.image, domain)
    wanted = downloading.Wanted(
        path=Path(words.file),
        domain=domain,
        image=image,
        volume=names.volume(words.volume, domain, image) if words.volume else None,
        format=words.format,
    )
    downloading.refuse_existing(wanted.path, force=words.force)
    done = downloading.download(run.service, wanted)
    length = show_size(wanted.path.stat().st_blocks * 512)
    shown = names.known.get(image) or image
    _print(words, done, f"Downloaded {shown}: {words.format}, {length}; a guest sees {show_size(done.size)}.")


def _print(words: argparse.Namespace, result: msgspec.Struct, sentence: str) -> None:
    if words.json:
        output.show_json(result)
    else:
        output.show(sentence)


_COMMANDS: dict[str, Callable[[_Run], None]] = {"image upload": _upload, "image download": _download}
