# SPDX-License-Identifier: Apache-2.0
"""Mutates programs that tests start: every Python imports a module of this name before anything else.

It only waits for the service's module, so that what does not import it starts as fast as ever.  There is no package
to import from yet at this point; the rest comes once the service's module is there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _Finder:
    """Finds one module as the other finders do, and has it mutated when it has been executed."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._module = f"hsm.services.{verb.partition('.')[0].lower()}"

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self._module:
            return None
        found = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None:
            loader: Any = spec.loader
            execute = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                # The tests are not installed; last, so that they hide nothing.
                sys.path.append(os.path.abspath(f"{__file__}/../../../.."))
                from tests.mutation import mutant

                mutant.replace(self._verb)

            loader.exec_module = exec_module
        return spec


if "HSM_MUTATE" in os.environ:
    sys.meta_path.insert(0, _Finder(os.environ["HSM_MUTATE"]))
