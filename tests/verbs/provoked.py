# SPDX-License-Identifier: Apache-2.0
"""Claims of tests to provoke declared errors: made by a marker, proved by ``conftest.heard``, counted here."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest


def provokes(verb: str, *errors: str) -> pytest.MarkDecorator:
    """The test shows these errors of this verb."""
    return pytest.mark.provokes(verb, *errors)


def claims(module: ModuleType) -> Iterator[tuple[str, str]]:
    """(verb, error) of every claim in a module of tests."""
    for name, function in vars(module).items():
        if name.startswith("test_"):
            for mark in getattr(function, "pytestmark", []):
                yield from _of(mark)


def _of(mark: Any) -> Iterator[tuple[str, str]]:
    if mark.name == "provokes":
        yield from ((mark.args[0], error) for error in mark.args[1:])
    if mark.name == "parametrize":
        for case in mark.args[1]:
            for inner in getattr(case, "marks", ()):
                yield from _of(getattr(inner, "mark", inner))
