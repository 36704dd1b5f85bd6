# SPDX-License-Identifier: Apache-2.0
"""Completion of commands and names in a shell, with argcomplete.

A shell waits for us at every press of the tabulator: the service has about a second to answer, and whatever
goes wrong, there is nothing to complete and nothing to say.
"""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Iterable, Sequence
from typing import Any

from hsmctl.commands import Argument
from hsmctl.connection import open_client
from hsmctl.deadline import within
from hsmctl.failure import Refusal
from hsmctl.names import Candidate, Names
from hsmctl.values import Kind

_PATIENCE = 1.0


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that completes, and end the process."""
    try:
        argcomplete = importlib.import_module("argcomplete")
    except ImportError:
        os._exit(1)
    argcomplete.autocomplete(parser, always_complete_options=False)


def script(shell: str) -> str:
    """What a shell has to read to complete hsmctl."""
    try:
        argcomplete = importlib.import_module("argcomplete")
    except ImportError:
        msg = "completion needs argcomplete; install the package python3-argcomplete"
        raise Refusal("NotInstalled", msg) from None
    code: str = argcomplete.shellcode(["hsmctl"], shell="bash" if shell == "zsh" else shell)
    if shell == "zsh" and "compdef" not in code:  # argcomplete before 3.0: zsh has to be told to read it
        return f"autoload -U +X bashcompinit && bashcompinit\n{code}"
    return code


def names(argument: Argument, *, prefix: str, parsed_args: argparse.Namespace, **_: Any) -> Iterable[str]:
    """What an argument may be, as the service knows it."""
    try:
        found = within(_PATIENCE, lambda: _candidates(argument, parsed_args))
    except Exception:  # noqa: BLE001  a shell in the middle of a line is no place for errors
        return []
    texts = [candidate.name for candidate in found if candidate.name and candidate.name.startswith(prefix)]
    return texts or [str(candidate.id) for candidate in found if str(candidate.id).startswith(prefix)]


def _candidates(argument: Argument, words: argparse.Namespace) -> Sequence[Candidate]:
    client, _ = open_client(getattr(words, "connect", None))
    known = Names(client)
    if argument.kind is Kind.DOMAIN:
        return known.domain_candidates()
    if argument.kind is Kind.TASK:
        return known.task_candidates()
    if argument.kind is Kind.TRANSFER:
        return known.transfer_candidates()
    if argument.kind is Kind.SECRET:
        return known.secret_candidates()
    domain = known.domain(getattr(words, "param_domain", None))
    if argument.kind is Kind.IMAGE:
        images = known.image_candidates(domain)
        templates = [candidate for candidate in images if candidate.about == "template"]
        return templates if argument.parameter.name == "template" else images
    image = getattr(words, "param_image", None)
    return known.volume_candidates(domain, known.image(image, domain) if image else None)
