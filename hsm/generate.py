# SPDX-License-Identifier: Apache-2.0
"""``python -m hsm.generate``: writes the files made from the service's tables, or checks that they are fresh.

The configuration file comes from the settings' types, two pages of the guide from the table of task states and from
the list of what a check looks for.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

from hsm.config import HEADING, HsmConfig
from hsm.operations.checking import KINDS
from hsm.tasks.states import ENDED, TABLE, diagram
from hsm.transfers import states as transfers
from libvdsm.config import template
from libvdsm.generate.__main__ import ROOT, stale, write
from libvdsm.generate.markdown import code, table
from libvdsm.generate.schema import documented

_STATES = """\
A verb that changes data answers with a task. The task waits until a worker is free and nothing else works on the same
things, then runs, and ends in one of three states; nothing leads out of those. What a service did not finish before
it ended is queued again when it starts, and goes on from what is on storage. `Task.wait` answers when a task has
ended, and the event `TaskChanged` tells of each arrow in the picture."""

_DAMAGE = """\
`Domain.check` names what is wrong with a domain and changes nothing. An *error* means that data cannot be used; a
*warning*, that it can, and that something is not as it should be. A domain without errors is healthy."""


_TRANSFERS = """\
A transfer lives from `Transfer.start` until it is finished, cancelled or given up. It outlives broken connections, the
client and the service; the event `TransferChanged` tells of each arrow in the picture. What has to be done when it is
interrupted stands in [the guide](transfers.md)."""


def files() -> Mapping[str, str]:
    """Path below the project's folder -> text."""
    return {
        "conf/hsm.conf": template(HsmConfig, HEADING),
        "docs/guide/task-states.md": _states(),
        "docs/guide/damage.md": _damage(),
        "docs/guide/transfer-states.md": _transfer_states(),
    }


def _states() -> str:
    meanings = documented(type(next(iter(TABLE))))
    rows = [(f"`{state.value}`", meanings[state.name], "yes" if state in ENDED else "") for state in TABLE]
    return _page(
        "hsm/tasks/states.py",
        "# The life of a task",
        _STATES,
        code("mermaid", diagram().rstrip()),
        table(("State", "Meaning", "Ended"), rows),
    )


def _transfer_states() -> str:
    meanings = documented(type(next(iter(transfers.TABLE))))
    rows = [
        (f"`{state.value}`", meanings[state.name], "yes" if state in transfers.ENDED else "")
        for state in transfers.TABLE
    ]
    return _page(
        "hsm/transfers/states.py",
        "# The life of a transfer",
        _TRANSFERS,
        code("mermaid", transfers.diagram().rstrip()),
        table(("State", "Meaning", "Ended"), rows),
    )


def _damage() -> str:
    rows = [(f"`{kind}`", severity, meaning) for kind, (severity, meaning) in KINDS.items()]
    return _page("hsm/operations/checking.py", "# Damage", _DAMAGE, table(("Kind", "Severity", "What it means"), rows))


def _page(source: str, *blocks: str) -> str:
    head = (
        "<!-- SPDX-License-Identifier: Apache-2.0 -->\n"
        f"<!-- Written by `python -m hsm.generate` from {source}, which is the place to edit. -->"
    )
    return "\n\n".join((head, *blocks)) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m hsm.generate", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not fresh")
    check = parser.parse_args(arguments).check
    names = stale(files(), ROOT) if check else write(files(), ROOT)
    for name in names:
        sys.stdout.write(f"{name} is not fresh: run python -m hsm.generate\n" if check else f"wrote {name}\n")
    return 1 if check and names else 0


if __name__ == "__main__":
    sys.exit(main())
