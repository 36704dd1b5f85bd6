# SPDX-License-Identifier: Apache-2.0
"""The pytest plugin that mutates a verb, and ends the run once a test has failed.

To look at one mutant by hand: ``HSM_MUTATE=Image.create python -m pytest -p tests.mutation.plugin tests/verbs``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from libvdsm.api import VERBS
from tests.mutation import mutant

FAILED = "failed"
"""The file with a line for each failure: the phase, and the test."""
ROOT = Path(__file__).parents[2]
_CHILD = Path(__file__).with_name("child")


def pytest_configure(config: pytest.Config) -> None:
    verb, folder = os.environ.get(mutant.VERB), os.environ.get(mutant.FOLDER)
    if verb is not None:
        if verb not in VERBS:
            msg = f"{mutant.VERB}: there is no verb {verb!r}"
            raise pytest.UsageError(msg)
        mutant.replace(verb)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_CHILD), os.environ.get("PYTHONPATH"))))
    config.pluginmanager.register(_Watch(Path(folder, FAILED) if folder else None, stop=verb is not None))


class _Watch:
    """Writes down which tests failed.

    ``pytest -x`` would end the run with a broken fixture too, which proves less than a test that fails.
    """

    def __init__(self, file: Path | None, *, stop: bool) -> None:
        self._file = file
        self._stop = stop
        self._session: pytest.Session | None = None
        self._files: dict[str, Path] = {}

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._session = session

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self._files = {item.nodeid: item.path for item in items}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.failed:
            return
        if self._file is not None:
            with self._file.open("a") as file:
                file.write(f"{report.when} {self._name(report.nodeid)}\n")
        if self._stop and report.when == "call" and self._session is not None:
            self._session.shouldfail = "a test noticed the mutant"

    def _name(self, node: str) -> str:
        """The test under a name that pytest takes again: ids of files outside the tree lack the file."""
        file = self._files[node]
        return f"{file.relative_to(ROOT) if file.is_relative_to(ROOT) else file}::{node.partition('::')[2]}"
