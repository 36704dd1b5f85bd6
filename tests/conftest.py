# SPDX-License-Identifier: Apache-2.0
"""Fixtures that all tests share."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from hsm.app import App
from libvdsm.api.types import DomainId
from libvdsm.client import Client
from tests import service

SEEDS = ("HSM_CRASH_SEED", "HSM_PROPERTY_SEED")
"""Of what is drawn at random, one run has one; the environment hands them to its processes."""


def pytest_configure() -> None:
    """Shells start background jobs deaf to ^C, and programs inherit that; the tests of ^C want to be heard.

    How fast a machine makes examples up says nothing of what is tested.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any machine")
    for name in SEEDS:
        os.environ.setdefault(name, str(random.randrange(10**6)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What to set for the same samples."""
    terminalreporter.write_line("seeds: " + " ".join(f"{name}={os.environ[name]}" for name in SEEDS))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where everything must run, a test that cannot is a failure; it says what is missing."""
    report = yield
    if report.skipped and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped where everything must run: {report.longrepr}"
    return report


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short path, whatever the test is called: sockets lie below it."""
    return tmp_path_factory.mktemp("t")


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """The service in this process."""
    with service.in_process(tmp_path / "home") as running:
        yield running
        service.end_keepers(tmp_path / "home")


@pytest.fixture
def client(app: App) -> Client:
    """A client of it with all rights, and the default domain there."""
    made = app.client()
    for task in made.task.list().items:
        made.wait(task, timeout=10)
    return made


@pytest.fixture
def domain(client: Client) -> DomainId:
    """The default domain."""
    return client.domain.list().items[0].id


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[service.Daemon]:
    """hsmd as a program."""
    with service.daemon(tmp_path / "home") as running:
        yield running


@pytest.fixture
def small() -> Callable[[Path, int], AbstractContextManager[Path]]:
    """A file system with little room."""

    @contextmanager
    def mounted(folder: Path, size: int) -> Iterator[Path]:
        folder.mkdir(exist_ok=True)
        argv = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(argv, capture_output=True, check=False).returncode != 0:
            pytest.skip("no right to mount a file system")
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)

    return mounted
