# SPDX-License-Identifier: Apache-2.0
"""Mutation: the machinery that tests the tests, tested with tests made for it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import msgspec
import pytest

from libvdsm.api import VERBS
from libvdsm.api.types import TaskInfo, TaskState
from tests.mutation.defaults import answer, default
from tests.mutation.trial import Trial, Verdict, attempt, confirmed

TIMEOUT, SHORT = 60.0, 2.0
HEAD = "from tests import service\n\n\ndef test_it(tmp_path):\n"
HERE = '    with service.in_process(tmp_path / "home") as app:\n        client = app.client()\n'
THERE = '    with service.daemon(tmp_path / "home") as hsmd, hsmd.client() as client:\n'
CREATE = (
    "        domain = client.domain.list().items[0].id\n"
    "        task = client.image.create(domain=domain, capacity=2**20)\n"
    "        client.wait(task)\n"
    "        assert client.task.get_info(task=task.id).state.value == 'succeeded'\n"
)


MADE_UP = {
    "looks": ("Host.ping", HEAD + HERE + "        assert client.host.ping().time > 0\n"),
    "looks from outside": ("Host.ping", HEAD + THERE + "        assert client.host.ping().time > 0\n"),
    "waits": ("Image.create", HEAD + HERE + CREATE),
    "fails uncalled": ("Image.create", "def test_it():\n    assert False\n"),
    "fails by itself": ("Host.ping", HEAD + HERE + "        client.host.ping()\n        assert not client\n"),
    "cannot be read": ("Host.ping", "import nothing_of_this_name\n"),
    "hangs": ("Host.ping", "import time\n\n\ndef test_it():\n    time.sleep(1000)\n"),
}
"""Verb to mutate, and a test module."""


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trial]:
    """What the made-up tests show, all run at once: most of their time is pytest's start."""

    def tried(item: tuple[str, tuple[str, str]]) -> Trial:
        name, (verb, content) = item
        file = tmp_path_factory.mktemp("made-up") / f"test_{name.replace(' ', '_')}.py"
        file.write_text(content)
        return attempt(verb, [[str(file)]], SHORT if name == "hangs" else TIMEOUT)

    with ThreadPoolExecutor(3) as pool:
        return dict(zip(MADE_UP, pool.map(tried, MADE_UP.items()), strict=True))


@pytest.mark.parametrize("name", VERBS)
def test_a_default_answer_of_every_verb_is_one_that_clients_can_read(name: str) -> None:
    made = answer(VERBS[name])
    assert msgspec.json.decode(msgspec.json.encode(made), type=VERBS[name].result) == made


def test_a_default_task_claims_success_and_has_the_default_result() -> None:
    made = answer(VERBS["Image.create"])
    assert isinstance(made, TaskInfo)
    assert made.state is TaskState.SUCCEEDED
    assert made.result == default(VERBS["Image.create"].task_result)
    assert made.result.id == UUID(int=0)


def test_a_test_that_looks_at_the_answer_kills(trials: dict[str, Trial]) -> None:
    trial = trials["looks"]
    assert trial.verdict is Verdict.KILLED, trial.output
    assert trial.by.endswith("/test_looks.py::test_it")


def test_so_does_one_that_asks_a_service_of_its_own(trials: dict[str, Trial]) -> None:
    trial = trials["looks from outside"]
    assert trial.verdict is Verdict.KILLED, trial.output


def test_a_task_that_did_nothing_survives_a_test_that_only_waits_for_it(trials: dict[str, Trial]) -> None:
    trial = trials["waits"]
    assert (trial.verdict, trial.by) == (Verdict.SURVIVED, "called, and believed"), trial.output


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cannot be read", "pytest ended with 2"),
        ("fails uncalled", "failed, and never called it: "),
        ("hangs", f"more than {SHORT:.0f} s"),
    ],
)
def test_what_shows_nothing_is_neither(trials: dict[str, Trial], name: str, reason: str) -> None:
    trial = trials[name]
    assert trial.verdict is Verdict.ERROR
    assert trial.by.startswith(reason), trial.output


def test_a_test_that_fails_by_itself_kills_nothing(trials: dict[str, Trial]) -> None:
    good, bad = trials["looks"], trials["fails by itself"]
    assert bad.verdict is Verdict.KILLED
    kept, refused = confirmed([good, bad], TIMEOUT)
    assert kept == good
    assert (refused.verdict, refused.by) == (Verdict.ERROR, f"fails without the mutant too: {bad.by}")
