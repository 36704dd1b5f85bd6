# SPDX-License-Identifier: Apache-2.0
"""Says at the end of a test run which sample of accidents it had, so that it can be had again."""

from __future__ import annotations

import pytest

from tests.crash import test_sample


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if test_sample.TOLD:
        terminalreporter.write_line(test_sample.TOLD[-1])
